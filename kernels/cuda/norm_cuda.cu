#include "kernels/cuda/cuda_backend.cuh"

namespace qvl
{

enum { NORM_THREADS = 256, MOST_PACKS = 8, MOST_COLUMNS = NORM_THREADS * 8 * MOST_PACKS };

// One block a row, which its threads keep in registers: PACKS times eight columns each.
static __device__ __forceinline__ int64_t column_of(int pack)
{
    return (int64_t)(pack * NORM_THREADS + threadIdx.x) * 8;
}

template <typename T, int PACKS>
static __global__ void __launch_bounds__(NORM_THREADS)
    norm_forward_kernel(T *y, T *x_out, float *inv_rms, const T *x, const T *delta, const T *weight,
                        int64_t D, int64_t y_stride, float eps)
{
    __shared__ float scratch[32];
    const int64_t t = blockIdx.x;
    float v[PACKS][8], sum = 0.0f;
    follow();
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
        const int64_t d = column_of(k);
        if (d >= D)
            continue;
        pack8<T>::load(v[k], x + t * D + d);
        if (delta) {
            float w[8];
            pack8<T>::load(w, delta + t * D + d);
#pragma unroll
            for (int i = 0; i < 8; i++) // what is normalised is what is kept, in its type
                v[k][i] = to_float(from_float<T>(v[k][i] + w[i]));
            pack8<T>::store(x_out + t * D + d, v[k]);
        }
#pragma unroll
        for (int i = 0; i < 8; i++)
            sum += v[k][i] * v[k][i];
    }
    const float scale = rsqrtf(block_sum(sum, scratch) / (float)D + eps);
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
        const int64_t d = column_of(k);
        float w[8];
        if (d >= D)
            continue;
        pack8<T>::load(w, weight + d);
#pragma unroll
        for (int i = 0; i < 8; i++)
            v[k][i] *= scale * w[i];
        pack8<T>::store(y + t * y_stride + d, v[k]);
    }
    if (inv_rms && threadIdx.x == 0)
        inv_rms[t] = scale;
}

// dx_d += r w_d dy_d - x_d r^3 / D * sum_e w_e dy_e x_e
template <typename T, int PACKS>
static __global__ void __launch_bounds__(NORM_THREADS)
    norm_backward_kernel(T *dx, const T *dy, const T *x, const float *inv_rms, const T *weight,
                         int64_t D)
{
    __shared__ float scratch[32];
    const int64_t t = blockIdx.x;
    float v[PACKS][8], g[PACKS][8], to[PACKS][8], dot = 0.0f; // x, w dy, dx
    follow();
    const float r = inv_rms[t];
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
        const int64_t d = column_of(k);
        float w[8];
        if (d >= D)
            continue;
        pack8<T>::load(v[k], x + t * D + d);
        pack8<T>::load(w, weight + d);
        pack8<T>::load(g[k], dy + t * D + d);
        pack8<T>::load(to[k], dx + t * D + d);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            g[k][i] *= w[i];
            dot += g[k][i] * v[k][i];
        }
    }
    const float along = block_sum(dot, scratch) * r * r * r / (float)D;
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
        const int64_t d = column_of(k);
        if (d >= D)
            continue;
#pragma unroll
        for (int i = 0; i < 8; i++)
            to[k][i] += r * g[k][i] - along * v[k][i];
        pack8<T>::store(dx + t * D + d, to[k]);
    }
}

template <typename T, int PACKS>
static cudaError_t launch_norm(const qvl_norm_args &a, cudaStream_t stream)
{
    return launch(norm_forward_kernel<T, PACKS>, dim3((unsigned)a.T), NORM_THREADS, 0, stream,
                  (T *)a.y, (T *)a.x_out, a.inv_rms, (const T *)a.x, (const T *)a.delta,
                  (const T *)a.weight, a.D, or_dense(a.y_stride, a.D), a.eps);
}

template <typename T, int PACKS>
static cudaError_t launch_norm(const qvl_norm_backward_args &a, cudaStream_t stream)
{
    return launch(norm_backward_kernel<T, PACKS>, dim3((unsigned)a.T), NORM_THREADS, 0, stream,
                  (T *)a.dx, (const T *)a.dy, (const T *)a.x, a.inv_rms, (const T *)a.weight, a.D);
}

template <typename T, typename A> static cudaError_t launch_packs(const A &a, cudaStream_t stream)
{
    const int64_t packs = divide_up(a.D, NORM_THREADS * 8);
    return packs <= 1   ? launch_norm<T, 1>(a, stream)
           : packs <= 2 ? launch_norm<T, 2>(a, stream)
           : packs <= 4 ? launch_norm<T, 4>(a, stream)
                        : launch_norm<T, MOST_PACKS>(a, stream);
}

} // namespace qvl

using namespace qvl;

qvl_status qvl_cuda_norm(qvl_device *dev, const qvl_norm_args *args, qvl_err *err)
{
    if (args->D % 8 || args->D > MOST_COLUMNS || (args->delta && !args->x_out))
        return qvl_fail(err, QVL_EINTERNAL,
                        "norm: D %lld is not a multiple of 8 up to %d, or no x_out",
                        (long long)args->D, MOST_COLUMNS);
    if (args->T == 0)
        return QVL_OK;
    return check(QVL_DISPATCH(dev, T, launch_packs<T>(*args, compute_of(dev))), "norm", err);
}

qvl_status qvl_cuda_norm_backward(qvl_device *dev, const qvl_norm_backward_args *args, qvl_err *err)
{
    if (args->D % 8 || args->D > MOST_COLUMNS)
        return qvl_fail(err, QVL_EINTERNAL, "norm_backward: D %lld is not a multiple of 8 up to %d",
                        (long long)args->D, MOST_COLUMNS);
    if (args->T == 0)
        return QVL_OK;
    return check(QVL_DISPATCH(dev, T, launch_packs<T>(*args, compute_of(dev))), "norm_backward",
                 err);
}
