/* The sum of squares, and AdamW steps with clipping. float32 on every device. */
#include "tests/kernels/kernel_test.h"
#include "tests/kernels/ref/ref_adamw.h"

#include <math.h>

#include <setjmp.h>
#include <cmocka.h>

static const int64_t COUNTS[] = {0, 1, 2, 7, 33, 63, 64, 65, 255, 257, 1023, 1025, 100003};

static qvl_status call_sum_squares(qvl_device *dev, const void *args, qvl_err *err)
{
    return dev->ops->sum_squares(dev, args, err);
}

static qvl_status call_adamw(qvl_device *dev, const void *args, qvl_err *err)
{
    return dev->ops->adamw(dev, args, err);
}

static void sum_case(qvl_kt *kt, int64_t n, double size)
{
    qvl_kt_begin(kt, "sum_squares n=%lld size=%g", (long long)n, size);
    const double *x = qvl_kt_random(kt, n, size, QVL_KT_F32);
    const double want = qvl_ref_sum_squares(x, n);
    const qvl_sum_squares_args args = {.out = qvl_kt_out(kt, "out", 1, QVL_KT_F32),
                                       .x = qvl_kt_in(kt, "x", x, n, QVL_KT_F32),
                                       .n = n};
    qvl_kt_run(kt, call_sum_squares, &args);
    qvl_kt_check(kt, "out", &want, 1, QVL_KT_FLOAT);
    qvl_kt_end(kt);
}

static void sum_squares_counts(void **state)
{
    for (size_t i = 0; i < sizeof COUNTS / sizeof *COUNTS; i++)
        sum_case(*state, COUNTS[i], 1);
    sum_case(*state, 3000017, 1e-3); /* a chain of float32 additions would miss this one */
    qvl_kt_verdict(*state);
}

static void sum_squares_magnitudes(void **state)
{
    static const double SIZES[] = {1e-15, 1e-8, 1e8, 1e16};
    for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++)
        sum_case(*state, 1025, SIZES[i]);
    qvl_kt_verdict(*state);
}

/* Each element on its own must be seen: one large among zeros, at every place of a short buffer. */
static void sum_squares_sees_each_element(void **state)
{
    qvl_kt *kt = *state;
    for (int64_t at = 0; at < 67; at++) {
        qvl_kt_begin(kt, "sum_squares of one element at %lld", (long long)at);
        double *x = qvl_kt_doubles(kt, 67), want = 9;
        x[at] = -3;
        const qvl_sum_squares_args args = {.out = qvl_kt_out(kt, "out", 1, QVL_KT_F32),
                                           .x = qvl_kt_in(kt, "x", x, 67, QVL_KT_F32),
                                           .n = 67};
        qvl_kt_run(kt, call_sum_squares, &args);
        qvl_kt_check(kt, "out", &want, 1, QVL_KT_EXACT);
        qvl_kt_end(kt);
    }
    qvl_kt_verdict(kt);
}

typedef struct adamw_shape {
    int64_t n;
    int step;
    double lr, weight_decay, max_grad_norm, size; /* of gradients */
} adamw_shape;

static const double *squares(qvl_kt *kt, int64_t n, double size)
{
    double *values = qvl_kt_random(kt, n, size, QVL_KT_F32);
    for (int64_t i = 0; i < n; i++)
        values[i] = qvl_kt_round(kt, values[i] * values[i] * 1e-3, QVL_KT_F32);
    return values;
}

static void adamw_case(qvl_kt *kt, const adamw_shape *s)
{
    qvl_kt_begin(kt, "adamw n=%lld step=%d lr=%g wd=%g clip=%g gradients=%g", (long long)s->n,
                 s->step, s->lr, s->weight_decay, s->max_grad_norm, s->size);
    const bool is_first = s->step == 1; /* moments are 0 then */
    const int64_t n = s->n;
    double *param = qvl_kt_random(kt, n, 0.1, QVL_KT_F32);
    double *grad = qvl_kt_random(kt, n, s->size, QVL_KT_F32);
    double *exp_avg = is_first ? qvl_kt_doubles(kt, n) : qvl_kt_random(kt, n, s->size, QVL_KT_F32);
    double *exp_avg_sq =
        is_first ? qvl_kt_doubles(kt, n) : qvl_kt_copy(kt, squares(kt, n, s->size), n);
    const double sum = qvl_kt_round(kt, qvl_ref_sum_squares(grad, n), QVL_KT_F32);
    const qvl_adamw_args args = {
        .param = qvl_kt_inout(kt, "param", param, n, QVL_KT_F32),
        .grad = qvl_kt_inout(kt, "grad", grad, n, QVL_KT_F32),
        .exp_avg = qvl_kt_inout(kt, "exp_avg", exp_avg, n, QVL_KT_F32),
        .exp_avg_sq = qvl_kt_inout(kt, "exp_avg_sq", exp_avg_sq, n, QVL_KT_F32),
        .grad_sum_squares = qvl_kt_in(kt, "grad_sum_squares", &sum, 1, QVL_KT_F32),
        .n = n,
        .lr = s->lr,
        .beta1 = 0.9,
        .beta2 = 0.999,
        .eps = 1e-8,
        .weight_decay = s->weight_decay,
        .max_grad_norm = s->max_grad_norm,
        .bias1 = 1 - pow(0.9, s->step),
        .bias2 = 1 - pow(0.999, s->step)};
    qvl_ref_adamw_step(&(qvl_ref_adamw){.param = param,
                                        .grad = grad,
                                        .exp_avg = exp_avg,
                                        .exp_avg_sq = exp_avg_sq,
                                        .grad_sum_squares = sum,
                                        .n = n,
                                        .lr = s->lr,
                                        .beta1 = 0.9,
                                        .beta2 = 0.999,
                                        .eps = 1e-8,
                                        .weight_decay = s->weight_decay,
                                        .max_grad_norm = s->max_grad_norm,
                                        .step = s->step});
    const int64_t width = n > 0 ? n : 1;
    qvl_kt_run(kt, call_adamw, &args);
    qvl_kt_check(kt, "param", param, width, QVL_KT_FLOAT);
    qvl_kt_check(kt, "exp_avg", exp_avg, width, QVL_KT_FLOAT);
    qvl_kt_check(kt, "exp_avg_sq", exp_avg_sq, 1, QVL_KT_FLOAT);
    qvl_kt_check(kt, "grad", grad, width, QVL_KT_EXACT);
    qvl_kt_end(kt);
}

