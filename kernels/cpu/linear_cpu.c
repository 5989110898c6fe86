/* Frozen linear with its adapters.
 *
 *   forward    y = x W^T + bias                       u_i = drop_i(x) A_i^T
 *              y[:, part i] += scale u_i B_i^T
 *   backward   dx = dy W                              du_i = scale dy[:, part i] B_i
 *              dB_i += scale dy[:, part i]^T u_i      dA_i += du_i^T drop_i(x)
 *              dx += drop_i(du_i A_i)
 */
#include "kernels/cpu/cpu_backend.h"

#include <string.h>

/* Room for n bytes, and for where it starts. */
static int64_t mask_floats(int64_t n)
{
    return n / 4 + 64;
}

int64_t qvl_cpu_linear_scratch(const qvl_workspace_limits *limits)
{
    if (limits->rank == 0)
        return 0;
    const int64_t masked = limits->dropout ? limits->tokens * limits->in_max : 0;
    return masked + mask_floats(masked) + limits->tokens * limits->rank + 256;
}

/* What dropout needs: masked rows, and the mask, made once for all uses. */
typedef struct masking {
    float *rows;   /* [T, in], NULL: no dropout */
    uint8_t *keep; /* [T, in] */
} masking;

static qvl_status prepare_mask(masking *out, qvl_device *dev, size_t *used, int64_t n,
                               const qvl_dropout *dropout, qvl_err *err)
{
    float *keep = NULL;
    qvl_status rc = QVL_OK;
    *out = (masking){NULL, NULL};
    if (!dropout)
        return QVL_OK;
    QVL_TRY(qvl_cpu_scratch(dev, &out->rows, used, n, err));
    QVL_TRY(qvl_cpu_scratch(dev, &keep, used, mask_floats(n), err));
    out->keep = (uint8_t *)keep;
out:
    return rc;
}

static void set_bias(const qvl_device *dev, float *y, const float *bias, int64_t T, int64_t out)
{
#pragma omp parallel for num_threads(qvl_cpu_threads(dev)) schedule(static)
    for (int64_t t = 0; t < T; t++)
        memcpy(y + t * out, bias, (size_t)out * sizeof *y);
}

static void base_product(const qvl_device *dev, const qvl_linear_args *args)
{
    const qvl_linear *lin = args->linear;
    if (lin->bias)
        set_bias(dev, args->y, lin->bias, args->T, lin->out);
    qvl_cpu_gemm_run(dev, &(qvl_cpu_gemm){.transpose_b = true,
                                          .m = args->T,
                                          .n = lin->out,
                                          .k = lin->in,
                                          .alpha = 1.0f,
                                          .beta = lin->bias ? 1.0f : 0.0f,
                                          .a = args->x,
                                          .lda = qvl_or_dense(args->x_stride, lin->in),
                                          .b = lin->weight,
                                          .ldb = qvl_or_dense(lin->weight_stride, lin->in),
                                          .c = args->y,
                                          .ldc = lin->out});
}

