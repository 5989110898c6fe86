// Loss of the output head, in chunks of rows: gather, product (logits in float32), softmax and
// gradient in place, product back, scatter.
#include "kernels/cuda/cuda_backend.cuh"

namespace qvl
{

enum { LOSS_THREADS = 512, LOSS_STEP = 8 * LOSS_THREADS, MOST_ROWS = 1024, USUAL_ROWS = 512 };

// The hardware's exp is exact enough beside bf16 logits, not in float32.
template <typename T> static __device__ __forceinline__ float exp_of(float x);
template <> __device__ __forceinline__ float exp_of<float>(float x)
{
    return expf(x);
}
template <> __device__ __forceinline__ float exp_of<bf16>(float x)
{
    return __expf(x);
}

struct running_max {
    float top, sum; // sum of exp(x - top)
};

template <typename T>
static __device__ __forceinline__ running_max join(running_max a, running_max b)
{
    const float top = fmaxf(a.top, b.top);
    if (top == -INFINITY)
        return {top, 0.0f};
    return {top, a.sum * exp_of<T>(a.top - top) + b.sum * exp_of<T>(b.top - top)};
}

template <typename T>
static __device__ __forceinline__ running_max block_join(running_max x, running_max *scratch)
{
    for (int offset = 16; offset; offset /= 2) {
        const running_max other = {__shfl_xor_sync(0xffffffffu, x.top, offset),
                                   __shfl_xor_sync(0xffffffffu, x.sum, offset)};
        x = join<T>(x, other);
    }
    if (threadIdx.x % 32 == 0)
        scratch[threadIdx.x / 32] = x;
    __syncthreads();
    running_max all = scratch[0];
    for (int w = 1; w < LOSS_THREADS / 32; w++)
        all = join<T>(all, scratch[w]);
    return all;
}

// A block has one row: its loss, and the row's logits turned into gradients of type T, which lie at
// the beginning of the row: what is written has been read by then.
template <typename T>
static __global__ void __launch_bounds__(LOSS_THREADS)
    loss_kernel(float *logits, float *row_loss, const int32_t *targets, const float *weights,
                int64_t V, bool has_gradient)
{
    __shared__ running_max scratch[32];
    float *row = logits + (int64_t)blockIdx.x * V;
    T *gradient = (T *)row;
    const int64_t target = targets[blockIdx.x];
    const float at_target = row[target], weight = weights[blockIdx.x];
    running_max mine = {-INFINITY, 0.0f};
    for (int64_t v = threadIdx.x * 8; v < V; v += LOSS_STEP) {
        float x[8], top = mine.top, sum = 0.0f;
        pack8<float>::load(x, row + v);
#pragma unroll
        for (int i = 0; i < 8; i++)
            top = fmaxf(top, x[i]);
        if (top == -INFINITY)
            continue;
#pragma unroll
        for (int i = 0; i < 8; i++)
            sum += exp_of<T>(x[i] - top);
        mine = {top, mine.sum * exp_of<T>(mine.top - top) + sum};
    }
    const running_max all = block_join<T>(mine, scratch);
    if (threadIdx.x == 0)
        row_loss[blockIdx.x] = (all.top - at_target) + logf(all.sum);
    if (!has_gradient)
        return;
    const float scale = weight / all.sum;
    for (int64_t base = 0; base < V; base += LOSS_STEP) {
        const int64_t v = base + threadIdx.x * 8;
        float x[8];
        if (v < V)
            pack8<float>::load(x, row + v);
        __syncthreads(); // all of this step is read
        if (v >= V)
            continue;
#pragma unroll
        for (int i = 0; i < 8; i++)
            x[i] = exp_of<T>(x[i] - all.top) * scale - (v + i == target ? weight : 0.0f);
        pack8<T>::store(gradient + v, x);
    }
}

template <typename T>
static cudaError_t launch_loss(const qvl_head_loss_args &a, float *logits, int64_t first, int64_t n,
                               cudaStream_t stream)
{
    loss_kernel<T><<<(unsigned)n, LOSS_THREADS, 0, stream>>>(
        logits, a.row_loss + first, a.targets + first, a.weights + first, a.V, a.dx != NULL);
    return cudaGetLastError();
}

static size_t row_bytes(const qvl_device *dev, int64_t V, int64_t D)
{
    return (size_t)V * sizeof(float) + 2 * (size_t)D * dev->act_bytes;
}

struct chunk {
    void *rows, *logits, *drows;
    int64_t first, n;
};

static qvl_status run_chunk(qvl_device *dev, const qvl_head_loss_args *a, const chunk *c,
                            qvl_err *err)
{
    const int64_t D = a->D, V = a->V;
    const size_t first_byte = (size_t)(c->first * D) * dev->act_bytes;
    const void *x = a->rows ? c->rows : (const char *)a->x + first_byte;
    void *dx = a->rows || !a->dx ? c->drows : (char *)a->dx + first_byte;
    qvl_move_rows_args gather = {}, scatter = {};
    gemm_shape s = {};
    qvl_status rc = QVL_OK;
    gather.dst = c->rows;
    gather.src = a->x;
    gather.src_rows = a->rows ? a->rows + c->first : NULL;
    gather.n_rows = c->n;
    gather.D = D;
    if (a->rows)
        QVL_TRY(qvl_cuda_move_rows(dev, &gather, err));
    s.transpose_b = true;
    s.m = c->n;
    s.n = V;
    s.k = D;
    s.lda = s.ldb = D;
    s.ldc = V;
    s.alpha = 1.0f;
    s.type = dev->dtype;
    s.c_type = QVL_F32;
    QVL_TRY(gemm(dev, s, x, a->head, c->logits, NULL, err));
    QVL_TRY(
        check(QVL_DISPATCH(dev, T,
                           launch_loss<T>(*a, (float *)c->logits, c->first, c->n, compute_of(dev))),
              "loss", err));
    if (!a->dx)
        goto out;
    s.transpose_b = false;
    s.n = D;
    s.k = V;
    s.lda = dev->dtype == QVL_F32 ? V : 2 * V; // rows of the logits hold the gradients
    s.ldb = s.ldc = D;
    s.c_type = dev->dtype;
    QVL_TRY(gemm(dev, s, c->logits, a->head, dx, NULL, err));
    if (!a->rows)
        goto out;
    scatter.dst = a->dx;
    scatter.src = c->drows;
    scatter.dst_rows = a->rows + c->first;
    scatter.n_rows = c->n;
    scatter.D = D;
    QVL_TRY(qvl_cuda_move_rows(dev, &scatter, err));
out:
    return rc;
}

} // namespace qvl

