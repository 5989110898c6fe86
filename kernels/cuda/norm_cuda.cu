#include "kernels/cuda/cuda_backend.cuh"

namespace qvl
{

enum { NORM_THREADS = 256 };

// One block a row. The row is read twice, the second time from the cache.
template <typename T>
static __global__ void __launch_bounds__(NORM_THREADS)
    norm_forward_kernel(T *y, T *x_out, float *inv_rms, const T *x, const T *delta, const T *weight,
                        int64_t D, int64_t y_stride, float eps)
{
    __shared__ float scratch[32];
    const int64_t t = blockIdx.x;
    const T *row = x + t * D;
    follow();
    float sum = 0.0f;
    for (int64_t d = threadIdx.x * 8; d < D; d += NORM_THREADS * 8) {
        float v[8];
        pack8<T>::load(v, row + d);
        if (delta) {
            float w[8];
            pack8<T>::load(w, delta + t * D + d);
#pragma unroll
            for (int i = 0; i < 8;
                 i++) // the stream is kept in its own type: what is normalised is what is kept
                v[i] = to_float(from_float<T>(v[i] + w[i]));
            pack8<T>::store(x_out + t * D + d, v);
        }
#pragma unroll
        for (int i = 0; i < 8; i++)
            sum += v[i] * v[i];
    }
    const float scale = rsqrtf(block_sum(sum, scratch) / (float)D + eps);
    const T *source = delta ? x_out + t * D : row;
    for (int64_t d = threadIdx.x * 8; d < D; d += NORM_THREADS * 8) {
        float v[8], w[8];
        pack8<T>::load(v, source + d);
        pack8<T>::load(w, weight + d);
#pragma unroll
        for (int i = 0; i < 8; i++)
            v[i] *= scale * w[i];
        pack8<T>::store(y + t * y_stride + d, v);
    }
    if (inv_rms && threadIdx.x == 0)
        inv_rms[t] = scale;
}

// dx_d += r w_d dy_d - x_d r^3 / D * sum_e w_e dy_e x_e
template <typename T>
static __global__ void __launch_bounds__(NORM_THREADS)
    norm_backward_kernel(T *dx, const T *dy, const T *x, const float *inv_rms, const T *weight,
                         int64_t D)
{
    __shared__ float scratch[32];
    const int64_t t = blockIdx.x;
    follow();
    const float r = inv_rms[t];
    float dot = 0.0f;
    for (int64_t d = threadIdx.x * 8; d < D; d += NORM_THREADS * 8) {
        float v[8], w[8], g[8];
        pack8<T>::load(v, x + t * D + d);
        pack8<T>::load(w, weight + d);
        pack8<T>::load(g, dy + t * D + d);
#pragma unroll
        for (int i = 0; i < 8; i++)
            dot += w[i] * g[i] * v[i];
    }
    const float along = block_sum(dot, scratch) * r * r * r / (float)D;
    for (int64_t d = threadIdx.x * 8; d < D; d += NORM_THREADS * 8) {
        float v[8], w[8], g[8], to[8];
        pack8<T>::load(v, x + t * D + d);
        pack8<T>::load(w, weight + d);
        pack8<T>::load(g, dy + t * D + d);
        pack8<T>::load(to, dx + t * D + d);
#pragma unroll
        for (int i = 0; i < 8; i++)
            to[i] += r * w[i] * g[i] - along * v[i];
        pack8<T>::store(dx + t * D + d, to);
    }
}

template <typename T> static cudaError_t launch_norm(const qvl_norm_args &a, cudaStream_t stream)
{
    return launch(norm_forward_kernel<T>, dim3((unsigned)a.T), NORM_THREADS, 0, stream, (T *)a.y,
                  (T *)a.x_out, a.inv_rms, (const T *)a.x, (const T *)a.delta, (const T *)a.weight,
                  a.D, or_dense(a.y_stride, a.D), a.eps);
}

template <typename T>
static cudaError_t launch_norm_backward(const qvl_norm_backward_args &a, cudaStream_t stream)
{
    return launch(norm_backward_kernel<T>, dim3((unsigned)a.T), NORM_THREADS, 0, stream, (T *)a.dx,
                  (const T *)a.dy, (const T *)a.x, a.inv_rms, (const T *)a.weight, a.D);
}

} // namespace qvl

using namespace qvl;

qvl_status qvl_cuda_norm(qvl_device *dev, const qvl_norm_args *args, qvl_err *err)
{
    if (args->D % 8 || (args->delta && !args->x_out))
        return qvl_fail(err, QVL_EINTERNAL, "norm: D %lld is not a multiple of 8, or no x_out",
                        (long long)args->D);
    if (args->T == 0)
        return QVL_OK;
    return check(QVL_DISPATCH(dev, T, launch_norm<T>(*args, compute_of(dev))), "norm", err);
}

qvl_status qvl_cuda_norm_backward(qvl_device *dev, const qvl_norm_backward_args *args, qvl_err *err)
{
    if (args->D % 8)
        return qvl_fail(err, QVL_EINTERNAL, "norm_backward: D %lld is not a multiple of 8",
                        (long long)args->D);
    if (args->T == 0)
        return QVL_OK;
    return check(QVL_DISPATCH(dev, T, launch_norm_backward<T>(*args, compute_of(dev))),
                 "norm_backward", err);
}
