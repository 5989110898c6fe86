#include "kernels/cpu/cpu_backend.h"

#include <math.h>
#include <string.h>

/* Rows of one chunk: at most 64 MiB of logits, so that a vocabulary of 152064 takes 110 rows a
 * time. */
static int64_t chunk_rows(int64_t vocab)
{
    const int64_t fits = ((int64_t)64 << 20) / (4 * (vocab ? vocab : 1));
    return fits < 16 ? 16 : fits > 1024 ? 1024 : fits;
}

int64_t qvl_cpu_head_loss_scratch(const qvl_workspace_limits *limits)
{
    if (limits->vocab == 0)
        return 0;
    int64_t rows = chunk_rows(limits->vocab);
    rows = rows < limits->tokens ? rows : limits->tokens;
    return rows * (limits->vocab + 2 * limits->hidden) + 256;
}

/* Turns logits into weight * (softmax - onehot) and returns the loss of the row. */
QVL_SIMD_CLONES
static float loss_row(float *logits, int64_t V, int64_t target, float weight)
{
    float top = logits[0];
    double sum = 0.0; /* 150,000 terms */
    const float at_target = logits[target];
    for (int64_t v = 1; v < V; v++)
        top = logits[v] > top ? logits[v] : top;
    for (int64_t v = 0; v < V; v++)
        logits[v] -= top;
    qvl_cpu_exp(logits, V);
#pragma omp simd reduction(+ : sum)
    for (int64_t v = 0; v < V; v++)
        sum += logits[v];
    const float scale = (float)(weight / sum);
    for (int64_t v = 0; v < V; v++)
        logits[v] *= scale;
    logits[target] -= weight;
    return (top - at_target) + (float)log(sum);
}

/* Losses of rows first .. first + n - 1, whose inputs are x [n, D], and in logits [n, V] their
 * gradients. */
static void run_rows(qvl_device *dev, const qvl_head_loss_args *args, float *logits, const float *x,
                     int64_t first, int64_t n)
{
    const int64_t V = args->V;
    const int n_threads = qvl_cpu_threads(dev);
    qvl_cpu_gemm_run(dev, &(qvl_cpu_gemm){.transpose_b = true,
                                          .m = n,
                                          .n = V,
                                          .k = args->D,
                                          .alpha = 1.0f,
                                          .a = x,
                                          .lda = args->D,
                                          .b = args->head,
                                          .ldb = args->D,
                                          .c = logits,
                                          .ldc = V});
#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (int64_t i = 0; i < n; i++)
        args->row_loss[first + i] =
            loss_row(logits + i * V, V, args->targets[first + i], args->weights[first + i]);
}

qvl_status qvl_cpu_head_loss(qvl_device *dev, const qvl_head_loss_args *args, qvl_err *err)
{
    const int64_t D = args->D, V = args->V, chunk = chunk_rows(V);
    const int64_t largest = chunk < args->n_rows ? chunk : args->n_rows;
    float *logits = NULL, *rows = NULL, *drows = NULL;
    size_t used = 0;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_cpu_scratch(dev, &logits, &used, largest * V, err));
    QVL_TRY(qvl_cpu_scratch(dev, &rows, &used, largest * D, err));
    if (args->dx && args->rows) {
        QVL_TRY(qvl_cpu_scratch(dev, &drows, &used, largest * D, err));
        memset(args->dx, 0, (size_t)(args->T * D) * sizeof(float));
    }
    for (int64_t first = 0; first < args->n_rows; first += chunk) {
        const int64_t n = args->n_rows - first < chunk ? args->n_rows - first : chunk;
        const float *x = args->rows ? rows : (const float *)args->x + first * D;
        float *dx = args->rows || !args->dx ? drows : (float *)args->dx + first * D;
        if (args->rows)
            QVL_TRY(qvl_cpu_move_rows(dev,
                                      &(qvl_move_rows_args){.dst = rows,
                                                            .src = args->x,
                                                            .src_rows = args->rows + first,
                                                            .n_rows = n,
                                                            .D = D},
                                      err));
        run_rows(dev, args, logits, x, first, n);
        if (!args->dx)
            continue;
        qvl_cpu_gemm_run(dev, &(qvl_cpu_gemm){.m = n,
                                              .n = D,
                                              .k = V,
                                              .alpha = 1.0f,
                                              .a = logits,
                                              .lda = V,
                                              .b = args->head,
                                              .ldb = D,
                                              .c = dx,
                                              .ldc = D});
        if (!args->rows)
            continue;
        QVL_TRY(qvl_cpu_move_rows(
            dev,
            &(qvl_move_rows_args){
                .dst = args->dx, .src = drows, .dst_rows = args->rows + first, .n_rows = n, .D = D},
            err));
    }
out:
    return rc;
}
