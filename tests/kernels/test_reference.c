/* The references against values worked out by hand or printed elsewhere. No device is used. */
#include "tests/kernels/ref/ref_activation.h"
#include "tests/kernels/ref/ref_adamw.h"
#include "tests/kernels/ref/ref_attention.h"
#include "tests/kernels/ref/ref_head_loss.h"
#include "tests/kernels/ref/ref_linear.h"
#include "tests/kernels/ref/ref_norm.h"
#include "tests/kernels/ref/ref_patches.h"
#include "tests/kernels/ref/ref_rope.h"
#include "tests/kernels/ref/ref_rows.h"

#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <setjmp.h>
#include <cmocka.h>

#include "src/base/dropout_mask.h"

static void near(double got, double want, double allowed)
{
    if (!(fabs(got - want) <= allowed))
        fail_msg("got %.17g, want %.17g", got, want);
}

/* mean(3^2, 4^2) = 12.5 */
static void norm_of_3_and_4(void **state)
{
    (void)state;
    const double x[2] = {3, 4}, weight[2] = {1, 2};
    double y[2], inv_rms[1];
    qvl_ref_norm(y, inv_rms, x, weight, 1, 2, 0);
    near(inv_rms[0], 0.28284271247461903, 1e-15);
    near(y[0], 0.848528137423857, 1e-15);
    near(y[1], 2.262741699796952, 1e-15);
    qvl_ref_norm(y, inv_rms, x, weight, 1, 2, 87.5);
    near(inv_rms[0], 0.1, 1e-15);
}

/* The known answers of Random123 for philox4x32, 7 rounds. */
static void philox_known_answers(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } ROWS[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x5f6fb709, 0x0d893f64, 0x4f121f81, 0x4f730a48}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x5207ddc2, 0x45165e59, 0x4d8ee751, 0x8c52f662}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0x4dfccaba, 0x190a87f0, 0xc47362ba, 0xb6b5242a}}};
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
        uint32_t out[4];
        qvl_philox4x32_7(out, ROWS[i].counter, ROWS[i].key[0], ROWS[i].key[1]);
        assert_memory_equal(out, ROWS[i].want, sizeof out);
    }
}

/* Elements 0 and 1 take the low and the high half of the first word, 8 starts the next counter.
 * With counter and key 0 the halves are 0xb709, 0x5f6f, ... (see above). */
static void drop_factor_takes_its_bits(void **state)
{
    (void)state;
    const int32_t zero[1] = {0};
    qvl_dropout dropout = {.threshold = 0x5f6f, .sample = zero, .token = zero};
    assert_true(qvl_ref_drop_factor(NULL, 0, 0, 1) == 1);
    near(qvl_ref_drop_factor(&dropout, 0, 0, 1), 65536.0 / (65536 - 0x5f6f), 1e-15);
    near(qvl_ref_drop_factor(&dropout, 0, 0, 0), 65536.0 / (65536 - 0x5f6f), 1e-15);
    dropout.threshold = 0x5f70;
    assert_true(qvl_ref_drop_factor(&dropout, 0, 0, 1) == 0);
    assert_true(qvl_ref_drop_factor(&dropout, 0, 0, 0) != 0);
    dropout.threshold = 0xb70a;
    assert_true(qvl_ref_drop_factor(&dropout, 0, 0, 0) == 0);
}

/* W x = (5, 11); u = 1 + 2 = 3; scale * B u = 2 * (3, -3). */
static void linear_with_one_adapter(void **state)
{
    (void)state;
    const double weight[4] = {1, 2, 3, 4}, bias[2] = {10, 20}, x[2] = {1, 2};
    const double a[2] = {1, 1}, b[2] = {1, -1};
    double y[2], u[1];
    qvl_ref_linear linear = {
        .weight = weight, .bias = bias, .in = 2, .out = 2, .rank = 1, .scale = 2};
    linear.adapters[0] = (qvl_ref_adapter){.a = a, .b = b, .out = 2};
    linear.n_adapters = 1;
    qvl_ref_linear_forward(y, u, x, &linear, 1, NULL);
    near(u[0], 3, 0);
    near(y[0], 10 + 5 + 6, 0);
    near(y[1], 20 + 11 - 6, 0);
    linear.adapters[0].out = 1; /* on the second output only */
    linear.adapters[0].out_offset = 1;
    qvl_ref_linear_forward(y, u, x, &linear, 1, NULL);
    near(y[0], 10 + 5, 0);
    near(y[1], 20 + 11 + 6, 0);
}

