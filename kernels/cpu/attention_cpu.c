/* Attention in blocks of 64 queries: the scores of a block against all its keys are formed, so
 * softmax is exact in one pass and memory is O(T). In backward one task owns a key/value head of
 * one sequence, with all query heads that share it, so that dk and dv are summed in a fixed order.
 */
#include "kernels/cpu/cpu_backend.h"

#include <math.h>
#include <omp.h>
#include <string.h>

int64_t qvl_cpu_attention_scratch(const qvl_workspace_limits *limits, int n_threads)
{
    const int64_t score_rows = limits->backward ? 2 : 1;
    return (int64_t)n_threads * (score_rows * QVL_CPU_QUERY_BLOCK * limits->sequence + 64);
}

typedef struct attention_task {
    int64_t first, length; /* of the sequence in the pack */
    int64_t head;
} attention_task;

static int64_t row_stride(const qvl_attention_args *a)
{
    return (a->H + 2 * a->KV) * a->Dh;
}

static int64_t out_stride_of(const qvl_attention_args *a)
{
    return qvl_or_dense(a->out_stride, a->H * a->Dh);
}

/* Scores of queries q0 .. q0+n_q-1 of one head against n_k keys, scaled: s [n_q, n_k]. */
static void score_block(float *s, const qvl_attention_args *a, const attention_task *task,
                        int64_t q0, int64_t n_q, int64_t n_k)
{
    const int64_t stride = row_stride(a), kv = task->head / (a->H / a->KV);
    const float *base = (const float *)a->qkv + task->first * stride;
    qvl_cpu_gemm_serial(&(qvl_cpu_gemm){.transpose_b = true,
                                        .m = n_q,
                                        .n = n_k,
                                        .k = a->Dh,
                                        .alpha = a->scale,
                                        .a = base + q0 * stride + task->head * a->Dh,
                                        .lda = stride,
                                        .b = base + (a->H + kv) * a->Dh,
                                        .ldb = stride,
                                        .c = s,
                                        .ldc = n_k});
}

/* Row of scores into probabilities over its first n_visible keys, zero after; returns logsumexp. */
QVL_SIMD_CLONES
static float softmax_row(float *s, int64_t n_visible, int64_t n_k)
{
    float top = s[0], sum = 0.0f;
    for (int64_t j = 1; j < n_visible; j++)
        top = s[j] > top ? s[j] : top;
    for (int64_t j = 0; j < n_visible; j++)
        s[j] -= top;
    qvl_cpu_exp(s, n_visible);
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n_visible; j++)
        sum += s[j];
    const float inverse = 1.0f / sum;
    for (int64_t j = 0; j < n_visible; j++)
        s[j] *= inverse;
    for (int64_t j = n_visible; j < n_k; j++)
        s[j] = 0.0f;
    return top + logf(sum);
}

static void attend_block(const qvl_attention_args *a, const attention_task *task, int64_t q0,
                         float *s)
{
    const int64_t stride = row_stride(a), kv = task->head / (a->H / a->KV);
    const int64_t n_q =
        task->length - q0 < QVL_CPU_QUERY_BLOCK ? task->length - q0 : QVL_CPU_QUERY_BLOCK;
    const int64_t n_k = a->is_causal ? q0 + n_q : task->length;
    score_block(s, a, task, q0, n_q, n_k);
    for (int64_t i = 0; i < n_q; i++) {
        const float lse = softmax_row(s + i * n_k, a->is_causal ? q0 + i + 1 : n_k, n_k);
        if (a->lse)
            a->lse[task->head * a->T + task->first + q0 + i] = lse;
    }
    qvl_cpu_gemm_serial(&(qvl_cpu_gemm){
        .m = n_q,
        .n = a->Dh,
        .k = n_k,
        .alpha = 1.0f,
        .a = s,
        .lda = n_k,
        .b = (const float *)a->qkv + task->first * stride + (a->H + a->KV + kv) * a->Dh,
        .ldb = stride,
        .c = (float *)a->out + (task->first + q0) * out_stride_of(a) + task->head * a->Dh,
        .ldc = out_stride_of(a)});
}