qvl_status qvl_cpu_linear(qvl_device *dev, const qvl_linear_args *args, qvl_err *err)
{
    const qvl_linear *lin = args->linear;
    const int64_t T = args->T, u_width = lin->n_adapters * lin->rank;
    const int64_t x_stride = qvl_or_dense(args->x_stride, lin->in);
    const float *x = args->x;
    float *y = args->y, *own_u = NULL;
    masking mask;
    size_t used = 0;
    qvl_status rc = QVL_OK;

    if (y)
        base_product(dev, args);
    if (lin->n_adapters && !args->u)
        QVL_TRY(qvl_cpu_scratch(dev, &own_u, &used, T * lin->rank, err));
    QVL_TRY(
        prepare_mask(&mask, dev, &used, T * lin->in, lin->n_adapters ? args->dropout : NULL, err));
    for (int i = 0; i < lin->n_adapters; i++) {
        const qvl_adapter *adapter = &lin->adapters[i];
        float *u = args->u ? args->u + i * lin->rank : own_u;
        const int64_t u_stride = args->u ? u_width : lin->rank;
        if (mask.rows) {
            qvl_cpu_dropout_mask(dev, mask.keep, T, lin->in, adapter->module, args->dropout);
            qvl_cpu_mask_rows(dev, mask.rows, x, x_stride, mask.keep, T, lin->in, args->dropout);
        }
        qvl_cpu_gemm_run(dev, &(qvl_cpu_gemm){.transpose_b = true,
                                              .m = T,
                                              .n = lin->rank,
                                              .k = lin->in,
                                              .alpha = 1.0f,
                                              .a = mask.rows ? mask.rows : x,
                                              .lda = mask.rows ? lin->in : x_stride,
                                              .b = adapter->a,
                                              .ldb = lin->in,
                                              .c = u,
                                              .ldc = u_stride});
        if (y)
            qvl_cpu_gemm_run(dev, &(qvl_cpu_gemm){.transpose_b = true,
                                                  .m = T,
                                                  .n = adapter->out,
                                                  .k = lin->rank,
                                                  .alpha = lin->scale,
                                                  .beta = 1.0f,
                                                  .a = u,
                                                  .lda = u_stride,
                                                  .b = adapter->b,
                                                  .ldb = lin->rank,
                                                  .c = y + adapter->out_offset,
                                                  .ldc = lin->out});
    }
out:
    return rc;
}

/* dA of one adapter, and its part of dx, from du [T, R]; what is in mask is scratch. */
static void adapter_inputs(qvl_device *dev, const qvl_linear_backward_args *args, int i,
                           const float *du, const masking *mask)
{
    float *masked = mask->rows;
    const qvl_linear *lin = args->linear;
    const qvl_adapter *adapter = &lin->adapters[i];
    const int64_t T = args->T, x_stride = qvl_or_dense(args->x_stride, lin->in);
    const float *x = args->x;
    if (masked) {
        qvl_cpu_dropout_mask(dev, mask->keep, T, lin->in, adapter->module, args->dropout);
        qvl_cpu_mask_rows(dev, masked, x, x_stride, mask->keep, T, lin->in, args->dropout);
    }
    qvl_cpu_gemm_run(dev, &(qvl_cpu_gemm){.transpose_a = true,
                                          .m = lin->rank,
                                          .n = lin->in,
                                          .k = T,
                                          .alpha = 1.0f,
                                          .beta = 1.0f,
                                          .a = du,
                                          .lda = lin->rank,
                                          .b = masked ? masked : x,
                                          .ldb = masked ? lin->in : x_stride,
                                          .c = adapter->da,
                                          .ldc = lin->in});
    if (!args->dx)
        return;
    qvl_cpu_gemm_run(dev, &(qvl_cpu_gemm){.m = T,
                                          .n = lin->in,
                                          .k = lin->rank,
                                          .alpha = 1.0f,
                                          .beta = masked ? 0.0f : 1.0f,
                                          .a = du,
                                          .lda = lin->rank,
                                          .b = adapter->a,
                                          .ldb = lin->in,
                                          .c = masked ? masked : args->dx,
                                          .ldc = lin->in});
    if (masked)
        qvl_cpu_mask_rows_add(dev, args->dx, masked, mask->keep, T, lin->in, args->dropout);
}

/* Parts of one adapter in backward; du [T, R] and what is in mask are scratch. */
static void adapter_backward(qvl_device *dev, const qvl_linear_backward_args *args, int i,
                             float *du, const masking *mask)
{
    const qvl_linear *lin = args->linear;
    const qvl_adapter *adapter = &lin->adapters[i];
    const int64_t T = args->T, u_width = lin->n_adapters * lin->rank;
    const float *dy = (const float *)args->dy + adapter->out_offset;
    const float *u = args->u + i * lin->rank;
    qvl_cpu_gemm_run(dev, &(qvl_cpu_gemm){.m = T,
                                          .n = lin->rank,
                                          .k = adapter->out,
                                          .alpha = lin->scale,
                                          .a = dy,
                                          .lda = lin->out,
                                          .b = adapter->b,
                                          .ldb = lin->rank,
                                          .c = du,
                                          .ldc = lin->rank});
    qvl_cpu_gemm_run(dev, &(qvl_cpu_gemm){.transpose_a = true,
                                          .m = adapter->out,
                                          .n = lin->rank,
                                          .k = T,
                                          .alpha = lin->scale,
                                          .beta = 1.0f,
                                          .a = dy,
                                          .lda = lin->out,
                                          .b = u,
                                          .ldb = u_width,
                                          .c = adapter->db,
                                          .ldc = lin->rank});
    adapter_inputs(dev, args, i, du, mask);
}

