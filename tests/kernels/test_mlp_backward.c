/* Backward of an MLP: [gate, up] = gate_up_proj(x), y = down(silu(gate) * up), with and without
 * adapters. */
#include "tests/kernels/linear_case.h"
#include "tests/kernels/ref/ref_activation.h"

#include <setjmp.h>
#include <cmocka.h>

typedef struct mlp_shape {
    int64_t T, D, F, out, rank;
    double drop_prob;
    unsigned adapted; /* bit 0 gate, bit 1 up, bit 2 down */
    bool in_place, no_dx;
} mlp_shape;

static qvl_status call_mlp_backward(qvl_device *dev, const void *args, qvl_err *err)
{
    const qvl_mlp_backward_args *a = args;
    qvl_status rc = dev->ops->fold(dev, &(qvl_fold_args){.linears = a->down, .n = 1}, err);
    if (rc == QVL_OK)
        rc = dev->ops->fold(dev, &(qvl_fold_args){.linears = a->gate_up_proj, .n = 1}, err);
    return rc == QVL_OK ? dev->ops->mlp_backward(dev, a, err) : rc;
}

/* Rounds as the device keeps it. */
static void round_all(qvl_kt *kt, double *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = qvl_kt_round(kt, x[i], QVL_KT_ACT);
}

/* u of a case's forward pass, as an input of the device; NULL where it lies behind x. */
static const float *u_of(qvl_kt *kt, const qvl_linear_case *c, const char *name)
{
    double *y = qvl_kt_doubles(kt, c->T * c->linear.out);
    double *u = qvl_kt_doubles(kt, c->T * c->u_width);
    qvl_ref_linear_forward(y, u, c->x, &c->ref, c->T, c->drops ? &c->ref_dropout : NULL);
    return c->u_width > 0 && !c->tail ? qvl_kt_in(kt, name, u, c->T * c->u_width, QVL_KT_F32)
                                      : NULL;
}

/* The reference, in dgate_up and dx; the gradients of the adapters in the cases. */
static void reference(qvl_kt *kt, double *dx, double *dgate_up, const double *dy,
                      const double *gate_up, const qvl_linear_case *down,
                      const qvl_linear_case *entry)
{
    const int64_t T = down->T, F = down->linear.in;
    const qvl_dropout *dropout = down->drops ? &down->ref_dropout : NULL;
    double *dh = qvl_kt_doubles(kt, T * F), *rounded = qvl_kt_doubles(kt, T * 2 * F);
    qvl_ref_linear_backward(dh, dy, down->x, &down->ref, T, dropout);
    qvl_ref_swiglu_backward(dgate_up, dh, gate_up, T, F);
    for (int64_t i = 0; i < T * 2 * F; i++)
        rounded[i] = dgate_up[i];
    round_all(kt, rounded, T * 2 * F);
    qvl_ref_linear_backward(dx, rounded, entry->x, &entry->ref, T, dropout);
}

static void one_case(qvl_kt *kt, mlp_shape s, bool is_starved)
{
    const int64_t F = qvl_kt_width(kt, s.F), n = s.T * 2 * F;
    qvl_linear_case down, entry;
    qvl_kt_begin(kt, "mlp_backward T=%lld D=%lld F=%lld out=%lld R=%lld drop=%g adapted=%x%s%s",
                 (long long)s.T, (long long)s.D, (long long)F, (long long)s.out, (long long)s.rank,
                 s.drop_prob, s.adapted, s.in_place ? " in place" : "", s.no_dx ? " dx=NULL" : "");
    const double *gate_up = qvl_kt_random(kt, n, 1, QVL_KT_ACT);
    const qvl_linear_shape down_shape = {s.T,    s.F,         {s.out}, s.adapted >> 2,
                                         s.rank, s.drop_prob, false};
    const qvl_linear_shape entry_shape = {s.T,    s.D,         {s.F, s.F}, s.adapted & 3,
                                          s.rank, s.drop_prob, false};
    qvl_linear_case_fill_x(&entry, kt, &entry_shape, "entry_",
                           qvl_kt_random(kt, s.T * qvl_kt_width(kt, s.D), 1, QVL_KT_ACT), true);
    qvl_linear_case_fill_x(&down, kt, &down_shape, "down_",
                           qvl_linear_case_swiglu(kt, gate_up, s.T, F), true);
    const int64_t width = down.linear.out, D = entry.linear.in;
    qvl_kt_workspace(kt, &(qvl_workspace_limits){.tokens = s.T,
                                                 .in_max = F > D ? F : D,
                                                 .out_max = 2 * F > width ? 2 * F : width,
                                                 .rank = s.adapted ? s.rank : 0,
                                                 .backward = true,
                                                 .dropout = down.drops});
    double *dx = qvl_kt_doubles(kt, s.T * D), *dgate_up = qvl_kt_doubles(kt, n);
    const double *dy = qvl_kt_random(kt, s.T * width, 1, QVL_KT_ACT);
    qvl_mlp_backward_args args = {.down = &down.linear,
                                  .gate_up_proj = &entry.linear,
                                  .dx = s.no_dx ? NULL : qvl_kt_out(kt, "dx", s.T * D, QVL_KT_ACT),
                                  .dh = qvl_kt_out(kt, "dh", s.T * F, QVL_KT_ACT),
                                  .dy = qvl_kt_in(kt, "dy", dy, s.T * width, QVL_KT_ACT),
                                  .h = down.x_device,
                                  .h_stride = qvl_linear_case_stride(&down),
                                  .h_u = u_of(kt, &down, "h_u"),
                                  .x = entry.x_device,
                                  .x_stride = qvl_linear_case_stride(&entry),
                                  .x_u = u_of(kt, &entry, "x_u"),
                                  .T = s.T,
                                  .F = F,
                                  .dropout = down.drops ? &down.dropout : NULL};
    args.dgate_up = s.in_place ? qvl_kt_inout(kt, "dgate_up", gate_up, n, QVL_KT_ACT)
                               : qvl_kt_out(kt, "dgate_up", n, QVL_KT_ACT);
    args.gate_up = s.in_place ? args.dgate_up : qvl_kt_in(kt, "gate_up", gate_up, n, QVL_KT_ACT);
    reference(kt, dx, dgate_up, dy, gate_up, &down, &entry);
    if (is_starved) {
        qvl_kt_run_starved(kt, call_mlp_backward, &args);
        qvl_kt_end(kt);
        return;
    }
    qvl_kt_run(kt, call_mlp_backward, &args);
    qvl_kt_check(kt, "dgate_up", dgate_up, 2 * F, QVL_KT_PRODUCT);
    if (!s.no_dx)
        qvl_kt_check(kt, "dx", dx, D, QVL_KT_PRODUCT);
    qvl_kt_values(kt, "dh"); /* undefined afterwards */
    qvl_linear_case_check_adapters(kt, &down);
    qvl_linear_case_check_adapters(kt, &entry);
    qvl_linear_case_check(kt, &down, NULL);
    qvl_linear_case_check(kt, &entry, NULL);
    qvl_kt_end(kt);
}