static qvl_status check_sequences(const qvl_attention_args *a, int64_t *longest, qvl_err *err)
{
    *longest = 0;
    for (int64_t b = 0; b < a->B; b++) {
        const int64_t n = a->cu_seqlens_host[b + 1] - a->cu_seqlens_host[b];
        if (n < 0)
            return qvl_fail(err, QVL_EINTERNAL, "attention: cu_seqlens falls at %lld",
                            (long long)b);
        *longest = n > *longest ? n : *longest;
    }
    if (a->B && a->cu_seqlens_host[a->B] != a->T)
        return qvl_fail(err, QVL_EINTERNAL, "attention: cu_seqlens ends at %d, T is %lld",
                        a->cu_seqlens_host[a->B], (long long)a->T);
    return QVL_OK;
}

qvl_status qvl_cpu_attention(qvl_device *dev, const qvl_attention_args *args, qvl_err *err)
{
    int64_t longest = 0;
    size_t used = 0;
    float *scratch = NULL;
    const int n_threads = qvl_cpu_threads(dev);
    qvl_status rc = QVL_OK;
    QVL_TRY(check_sequences(args, &longest, err));
    QVL_TRY(qvl_cpu_scratch(dev, &scratch, &used, n_threads * QVL_CPU_QUERY_BLOCK * longest, err));
#pragma omp parallel for num_threads(n_threads) schedule(dynamic) collapse(2)
    for (int64_t b = 0; b < args->B; b++)
        for (int64_t head = 0; head < args->H; head++) {
            const attention_task task = {.first = args->cu_seqlens_host[b],
                                         .length = args->cu_seqlens_host[b + 1] -
                                                   args->cu_seqlens_host[b],
                                         .head = head};
            float *s = scratch + omp_get_thread_num() * QVL_CPU_QUERY_BLOCK * longest;
            for (int64_t q0 = 0; q0 < task.length; q0 += QVL_CPU_QUERY_BLOCK)
                attend_block(args, &task, q0, s);
        }
out:
    return rc;
}

/* ---- backward ----------------------------------------------------------------------------------
 */

/* p = exp(s - lse) (zero where masked), dp = p * (dp - sum_d dout*out) * scale, in place. */
QVL_SIMD_CLONES
static void backward_row(float *p, float *dp, float lse, float dot, float scale, int64_t n_visible,
                         int64_t n_k)
{
    for (int64_t j = 0; j < n_visible; j++)
        p[j] -= lse;
    qvl_cpu_exp(p, n_visible);
    for (int64_t j = 0; j < n_visible; j++)
        dp[j] = p[j] * (dp[j] - dot) * scale;
    for (int64_t j = n_visible; j < n_k; j++)
        p[j] = dp[j] = 0.0f;
}

QVL_SIMD_CLONES
static float dot_product(const float *x, const float *y, int64_t n)
{
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += x[i] * y[i];
    return sum;
}

/* to [n_k, Dh] += weights^T rows, weights [n_q, n_k], rows [n_q, Dh]. */
static void add_over_queries(float *to, int64_t to_stride, const float *weights, const float *rows,
                             int64_t rows_stride, int64_t n_q, int64_t n_k, int64_t Dh)
{
    qvl_cpu_gemm_serial(&(qvl_cpu_gemm){.transpose_a = true,
                                        .m = n_k,
                                        .n = Dh,
                                        .k = n_q,
                                        .alpha = 1.0f,
                                        .beta = 1.0f,
                                        .a = weights,
                                        .lda = n_k,
                                        .b = rows,
                                        .ldb = rows_stride,
                                        .c = to,
                                        .ldc = to_stride});
}

