/* The fused linear with adapters, forward. */
#include "tests/kernels/linear_case.h"

#include <setjmp.h>
#include <cmocka.h>

/* fold first, as after every change of the parameters. */
static qvl_status call_linear(qvl_device *dev, const void *args, qvl_err *err)
{
    const qvl_linear_args *a = args;
    const qvl_status rc = dev->ops->fold(dev, &(qvl_fold_args){.linears = a->linear, .n = 1}, err);
    return rc == QVL_OK ? dev->ops->linear(dev, a, err) : rc;
}

typedef enum outputs { Y_AND_U, ONLY_Y, ONLY_U } outputs;

static void forward_case(qvl_kt *kt, const qvl_linear_shape *shape, outputs which)
{
    static const char *const NAMES[] = {"", " u=NULL", " y=NULL"};
    char text[120];
    qvl_linear_case c;
    qvl_kt_begin(kt, "linear %s%s", qvl_linear_shape_text(text, shape), NAMES[which]);
    qvl_linear_case_fill(&c, kt, shape, false);
    const int64_t out = c.linear.out;
    double *y = qvl_kt_doubles(kt, c.T * out), *u = qvl_kt_doubles(kt, c.T * c.u_width);
    qvl_ref_linear_forward(y, u, c.x, &c.ref, c.T, c.drops ? &c.ref_dropout : NULL);
    const qvl_linear_args args = {.linear = &c.linear,
                                  .y = which != ONLY_U ? qvl_kt_out(kt, "y", c.T * out, QVL_KT_ACT)
                                                       : NULL,
                                  .u = which != ONLY_Y && c.u_width > 0 && !c.tail
                                           ? qvl_kt_out(kt, "u", c.T * c.u_width, QVL_KT_F32)
                                           : NULL,
                                  .x = c.x_device,
                                  .x_stride = qvl_linear_case_stride(&c),
                                  .T = c.T,
                                  .dropout = c.drops ? &c.dropout : NULL};
    qvl_kt_run(kt, call_linear, &args);
    if (args.y)
        qvl_kt_check(kt, "y", y, out, QVL_KT_PRODUCT);
    for (int i = 0; args.u && i < c.linear.n_adapters; i++)
        qvl_kt_check_columns(kt, "u", u, c.u_width, i * c.linear.rank, c.linear.rank,
                             QVL_KT_PRODUCT);
    qvl_linear_case_check(kt, &c, u);
    qvl_kt_end(kt);
}

static void token_counts(void **state)
{
    static const int64_t COUNTS[] = {0, 1, 2, 7, 33, 63, 64, 65, 71, 129, 257};
    for (size_t i = 0; i < sizeof COUNTS / sizeof *COUNTS; i++)
        for (int drops = 0; drops < 2; drops++) {
            const qvl_linear_shape shape = {COUNTS[i], 67, {29, 13, 13}, 7, 8, 0.1 * drops, true};
            forward_case(*state, &shape, Y_AND_U);
        }
    qvl_kt_verdict(*state);
}

static void adapters_of_some_parts(void **state)
{
    for (unsigned adapted = 0; adapted < 8; adapted++)
        for (int drops = 0; drops < 2; drops++) {
            const qvl_linear_shape shape = {9, 40, {24, 17, 31}, adapted, 8, 0.1 * drops, drops};
            forward_case(*state, &shape, Y_AND_U);
            forward_case(*state, &shape, ONLY_Y);
            if (adapted)
                forward_case(*state, &shape, ONLY_U);
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
            forward_case(*state, &shape, Y_AND_U);
        }
    qvl_kt_verdict(*state);
}

static void no_adapters(void **state)
{
    static const qvl_linear_shape SHAPES[] = {
        {.T = 1, .in = 1, .parts = {1}},
        {.T = 65, .in = 129, .parts = {31}, .has_bias = true},
        {.T = 3, .in = 1176, .parts = {1280}},                   /* patch embedding */
        {.T = 5, .in = 1280, .parts = {3420}, .has_bias = true}, /* tower's gate */
        {.T = 5, .in = 3420, .parts = {1280}, .has_bias = true}, /* tower's down */
    };
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++)
        forward_case(*state, &SHAPES[i], Y_AND_U);
    qvl_kt_verdict(*state);
}

static void real_widths(void **state)
{
    static const qvl_linear_shape SHAPES[] = {
        {2, 3584, {3584, 512, 512}, 7, 8, 0.1, true}, /* q, k, v of the 7B model */
        {3, 18944, {128}, 1, 8, 0.1, false},          /* as long a sum as its down projection */
        {3, 128, {18944, 18944}, 3, 8, 0.1, false},   /* as wide as its gate and up */
    };
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++)
        forward_case(*state, &SHAPES[i], Y_AND_U);
    qvl_kt_verdict(*state);
}

static void high_drop_probability(void **state)
{
    static const double PROBABILITIES[] = {1.0 / 65536, 0.05, 0.5, 0.9};
    for (size_t i = 0; i < sizeof PROBABILITIES / sizeof *PROBABILITIES; i++) {
        const qvl_linear_shape shape = {33, 71, {23, 41}, 3, 4, PROBABILITIES[i], true};
        forward_case(*state, &shape, Y_AND_U);
    }
    qvl_kt_verdict(*state);
}