static void adamw_counts(void **state)
{
    for (size_t i = 0; i < sizeof COUNTS / sizeof *COUNTS; i++) {
        adamw_case(*state, &(adamw_shape){COUNTS[i], 1, 1e-4, 0, 1, 1e-2});
        adamw_case(*state, &(adamw_shape){COUNTS[i], 20, 1e-4, 0.01, 1, 1});
    }
    qvl_kt_verdict(*state);
}

/* Rates are large here, so that the update is not hidden in the last digits of the parameter. */
static void adamw_settings(void **state)
{
    static const double RATES[] = {0, 1e-4, 0.1, 1}, DECAYS[] = {0, 0.1},
                        CLIPS[] = {0, 1e-3, 1, 1e9};
    static const int STEPS[] = {1, 2, 10, 1000};
    for (size_t r = 0; r < 4; r++)
        for (size_t d = 0; d < 2; d++)
            for (size_t c = 0; c < 4; c++)
                adamw_case(*state, &(adamw_shape){257, STEPS[(r + d + c) % 4], RATES[r], DECAYS[d],
                                                  CLIPS[c], 0.5});
    qvl_kt_verdict(*state);
}

static void adamw_magnitudes(void **state)
{
    static const double SIZES[] = {1e-6, 1e-3, 1e3, 1e9};
    for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++) {
        adamw_case(*state, &(adamw_shape){129, 1, 0.1, 0, 0, SIZES[i]});
        adamw_case(*state, &(adamw_shape){129, 5, 0.1, 0, 1, SIZES[i]});
    }
    adamw_case(*state, &(adamw_shape){129, 1, 0.1, 0.1, 1, 0}); /* no gradient at all: 0/eps */
    qvl_kt_verdict(*state);
}

/* A gradient whose sum of squares is no number: everything stays, the gradient too. */
static void adamw_leaves_what_is_no_number(void **state)
{
    static const double SUMS[] = {NAN, INFINITY};
    qvl_kt *kt = *state;
    for (size_t i = 0; i < 2; i++) {
        qvl_kt_begin(kt, "adamw with a sum of squares of %g", SUMS[i]);
        const int64_t n = 257;
        const double *param = qvl_kt_random(kt, n, 1, QVL_KT_F32);
        const double *grad = qvl_kt_random(kt, n, 1, QVL_KT_F32);
        const double *exp_avg = qvl_kt_random(kt, n, 1, QVL_KT_F32);
        const double *exp_avg_sq = qvl_kt_random(kt, n, 1, QVL_KT_F32);
        const qvl_adamw_args args = {
            .param = qvl_kt_inout(kt, "param", param, n, QVL_KT_F32),
            .grad = qvl_kt_inout(kt, "grad", grad, n, QVL_KT_F32),
            .exp_avg = qvl_kt_inout(kt, "exp_avg", exp_avg, n, QVL_KT_F32),
            .exp_avg_sq = qvl_kt_inout(kt, "exp_avg_sq", exp_avg_sq, n, QVL_KT_F32),
            .grad_sum_squares = qvl_kt_in(kt, "sum", &SUMS[i], 1, QVL_KT_F32),
            .n = n,
            .lr = 0.1,
            .beta1 = 0.9,
            .beta2 = 0.999,
            .eps = 1e-8,
            .weight_decay = 0.1,
            .max_grad_norm = 1,
            .bias1 = 0.1,
            .bias2 = 0.001};
        qvl_kt_run(kt, call_adamw, &args);
        qvl_kt_check(kt, "param", param, n, QVL_KT_EXACT);
        qvl_kt_check(kt, "grad", grad, n, QVL_KT_EXACT);
        qvl_kt_check(kt, "exp_avg", exp_avg, n, QVL_KT_EXACT);
        qvl_kt_check(kt, "exp_avg_sq", exp_avg_sq, n, QVL_KT_EXACT);
        qvl_kt_end(kt);
    }
    qvl_kt_verdict(kt);
}

int main(void)
{
    qvl_kt kt = {0};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(sum_squares_counts, &kt),
        cmocka_unit_test_prestate(sum_squares_magnitudes, &kt),
        cmocka_unit_test_prestate(sum_squares_sees_each_element, &kt),
        cmocka_unit_test_prestate(adamw_counts, &kt),
        cmocka_unit_test_prestate(adamw_settings, &kt),
        cmocka_unit_test_prestate(adamw_magnitudes, &kt),
        cmocka_unit_test_prestate(adamw_leaves_what_is_no_number, &kt),
    };
    const int code = qvl_kt_open(&kt);
    if (code != 0)
        return code;
    return qvl_kt_close(&kt, cmocka_run_group_tests_name("kernel.adamw", tests, NULL, NULL));
}