using namespace qvl;

size_t qvl_cuda_head_loss_scratch(const qvl_device *dev, const qvl_workspace_limits *limits)
{
    if (limits->vocab == 0)
        return 0;
    int64_t rows = limits->head_rows ? limits->head_rows : USUAL_ROWS;
    rows = rows < limits->tokens ? rows : limits->tokens;
    return (size_t)rows * row_bytes(dev, limits->vocab, limits->hidden) + 3 * 256;
}

// As many rows at once as the bound workspace has room for.
qvl_status qvl_cuda_head_loss(qvl_device *dev, const qvl_head_loss_args *args, qvl_err *err)
{
    const size_t room = state_of(dev)->workspace_bytes, margin = 3 * 256;
    const size_t per_row = row_bytes(dev, args->V, args->D);
    int64_t rows = room > margin ? (int64_t)((room - margin) / per_row) : 0;
    chunk c = {};
    size_t used = 0;
    qvl_status rc = QVL_OK;
    if (args->V % 8 || args->D % 8)
        return qvl_fail(err, QVL_EDEVICE,
                        "GPU: vocabulary %lld and hidden size %lld must be multiples of 8",
                        (long long)args->V, (long long)args->D);
    if (args->dx && args->rows)
        QVL_TRY(qvl_cuda_zero(dev, args->dx, (size_t)(args->T * args->D) * dev->act_bytes, err));
    if (args->n_rows == 0)
        goto out;
    rows = rows < args->n_rows ? rows : args->n_rows;
    rows = rows < MOST_ROWS ? rows : MOST_ROWS;
    if (rows < 1) {
        rc = qvl_fail(err, QVL_EINTERNAL, "head_loss: scratch of %zu bytes, a row needs %zu", room,
                      per_row + margin);
        goto out;
    }
    QVL_TRY(scratch(dev, &c.logits, &used, (size_t)(rows * args->V) * sizeof(float), err));
    QVL_TRY(scratch(dev, &c.rows, &used, (size_t)(rows * args->D) * dev->act_bytes, err));
    QVL_TRY(scratch(dev, &c.drows, &used, (size_t)(rows * args->D) * dev->act_bytes, err));
    for (c.first = 0; c.first < args->n_rows; c.first += rows) {
        c.n = args->n_rows - c.first < rows ? args->n_rows - c.first : rows;
        QVL_TRY(run_chunk(dev, args, &c, err));
    }
out:
    return rc;
}
