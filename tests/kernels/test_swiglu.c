/* SwiGLU on the fused gate and up, forward and backward. */
#include "tests/kernels/kernel_test.h"
#include "tests/kernels/ref/ref_activation.h"

#include <math.h>

#include <setjmp.h>
#include <cmocka.h>

static const struct {
    int64_t T, F;
} SHAPES[] = {{0, 64},  {1, 1},    {2, 7},    {7, 3420},  {33, 129}, {63, 64},
              {64, 64}, {65, 331}, {71, 229}, {129, 101}, {257, 65}, {2, 18944}};

static qvl_status call_swiglu(qvl_device *dev, const void *args, qvl_err *err)
{
    return dev->ops->swiglu(dev, args, err);
}

static qvl_status call_swiglu_backward(qvl_device *dev, const void *args, qvl_err *err)
{
    return dev->ops->swiglu_backward(dev, args, err);
}

static void forward_case(qvl_kt *kt, int64_t T, int64_t F, double size)
{
    F = qvl_kt_width(kt, F);
    qvl_kt_begin(kt, "swiglu T=%lld F=%lld size=%g", (long long)T, (long long)F, size);
    const double *gate_up = qvl_kt_random(kt, T * 2 * F, size, QVL_KT_ACT);
    double *h = qvl_kt_doubles(kt, T * F);
    qvl_ref_swiglu(h, gate_up, T, F);
    const qvl_swiglu_args args = {.h = qvl_kt_out(kt, "h", T * F, QVL_KT_ACT),
                                  .gate_up =
                                      qvl_kt_in(kt, "gate_up", gate_up, T * 2 * F, QVL_KT_ACT),
                                  .T = T,
                                  .F = F};
    qvl_kt_run(kt, call_swiglu, &args);
    qvl_kt_check(kt, "h", h, F, QVL_KT_ELEMENT);
    qvl_kt_end(kt);
}

static void backward_case(qvl_kt *kt, int64_t T, int64_t F, double size, bool in_place)
{
    F = qvl_kt_width(kt, F);
    qvl_kt_begin(kt, "swiglu_backward T=%lld F=%lld size=%g%s", (long long)T, (long long)F, size,
                 in_place ? " in place" : "");
    const int64_t n = T * 2 * F;
    const double *gate_up = qvl_kt_random(kt, n, size, QVL_KT_ACT);
    const double *dh = qvl_kt_random(kt, T * F, 1, QVL_KT_ACT);
    double *dgate_up = qvl_kt_doubles(kt, n);
    qvl_ref_swiglu_backward(dgate_up, dh, gate_up, T, F);
    qvl_swiglu_backward_args args = {
        .dh = qvl_kt_in(kt, "dh", dh, T * F, QVL_KT_ACT), .T = T, .F = F};
    args.dgate_up = in_place ? qvl_kt_inout(kt, "dgate_up", gate_up, n, QVL_KT_ACT)
                             : qvl_kt_out(kt, "dgate_up", n, QVL_KT_ACT);
    args.gate_up = in_place ? args.dgate_up : qvl_kt_in(kt, "gate_up", gate_up, n, QVL_KT_ACT);
    qvl_kt_run(kt, call_swiglu_backward, &args);
    qvl_kt_check(kt, "dgate_up", dgate_up, F, QVL_KT_ELEMENT);
    qvl_kt_end(kt);
}

static void forward_matches_reference(void **state)
{
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++)
        forward_case(*state, SHAPES[i].T, SHAPES[i].F, 1);
    qvl_kt_verdict(*state);
}

static void backward_matches_reference(void **state)
{
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++)
        for (int in_place = 0; in_place < 2; in_place++)
            backward_case(*state, SHAPES[i].T, SHAPES[i].F, 1, in_place);
    qvl_kt_verdict(*state);
}

/* exp(-gate) is infinite in float32 from gate = -89 on. */
static void magnitudes(void **state)
{
    static const double SIZES[] = {1e-3, 10, 40, 100, 1e4};
    for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++) {
        forward_case(*state, 7, 129, SIZES[i]);
        backward_case(*state, 7, 129, SIZES[i], i % 2);
    }
    qvl_kt_verdict(*state);
}

/* Gates one by one, so that no larger neighbour hides an error: around 0, at the minimum of silu
 * (-1.278), where float32 exp ends (88.7), and far out. */
static void chosen_gates(void **state)
{
    static const double GATES[] = {0,   -0.0, 1e-6, -1e-6, 1,   -1,   -1.278, 2.4,
                                   -5,  20,   -20,  60,    -60, 88,   -88,    89,
                                   -89, 100,  500,  -1000, 1e4, -1e4, 1e9,    -1e9};
    enum { N = sizeof GATES / sizeof *GATES };
    qvl_kt *kt = *state;
    const int64_t F = qvl_kt_width(kt, 1);
    qvl_kt_begin(kt, "swiglu of chosen gates");
    double *gate_up = qvl_kt_doubles(kt, N * 2 * F), *h = qvl_kt_doubles(kt, N * F);
    for (int64_t i = 0; i < N * 2 * F; i++)
        gate_up[i] = qvl_kt_round(kt, i % (2 * F) < F ? GATES[i / (2 * F)] : 1, QVL_KT_ACT);
    qvl_ref_swiglu(h, gate_up, N, F);
    const qvl_swiglu_args args = {.h = qvl_kt_out(kt, "h", N * F, QVL_KT_ACT),
                                  .gate_up =
                                      qvl_kt_in(kt, "gate_up", gate_up, N * 2 * F, QVL_KT_ACT),
                                  .T = N,
                                  .F = F};
    qvl_kt_run(kt, call_swiglu, &args);
    const double *got = qvl_kt_values(kt, "h"), rel = kt->dev->dtype == QVL_BF16 ? 8e-3 : 1e-6;
    /* far below 0 exp may end at its smallest number instead of 0, which leaves gate * 1e-38 */
    for (int64_t i = 0; i < N * F; i++)
        if (!(fabs(got[i] - h[i]) <= rel * fabs(h[i]) + 1e-37 * (1 + fabs(GATES[i / F]))))
            qvl_kt_fail(kt, "gate %g: got %.9g, want %.9g", GATES[i / F], got[i], h[i]);
    qvl_kt_check(kt, "h", h, N * F, QVL_KT_ELEMENT);
    qvl_kt_end(kt);
    qvl_kt_verdict(kt);
}

int main(void)
{
    qvl_kt kt = {0};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(forward_matches_reference, &kt),
        cmocka_unit_test_prestate(backward_matches_reference, &kt),
        cmocka_unit_test_prestate(magnitudes, &kt),
        cmocka_unit_test_prestate(chosen_gates, &kt),
    };
    const int code = qvl_kt_open(&kt);
    if (code != 0)
        return code;
    return qvl_kt_close(&kt, cmocka_run_group_tests_name("kernel.swiglu", tests, NULL, NULL));
}
