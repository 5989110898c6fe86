/* The exact GELU, in place. */
#include "tests/kernels/kernel_test.h"
#include "tests/kernels/ref/ref_activation.h"

#include <math.h>

#include <setjmp.h>
#include <cmocka.h>

static qvl_status call_gelu(qvl_device *dev, const void *args, qvl_err *err)
{
    return dev->ops->gelu(dev, args, err);
}

static void gelu_case(qvl_kt *kt, int64_t n, double size)
{
    qvl_kt_begin(kt, "gelu n=%lld size=%g", (long long)n, size);
    double *x = qvl_kt_random(kt, n, size, QVL_KT_ACT);
    const qvl_gelu_args args = {.x = qvl_kt_inout(kt, "x", x, n, QVL_KT_ACT), .n = n};
    qvl_ref_gelu(x, n);
    qvl_kt_run(kt, call_gelu, &args);
    qvl_kt_check(kt, "x", x, n > 0 ? n : 1, QVL_KT_ELEMENT);
    qvl_kt_end(kt);
}

static void counts(void **state)
{
    static const int64_t COUNTS[] = {0,   1,   2,   7,    63,   64,          65,
                                     127, 255, 257, 1001, 4099, 5120 * 7 + 3};
    for (size_t i = 0; i < sizeof COUNTS / sizeof *COUNTS; i++)
        gelu_case(*state, COUNTS[i], 1);
    qvl_kt_verdict(*state);
}

static void magnitudes(void **state)
{
    static const double SIZES[] = {1e-3, 4, 30, 1e4, 1e18};
    for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++)
        gelu_case(*state, 257, SIZES[i]);
    qvl_kt_verdict(*state);
}

/* One by one. Below 0 the definition subtracts nearly equal numbers: x/2 (1 + erf) keeps an
 * absolute error of about |x| 6e-8, which is what float32 evaluation of the formula gives. The tanh
 * form is off by up to 5e-4 and must not pass. */
static void chosen_values(void **state)
{
    static const double VALUES[] = {0,  -0.0, 1e-6, -1e-6, 0.5, -0.5, 0.751, -0.751, 1,    -1,
                                    2,  -2,   2.3,  -2.3,  3,   -3,   4,     -4,     5.5,  6,
                                    -6, 10,   -10,  40,    -40, 1e4,  -1e4,  1e18,   -1e18};
    enum { N = sizeof VALUES / sizeof *VALUES };
    qvl_kt *kt = *state;
    const double rel = kt->dev->dtype == QVL_BF16 ? 8e-3 : 1e-6;
    qvl_kt_begin(kt, "gelu of chosen values");
    double *x = qvl_kt_doubles(kt, N), *want = qvl_kt_doubles(kt, N);
    for (int i = 0; i < N; i++)
        want[i] = x[i] = qvl_kt_round(kt, VALUES[i], QVL_KT_ACT);
    const qvl_gelu_args args = {.x = qvl_kt_inout(kt, "x", x, N, QVL_KT_ACT), .n = N};
    qvl_ref_gelu(want, N);
    qvl_kt_run(kt, call_gelu, &args);
    const double *got = qvl_kt_values(kt, "x");
    for (int i = 0; i < N; i++) {
        const double cancelled = x[i] > 0 ? 0 : x[i] > -10 ? 2e-7 * fabs(x[i]) : 1e-20;
        if (!(fabs(got[i] - want[i]) <= rel * fabs(want[i]) + cancelled))
            qvl_kt_fail(kt, "gelu(%g): got %.9g, want %.9g", x[i], got[i], want[i]);
    }
    qvl_kt_check(kt, "x", want, N, QVL_KT_ELEMENT);
    qvl_kt_end(kt);
    qvl_kt_verdict(kt);
}

int main(void)
{
    qvl_kt kt = {0};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(counts, &kt),
        cmocka_unit_test_prestate(magnitudes, &kt),
        cmocka_unit_test_prestate(chosen_values, &kt),
    };
    const int code = qvl_kt_open(&kt);
    if (code != 0)
        return code;
    return qvl_kt_close(&kt, cmocka_run_group_tests_name("kernel.gelu", tests, NULL, NULL));
}
