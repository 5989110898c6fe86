/* Attention over packed sequences, backward. out and lse are the reference's, rounded as the device
 * stores them, so that a fault of the forward pass does not show here. */
#include "tests/kernels/attention_case.h"
#include "tests/kernels/ref/ref_rope.h"

#include <math.h>

#include <setjmp.h>
#include <cmocka.h>

static qvl_status call_attention_backward(qvl_device *dev, const void *args, qvl_err *err)
{
    return dev->ops->attention_backward(dev, args, err);
}

static qvl_attention_backward_args begin(qvl_attention_case *c, qvl_kt *kt,
                                         const qvl_attention_shape *shape, const double **dout)
{
    char text[120];
    qvl_kt_begin(kt, "attention_backward %s", qvl_attention_shape_text(text, shape));
    qvl_attention_case_fill(c, kt, shape, true);
    const int64_t T = c->args.T, H = c->args.H, n = T * H * c->args.Dh;
    double *out = qvl_kt_doubles(kt, n), *lse = qvl_kt_doubles(kt, H * T);
    *dout = qvl_kt_random(kt, n, 1, QVL_KT_ACT);
    qvl_ref_attention_forward(out, lse, &c->ref);
    qvl_attention_backward_args args = {.dqkv = qvl_kt_out(kt, "dqkv", T * c->width, QVL_KT_ACT),
                                        .dout = qvl_kt_in(kt, "dout", *dout, n, QVL_KT_ACT),
                                        .forward = c->args};
    args.forward.out = qvl_kt_in(kt, "out", out, n, QVL_KT_ACT);
    args.forward.lse = qvl_kt_in(kt, "lse", lse, H * T, QVL_KT_F32);
    return args;
}

/* Angles of any size, and their gradients turned back in the references. */
static void turn(qvl_attention_backward_args *args, qvl_kt *kt, int64_t width, double *a, double *b)
{
    const qvl_attention_args *f = &args->forward;
    const int64_t half = f->Dh / 2, n = f->T * half;
    double *cosine = qvl_kt_random(kt, n, 3, QVL_KT_F32), *sine = qvl_kt_doubles(kt, n);
    for (int64_t i = 0; i < n; i++) {
        sine[i] = (double)(float)sin(cosine[i]);
        cosine[i] = (double)(float)cos(cosine[i]);
    }
    args->cosine = qvl_kt_in(kt, "cosine", cosine, n, QVL_KT_F32);
    args->sine = qvl_kt_in(kt, "sine", sine, n, QVL_KT_F32);
    qvl_ref_rotate(a, cosine, sine, f->T, width, f->H + f->KV, f->Dh, true);
    qvl_ref_rotate(b, cosine, sine, f->T, width, f->H + f->KV, f->Dh, true);
}

static void one_case(qvl_kt *kt, const qvl_attention_shape *shape, bool turns)
{
    qvl_attention_case c;
    const double *dout;
    qvl_attention_backward_args args = begin(&c, kt, shape, &dout);
    const int64_t n = c.args.T * c.width;
    double *dqkv = qvl_kt_doubles(kt, n), *naive = qvl_kt_doubles(kt, n);
    qvl_ref_attention_backward(dqkv, dout, &c.ref);
    if (kt->dev->dtype == QVL_BF16) {
        c.ref.round = qvl_ref_round_bf16;
        qvl_ref_attention_backward(naive, dout, &c.ref);
    }
    if (turns)
        turn(&args, kt, c.width, dqkv, naive);
    /* scale * k * (dout . v - delta), and the sum over one group of heads of it */
    const double of_dq = c.score_size / c.qk_size * c.v_size;
    const double of_dk = of_dq * sqrt((double)(c.args.H / c.args.KV));
    const int64_t q_width = c.args.H * c.args.Dh, kv_width = c.args.KV * c.args.Dh;
    qvl_kt_run(kt, call_attention_backward, &args);
    qvl_kt_check_twice(kt, "dqkv", dqkv, naive, c.width, 0, q_width, of_dq);
    qvl_kt_check_twice(kt, "dqkv", dqkv, naive, c.width, q_width, kv_width, of_dk);
    qvl_kt_check_twice(kt, "dqkv", dqkv, naive, c.width, q_width + kv_width, kv_width, 0);
    qvl_kt_end(kt);
}

static void backward_case(qvl_kt *kt, const qvl_attention_shape *shape)
{
    one_case(kt, shape, false);
    one_case(kt, shape, true);
}

static void single_sequences(void **state)
{
    static const int64_t COUNTS[] = {1, 2, 7, 33, 63, 64, 65, 71, 129, 257};
    for (size_t i = 0; i < sizeof COUNTS / sizeof *COUNTS; i++)
        for (int causal = 0; causal < 2; causal++)
            backward_case(*state, &(qvl_attention_shape){{COUNTS[i]}, 1, 4, 2, 32, causal, 1, 0});
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
            backward_case(*state, &shape);
        }
    qvl_kt_verdict(*state);
}

static void packs(void **state)
{
    static const qvl_attention_shape SHAPES[] = {
        {{0}, 0, 2, 1, 32, true, 1, 0},
        {{1, 1, 1, 1, 1}, 5, 2, 1, 32, true, 1, 0}, /* dq = dk = 0, dv = dout */
        {{1, 64, 7, 65, 2, 129, 1, 33}, 8, 7, 1, 64, true, 1, 0},
        {{1, 64, 7, 65, 2, 129, 1, 33}, 8, 7, 1, 64, false, 1, 0},
        {{5, 0, 9, 0}, 4, 2, 2, 16, true, 1, 0},
        {{64, 16, 64, 8, 64}, 5, 3, 3, 80, false, 1, 0},
        {{321, 40}, 2, 7, 1, 128, true, 1, 0}, /* heads of 128 have products of their own */
        {{1, 64, 7, 65, 2, 129, 1, 33}, 8, 14, 2, 128, true, 1, 0},
        {{1, 64, 7, 65, 2, 129, 1, 33}, 8, 7, 1, 128, false, 1, 0},
    };
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++)
        backward_case(*state, &SHAPES[i]);
    qvl_kt_verdict(*state);
}

static void magnitudes_and_scales(void **state)
{
    static const qvl_attention_shape SHAPES[] = {
        {{71, 33}, 2, 4, 2, 64, true, 0, 0.125}, {{71, 33}, 2, 4, 2, 64, false, 0, 0.03125},
        {{71, 33}, 2, 4, 2, 64, true, 1.5, 0},   {{71, 33}, 2, 4, 2, 64, false, 1e-3, 0},
        {{65}, 1, 2, 1, 80, true, 1, 0.5},       {{71, 200}, 2, 4, 2, 128, true, 1.5, 0},
    };
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++)
        backward_case(*state, &SHAPES[i]);
    qvl_kt_verdict(*state);
}

static void refuses_small_workspace(void **state)
{
    qvl_attention_case c;
    const double *dout;
    const qvl_attention_shape shape = {{33}, 1, 4, 2, 32, true, 1, 0};
    const qvl_attention_backward_args args = begin(&c, *state, &shape, &dout);
    qvl_kt_run_starved(*state, call_attention_backward, &args);
    qvl_kt_end(*state);
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
        cmocka_unit_test_prestate(refuses_small_workspace, &kt),
    };
    const int code = qvl_kt_open(&kt);
    if (code != 0)
        return code;
    return qvl_kt_close(
        &kt, cmocka_run_group_tests_name("kernel.attention_backward", tests, NULL, NULL));
}