static void mlp_case(qvl_kt *kt, mlp_shape s)
{
    one_case(kt, s, false);
}

static void token_counts(void **state)
{
    static const int64_t COUNTS[] = {0, 1, 2, 7, 15, 16, 17, 33, 64, 65, 129, 257};
    for (size_t i = 0; i < sizeof COUNTS / sizeof *COUNTS; i++)
        for (int drops = 0; drops < 2; drops++)
            mlp_case(*state, (mlp_shape){.T = COUNTS[i],
                                         .D = 21,
                                         .F = 67,
                                         .out = 29,
                                         .rank = 8,
                                         .drop_prob = 0.1 * drops,
                                         .adapted = 7,
                                         .in_place = drops});
    qvl_kt_verdict(*state);
}

static void adapters_of_some_parts(void **state)
{
    for (unsigned adapted = 0; adapted < 8; adapted++)
        for (int drops = 0; drops < 2; drops++)
            mlp_case(*state, (mlp_shape){.T = 35,
                                         .D = 40,
                                         .F = 300,
                                         .out = 24,
                                         .rank = 8,
                                         .drop_prob = 0.1 * drops,
                                         .adapted = adapted,
                                         .in_place = drops == 0,
                                         .no_dx = drops && adapted % 4});
    qvl_kt_verdict(*state);
}

/* Also more ranks than one pass has. */
static void ranks_and_widths(void **state)
{
    static const int64_t RANKS[] = {1, 3, 8, 9, 16, 32, 64};
    static const int64_t WIDTHS[][3] = {{1, 1, 1}, {64, 64, 64}, {19, 101, 37}, {45, 330, 211}};
    for (size_t r = 0; r < sizeof RANKS / sizeof *RANKS; r++)
        for (size_t w = 0; w < sizeof WIDTHS / sizeof *WIDTHS; w++)
            mlp_case(*state, (mlp_shape){.T = 9,
                                         .D = WIDTHS[w][0],
                                         .F = WIDTHS[w][1],
                                         .out = WIDTHS[w][2],
                                         .rank = RANKS[r],
                                         .drop_prob = w % 2 ? 0.25 : 0,
                                         .adapted = 7,
                                         .in_place = w % 2 == 0});
    qvl_kt_verdict(*state);
}

/* Blocks with more strips of rows than are on their way at once, also of the pass for more ranks.
 */
static void many_rows(void **state)
{
    mlp_case(*state, (mlp_shape){257, 8, 18944, 8, 8, 0.1, 7, true, false});
    mlp_case(*state, (mlp_shape){257, 8, 18944, 8, 16, 0.1, 7, false, false});
    qvl_kt_verdict(*state);
}

static void refuses_small_workspace(void **state)
{
    one_case(*state, (mlp_shape){33, 40, 71, 23, 8, 0.1, 7, false, false}, true);
    qvl_kt_verdict(*state);
}

static void real_widths(void **state)
{
    mlp_case(*state, (mlp_shape){3, 16, 18944, 128, 8, 0.1, 7, true, false});
    mlp_case(*state, (mlp_shape){2, 3584, 128, 3584, 8, 0.1, 7, true, false});
    qvl_kt_verdict(*state);
}

int main(void)
{
    qvl_kt kt = {0};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(token_counts, &kt),
        cmocka_unit_test_prestate(adapters_of_some_parts, &kt),
        cmocka_unit_test_prestate(ranks_and_widths, &kt),
        cmocka_unit_test_prestate(real_widths, &kt),
        cmocka_unit_test_prestate(many_rows, &kt),
        cmocka_unit_test_prestate(refuses_small_workspace, &kt),
    };
    const int code = qvl_kt_open(&kt);
    if (code != 0)
        return code;
    return qvl_kt_close(&kt, cmocka_run_group_tests_name("kernel.mlp_backward", tests, NULL, NULL));
}
