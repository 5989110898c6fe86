/* Backward of down(silu(gate) * up), with and without adapters. */
#include "tests/kernels/linear_case.h"
#include "tests/kernels/ref/ref_activation.h"

#include <stdio.h>

#include <setjmp.h>
#include <cmocka.h>

static qvl_status call_mlp_backward(qvl_device *dev, const void *args, qvl_err *err)
{
    const qvl_mlp_backward_args *a = args;
    const qvl_status rc = dev->ops->fold(dev, &(qvl_fold_args){.linears = a->linear, .n = 1}, err);
    return rc == QVL_OK ? dev->ops->mlp_backward(dev, a, err) : rc;
}

static void mlp_case(qvl_kt *kt, int64_t T, int64_t in, int64_t out, int64_t rank, double drop_prob,
                     bool in_place)
{
    const int64_t F = qvl_kt_width(kt, in), n = T * 2 * F;
    qvl_linear_case c;
    qvl_kt_begin(kt, "mlp_backward T=%lld F=%lld out=%lld R=%lld drop=%g%s", (long long)T,
                 (long long)F, (long long)out, (long long)rank, drop_prob,
                 in_place ? " in place" : "");
    const double *gate_up = qvl_kt_random(kt, n, 1, QVL_KT_ACT);
    const qvl_linear_shape shape = {.T = T,
                                    .in = in,
                                    .parts = {out},
                                    .adapted = rank > 0,
                                    .rank = rank,
                                    .drop_prob = drop_prob};
    qvl_linear_case_fill_x(&c, kt, &shape, qvl_linear_case_swiglu(kt, gate_up, T, F), true);
    const int64_t width = c.linear.out;
    double *y = qvl_kt_doubles(kt, T * width), *u = qvl_kt_doubles(kt, T * c.u_width);
    double *dh = qvl_kt_doubles(kt, T * F), *dgate_up = qvl_kt_doubles(kt, n);
    const double *dy = qvl_kt_random(kt, T * width, 1, QVL_KT_ACT);
    const qvl_dropout *ref_dropout = c.drops ? &c.ref_dropout : NULL;
    qvl_ref_linear_forward(y, u, c.x, &c.ref, T, ref_dropout);
    qvl_ref_linear_backward(dh, dy, c.x, &c.ref, T, ref_dropout);
    qvl_ref_swiglu_backward(dgate_up, dh, gate_up, T, F);
    qvl_mlp_backward_args args = {
        .linear = &c.linear,
        .dh = qvl_kt_out(kt, "dh", T * F, QVL_KT_ACT),
        .dy = qvl_kt_in(kt, "dy", dy, T * width, QVL_KT_ACT),
        .h = c.x_device,
        .h_stride = qvl_linear_case_stride(&c),
        .u = c.u_width > 0 && !c.tail ? qvl_kt_in(kt, "u", u, T * c.u_width, QVL_KT_F32) : NULL,
        .T = T,
        .F = F,
        .dropout = c.drops ? &c.dropout : NULL};
    args.dgate_up = in_place ? qvl_kt_inout(kt, "dgate_up", gate_up, n, QVL_KT_ACT)
                             : qvl_kt_out(kt, "dgate_up", n, QVL_KT_ACT);
    args.gate_up = in_place ? args.dgate_up : qvl_kt_in(kt, "gate_up", gate_up, n, QVL_KT_ACT);
    qvl_kt_run(kt, call_mlp_backward, &args);
    qvl_kt_check(kt, "dgate_up", dgate_up, 2 * F, QVL_KT_PRODUCT);
    qvl_kt_values(kt, "dh"); /* undefined afterwards */
    if (rank > 0) {
        qvl_kt_check(kt, "da0", c.ref.adapters[0].da, c.ref.rank * F, QVL_KT_PRODUCT);
        qvl_kt_check(kt, "db0", c.ref.adapters[0].db, width * c.ref.rank, QVL_KT_PRODUCT);
    }
    qvl_linear_case_check(kt, &c, NULL);
    qvl_kt_end(kt);
}

static void token_counts(void **state)
{
    static const int64_t COUNTS[] = {0, 1, 2, 7, 33, 64, 65, 129, 257};
    for (size_t i = 0; i < sizeof COUNTS / sizeof *COUNTS; i++)
        for (int drops = 0; drops < 2; drops++)
            mlp_case(*state, COUNTS[i], 67, 29, 8, 0.1 * drops, drops);
    qvl_kt_verdict(*state);
}

/* Also more ranks than one pass has, and none. */
static void ranks_and_widths(void **state)
{
    static const int64_t RANKS[] = {0, 1, 3, 8, 16, 32, 64};
    static const int64_t WIDTHS[][2] = {{1, 1}, {64, 64}, {101, 37}, {330, 211}};
    for (size_t r = 0; r < sizeof RANKS / sizeof *RANKS; r++)
        for (size_t w = 0; w < sizeof WIDTHS / sizeof *WIDTHS; w++)
            mlp_case(*state, 9, WIDTHS[w][0], WIDTHS[w][1], RANKS[r],
                     RANKS[r] > 0 && w % 2 ? 0.25 : 0, w % 2 == 0);
    qvl_kt_verdict(*state);
}

static void real_widths(void **state)
{
    mlp_case(*state, 3, 18944, 128, 8, 0.1, true);
    mlp_case(*state, 2, 128, 3584, 8, 0.1, true);
    qvl_kt_verdict(*state);
}

int main(void)
{
    qvl_kt kt = {0};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(token_counts, &kt),
        cmocka_unit_test_prestate(ranks_and_widths, &kt),
        cmocka_unit_test_prestate(real_widths, &kt),
    };
    const int code = qvl_kt_open(&kt);
    if (code != 0)
        return code;
    return qvl_kt_close(&kt, cmocka_run_group_tests_name("kernel.mlp_backward", tests, NULL, NULL));
}
