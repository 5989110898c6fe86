/* The references' backward passes against central differences of their forward passes, in double,
 * on tiny problems. A loss is sum(c * output) with random c, so that every output counts. */
#include "tests/kernels/ref/ref_activation.h"
#include "tests/kernels/ref/ref_attention.h"
#include "tests/kernels/ref/ref_head_loss.h"
#include "tests/kernels/ref/ref_linear.h"
#include "tests/kernels/ref/ref_norm.h"
#include "tests/kernels/ref/ref_rope.h"

#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <setjmp.h>
#include <cmocka.h>

#include "src/base/dropout_mask.h"
#include "src/base/rng.h"

/* The loss as a function of what the gradient is taken by, which the problem points to. */
typedef double (*loss_function)(const void *problem);

static void fill(double *values, int64_t n, uint64_t seed)
{
    for (int64_t i = 0; i < n; i++)
        values[i] = (double)(qvl_splitmix64(&seed) >> 11) / 4503599627370496.0 - 1; /* -1 .. 1 */
}

static double weighted(const double *values, int64_t n)
{
    uint64_t seed = 77;
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += values[i] * ((double)(qvl_splitmix64(&seed) >> 11) / 4503599627370496.0 - 1);
    return sum;
}

/* d weighted / d values: what stands for dy. */
static void weights_of(double *dy, int64_t n)
{
    fill(dy, n, 77);
}

/* The error of a central difference is about h^2 f''' and 1e-16/h: 1e-10 for h = 1e-5. */
static void expect_gradient(const char *name, loss_function loss, const void *problem,
                            double *params, int64_t n, const double *gradient)
{
    const double h = 1e-5;
    double largest = 0;
    for (int64_t i = 0; i < n; i++) {
        const double kept = params[i];
        params[i] = kept + h;
        const double above = loss(problem);
        params[i] = kept - h;
        const double below = loss(problem);
        params[i] = kept;
        const double want = (above - below) / (2 * h);
        largest = fmax(largest, fabs(want));
        if (!(fabs(gradient[i] - want) <= 1e-8))
            fail_msg("%s[%lld]: gradient %.12g, difference quotient %.12g", name, (long long)i,
                     gradient[i], want);
    }
    if (!(largest > 1e-3)) /* else the comparison would say nothing */
        fail_msg("%s: all differences are below 1e-3", name);
}

/* ---- norm ---- */

enum { NORM_T = 3, NORM_D = 5 };

typedef struct norm_problem {
    double x[NORM_T * NORM_D], weight[NORM_D], eps;
} norm_problem;

static double norm_loss(const void *problem)
{
    const norm_problem *p = problem;
    double y[NORM_T * NORM_D], inv_rms[NORM_T];
    qvl_ref_norm(y, inv_rms, p->x, p->weight, NORM_T, NORM_D, p->eps);
    return weighted(y, NORM_T * NORM_D);
}

static void norm_gradient(void **state)
{
    (void)state;
    static const double EPS[] = {0, 1e-6, 1};
    for (size_t e = 0; e < 3; e++) {
        norm_problem p = {.eps = EPS[e]};
        double dy[NORM_T * NORM_D], dx[NORM_T * NORM_D];
        fill(p.x, NORM_T * NORM_D, 1);
        fill(p.weight, NORM_D, 2);
        fill(dx, NORM_T * NORM_D, 3);
        weights_of(dy, NORM_T * NORM_D);
        qvl_ref_norm_backward(dx, dy, p.x, p.weight, NORM_T, NORM_D, p.eps);
        double before[NORM_T * NORM_D];
        fill(before, NORM_T * NORM_D, 3);
        for (int i = 0; i < NORM_T * NORM_D; i++)
            dx[i] -= before[i]; /* it is added to */
        expect_gradient("dx", norm_loss, &p, p.x, NORM_T * NORM_D, dx);
    }
}

/* ---- linear ---- */

enum { LIN_T = 5, LIN_IN = 9, LIN_OUT = 7, LIN_R = 4, LIN_B0 = 3, LIN_B1 = 2 };

typedef struct linear_problem {
    qvl_ref_linear linear;
    double x[LIN_T * LIN_IN], weight[LIN_OUT * LIN_IN], bias[LIN_OUT];
    double a[2][LIN_R * LIN_IN], b[2][LIN_B0 * LIN_R];
    double da[2][LIN_R * LIN_IN], db[2][LIN_B0 * LIN_R];
    qvl_dropout dropout;
    const qvl_dropout *used_dropout;
    int32_t sample[LIN_T], token[LIN_T];
} linear_problem;