static void backward_block(const qvl_attention_backward_args *args, const attention_task *task,
                           int64_t q0, float *p, float *dp)
{
    const qvl_attention_args *a = &args->forward;
    const int64_t stride = row_stride(a), kv = task->head / (a->H / a->KV), Dh = a->Dh;
    const int64_t out_stride = out_stride_of(a), dout_stride = a->H * Dh;
    const int64_t n_q =
        task->length - q0 < QVL_CPU_QUERY_BLOCK ? task->length - q0 : QVL_CPU_QUERY_BLOCK;
    const int64_t n_k = a->is_causal ? q0 + n_q : task->length;
    const float *base = (const float *)a->qkv + task->first * stride;
    float *dbase = (float *)args->dqkv + task->first * stride;
    const int64_t first_row = task->first + q0;
    const float *dout = (const float *)args->dout + first_row * dout_stride + task->head * Dh;
    const float *out = (const float *)a->out + first_row * out_stride + task->head * Dh;
    const int64_t k_at = (a->H + kv) * Dh, v_at = (a->H + a->KV + kv) * Dh;
    const int64_t q_at = q0 * stride + task->head * Dh;

    score_block(p, a, task, q0, n_q, n_k);
    qvl_cpu_gemm_serial(&(qvl_cpu_gemm){.transpose_b = true,
                                        .m = n_q,
                                        .n = n_k,
                                        .k = Dh,
                                        .alpha = 1.0f,
                                        .a = dout,
                                        .lda = dout_stride,
                                        .b = base + v_at,
                                        .ldb = stride,
                                        .c = dp,
                                        .ldc = n_k});
    for (int64_t i = 0; i < n_q; i++)
        backward_row(p + i * n_k, dp + i * n_k, a->lse[task->head * a->T + task->first + q0 + i],
                     dot_product(dout + i * dout_stride, out + i * out_stride, Dh), a->scale,
                     a->is_causal ? q0 + i + 1 : n_k, n_k);
    qvl_cpu_gemm_serial(&(qvl_cpu_gemm){.m = n_q,
                                        .n = Dh,
                                        .k = n_k,
                                        .alpha = 1.0f,
                                        .a = dp,
                                        .lda = n_k,
                                        .b = base + k_at,
                                        .ldb = stride,
                                        .c = dbase + q_at,
                                        .ldc = stride});
    add_over_queries(dbase + k_at, stride, dp, base + q_at, stride, n_q, n_k, Dh);
    add_over_queries(dbase + v_at, stride, p, dout, dout_stride, n_q, n_k, Dh);
}

/* All that one key/value head of one sequence gives; scratch holds 2 blocks of scores. */
static void backward_kv_head(const qvl_attention_backward_args *args, int64_t b, int64_t kv,
                             float *scratch, int64_t longest)
{
    const qvl_attention_args *a = &args->forward;
    const int64_t stride = row_stride(a), group = a->H / a->KV;
    attention_task task = {.first = a->cu_seqlens_host[b],
                           .length = a->cu_seqlens_host[b + 1] - a->cu_seqlens_host[b]};
    for (int64_t t = 0; t < task.length; t++) {
        float *row = (float *)args->dqkv + (task.first + t) * stride;
        memset(row + (a->H + kv) * a->Dh, 0, (size_t)a->Dh * sizeof *row);
        memset(row + (a->H + a->KV + kv) * a->Dh, 0, (size_t)a->Dh * sizeof *row);
    }
    for (task.head = kv * group; task.head < (kv + 1) * group; task.head++)
        for (int64_t q0 = 0; q0 < task.length; q0 += QVL_CPU_QUERY_BLOCK)
            backward_block(args, &task, q0, scratch, scratch + QVL_CPU_QUERY_BLOCK * longest);
}

qvl_status qvl_cpu_attention_backward(qvl_device *dev, const qvl_attention_backward_args *args,
                                      qvl_err *err)
{
    const qvl_attention_args *a = &args->forward;
    int64_t longest = 0;
    size_t used = 0;
    float *scratch = NULL;
    const int n_threads = qvl_cpu_threads(dev);
    qvl_status rc = QVL_OK;
    QVL_TRY(check_sequences(a, &longest, err));
    QVL_TRY(
        qvl_cpu_scratch(dev, &scratch, &used, 2 * n_threads * QVL_CPU_QUERY_BLOCK * longest, err));
#pragma omp parallel for num_threads(n_threads) schedule(dynamic) collapse(2)
    for (int64_t b = 0; b < a->B; b++)
        for (int64_t kv = 0; kv < a->KV; kv++)
            backward_kv_head(args, b, kv,
                             scratch + 2 * omp_get_thread_num() * QVL_CPU_QUERY_BLOCK * longest,
                             longest);
    if (args->cosine)
        QVL_TRY(qvl_cpu_rotate(dev,
                               &(qvl_rotate_args){.x = args->dqkv,
                                                  .cosine = args->cosine,
                                                  .sine = args->sine,
                                                  .T = a->T,
                                                  .stride = (a->H + 2 * a->KV) * a->Dh,
                                                  .n_heads = a->H + a->KV,
                                                  .Dh = a->Dh,
                                                  .inverse = true},
                               err));
out:
    return rc;
}