qvl_status qvl_cpu_linear_backward(qvl_device *dev, const qvl_linear_backward_args *args,
                                   qvl_err *err)
{
    const qvl_linear *lin = args->linear;
    float *du = NULL;
    masking mask;
    size_t used = 0;
    qvl_status rc = QVL_OK;
    if (args->T == 0)
        return QVL_OK;
    if (args->dx)
        qvl_cpu_gemm_run(dev, &(qvl_cpu_gemm){.m = args->T,
                                              .n = lin->in,
                                              .k = lin->out,
                                              .alpha = 1.0f,
                                              .a = args->dy,
                                              .lda = lin->out,
                                              .b = lin->weight,
                                              .ldb = qvl_or_dense(lin->weight_stride, lin->in),
                                              .c = args->dx,
                                              .ldc = lin->in});
    if (lin->n_adapters)
        QVL_TRY(qvl_cpu_scratch(dev, &du, &used, args->T * lin->rank, err));
    QVL_TRY(prepare_mask(&mask, dev, &used, args->T * lin->in,
                         lin->n_adapters ? args->dropout : NULL, err));
    for (int i = 0; i < lin->n_adapters; i++)
        adapter_backward(dev, args, i, du, &mask);
out:
    return rc;
}

qvl_status qvl_cpu_mlp(qvl_device *dev, const qvl_mlp_args *args, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_cpu_swiglu(dev,
                           &(qvl_swiglu_args){.h = args->h,
                                              .h_stride = args->h_stride,
                                              .gate_up = args->gate_up,
                                              .T = args->T,
                                              .F = args->F},
                           err));
    QVL_TRY(qvl_cpu_linear(dev,
                           &(qvl_linear_args){.linear = args->linear,
                                              .y = args->y,
                                              .u = args->u,
                                              .x = args->h,
                                              .x_stride = args->h_stride,
                                              .T = args->T,
                                              .dropout = args->dropout},
                           err));
out:
    return rc;
}

/* One after the other: beside the products, the way of dh through memory is short. */
qvl_status qvl_cpu_mlp_backward(qvl_device *dev, const qvl_mlp_backward_args *args, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_cpu_linear_backward(dev,
                                    &(qvl_linear_backward_args){.linear = args->down,
                                                                .dx = args->dh,
                                                                .dy = args->dy,
                                                                .x = args->h,
                                                                .x_stride = args->h_stride,
                                                                .u = args->h_u,
                                                                .T = args->T,
                                                                .dropout = args->dropout},
                                    err));
    QVL_TRY(qvl_cpu_swiglu_backward(dev,
                                    &(qvl_swiglu_backward_args){.dgate_up = args->dgate_up,
                                                                .dh = args->dh,
                                                                .gate_up = args->gate_up,
                                                                .T = args->T,
                                                                .F = args->F},
                                    err));
    QVL_TRY(qvl_cpu_linear_backward(dev,
                                    &(qvl_linear_backward_args){.linear = args->gate_up_proj,
                                                                .dx = args->dx,
                                                                .dy = args->dgate_up,
                                                                .x = args->x,
                                                                .x_stride = args->x_stride,
                                                                .u = args->x_u,
                                                                .T = args->T,
                                                                .dropout = args->dropout},
                                    err));
out:
    return rc;
}

/* No tails here: adapters are read where they are. */
qvl_status qvl_cpu_fold(qvl_device *dev, const qvl_fold_args *args, qvl_err *err)
{
    (void)dev;
    (void)args;
    (void)err;
    return QVL_OK;
}