static double linear_loss(const void *problem)
{
    const linear_problem *p = problem;
    double y[LIN_T * LIN_OUT], u[LIN_T * 2 * LIN_R];
    qvl_ref_linear_forward(y, u, p->x, &p->linear, LIN_T, p->used_dropout);
    return weighted(y, LIN_T * LIN_OUT);
}

/* Adapters on outputs 0..2 and 5..6; outputs 3 and 4 have none. */
static void make_linear(linear_problem *p, bool drops)
{
    memset(p, 0, sizeof *p);
    fill(p->x, LIN_T * LIN_IN, 1);
    fill(p->weight, LIN_OUT * LIN_IN, 2);
    fill(p->bias, LIN_OUT, 3);
    p->linear = (qvl_ref_linear){.weight = p->weight,
                                 .bias = p->bias,
                                 .in = LIN_IN,
                                 .out = LIN_OUT,
                                 .n_adapters = 2,
                                 .rank = LIN_R,
                                 .scale = 1.5};
    for (int i = 0; i < 2; i++) {
        fill(p->a[i], LIN_R * LIN_IN, 4 + (uint64_t)i);
        fill(p->b[i], LIN_B0 * LIN_R, 6 + (uint64_t)i);
        p->linear.adapters[i] = (qvl_ref_adapter){.a = p->a[i],
                                                  .b = p->b[i],
                                                  .da = p->da[i],
                                                  .db = p->db[i],
                                                  .out_offset = i == 0 ? 0 : 5,
                                                  .out = i == 0 ? LIN_B0 : LIN_B1,
                                                  .module = 11 + (uint32_t)i};
    }
    for (int t = 0; t < LIN_T; t++)
        p->token[t] = t;
    p->dropout = (qvl_dropout){qvl_dropout_threshold(0.3), 42, 1, p->sample, p->token};
    p->used_dropout = drops ? &p->dropout : NULL;
}

static void linear_gradients(void **state)
{
    (void)state;
    for (int drops = 0; drops < 2; drops++) {
        linear_problem p;
        double dy[LIN_T * LIN_OUT], dx[LIN_T * LIN_IN];
        make_linear(&p, drops);
        weights_of(dy, LIN_T * LIN_OUT);
        qvl_ref_linear_backward(dx, dy, p.x, &p.linear, LIN_T, p.used_dropout);
        expect_gradient("dx", linear_loss, &p, p.x, LIN_T * LIN_IN, dx);
        expect_gradient("da0", linear_loss, &p, p.a[0], LIN_R * LIN_IN, p.da[0]);
        expect_gradient("da1", linear_loss, &p, p.a[1], LIN_R * LIN_IN, p.da[1]);
        expect_gradient("db0", linear_loss, &p, p.b[0], LIN_B0 * LIN_R, p.db[0]);
        expect_gradient("db1", linear_loss, &p, p.b[1], LIN_B1 * LIN_R, p.db[1]);
        const double first = p.da[0][0];
        qvl_ref_linear_backward(NULL, dy, p.x, &p.linear, LIN_T, p.used_dropout);
        if (!(fabs(p.da[0][0] - 2 * first) <= 1e-12)) /* it is added to */
            fail_msg("da after two passes is %g, after one %g", p.da[0][0], first);
    }
}

/* ---- rotation: a linear map, whose gradient is its transpose, which is the inverse ---- */

enum { ROT_T = 3, ROT_DH = 6, ROT_STRIDE = 15 };

typedef struct rotate_problem {
    double x[ROT_T * ROT_STRIDE], cosine[ROT_T * ROT_DH / 2], sine[ROT_T * ROT_DH / 2];
} rotate_problem;

static double rotate_loss(const void *problem)
{
    const rotate_problem *p = problem;
    double x[ROT_T * ROT_STRIDE];
    memcpy(x, p->x, sizeof x);
    qvl_ref_rotate(x, p->cosine, p->sine, ROT_T, ROT_STRIDE, 2, ROT_DH, false);
    return weighted(x, ROT_T * ROT_STRIDE);
}

static void rotate_gradient(void **state)
{
    (void)state;
    rotate_problem p;
    double dx[ROT_T * ROT_STRIDE];
    fill(p.x, ROT_T * ROT_STRIDE, 1);
    fill(p.cosine, ROT_T * ROT_DH / 2, 2);
    for (int i = 0; i < ROT_T * ROT_DH / 2; i++)
        p.sine[i] = sqrt(1 - p.cosine[i] * p.cosine[i]);
    weights_of(dx, ROT_T * ROT_STRIDE);
    qvl_ref_rotate(dx, p.cosine, p.sine, ROT_T, ROT_STRIDE, 2, ROT_DH, true);
    expect_gradient("dx", rotate_loss, &p, p.x, ROT_T * ROT_STRIDE, dx);
}