/* u is kept beside the tail, or comes from there: then what the adapters would drop now makes no
 * difference. */
static void kept_case(qvl_kt *kt, const qvl_linear_shape *shape, bool is_kept)
{
    char text[120];
    qvl_linear_case c;
    qvl_kt_begin(kt, "linear %s, u %s", qvl_linear_shape_text(text, shape),
                 is_kept ? "from where it was kept" : "is kept");
    qvl_linear_case_fill(&c, kt, shape, false);
    const int64_t out = c.linear.out, used = qvl_linear_case_used(&c), n = c.T * used;
    double *y = qvl_kt_doubles(kt, c.T * out), *u = qvl_kt_doubles(kt, c.T * c.u_width);
    qvl_ref_linear_forward(y, u, c.x, &c.ref, c.T, c.drops ? &c.ref_dropout : NULL);
    const double *kept = c.tail ? qvl_linear_case_kept(&c, kt, u) : NULL;
    c.dropout.step += is_kept && c.tail;
    const qvl_linear_args args = {.linear = &c.linear,
                                  .y = qvl_kt_out(kt, "y", c.T * out, QVL_KT_ACT),
                                  .kept_u = !c.tail   ? NULL
                                            : is_kept ? qvl_kt_in(kt, "kept", kept, n, QVL_KT_ACT)
                                                      : qvl_kt_out(kt, "kept", n, QVL_KT_ACT),
                                  .is_u_kept = is_kept,
                                  .x = c.x_device,
                                  .x_stride = qvl_linear_case_stride(&c),
                                  .T = c.T,
                                  .dropout = c.drops ? &c.dropout : NULL};
    qvl_kt_run(kt, call_linear, &args);
    qvl_kt_check(kt, "y", y, out, QVL_KT_PRODUCT);
    if (c.tail && !is_kept)
        qvl_kt_check(kt, "kept", kept, used, QVL_KT_PRODUCT);
    qvl_linear_case_check(kt, &c, u);
    qvl_kt_end(kt);
}

static void kept_apart(void **state)
{
    static const qvl_linear_shape SHAPES[] = {
        {33, 71, {23, 41}, 3, 8, 0.1, true},
        {1, 64, {64}, 1, 3, 0.5, false},
        {129, 67, {29, 13, 13}, 5, 64, 0.1, true},
        {600, 3584, {32, 16}, 3, 8, 0.1, true}, /* shares of columns, added up */
    };
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++)
        for (int is_kept = 0; is_kept < 2; is_kept++)
            kept_case(*state, &SHAPES[i], is_kept);
    qvl_kt_verdict(*state);
}

/* A workspace for more than this call needs, as in training, where one serves all layers. */
static void larger_workspace(void **state)
{
    qvl_kt *kt = *state;
    const qvl_linear_shape shape = {33, 71, {23, 41}, 3, 8, 0.1, true};
    qvl_linear_case c;
    qvl_kt_begin(kt, "linear with a workspace for larger calls");
    qvl_linear_case_fill(&c, kt, &shape, false);
    qvl_kt_workspace(kt, &(qvl_workspace_limits){.tokens = 300,
                                                 .in_max = 512,
                                                 .out_max = 768,
                                                 .rank = 8,
                                                 .heads = 7,
                                                 .vocab = 1000,
                                                 .hidden = 512,
                                                 .backward = true,
                                                 .dropout = true});
    double *y = qvl_kt_doubles(kt, c.T * c.linear.out), *u = qvl_kt_doubles(kt, c.T * c.u_width);
    qvl_ref_linear_forward(y, u, c.x, &c.ref, c.T, &c.ref_dropout);
    const qvl_linear_args args = {.linear = &c.linear,
                                  .y = qvl_kt_out(kt, "y", c.T * c.linear.out, QVL_KT_ACT),
                                  .u = c.tail ? NULL
                                              : qvl_kt_out(kt, "u", c.T * c.u_width, QVL_KT_F32),
                                  .x = c.x_device,
                                  .x_stride = qvl_linear_case_stride(&c),
                                  .T = c.T,
                                  .dropout = &c.dropout};
    qvl_kt_run(kt, call_linear, &args);
    qvl_kt_check(kt, "y", y, c.linear.out, QVL_KT_PRODUCT);
    if (args.u)
        qvl_kt_check(kt, "u", u, c.u_width, QVL_KT_PRODUCT);
    qvl_linear_case_check(kt, &c, u);
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
        cmocka_unit_test_prestate(no_adapters, &kt),
        cmocka_unit_test_prestate(real_widths, &kt),
        cmocka_unit_test_prestate(high_drop_probability, &kt),
        cmocka_unit_test_prestate(kept_apart, &kt),
        cmocka_unit_test_prestate(larger_workspace, &kt),
    };
    const int code = qvl_kt_open(&kt);
    if (code != 0)
        return code;
    return qvl_kt_close(&kt, cmocka_run_group_tests_name("kernel.linear", tests, NULL, NULL));
}
