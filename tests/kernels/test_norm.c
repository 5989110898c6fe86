/* RMSNorm with its residual addition, forward and backward. */
#include "tests/kernels/kernel_test.h"
#include "tests/kernels/ref/ref_norm.h"

#include <setjmp.h>
#include <cmocka.h>

static const struct {
    int64_t T, D;
} SHAPES[] = {{0, 64},  {1, 1},    {1, 3584}, {2, 7},    {7, 3584}, {33, 129}, {63, 64}, {64, 1280},
              {65, 31}, {71, 229}, {129, 65}, {257, 96}, {3, 5120}, {2, 8192}, {3, 9000}};

typedef enum residual { NO_DELTA, SEPARATE_X_OUT, X_OUT_IS_X, N_RESIDUALS } residual;
static const char *const RESIDUALS[N_RESIDUALS] = {"no delta", "x_out", "x_out == x"};

static qvl_status call_norm(qvl_device *dev, const void *args, qvl_err *err)
{
    return dev->ops->norm(dev, args, err);
}

static qvl_status call_norm_backward(qvl_device *dev, const void *args, qvl_err *err)
{
    return dev->ops->norm_backward(dev, args, err);
}

/* x in place of the sum, as the device stores it. */
static double *residual_sum(qvl_kt *kt, const double *x, const double *delta, int64_t n)
{
    double *sum = qvl_kt_copy(kt, x, n);
    for (int64_t i = 0; i < n; i++)
        sum[i] = qvl_kt_round(kt, x[i] + delta[i], QVL_KT_ACT);
    return sum;
}

static void forward_case(qvl_kt *kt, int64_t T, int64_t D, residual kind, float eps, double size,
                         bool saves_inv_rms)
{
    D = qvl_kt_width(kt, D);
    qvl_kt_begin(kt, "norm T=%lld D=%lld %s eps=%g size=%g", (long long)T, (long long)D,
                 RESIDUALS[kind], (double)eps, size);
    const int64_t n = T * D;
    const double *x = qvl_kt_random(kt, n, size, QVL_KT_ACT), *sum = x;
    const double *weight = qvl_kt_random(kt, D, 1, QVL_KT_ACT);
    qvl_norm_args args = {.T = T, .D = D, .eps = eps};
    if (kind == NO_DELTA) {
        args.x = qvl_kt_in(kt, "x", x, n, QVL_KT_ACT);
    } else {
        const double *delta = qvl_kt_random(kt, n, size / 2, QVL_KT_ACT);
        sum = residual_sum(kt, x, delta, n);
        args.delta = qvl_kt_in(kt, "delta", delta, n, QVL_KT_ACT);
        args.x_out = kind == X_OUT_IS_X ? qvl_kt_inout(kt, "x_out", x, n, QVL_KT_ACT)
                                        : qvl_kt_out(kt, "x_out", n, QVL_KT_ACT);
        args.x = kind == X_OUT_IS_X ? args.x_out : qvl_kt_in(kt, "x", x, n, QVL_KT_ACT);
    }
    args.weight = qvl_kt_in(kt, "weight", weight, D, QVL_KT_ACT);
    args.y = qvl_kt_out(kt, "y", n, QVL_KT_ACT);
    if (saves_inv_rms)
        args.inv_rms = qvl_kt_out(kt, "inv_rms", T, QVL_KT_F32);
    double *y = qvl_kt_doubles(kt, n), *inv_rms = qvl_kt_doubles(kt, T);
    qvl_ref_norm(y, inv_rms, sum, weight, T, D, (double)eps);

    qvl_kt_run(kt, call_norm, &args);
    qvl_kt_check(kt, "y", y, D, QVL_KT_REDUCED);
    if (kind != NO_DELTA)
        qvl_kt_check(kt, "x_out", sum, D, QVL_KT_EXACT);
    if (saves_inv_rms)
        qvl_kt_check(kt, "inv_rms", inv_rms, 1, QVL_KT_REDUCED);
    qvl_kt_end(kt);
}

static void forward_matches_reference(void **state)
{
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++)
        for (int kind = 0; kind < N_RESIDUALS; kind++)
            forward_case(*state, SHAPES[i].T, SHAPES[i].D, (residual)kind, 1e-6f, 1, true);
    qvl_kt_verdict(*state);
}

static void forward_without_inv_rms(void **state)
{
    for (int kind = 0; kind < N_RESIDUALS; kind++)
        forward_case(*state, 7, 129, (residual)kind, 1e-6f, 1, false);
    qvl_kt_verdict(*state);
}

static void forward_eps_and_magnitude(void **state)
{
    static const float EPS[] = {0.0f, 1e-6f, 1e-5f, 0.5f, 10.0f};
    static const double SIZES[] = {1e-4, 1, 1e4, 1e15};
    for (size_t e = 0; e < sizeof EPS / sizeof *EPS; e++)
        for (size_t s = 0; s < sizeof SIZES / sizeof *SIZES; s++)
            forward_case(*state, 5, 229, (residual)((e + s) % N_RESIDUALS), EPS[e], SIZES[s], true);
    qvl_kt_verdict(*state);
}

