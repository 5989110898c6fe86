#include "kernels/cpu/cpu_backend.h"

#include <inttypes.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cblas.h>

#include "src/base/clock.h"
#include "src/base/host_memory.h"
#include "src/base/memory.h"

int qvl_cpu_threads(const qvl_device *dev)
{
    return ((qvl_cpu_state *)dev->state)->n_threads;
}

qvl_status qvl_cpu_scratch(qvl_device *dev, float **out, size_t *used, int64_t count, qvl_err *err)
{
    qvl_cpu_state *state = dev->state;
    const size_t bytes = ((size_t)count * sizeof(float) + 255) / 256 * 256;
    if (*used + bytes > state->workspace_bytes)
        return qvl_fail(err, QVL_EINTERNAL, "cpu: workspace of %zu bytes, %zu are needed",
                        state->workspace_bytes, *used + bytes);
    *out = (float *)(void *)(state->workspace + *used);
    *used += bytes;
    return QVL_OK;
}

static void cpu_destroy(qvl_device *dev)
{
    free(dev->state);
    free(dev);
}

static qvl_status cpu_alloc(qvl_device *dev, void **out, size_t bytes, qvl_mem kind,
                            const char *what, qvl_err *err)
{
    size_t padded = 0;
    (void)dev;
    (void)kind;
    if (qvl_add_overflows(&padded, bytes, 255))
        return qvl_fail_memory(err, bytes, what);
    padded = padded / 256 * 256;
    *out = aligned_alloc(256, padded ? padded : 256);
    if (*out && getenv("QVL_POISON"))
        memset(*out, 0xff, padded); /* NaN */
    return *out ? QVL_OK : qvl_fail_memory(err, bytes, what);
}

static void cpu_release(qvl_device *dev, void *pointer, qvl_mem kind)
{
    (void)dev;
    (void)kind;
    free(pointer);
}

static qvl_status cpu_free_bytes(qvl_device *dev, uint64_t *out, qvl_err *err)
{
    (void)dev;
    return qvl_host_free_bytes(out, err);
}

static qvl_status cpu_workspace_bytes(qvl_device *dev, size_t *out,
                                      const qvl_workspace_limits *limits, qvl_err *err)
{
    const int64_t needs[] = {qvl_cpu_linear_scratch(limits),
                             qvl_cpu_attention_scratch(limits, qvl_cpu_threads(dev)),
                             qvl_cpu_head_loss_scratch(limits)};
    int64_t most = 0;
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++)
        most = needs[i] > most ? needs[i] : most;
    if (qvl_mul_overflows(out, (size_t)most, sizeof(float)))
        return qvl_fail(err, QVL_EINTERNAL, "cpu: workspace for %" PRId64 " tokens overflows",
                        limits->tokens);
    *out += 4096; /* rounding of the parts */
    return QVL_OK;
}

static qvl_status cpu_bind_workspace(qvl_device *dev, void *workspace, size_t bytes, qvl_err *err)
{
    qvl_cpu_state *state = dev->state;
    (void)err;
    state->workspace = workspace;
    state->workspace_bytes = bytes;
    return QVL_OK;
}

static qvl_status cpu_upload(qvl_device *dev, void *dst, const void *src_host, size_t bytes,
                             qvl_lane lane, qvl_err *err)
{
    (void)dev;
    (void)lane;
    (void)err;
    if (bytes)
        memcpy(dst, src_host, bytes);
    return QVL_OK;
}

static qvl_status cpu_copy(qvl_device *dev, void *dst, const void *src, size_t bytes, qvl_err *err)
{
    return cpu_upload(dev, dst, src, bytes, QVL_LANE_COMPUTE, err);
}

static qvl_status cpu_zero(qvl_device *dev, void *dst, size_t bytes, qvl_err *err)
{
    (void)dev;
    (void)err;
    if (bytes)
        memset(dst, 0, bytes);
    return QVL_OK;
}

static qvl_status cpu_order(qvl_device *dev, qvl_lane after, qvl_lane before, qvl_err *err)
{
    (void)dev;
    (void)after;
    (void)before;
    (void)err;
    return QVL_OK;
}

static qvl_status cpu_wait(qvl_device *dev, qvl_lane lane, qvl_err *err)
{
    (void)dev;
    (void)lane;
    (void)err;
    return QVL_OK;
}

static qvl_status cpu_mark(qvl_device *dev, int slot, qvl_err *err)
{
    (void)err;
    ((qvl_cpu_state *)dev->state)->marks[slot] = qvl_clock_s();
    return QVL_OK;
}

static qvl_status cpu_between(qvl_device *dev, double *out_ms, int from, int to, qvl_err *err)
{
    const double *marks = ((qvl_cpu_state *)dev->state)->marks;
    (void)err;
    *out_ms = 1e3 * (marks[to] - marks[from]);
    return QVL_OK;
}

