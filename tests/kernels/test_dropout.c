/* The dropout mask as the linear applies it. With the identity as A, u is drop(x) itself. */
#include "tests/kernels/kernel_test.h"
#include "tests/kernels/ref/ref_linear.h"

#include <math.h>
#include <stdio.h>

#include <setjmp.h>
#include <cmocka.h>

#include "src/base/dropout_mask.h"

enum { WIDTH = 64 };

typedef struct key {
    uint32_t seed, step, module;
    int32_t sample, first_token;
} key;

static qvl_status call_linear(qvl_device *dev, const void *args, qvl_err *err)
{
    const qvl_linear_args *a = args;
    const qvl_status rc = dev->ops->fold(dev, &(qvl_fold_args){.linears = a->linear, .n = 1}, err);
    return rc == QVL_OK ? dev->ops->linear(dev, a, err) : rc;
}

/* rows of WIDTH equal values, and tail zeros behind each. */
static void *add_rows(qvl_kt *kt, const char *name, double value, int64_t rows, int64_t tail)
{
    const int64_t stride = WIDTH + tail;
    double *all = qvl_kt_doubles(kt, rows * stride);
    for (int64_t i = 0; i < rows * stride; i++)
        all[i] = i % stride < WIDTH ? value : 0;
    return tail ? qvl_kt_inout(kt, name, all, rows * stride, QVL_KT_ACT)
                : qvl_kt_in(kt, name, all, rows * stride, QVL_KT_ACT);
}

/* drop(1) [T, 64] as the device does it, and checked against the definition; tokens first_token ..
 * of one sample. The result is kept by the caller: [T, 64]. */
static void mask(double *out, qvl_kt *kt, int64_t T, double drop_prob, key k)
{
    qvl_kt_begin(kt, "drop(1) T=%lld p=%g seed=%u step=%u module=%u sample=%d first token=%d",
                 (long long)T, drop_prob, k.seed, k.step, k.module, k.sample, k.first_token);
    const int64_t tail = qvl_tail_columns(kt->dev->tail_align, 1, WIDTH), stride = WIDTH + tail;
    double *identity = qvl_kt_doubles(kt, WIDTH * WIDTH);
    double *zero = qvl_kt_doubles(kt, (T + WIDTH) * WIDTH), *want = qvl_kt_doubles(kt, T * WIDTH);
    int32_t *sample = qvl_kt_ints(kt, T), *token = qvl_kt_ints(kt, T);
    qvl_dropout dropout = {.threshold = qvl_dropout_threshold(drop_prob),
                           .seed = k.seed,
                           .step = k.step,
                           .sample = sample,
                           .token = token};
    for (int64_t i = 0; i < WIDTH; i++)
        identity[i * WIDTH + i] = 1;
    for (int64_t t = 0; t < T; t++) {
        sample[t] = k.sample;
        token[t] = k.first_token + (int32_t)t;
        for (int64_t i = 0; i < WIDTH; i++) {
            want[t * WIDTH + i] = qvl_ref_drop_factor(&dropout, k.module, t, i);
        }
    }
    dropout.sample = qvl_kt_in_i32(kt, "sample", sample, T);
    dropout.token = qvl_kt_in_i32(kt, "token", token, T);
    qvl_linear linear = {.weight = add_rows(kt, "weight", 0, WIDTH, tail),
                         .weight_stride = stride,
                         .in = WIDTH,
                         .out = WIDTH,
                         .n_adapters = 1,
                         .rank = WIDTH,
                         .scale = 1};
    linear.adapters[0] = (qvl_adapter){.a = qvl_kt_in(kt, "a", identity, WIDTH * WIDTH, QVL_KT_F32),
                                       .b = qvl_kt_in(kt, "b", zero, WIDTH * WIDTH, QVL_KT_F32),
                                       .out = WIDTH,
                                       .module = k.module};
    if (tail)
        linear.adapters[0].a_act = qvl_kt_out(kt, "a_act", WIDTH * WIDTH, QVL_KT_ACT);
    qvl_kt_workspace(
        kt, &(qvl_workspace_limits){
                .tokens = T, .in_max = WIDTH, .out_max = WIDTH, .rank = WIDTH, .dropout = true});
    const qvl_linear_args args = {.linear = &linear,
                                  .y = qvl_kt_out(kt, "y", T * WIDTH, QVL_KT_ACT),
                                  .u = tail ? NULL : qvl_kt_out(kt, "u", T * WIDTH, QVL_KT_F32),
                                  .x = add_rows(kt, "x", 1, T, tail),
                                  .x_stride = stride,
                                  .T = T,
                                  .dropout = &dropout};
    qvl_kt_run(kt, call_linear, &args);
    qvl_kt_check(kt, "y", zero, T * WIDTH, QVL_KT_EXACT);
    if (tail) {
        qvl_kt_values(kt, "weight"); /* test_linear looks into these two */
        qvl_kt_values(kt, "a_act");
    }
    const double *u = qvl_kt_values(kt, tail ? "x" : "u");
    for (int64_t i = 0; i < T * WIDTH; i++) {
        out[i] = u[tail ? i / WIDTH * stride + WIDTH + i % WIDTH : i];
        if (!(fabs(out[i] - want[i]) <= 8e-3 * want[i]))
            qvl_kt_fail(kt, "u[%lld] is %g, the mask says %g", (long long)i, out[i], want[i]);
    }
    kt->n_checks++;
    qvl_kt_end(kt);
}

