/* down(silu(gate) * up), with and without adapters. */
#include "tests/kernels/linear_case.h"

#include <math.h>

#include <setjmp.h>
#include <cmocka.h>

static qvl_status call_mlp(qvl_device *dev, const void *args, qvl_err *err)
{
    const qvl_mlp_args *a = args;
    const qvl_status rc = dev->ops->fold(dev, &(qvl_fold_args){.linears = a->linear, .n = 1}, err);
    return rc == QVL_OK ? dev->ops->mlp(dev, a, err) : rc;
}

/* h before the run: no numbers, also in its tails, of which only u's columns are written. */
static void *unset_h(qvl_kt *kt, int64_t n)
{
    double *h = qvl_kt_doubles(kt, n);
    for (int64_t i = 0; i < n; i++)
        h[i] = NAN;
    return qvl_kt_inout(kt, "h", h, n, QVL_KT_ACT);
}

static void check_h(qvl_kt *kt, const qvl_linear_case *c, const double *u)
{
    const int64_t in = c->linear.in, stride = qvl_linear_case_stride(c), rank = c->linear.rank;
    double *h = qvl_kt_doubles(kt, c->T * stride);
    for (int64_t t = 0; t < c->T; t++) {
        for (int64_t i = 0; i < in; i++)
            h[t * stride + i] = c->x[t * in + i];
        for (int64_t r = 0; c->tail && r < c->u_width; r++)
            h[t * stride + in + r] = u[t * c->u_width + r];
    }
    if (c->T == 0)
        return;
    qvl_kt_check_columns(kt, "h", h, stride, 0, in, QVL_KT_ELEMENT);
    if (c->tail)
        qvl_kt_check_columns(kt, "h", h, stride, in, rank, QVL_KT_PRODUCT);
}

static void mlp_case(qvl_kt *kt, int64_t T, int64_t in, int64_t out, int64_t rank, double drop_prob,
                     bool has_y)
{
    const int64_t F = qvl_kt_width(kt, in), n = T * 2 * F;
    qvl_linear_case c;
    qvl_kt_begin(kt, "mlp T=%lld F=%lld out=%lld R=%lld drop=%g%s", (long long)T, (long long)F,
                 (long long)out, (long long)rank, drop_prob, has_y ? "" : " y=NULL");
    const double *gate_up = qvl_kt_random(kt, n, 1, QVL_KT_ACT);
    const qvl_linear_shape shape = {.T = T,
                                    .in = in,
                                    .parts = {out},
                                    .adapted = rank > 0,
                                    .rank = rank,
                                    .drop_prob = drop_prob};
    qvl_linear_case_fill_x(&c, kt, &shape, "", qvl_linear_case_swiglu(kt, gate_up, T, F), false);
    const int64_t width = c.linear.out;
    double *y = qvl_kt_doubles(kt, T * width), *u = qvl_kt_doubles(kt, T * c.u_width);
    qvl_ref_linear_forward(y, u, c.x, &c.ref, T, c.drops ? &c.ref_dropout : NULL);
    const qvl_mlp_args args = {
        .linear = &c.linear,
        .y = has_y ? qvl_kt_out(kt, "y", T * width, QVL_KT_ACT) : NULL,
        .h = unset_h(kt, T * qvl_linear_case_stride(&c)),
        .h_stride = qvl_linear_case_stride(&c),
        .u = c.u_width > 0 && !c.tail ? qvl_kt_out(kt, "u", T * c.u_width, QVL_KT_F32) : NULL,
        .gate_up = qvl_kt_in(kt, "gate_up", gate_up, n, QVL_KT_ACT),
        .T = T,
        .F = F,
        .dropout = c.drops ? &c.dropout : NULL};
    qvl_kt_run(kt, call_mlp, &args);
    if (has_y)
        qvl_kt_check(kt, "y", y, width, QVL_KT_PRODUCT);
    if (args.u)
        qvl_kt_check(kt, "u", u, c.u_width, QVL_KT_PRODUCT);
    check_h(kt, &c, u);
    qvl_linear_case_check(kt, &c, NULL);
    qvl_kt_end(kt);
}

