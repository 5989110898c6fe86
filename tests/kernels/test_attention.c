/* Attention over packed sequences, forward. */
#include "tests/kernels/attention_case.h"

#include <setjmp.h>
#include <cmocka.h>

static qvl_status call_attention(qvl_device *dev, const void *args, qvl_err *err)
{
    return dev->ops->attention(dev, args, err);
}

static void forward_case(qvl_kt *kt, const qvl_attention_shape *shape, bool saves_lse)
{
    char text[120];
    qvl_attention_case c;
    qvl_kt_begin(kt, "attention %s%s", qvl_attention_shape_text(text, shape),
                 saves_lse ? "" : " lse=NULL");
    qvl_attention_case_fill(&c, kt, shape, false);
    const int64_t T = c.args.T, H = c.args.H, Dh = c.args.Dh, n = T * H * Dh;
    double *out = qvl_kt_doubles(kt, n), *lse = qvl_kt_doubles(kt, H * T);
    double *naive = qvl_kt_doubles(kt, n), *naive_lse = qvl_kt_doubles(kt, H * T);
    qvl_ref_attention_forward(out, lse, &c.ref);
    if (kt->dev->dtype == QVL_BF16) {
        c.ref.round = qvl_ref_round_bf16;
        qvl_ref_attention_forward(naive, naive_lse, &c.ref);
    }
    c.args.out = qvl_kt_out(kt, "out", n, QVL_KT_ACT);
    if (saves_lse)
        c.args.lse = qvl_kt_out(kt, "lse", H * T, QVL_KT_F32);
    qvl_kt_run(kt, call_attention, &c.args);
    qvl_kt_check_twice(kt, "out", out, naive, Dh, 0, Dh, c.v_size);
    if (saves_lse)
        qvl_kt_check_twice(kt, "lse", lse, naive_lse, 1, 0, 1, c.score_size);
    qvl_kt_end(kt);
}

static void single_sequences(void **state)
{
    static const int64_t COUNTS[] = {1, 2, 7, 33, 63, 64, 65, 71, 129, 257};
    for (size_t i = 0; i < sizeof COUNTS / sizeof *COUNTS; i++)
        for (int causal = 0; causal < 2; causal++)
            forward_case(*state, &(qvl_attention_shape){{COUNTS[i]}, 1, 4, 2, 32, causal, 1, 0},
                         true);
    qvl_kt_verdict(*state);
}

static void heads_and_sizes(void **state)
{
    static const int64_t HEADS[][2] = {{1, 1}, {3, 3}, {4, 2}, {6, 1}, {7, 1}, {14, 2}};
    static const int64_t SIZES[] = {16, 32, 64, 80, 128};
    for (size_t h = 0; h < sizeof HEADS / sizeof *HEADS; h++)
        for (size_t d = 0; d < sizeof SIZES / sizeof *SIZES; d++) {
            const qvl_attention_shape shape = {
                {37, 1, 20}, 3, HEADS[h][0], HEADS[h][1], SIZES[d], (h + d) % 2 == 0, 1, 0};
            forward_case(*state, &shape, d % 2 == 0);
        }
    qvl_kt_verdict(*state);
}

static void packs(void **state)
{
    static const qvl_attention_shape SHAPES[] = {
        {{0}, 0, 2, 1, 32, true, 1, 0},             /* nothing */
        {{1, 1, 1, 1, 1}, 5, 2, 1, 32, true, 1, 0}, /* out = v */
        {{1, 1, 1, 1, 1}, 5, 2, 1, 32, false, 1, 0},
        {{1, 64, 7, 65, 2, 129, 1, 33}, 8, 7, 1, 64, true, 1, 0},
        {{1, 64, 7, 65, 2, 129, 1, 33}, 8, 7, 1, 64, false, 1, 0},
        {{5, 0, 9, 0}, 4, 2, 2, 16, true, 1, 0}, /* empty sequences */
        {{5, 0, 9, 0}, 4, 2, 2, 16, false, 1, 0},
        {{64, 16, 64, 8, 64}, 5, 3, 3, 80, false, 1, 0}, /* the tower's windows */
        {{321, 40}, 2, 7, 1, 128, true, 1, 0}, /* heads of 128 have products of their own */
        {{1, 64, 7, 65, 2, 129, 1, 33}, 8, 14, 2, 128, true, 1, 0},
        {{1, 64, 7, 65, 2, 129, 1, 33}, 8, 7, 1, 128, false, 1, 0},
        {{385}, 1, 2, 2, 80, false, 1, 0},
    };
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++)
        forward_case(*state, &SHAPES[i], true);
    qvl_kt_verdict(*state);
}

static void magnitudes_and_scales(void **state)
{
    static const qvl_attention_shape SHAPES[] = {
        {{71, 33}, 2, 4, 2, 64, true, 0, 1}, /* scores to several thousand, exact */
        {{71, 33}, 2, 4, 2, 64, false, 0, 0.125}, {{129}, 1, 7, 1, 128, true, 0, 8},
        {{71, 33}, 2, 4, 2, 64, true, 2, 0},     /* a few keys each */
        {{71, 33}, 2, 4, 2, 64, false, 1e-3, 0}, /* nearly uniform */
        {{65}, 1, 2, 1, 80, true, 1, 0.5},        {{65}, 1, 2, 1, 80, false, 1, 1e-6},
        {{71, 200}, 2, 4, 2, 128, true, 2, 0},    {{71, 200}, 2, 4, 2, 128, false, 1e-3, 0},
    };
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++)
        forward_case(*state, &SHAPES[i], true);
    qvl_kt_verdict(*state);
}

int main(void)
{
    qvl_kt kt = {0};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(single_sequences, &kt),
        cmocka_unit_test_prestate(heads_and_sizes, &kt),
        cmocka_unit_test_prestate(packs, &kt),
        cmocka_unit_test_prestate(magnitudes_and_scales, &kt),
    };
    const int code = qvl_kt_open(&kt);
    if (code != 0)
        return code;
    return qvl_kt_close(&kt, cmocka_run_group_tests_name("kernel.attention", tests, NULL, NULL));
}