static int64_t n_zeros(const double *values, int64_t n)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        count += values[i] == 0;
    return count;
}

/* Within five deviations of a binomial count; the mean of what is kept stays 1. */
static void dropped_fraction(void **state)
{
    static const double PROBABILITIES[] = {0.05, 0.1, 0.5, 0.9};
    enum { T = 257 };
    double values[T * WIDTH];
    for (size_t i = 0; i < sizeof PROBABILITIES / sizeof *PROBABILITIES; i++) {
        const double p = PROBABILITIES[i], n = T * WIDTH, deviation = sqrt(n * p * (1 - p));
        mask(values, *state, T, p, (key){.seed = 42, .step = 3, .module = 5, .sample = 17});
        const double count = (double)n_zeros(values, T * WIDTH);
        if (!(fabs(count - n * p) <= 5 * deviation))
            qvl_kt_fail(*state, "p=%g: %g of %g dropped, expected %g +- %g", p, count, n, n * p,
                        deviation);
        for (int64_t k = 0; k < T * WIDTH; k++)
            if (values[k] != 0 && !(fabs(values[k] * (1 - p) - 1) <= 8e-3))
                qvl_kt_fail(*state, "p=%g: a kept 1 became %g", p, values[k]);
    }
    qvl_kt_verdict(*state);
}

/* A pack cut anywhere gives the same mask, for each token's key does not know its row. */
static void halves_give_the_same_masks(void **state)
{
    enum { T = 71 };
    static const int CUTS[] = {1, 8, 35, 64, 70};
    const key k = {.seed = 1, .step = 9, .module = 3, .sample = 1000};
    double whole[T * WIDTH], part[T * WIDTH];
    mask(whole, *state, T, 0.1, k);
    for (size_t i = 0; i < sizeof CUTS / sizeof *CUTS; i++) {
        key second = k;
        second.first_token = CUTS[i];
        mask(part, *state, CUTS[i], 0.1, k);
        mask(part + CUTS[i] * WIDTH, *state, T - CUTS[i], 0.1, second);
        for (int64_t j = 0; j < T * WIDTH; j++)
            if (part[j] != whole[j])
                qvl_kt_fail(*state, "cut at %d: element %lld is %g, uncut %g", CUTS[i],
                            (long long)j, part[j], whole[j]);
    }
    qvl_kt_verdict(*state);
}

/* Each part of the key changes the mask; for independent masks of p = 1/2 half of the elements
 * differ. */
static void each_key_gives_another_mask(void **state)
{
    enum { T = 33 };
    const key base = {.seed = 1, .step = 2, .module = 3, .sample = 4};
    key others[5] = {base, base, base, base, base};
    double first[T * WIDTH], other[T * WIDTH];
    others[0].seed = 2;
    others[1].step = 3;
    others[2].module = 4;
    others[3].sample = 5;
    others[4].first_token = 1;
    mask(first, *state, T, 0.5, base);
    for (int i = 0; i < 5; i++) {
        int64_t n_differ = 0;
        mask(other, *state, T, 0.5, others[i]);
        for (int64_t j = 0; j < T * WIDTH; j++)
            n_differ += (first[j] == 0) != (other[j] == 0);
        const double n = T * WIDTH;
        if (!(fabs((double)n_differ - n / 2) <= 5 * sqrt(n / 4)))
            qvl_kt_fail(*state, "key %d: %lld of %g elements differ, expected half", i,
                        (long long)n_differ, n);
    }
    qvl_kt_verdict(*state);
}

/* threshold 0 drops nothing and scales by 1. */
static void probability_zero(void **state)
{
    enum { T = 9 };
    double values[T * WIDTH];
    mask(values, *state, T, 0, (key){.seed = 1});
    for (int64_t i = 0; i < T * WIDTH; i++)
        if (values[i] != 1)
            qvl_kt_fail(*state, "element %lld is %g", (long long)i, values[i]);
    qvl_kt_verdict(*state);
}

int main(void)
{
    qvl_kt kt = {0};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(dropped_fraction, &kt),
        cmocka_unit_test_prestate(halves_give_the_same_masks, &kt),
        cmocka_unit_test_prestate(each_key_gives_another_mask, &kt),
        cmocka_unit_test_prestate(probability_zero, &kt),
    };
    const int code = qvl_kt_open(&kt);
    if (code != 0)
        return code;
    return qvl_kt_close(&kt, cmocka_run_group_tests_name("kernel.dropout", tests, NULL, NULL));
}