/* With u from where it was kept: h is made where ranks are too many for one pass in backward, which
 * then reads it; elsewhere only u is there. Without tails everything is made again. */
static void kept_case(qvl_kt *kt, int64_t T, int64_t in, int64_t rank)
{
    const int64_t F = qvl_kt_width(kt, in), n = T * 2 * F;
    qvl_linear_case c;
    qvl_kt_begin(kt, "mlp T=%lld F=%lld R=%lld, u from where it was kept", (long long)T,
                 (long long)F, (long long)rank);
    const double *gate_up = qvl_kt_random(kt, n, 1, QVL_KT_ACT);
    const qvl_linear_shape shape = {
        .T = T, .in = in, .parts = {40}, .adapted = 1, .rank = rank, .drop_prob = 0.25};
    qvl_linear_case_fill_x(&c, kt, &shape, "", qvl_linear_case_swiglu(kt, gate_up, T, F), false);
    const int64_t stride = qvl_linear_case_stride(&c), used = qvl_linear_case_used(&c);
    double *y = qvl_kt_doubles(kt, T * c.linear.out), *u = qvl_kt_doubles(kt, T * c.u_width);
    qvl_ref_linear_forward(y, u, c.x, &c.ref, T, &c.ref_dropout);
    const double *kept = c.tail ? qvl_linear_case_kept(&c, kt, u) : NULL;
    double *h = qvl_kt_doubles(kt, T * stride);
    c.dropout.step += c.tail != 0;
    const qvl_mlp_args args = {.linear = &c.linear,
                               .h = unset_h(kt, T * stride),
                               .h_stride = stride,
                               .u = c.tail ? NULL : qvl_kt_out(kt, "u", T * c.u_width, QVL_KT_F32),
                               .kept_u = c.tail ? qvl_kt_in(kt, "kept", kept, T * used, QVL_KT_ACT)
                                                : NULL,
                               .is_u_kept = true,
                               .gate_up = qvl_kt_in(kt, "gate_up", gate_up, n, QVL_KT_ACT),
                               .T = T,
                               .F = F,
                               .dropout = &c.dropout};
    qvl_kt_run(kt, call_mlp, &args);
    for (int64_t i = 0; i < T * stride; i++)
        h[i] = i % stride < F          ? c.x[i / stride * F + i % stride]
               : i % stride < F + used ? kept[i / stride * used + i % stride - F]
                                       : 0;
    if (c.tail)
        qvl_kt_check_columns(kt, "h", h, stride, F, used, QVL_KT_EXACT);
    if (!c.tail || used > 32)
        qvl_kt_check_columns(kt, "h", h, stride, 0, F, QVL_KT_ELEMENT);
    if (args.u)
        qvl_kt_check(kt, "u", u, c.u_width, QVL_KT_PRODUCT);
    qvl_linear_case_check(kt, &c, NULL);
    qvl_kt_end(kt);
}

static void kept_apart(void **state)
{
    static const int64_t RANKS[] = {1, 8, 32, 64};
    for (size_t i = 0; i < sizeof RANKS / sizeof *RANKS; i++) {
        kept_case(*state, 33, 67, RANKS[i]);
        kept_case(*state, 5, 1030, RANKS[i]);
    }
    qvl_kt_verdict(*state);
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
    static const int64_t WIDTHS[][2] = {{1, 1}, {64, 64}, {101, 37}, {1030, 211}};
    for (size_t r = 0; r < sizeof RANKS / sizeof *RANKS; r++)
        for (size_t w = 0; w < sizeof WIDTHS / sizeof *WIDTHS; w++)
            mlp_case(*state, 19, WIDTHS[w][0], WIDTHS[w][1], RANKS[r],
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
        cmocka_unit_test_prestate(kept_apart, &kt),
    };
    const int code = qvl_kt_open(&kt);
    if (code != 0)
        return code;
    return qvl_kt_close(&kt, cmocka_run_group_tests_name("kernel.mlp", tests, NULL, NULL));
}