static void *cpu_stream(qvl_device *dev, qvl_lane lane)
{
    (void)dev;
    (void)lane;
    return NULL;
}

static qvl_status cpu_load_rows(qvl_device *dev, void *dst, int64_t dst_stride,
                                const void *src_host, qvl_dtype src_dtype, int64_t rows,
                                int64_t cols, qvl_err *err)
{
    if (dst_stride < cols)
        return qvl_fail(err, QVL_EINTERNAL, "load_rows: stride %" PRId64 " < %" PRId64 " columns",
                        dst_stride, cols);
#pragma omp parallel for num_threads(qvl_cpu_threads(dev)) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        float *to = (float *)dst + r * dst_stride;
        /* memcpy: tensors in a file need not be aligned */
        const char *from = (const char *)src_host + (size_t)(r * cols) * qvl_dtype_bytes(src_dtype);
        if (src_dtype == QVL_F32)
            memcpy(to, from, (size_t)cols * sizeof *to);
        else
            for (int64_t c = 0; c < cols; c++) {
                uint16_t bits;
                memcpy(&bits, from + 2 * c, sizeof bits);
                to[c] =
                    src_dtype == QVL_BF16 ? qvl_float_from_bf16(bits) : qvl_float_from_f16(bits);
            }
        for (int64_t c = cols; c < dst_stride; c++)
            to[c] = 0.0f;
    }
    return QVL_OK;
}

static qvl_status cpu_fetch(qvl_device *dev, float *dst_host, const void *src, int64_t n,
                            qvl_err *err)
{
    return cpu_upload(dev, dst_host, src, (size_t)n * sizeof(float), QVL_LANE_COMPUTE, err);
}

static const qvl_ops CPU_OPS = {
    .name = "cpu",
    .destroy = cpu_destroy,
    .alloc = cpu_alloc,
    .release = cpu_release,
    .free_bytes = cpu_free_bytes,
    .workspace_bytes = cpu_workspace_bytes,
    .bind_workspace = cpu_bind_workspace,
    .upload = cpu_upload,
    .download = cpu_upload,
    .copy = cpu_copy,
    .zero = cpu_zero,
    .order = cpu_order,
    .wait = cpu_wait,
    .mark = cpu_mark,
    .between = cpu_between,
    .stream = cpu_stream,
    .load_rows = cpu_load_rows,
    .fetch = cpu_fetch,
    .embed = qvl_cpu_embed,
    .move_rows = qvl_cpu_move_rows,
    .norm = qvl_cpu_norm,
    .norm_backward = qvl_cpu_norm_backward,
    .linear = qvl_cpu_linear,
    .linear_backward = qvl_cpu_linear_backward,
    .rope_table = qvl_cpu_rope_table,
    .rotate = qvl_cpu_rotate,
    .attention = qvl_cpu_attention,
    .attention_backward = qvl_cpu_attention_backward,
    .swiglu = qvl_cpu_swiglu,
    .swiglu_backward = qvl_cpu_swiglu_backward,
    .mlp = qvl_cpu_mlp,
    .mlp_backward = qvl_cpu_mlp_backward,
    .gelu = qvl_cpu_gelu,
    .patches = qvl_cpu_patches,
    .head_loss = qvl_cpu_head_loss,
    .sum_squares = qvl_cpu_sum_squares,
    .adamw = qvl_cpu_adamw,
    .fold = qvl_cpu_fold,
};

qvl_status qvl_device_open_cpu(qvl_device **out, int n_threads, qvl_err *err)
{
    qvl_device *dev = NULL;
    qvl_cpu_state *state = NULL;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_alloc(&dev, 1, sizeof *dev, "device", err));
    QVL_TRY(qvl_alloc(&state, 1, sizeof *state, "device", err));
    if (n_threads <= 0)
        n_threads = omp_get_max_threads(); /* OMP_NUM_THREADS, or the cores we are bound to */
    state->n_threads = n_threads;
#ifdef QVL_HAVE_OPENBLAS
    openblas_set_num_threads(1); /* the tiles are the parallel part */
#endif
    *dev = (qvl_device){.ops = &CPU_OPS,
                        .dtype = QVL_F32,
                        .act_bytes = sizeof(float),
                        .width_align = 1,
                        .state = state};
    snprintf(dev->name, sizeof dev->name, "CPU, %d thread%s", n_threads, n_threads == 1 ? "" : "s");
    *out = dev;
    return QVL_OK;
out:
    free(dev);
    free(state);
    return rc;
}

void qvl_device_close(qvl_device *dev)
{
    if (dev)
        dev->ops->destroy(dev);
}