/* theta = 1e6, 64 frequencies: position 1 frequency 0, 7 and 16, 100 and 1 (REFERENCE 2.4). */
static void rope_table_values(void **state)
{
    (void)state;
    static const struct {
        int position, i;
        double cosine, sine;
    } ROWS[] = {{1, 0, 0.54030234, 0.84147096},
                {7, 16, 0.97559988, 0.21955611},
                {100, 1, 0.45610031, -0.88992840}};
    float inv_freq[64];
    int32_t axis[64] = {0};
    double cosine[64], sine[64];
    for (int i = 0; i < 64; i++) /* the power is rounded before the division */
        inv_freq[i] = 1.0f / (float)pow(1e6, 2.0 * i / 128);
    for (size_t r = 0; r < sizeof ROWS / sizeof *ROWS; r++) {
        const int32_t position[1] = {ROWS[r].position};
        qvl_ref_rope_table(cosine, sine, position, inv_freq, axis, 1, 64);
        near(cosine[ROWS[r].i], ROWS[r].cosine, 1e-7);
        near(sine[ROWS[r].i], ROWS[r].sine, 1e-7);
    }
}

/* A quarter turn takes (first, second) to (-second, first); inverse takes it back. */
static void rotate_by_a_quarter(void **state)
{
    (void)state;
    const double cosine[2] = {0, 1}, sine[2] = {1, 0};
    double x[6] = {1, 2, 3, 4, 5, 6};
    const double want[6] = {-3, 2, 1, 4, 5, 6}, before[6] = {1, 2, 3, 4, 5, 6};
    qvl_ref_rotate(x, cosine, sine, 1, 6, 1, 4, false);
    assert_memory_equal(x, want, sizeof x);
    qvl_ref_rotate(x, cosine, sine, 1, 6, 1, 4, true);
    assert_memory_equal(x, before, sizeof x);
}

/* Scores 0 and ln 3 give weights 1/4 and 3/4. */
static void attention_of_two_tokens(void **state)
{
    (void)state;
    const double third = log(3), qkv[6] = {1, 0, 4, 1, third, 8}; /* rows of q k v */
    const int32_t cu_seqlens[2] = {0, 2}, alone[3] = {0, 1, 2};
    double out[2], lse[2];
    qvl_ref_attention at = {qkv, cu_seqlens, 2, 1, 1, 1, 1, 1, true, NULL};
    qvl_ref_attention_forward(out, lse, &at);
    near(out[0], 4, 1e-14);
    near(out[1], 7, 1e-14);
    near(lse[0], 0, 1e-14);
    near(lse[1], log(4), 1e-14);
    at.is_causal = false;
    qvl_ref_attention_forward(out, lse, &at);
    near(out[0], 7, 1e-14);
    at.cu_seqlens = alone;
    at.B = 2;
    qvl_ref_attention_forward(out, lse, &at);
    near(out[0], 4, 1e-14);
    near(out[1], 8, 1e-14);
    near(lse[1], third, 1e-14);
}

/* 4 query heads on 2 key/value heads: 0 1 | 2 3. One token, so out is v. */
static void attention_heads_share(void **state)
{
    (void)state;
    const double qkv[8] = {1, 1, 1, 1, 5, 6, 70, 80};
    const int32_t cu_seqlens[2] = {0, 1};
    double out[4], lse[4];
    const qvl_ref_attention at = {qkv, cu_seqlens, 1, 1, 4, 2, 1, 0.5, false, NULL};
    qvl_ref_attention_forward(out, lse, &at);
    near(out[0], 70, 0);
    near(out[1], 70, 0);
    near(out[2], 80, 0);
    near(out[3], 80, 0);
    near(lse[1], 2.5, 1e-15);
    near(lse[2], 3, 1e-15);
}

static void activations(void **state)
{
    (void)state;
    const double gate_up[4] = {1, 0, 2, 5}; /* gates 1 and 0, ups 2 and 5 */
    double h[2], x[3] = {1, -1, 0};
    qvl_ref_swiglu(h, gate_up, 1, 2);
    near(h[0], 2 * 0.731058578630005, 1e-14);
    near(h[1], 0, 0);
    qvl_ref_gelu(x, 3);
    near(x[0], 0.841344746068543, 1e-14);
    near(x[1], -0.158655253931457, 1e-14);
    near(x[2], 0, 0);
}

