// Adapters into the form that the forward products want: A rounded, scale B in the weight's tail.
#include "kernels/cuda/cuda_backend.cuh"

namespace qvl
{

enum { FOLD_THREADS = 256, FOLD_ADAPTERS = 32 };

struct fold_adapter {
    const float *a, *b;
    bf16 *a_act, *tail; // tail: first of this adapter's columns in row 0 of the weight
    int64_t in, out, weight_stride, rank, out_offset, out_total;
    float scale;
};

struct fold_batch {
    fold_adapter adapter[FOLD_ADAPTERS];
};

// blockIdx.y is the adapter; threads walk over A, then over the tail's columns of all rows of W,
// eight neighbours at a time. in is a multiple of 8.
static __global__ void fold_kernel(fold_batch batch)
{
    const fold_adapter f = batch.adapter[blockIdx.y];
    const int tiles = (int)(f.rank + 7) / 8, per_row = (int)f.in / 8;
    const int n_a = tiles * 8 * per_row, n = n_a + (int)f.out_total * tiles;
    for (int i = (int)(blockIdx.x * blockDim.x + threadIdx.x); i < n;
         i += (int)(gridDim.x * blockDim.x)) {
        float v[8] = {};
        if (i < n_a) {
            if (i / per_row < f.rank)
                pack8<float>::load(v, f.a + (int64_t)i * 8);
            pack8<bf16>::store(f.a_act + (int64_t)i * 8, v);
            continue;
        }
        const int row = (i - n_a) / tiles, r0 = (i - n_a) % tiles * 8;
        const int64_t o = row - f.out_offset;
        if (o >= 0 && o < f.out)
#pragma unroll
            for (int k = 0; k < 8; k++)
                v[k] = r0 + k < f.rank ? f.b[o * f.rank + r0 + k] * f.scale : 0.0f;
        pack8<bf16>::store(f.tail + row * f.weight_stride + r0, v);
    }
}

static qvl_status launch_fold(qvl_device *dev, const fold_batch &batch, int n, qvl_err *err)
{
    fold_kernel<<<dim3(64, (unsigned)n), FOLD_THREADS, 0, compute_of(dev)>>>(batch);
    return check(cudaGetLastError(), "fold", err);
}

} // namespace qvl

using namespace qvl;

qvl_status qvl_cuda_fold(qvl_device *dev, const qvl_fold_args *args, qvl_err *err)
{
    fold_batch batch = {};
    int n = 0;
    qvl_status rc = QVL_OK;
    if (dev->tail_align == 0)
        return QVL_OK;
    for (int64_t k = 0; k < args->n; k++) {
        const qvl_linear *lin = &args->linears[k];
        const int64_t R8 = divide_up(lin->rank, 8) * 8;
        if (lin->n_adapters && lin->in % 8)
            return qvl_fail(err, QVL_EINTERNAL, "fold: %lld inputs are not a multiple of 8",
                            (long long)lin->in);
        for (int i = 0; i < lin->n_adapters; i++) {
            const qvl_adapter *a = &lin->adapters[i];
            bf16 *weight = (bf16 *)(uintptr_t)lin->weight; // its tail is the adapters'
            batch.adapter[n++] = {
                a->a,          a->b,     (bf16 *)a->a_act,   weight + lin->in + i * R8,
                lin->in,       a->out,   lin->weight_stride, lin->rank,
                a->out_offset, lin->out, lin->scale};
            if (n < FOLD_ADAPTERS)
                continue;
            QVL_TRY(launch_fold(dev, batch, n, err));
            n = 0;
        }
    }
    if (n > 0)
        rc = launch_fold(dev, batch, n, err);
out:
    return rc;
}