/* ---- attention ---- */

enum { ATT_T = 9, ATT_H = 4, ATT_KV = 2, ATT_DH = 3, ATT_WIDTH = (ATT_H + 2 * ATT_KV) * ATT_DH };

typedef struct attention_problem {
    double qkv[ATT_T * ATT_WIDTH];
    qvl_ref_attention attention;
} attention_problem;

static double attention_loss(const void *problem)
{
    const attention_problem *p = problem;
    double out[ATT_T * ATT_H * ATT_DH], lse[ATT_H * ATT_T];
    qvl_ref_attention_forward(out, lse, &p->attention);
    return weighted(out, ATT_T * ATT_H * ATT_DH);
}

static void attention_gradient(void **state)
{
    (void)state;
    static const int32_t CU_SEQLENS[4] = {0, 1, 6, 9};
    for (int causal = 0; causal < 2; causal++) {
        attention_problem p;
        double dout[ATT_T * ATT_H * ATT_DH], dqkv[ATT_T * ATT_WIDTH];
        fill(p.qkv, ATT_T * ATT_WIDTH, 1);
        p.attention = (qvl_ref_attention){p.qkv,  CU_SEQLENS, ATT_T, 3,      ATT_H,
                                          ATT_KV, ATT_DH,     0.8,   causal, NULL};
        weights_of(dout, ATT_T * ATT_H * ATT_DH);
        qvl_ref_attention_backward(dqkv, dout, &p.attention);
        expect_gradient("dqkv", attention_loss, &p, p.qkv, ATT_T * ATT_WIDTH, dqkv);
    }
}

/* ---- swiglu ---- */

enum { GLU_T = 3, GLU_F = 5 };

typedef struct swiglu_problem {
    double gate_up[GLU_T * 2 * GLU_F];
} swiglu_problem;

static double swiglu_loss(const void *problem)
{
    const swiglu_problem *p = problem;
    double h[GLU_T * GLU_F];
    qvl_ref_swiglu(h, p->gate_up, GLU_T, GLU_F);
    return weighted(h, GLU_T * GLU_F);
}

static void swiglu_gradient(void **state)
{
    (void)state;
    swiglu_problem p;
    double dh[GLU_T * GLU_F], dgate_up[GLU_T * 2 * GLU_F];
    fill(p.gate_up, GLU_T * 2 * GLU_F, 1);
    for (int i = 0; i < GLU_T * 2 * GLU_F; i++)
        p.gate_up[i] *= 4;
    weights_of(dh, GLU_T * GLU_F);
    qvl_ref_swiglu_backward(dgate_up, dh, p.gate_up, GLU_T, GLU_F);
    expect_gradient("dgate_up", swiglu_loss, &p, p.gate_up, GLU_T * 2 * GLU_F, dgate_up);
}

/* ---- head ---- */

enum { HEAD_T = 4, HEAD_D = 5, HEAD_V = 7, HEAD_N = 3 };

typedef struct head_problem {
    double x[HEAD_T * HEAD_D], head[HEAD_V * HEAD_D], weights[HEAD_N];
    qvl_ref_head_loss args;
} head_problem;

static double head_loss(const void *problem)
{
    const head_problem *p = problem;
    double row_loss[HEAD_N], sum = 0;
    qvl_ref_head_loss_run(row_loss, NULL, &p->args);
    for (int i = 0; i < HEAD_N; i++)
        sum += p->weights[i] * row_loss[i];
    return sum;
}

static void head_gradient(void **state)
{
    (void)state;
    static const int32_t ROWS[HEAD_N] = {3, 0, 2}, TARGETS[HEAD_N] = {6, 0, 3};
    head_problem p;
    double row_loss[HEAD_N], dx[HEAD_T * HEAD_D];
    fill(p.x, HEAD_T * HEAD_D, 1);
    fill(p.head, HEAD_V * HEAD_D, 2);
    fill(p.weights, HEAD_N, 3);
    p.args = (qvl_ref_head_loss){p.x,    p.head, ROWS,   TARGETS, p.weights,
                                 HEAD_N, HEAD_T, HEAD_D, HEAD_V,  NULL};
    qvl_ref_head_loss_run(row_loss, dx, &p.args);
    expect_gradient("dx", head_loss, &p, p.x, HEAD_T * HEAD_D, dx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norm_gradient),   cmocka_unit_test(linear_gradients),
        cmocka_unit_test(rotate_gradient), cmocka_unit_test(attention_gradient),
        cmocka_unit_test(swiglu_gradient), cmocka_unit_test(head_gradient),
    };
    return cmocka_run_group_tests_name("kernel.reference_gradient", tests, NULL, NULL);
}