/* A 4 x 4 grid whose patches are numbered by their first pixel: the order of REFERENCE 4.2. */
static void patches_in_blocks(void **state)
{
    (void)state;
    static const int WANT[16] = {0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15};
    static uint8_t rgb[4 * 14][4 * 14][3];
    static double out[16][3][2][14][14];
    const float mean[3] = {0, 0, 0}, stddev[3] = {1.0f / 255, 1.0f / 255, 1.0f / 255};
    const int32_t in_order[4] = {0, 1, 2, 3}, reversed[4] = {3, 2, 1, 0};
    for (int i = 0; i < 16; i++)
        rgb[i / 4 * 14][i % 4 * 14][0] = (uint8_t)i;
    rgb[14 + 3][28 + 5][2] = 200; /* patch (1,2), the 6th in order: line 3, column 5, blue */
    qvl_ref_patches(&out[0][0][0][0][0], &rgb[0][0][0], in_order, 4, 4, mean, stddev);
    for (int i = 0; i < 16; i++)
        near(out[i][0][1][0][0], WANT[i], 1e-4);
    near(out[6][2][0][3][5], 200, 1e-4);
    near(out[6][2][1][3][5], 200, 1e-4);
    near(out[6][1][0][3][5], 0, 1e-4);
    qvl_ref_patches(&out[0][0][0][0][0], &rgb[0][0][0], reversed, 4, 4, mean, stddev);
    for (int i = 0; i < 16; i++)
        near(out[i][0][0][0][0], WANT[(3 - i / 4) * 4 + i % 4], 1e-4);
}

/* Logits 0 and ln 3. */
static void head_loss_of_two_words(void **state)
{
    (void)state;
    const double x[2] = {99, 1}, head[2] = {0, log(3)}, weights[1] = {0.5};
    const int32_t rows[1] = {1}, targets[1] = {0};
    double row_loss[1], dx[2];
    const qvl_ref_head_loss args = {x, head, rows, targets, weights, 1, 2, 1, 2, NULL};
    qvl_ref_head_loss_run(row_loss, dx, &args);
    near(row_loss[0], log(4), 1e-14);
    near(dx[0], 0, 0);
    near(dx[1], 0.5 * 0.75 * log(3), 1e-14);
}

static void rows_move(void **state)
{
    (void)state;
    const double src[4] = {1, 2, 3, 4};
    double dst[4] = {0, 0, 0, 0};
    const int32_t one[1] = {1}, zero[1] = {0};
    qvl_ref_move_rows(dst, src, one, zero, 1, 2);
    near(dst[0] + dst[1], 0, 0);
    near(dst[2], 1, 0);
    near(dst[3], 2, 0);
    qvl_ref_embed(dst, src, one, 1, 2);
    near(dst[0], 3, 0);
    near(dst[1], 4, 0);
}

/* Two steps on one parameter, by a few lines of Python. */
static void adamw_two_steps(void **state)
{
    (void)state;
    double p = 1, g = 1, m = 0, v = 0;
    qvl_ref_adamw args = {&p, &g, &m, &v, 1, 1, 0.1, 0.9, 0.999, 1e-8, 0, 0, 1};
    qvl_ref_adamw_step(&args);
    near(p, 0.9000000009999999, 1e-15);
    near(g, 0, 0);
    g = -0.5;
    args.step = 2;
    qvl_ref_adamw_step(&args);
    near(p, 0.873366297370903, 1e-14);
    near(m, 0.04, 1e-15);
    near(v, 0.001249, 1e-15);
}

/* Norm 5 clipped to 1: coef = 1 / 5.000001. Decay comes first and takes lr * wd of the parameter.
 */
static void adamw_clips_and_decays(void **state)
{
    (void)state;
    double p = 2, g = 3, m = 0, v = 0;
    near(qvl_ref_sum_squares((const double[2]){3, 4}, 2), 25, 0);
    qvl_ref_adamw args = {&p, &g, &m, &v, 25, 1, 0.1, 0.9, 0.999, 1e-8, 0.5, 1, 1};
    qvl_ref_adamw_step(&args);
    near(m, 0.1 * 3 / 5.000001, 1e-15);
    near(p, 2 * (1 - 0.05) - 0.1, 1e-8);
    g = 3;
    m = v = 0;
    args.max_grad_norm = 6; /* already below */
    qvl_ref_adamw_step(&args);
    near(m, 0.3, 1e-15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norm_of_3_and_4),
        cmocka_unit_test(philox_known_answers),
        cmocka_unit_test(drop_factor_takes_its_bits),
        cmocka_unit_test(linear_with_one_adapter),
        cmocka_unit_test(rope_table_values),
        cmocka_unit_test(rotate_by_a_quarter),
        cmocka_unit_test(attention_of_two_tokens),
        cmocka_unit_test(attention_heads_share),
        cmocka_unit_test(activations),
        cmocka_unit_test(patches_in_blocks),
        cmocka_unit_test(head_loss_of_two_words),
        cmocka_unit_test(rows_move),
        cmocka_unit_test(adamw_two_steps),
        cmocka_unit_test(adamw_clips_and_decays),
    };
    return cmocka_run_group_tests_name("kernel.reference", tests, NULL, NULL);
}
