#include "tests/kernels/ref/ref_attention.h"

#include <math.h>
#include <stdlib.h>

/* One query head's view of one query token. */
typedef struct query {
    int64_t first, end; /* keys it sees */
    const double *q;
    int64_t q_column, k_column, v_column; /* in a row of qkv */
    int64_t t, h;
} query;

static int64_t row_width(const qvl_ref_attention *at)
{
    return (at->H + 2 * at->KV) * at->Dh;
}

static double dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static query query_at(const qvl_ref_attention *at, int64_t b, int64_t t, int64_t h)
{
    const int64_t kv_head = h / (at->H / at->KV);
    query view = {.first = at->cu_seqlens[b], .end = at->cu_seqlens[b + 1], .t = t, .h = h};
    if (at->is_causal)
        view.end = t + 1;
    view.q_column = h * at->Dh;
    view.k_column = (at->H + kv_head) * at->Dh;
    view.v_column = (at->H + at->KV + kv_head) * at->Dh;
    view.q = at->qkv + t * row_width(at) + view.q_column;
    return view;
}

/* p[j - first] = softmax over the keys seen; returns the log of the sum. */
static double probabilities(double *p, const query *view, const qvl_ref_attention *at)
{
    double largest = -INFINITY, sum = 0;
    for (int64_t j = view->first; j < view->end; j++) {
        const double *k = at->qkv + j * row_width(at) + view->k_column;
        p[j - view->first] = qvl_ref_rounded(
            at->round, qvl_ref_rounded(at->round, dot(view->q, k, at->Dh)) * at->scale);
        largest = fmax(largest, p[j - view->first]);
    }
    for (int64_t i = 0; i < view->end - view->first; i++) {
        p[i] = exp(p[i] - largest);
        sum += p[i];
    }
    for (int64_t i = 0; i < view->end - view->first; i++)
        p[i] = qvl_ref_rounded(at->round, p[i] / sum);
    return largest + log(sum);
}

static void forward_query(double *out, double *lse, double *p, const query *view,
                          const qvl_ref_attention *at)
{
    const double log_sum = probabilities(p, view, at);
    lse[view->h * at->T + view->t] = log_sum;
    for (int64_t d = 0; d < at->Dh; d++) {
        double sum = 0;
        for (int64_t j = view->first; j < view->end; j++)
            sum += p[j - view->first] * at->qkv[j * row_width(at) + view->v_column + d];
        out[(view->t * at->H + view->h) * at->Dh + d] = qvl_ref_rounded(at->round, sum);
    }
}

void qvl_ref_attention_forward(double *out, double *lse, const qvl_ref_attention *attention)
{
    double *p = calloc((size_t)attention->T + 1, sizeof *p);
    for (int64_t b = 0; p && b < attention->B; b++)
        for (int64_t t = attention->cu_seqlens[b]; t < attention->cu_seqlens[b + 1]; t++)
            for (int64_t h = 0; h < attention->H; h++) {
                const query view = query_at(attention, b, t, h);
                forward_query(out, lse, p, &view, attention);
            }
    free(p);
}

/* With dp_j = dout . v_j and delta = sum_j p_j dp_j:  ds_j = p_j (dp_j - delta),
 *   dq += scale ds_j k_j    dk_j += scale ds_j q    dv_j += p_j dout */
static void backward_query(double *dqkv, double *p, double *dp, const double *dout,
                           const query *view, const qvl_ref_attention *at)
{
    const double *g = dout + (view->t * at->H + view->h) * at->Dh;
    double *dq = dqkv + view->t * row_width(at) + view->q_column;
    double delta = 0;
    probabilities(p, view, at);
    for (int64_t j = view->first; j < view->end; j++) {
        const double *v = at->qkv + j * row_width(at) + view->v_column;
        dp[j - view->first] = qvl_ref_rounded(at->round, dot(g, v, at->Dh));
        delta += p[j - view->first] * dp[j - view->first];
    }
    for (int64_t j = view->first; j < view->end; j++) {
        const double prob = p[j - view->first];
        const double ds = qvl_ref_rounded(at->round, prob * (dp[j - view->first] - delta));
        const double *k = at->qkv + j * row_width(at) + view->k_column;
        double *dk = dqkv + j * row_width(at) + view->k_column;
        double *dv = dqkv + j * row_width(at) + view->v_column;
        for (int64_t d = 0; d < at->Dh; d++) {
            dq[d] += at->scale * ds * k[d];
            dk[d] += at->scale * ds * view->q[d];
            dv[d] += prob * g[d];
        }
    }
}

void qvl_ref_attention_backward(double *dqkv, const double *dout,
                                const qvl_ref_attention *attention)
{
    double *p = calloc((size_t)attention->T + 1, sizeof *p);
    double *dp = calloc((size_t)attention->T + 1, sizeof *dp);
    const int64_t n = attention->T * row_width(attention);
    for (int64_t i = 0; i < n; i++)
        dqkv[i] = 0;
    for (int64_t b = 0; p && dp && b < attention->B; b++)
        for (int64_t t = attention->cu_seqlens[b]; t < attention->cu_seqlens[b + 1]; t++)
            for (int64_t h = 0; h < attention->H; h++) {
                const query view = query_at(attention, b, t, h);
                backward_query(dqkv, p, dp, dout, &view, attention);
            }
    for (int64_t i = 0; i < n; i++)
        dqkv[i] = qvl_ref_rounded(attention->round, dqkv[i]);
    free(p);
    free(dp);
}