/* A row of zeros has inv_rms = 1/sqrt(eps) and y = 0; its neighbours are not touched by it. */
static void forward_zero_row(void **state)
{
    qvl_kt *kt = *state;
    const int64_t T = 3, D = qvl_kt_width(kt, 65);
    qvl_kt_begin(kt, "norm with a row of zeros D=%lld", (long long)D);
    double *x = qvl_kt_random(kt, T * D, 1, QVL_KT_ACT), *y = qvl_kt_doubles(kt, T * D);
    double *inv_rms = qvl_kt_doubles(kt, T), *weight = qvl_kt_random(kt, D, 1, QVL_KT_ACT);
    for (int64_t d = 0; d < D; d++)
        x[D + d] = 0;
    qvl_ref_norm(y, inv_rms, x, weight, T, D, (double)1e-6f);
    const qvl_norm_args args = {.y = qvl_kt_out(kt, "y", T * D, QVL_KT_ACT),
                                .inv_rms = qvl_kt_out(kt, "inv_rms", T, QVL_KT_F32),
                                .x = qvl_kt_in(kt, "x", x, T * D, QVL_KT_ACT),
                                .weight = qvl_kt_in(kt, "weight", weight, D, QVL_KT_ACT),
                                .T = T,
                                .D = D,
                                .eps = 1e-6f};
    qvl_kt_run(kt, call_norm, &args);
    qvl_kt_check(kt, "y", y, D, QVL_KT_REDUCED);
    qvl_kt_check(kt, "inv_rms", inv_rms, 1, QVL_KT_REDUCED);
    qvl_kt_end(kt);
    qvl_kt_verdict(kt);
}

static void backward_case(qvl_kt *kt, int64_t T, int64_t D, float eps, double size)
{
    D = qvl_kt_width(kt, D);
    qvl_kt_begin(kt, "norm_backward T=%lld D=%lld eps=%g size=%g", (long long)T, (long long)D,
                 (double)eps, size);
    const int64_t n = T * D;
    const double *x = qvl_kt_random(kt, n, size, QVL_KT_ACT);
    const double *weight = qvl_kt_random(kt, D, 1, QVL_KT_ACT);
    const double *dy = qvl_kt_random(kt, n, 1, QVL_KT_ACT);
    double *dx = qvl_kt_random(kt, n, 1 / size, QVL_KT_ACT);
    double *y = qvl_kt_doubles(kt, n), *inv_rms = qvl_kt_doubles(kt, T);
    qvl_ref_norm(y, inv_rms, x, weight, T, D, (double)eps);
    const qvl_norm_backward_args args = {.dx = qvl_kt_inout(kt, "dx", dx, n, QVL_KT_ACT),
                                         .dy = qvl_kt_in(kt, "dy", dy, n, QVL_KT_ACT),
                                         .x = qvl_kt_in(kt, "x", x, n, QVL_KT_ACT),
                                         .inv_rms =
                                             qvl_kt_in(kt, "inv_rms", inv_rms, T, QVL_KT_F32),
                                         .weight = qvl_kt_in(kt, "weight", weight, D, QVL_KT_ACT),
                                         .T = T,
                                         .D = D};
    qvl_ref_norm_backward(dx, dy, x, weight, T, D, (double)eps);
    qvl_kt_run(kt, call_norm_backward, &args);
    qvl_kt_check(kt, "dx", dx, D, QVL_KT_REDUCED);
    qvl_kt_end(kt);
}

static void backward_matches_reference(void **state)
{
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++)
        backward_case(*state, SHAPES[i].T, SHAPES[i].D, 1e-6f, 1);
    qvl_kt_verdict(*state);
}

static void backward_eps_and_magnitude(void **state)
{
    static const float EPS[] = {0.0f, 1e-5f, 10.0f};
    static const double SIZES[] = {1e-3, 1e3, 1e6};
    for (size_t e = 0; e < sizeof EPS / sizeof *EPS; e++)
        for (size_t s = 0; s < sizeof SIZES / sizeof *SIZES; s++)
            backward_case(*state, 5, 229, EPS[e], SIZES[s]);
    qvl_kt_verdict(*state);
}

int main(void)
{
    qvl_kt kt = {0};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(forward_matches_reference, &kt),
        cmocka_unit_test_prestate(forward_without_inv_rms, &kt),
        cmocka_unit_test_prestate(forward_eps_and_magnitude, &kt),
        cmocka_unit_test_prestate(forward_zero_row, &kt),
        cmocka_unit_test_prestate(backward_matches_reference, &kt),
        cmocka_unit_test_prestate(backward_eps_and_magnitude, &kt),
    };
    const int code = qvl_kt_open(&kt);
    if (code != 0)
        return code;
    return qvl_kt_close(&kt, cmocka_run_group_tests_name("kernel.norm", tests, NULL, NULL));
}
