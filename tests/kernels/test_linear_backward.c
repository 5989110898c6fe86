/* The fused linear with adapters, backward: dx is set, da and db are added to. */
#include "tests/kernels/linear_case.h"

#include <setjmp.h>
#include <cmocka.h>

static qvl_status call_linear_backward(qvl_device *dev, const void *args, qvl_err *err)
{
    const qvl_linear_backward_args *a = args;
    const qvl_status rc = dev->ops->fold(dev, &(qvl_fold_args){.linears = a->linear, .n = 1}, err);
    return rc == QVL_OK ? dev->ops->linear_backward(dev, a, err) : rc;
}

static void backward_case(qvl_kt *kt, const qvl_linear_shape *shape, bool wants_dx)
{
    char text[120];
    qvl_linear_case c;
    qvl_kt_begin(kt, "linear_backward %s%s", qvl_linear_shape_text(text, shape),
                 wants_dx ? "" : " dx=NULL");
    qvl_linear_case_fill(&c, kt, shape, true);
    const int64_t in = c.linear.in, out = c.linear.out;
    const qvl_dropout *ref_dropout = c.drops ? &c.ref_dropout : NULL;
    double *y = qvl_kt_doubles(kt, c.T * out), *u = qvl_kt_doubles(kt, c.T * c.u_width);
    double *dx = qvl_kt_doubles(kt, c.T * in);
    const double *dy = qvl_kt_random(kt, c.T * out, 1, QVL_KT_ACT);
    qvl_ref_linear_forward(y, u, c.x, &c.ref, c.T, ref_dropout);
    qvl_ref_linear_backward(dx, dy, c.x, &c.ref, c.T, ref_dropout);
    const qvl_linear_backward_args args = {
        .linear = &c.linear,
        .dx = wants_dx ? qvl_kt_out(kt, "dx", c.T * in, QVL_KT_ACT) : NULL,
        .dy = qvl_kt_in(kt, "dy", dy, c.T * out, QVL_KT_ACT),
        .x = c.x_device,
        .x_stride = qvl_linear_case_stride(&c),
        .u = c.u_width > 0 && !c.tail ? qvl_kt_in(kt, "u", u, c.T * c.u_width, QVL_KT_F32) : NULL,
        .T = c.T,
        .dropout = c.drops ? &c.dropout : NULL};
    qvl_kt_run(kt, call_linear_backward, &args);
    if (wants_dx)
        qvl_kt_check(kt, "dx", dx, in, QVL_KT_PRODUCT);
    qvl_linear_case_check_adapters(kt, &c);
    qvl_linear_case_check(kt, &c, NULL);
    qvl_kt_end(kt);
}

static void token_counts(void **state)
{
    static const int64_t COUNTS[] = {0, 1, 2, 7, 33, 63, 64, 65, 71, 129, 257};
    for (size_t i = 0; i < sizeof COUNTS / sizeof *COUNTS; i++)
        for (int drops = 0; drops < 2; drops++) {
            const qvl_linear_shape shape = {COUNTS[i], 67, {29, 13, 13}, 7, 8, 0.1 * drops, true};
            backward_case(*state, &shape, true);
        }
    qvl_kt_verdict(*state);
}

static void adapters_of_some_parts(void **state)
{
    for (unsigned adapted = 0; adapted < 8; adapted++)
        for (int drops = 0; drops < 2; drops++) {
            const qvl_linear_shape shape = {9, 40, {24, 17, 31}, adapted, 8, 0.1 * drops, drops};
            backward_case(*state, &shape, true);
            if (adapted)
                backward_case(*state, &shape, false);
        }
    qvl_kt_verdict(*state);
}

static void ranks_and_widths(void **state)
{
    static const int64_t RANKS[] = {1, 2, 3, 8, 16, 64};
    static const int64_t WIDTHS[][2] = {{1, 1}, {5, 3}, {64, 64}, {101, 37}, {37, 211}};
    for (size_t r = 0; r < sizeof RANKS / sizeof *RANKS; r++)
        for (size_t w = 0; w < sizeof WIDTHS / sizeof *WIDTHS; w++) {
            const qvl_linear_shape shape = {7,        WIDTHS[w][0],     {WIDTHS[w][1]}, 1,
                                            RANKS[r], w % 2 ? 0.25 : 0, w % 2 == 0};
            backward_case(*state, &shape, true);
        }
    qvl_kt_verdict(*state);
}

static void real_widths(void **state)
{
    static const qvl_linear_shape SHAPES[] = {
        {2, 3584, {3584, 512, 512}, 7, 8, 0.1, true},
        {3, 18944, {128}, 1, 8, 0.1, false},
        {3, 128, {18944, 18944}, 3, 8, 0.1, false},
        {400, 18944, {8}, 1, 8, 0.1, false}, /* more strips of rows than are on their way at once
                                              */
    };
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++)
        backward_case(*state, &SHAPES[i], true);
    qvl_kt_verdict(*state);
}

static void high_drop_probability(void **state)
{
    static const double PROBABILITIES[] = {1.0 / 65536, 0.05, 0.5, 0.9};
    for (size_t i = 0; i < sizeof PROBABILITIES / sizeof *PROBABILITIES; i++) {
        const qvl_linear_shape shape = {33, 71, {23, 41}, 3, 4, PROBABILITIES[i], true};
        backward_case(*state, &shape, true);
    }
    qvl_kt_verdict(*state);
}

/* Less workspace than the call needs is our bug and must be said, not overrun. */
static void refuses_small_workspace(void **state)
{
    qvl_kt *kt = *state;
    const qvl_linear_shape shape = {33, 71, {23, 41}, 3, 8, 0.1, true};
    qvl_linear_case c;
    qvl_kt_begin(kt, "linear_backward without workspace");
    qvl_linear_case_fill(&c, kt, &shape, true);
    const int64_t in = c.linear.in, out = c.linear.out;
    const double *dy = qvl_kt_random(kt, c.T * out, 1, QVL_KT_ACT);
    const double *u = qvl_kt_random(kt, c.T * c.u_width, 1, QVL_KT_F32);
    const qvl_linear_backward_args args = {.linear = &c.linear,
                                           .dx = qvl_kt_out(kt, "dx", c.T * in, QVL_KT_ACT),
                                           .dy = qvl_kt_in(kt, "dy", dy, c.T * out, QVL_KT_ACT),
                                           .x = c.x_device,
                                           .x_stride = qvl_linear_case_stride(&c),
                                           .u = qvl_kt_in(kt, "u", u, c.T * c.u_width, QVL_KT_F32),
                                           .T = c.T,
                                           .dropout = &c.dropout};
    qvl_kt_run_starved(kt, call_linear_backward, &args);
    qvl_kt_end(kt);
    qvl_kt_verdict(kt);
}

int main(void)
{
    qvl_kt kt = {0};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(token_counts, &kt),
        cmocka_unit_test_prestate(adapters_of_some_parts, &kt),
        cmocka_unit_test_prestate(ranks_and_widths, &kt),
        cmocka_unit_test_prestate(real_widths, &kt),
        cmocka_unit_test_prestate(high_drop_probability, &kt),
        cmocka_unit_test_prestate(refuses_small_workspace, &kt),
    };
    const int code = qvl_kt_open(&kt);
    if (code != 0)
        return code;
    return qvl_kt_close(&kt,
                        cmocka_run_group_tests_name("kernel.linear_backward", tests, NULL, NULL));
}
