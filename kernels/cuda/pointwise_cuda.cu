#include "kernels/cuda/swiglu_math.cuh"

namespace qvl
{

enum { POINT_THREADS = 256 };

static unsigned blocks_for(int64_t items)
{
    return (unsigned)((items + POINT_THREADS - 1) / POINT_THREADS);
}

// ---- SwiGLU: a thread has eight columns of a row
// -------------------------------------------------

template <typename T>
static __global__ void swiglu_forward_kernel(T *h, const T *gate_up, int64_t T_rows, int64_t F,
                                             int64_t h_stride)
{
    follow();
    const int64_t item = (int64_t)blockIdx.x * POINT_THREADS + threadIdx.x, per_row = F / 8;
    if (item >= T_rows * per_row)
        return;
    const int64_t t = item / per_row, f = item % per_row * 8;
    float g[8], u[8];
    pack8<T>::load(g, gate_up + t * 2 * F + f);
    pack8<T>::load(u, gate_up + t * 2 * F + F + f);
#pragma unroll
    for (int i = 0; i < 8; i++)
        g[i] = swiglu_value<T>(g[i], u[i]);
    pack8<T>::store(h + t * h_stride + f, g);
}

template <typename T>
static __global__ void swiglu_backward_kernel(T *dgate_up, const T *dh, const T *gate_up,
                                              int64_t T_rows, int64_t F)
{
    const int64_t item = (int64_t)blockIdx.x * POINT_THREADS + threadIdx.x, per_row = F / 8;
    if (item >= T_rows * per_row)
        return;
    const int64_t t = item / per_row, f = item % per_row * 8, at = t * 2 * F + f;
    float g[8], u[8], d[8];
    pack8<T>::load(g, gate_up + at);
    pack8<T>::load(u, gate_up + at + F);
    pack8<T>::load(d, dh + t * F + f);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float gate = g[i], up = u[i];
        swiglu_gradient(&g[i], &u[i], d[i], gate, up, sigmoid<T>(gate));
    }
    pack8<T>::store(dgate_up + at, g);
    pack8<T>::store(dgate_up + at + F, u);
}

template <typename T>
static cudaError_t launch_swiglu(const qvl_swiglu_args &a, cudaStream_t stream)
{
    return launch(swiglu_forward_kernel<T>, dim3(blocks_for(a.T * (a.F / 8))), POINT_THREADS, 0,
                  stream, (T *)a.h, (const T *)a.gate_up, a.T, a.F, or_dense(a.h_stride, a.F));
}

template <typename T>
static cudaError_t launch_swiglu_backward(const qvl_swiglu_backward_args &a, cudaStream_t stream)
{
    swiglu_backward_kernel<T><<<blocks_for(a.T * (a.F / 8)), POINT_THREADS, 0, stream>>>(
        (T *)a.dgate_up, (const T *)a.dh, (const T *)a.gate_up, a.T, a.F);
    return cudaGetLastError();
}

// ---- GELU ---------------------------------------------------------------------------------------

template <typename T> static __global__ void gelu_kernel(T *x, int64_t n)
{
    const int64_t i = (int64_t)blockIdx.x * POINT_THREADS + threadIdx.x;
    if (i >= n)
        return;
    const float v = to_float(x[i]);
    x[i] = from_float<T>(0.5f * v * (1.0f + erff(v * 0.70710678f)));
}

template <typename T> static cudaError_t launch_gelu(const qvl_gelu_args &a, cudaStream_t stream)
{
    gelu_kernel<T><<<blocks_for(a.n), POINT_THREADS, 0, stream>>>((T *)a.x, a.n);
    return cudaGetLastError();
}

// ---- rotary -------------------------------------------------------------------------------------

static __global__ void rope_table_kernel(float *cosine, float *sine, const int32_t *positions,
                                         const float *inv_freq, const int32_t *axis, int64_t T_rows,
                                         int64_t n_freq)
{
    const int64_t item = (int64_t)blockIdx.x * POINT_THREADS + threadIdx.x;
    if (item >= T_rows * n_freq)
        return;
    const int64_t t = item / n_freq, i = item % n_freq;
    const float angle = (float)positions[axis[i] * T_rows + t] * inv_freq[i];
    float s, c;
    sincosf(angle, &s, &c);
    cosine[item] = c;
    sine[item] = s;
}

// A thread turns eight neighbouring pairs of one head.
template <typename T>
static __global__ void rotate_kernel(T *x, const float *cosine, const float *sine, int64_t T_rows,
                                     int64_t stride, int64_t n_heads, int64_t half, float sign)
{
    follow();
    const unsigned item = blockIdx.x * POINT_THREADS + threadIdx.x;
    const unsigned per_head = (unsigned)half / 8, per_row = (unsigned)n_heads * per_head;
    const unsigned rest = item % per_row, head = rest / per_head;
    const int64_t t = item / per_row, i = rest % per_head * 8;
    if (t >= T_rows)
        return;
    T *low = x + t * stride + head * 2 * half + i, *high = low + half;
    float a[8], b[8], c[8], s[8];
    pack8<T>::load(a, low);
    pack8<T>::load(b, high);
    pack8<float>::load(c, cosine + t * half + i);
    pack8<float>::load(s, sine + t * half + i);
#pragma unroll
    for (int k = 0; k < 8; k++) {
        const float l = a[k], h = b[k], turn = sign * s[k];
        a[k] = l * c[k] - h * turn;
        b[k] = h * c[k] + l * turn;
    }
    pack8<T>::store(low, a);
    pack8<T>::store(high, b);
}

template <typename T>
static cudaError_t launch_rotate(const qvl_rotate_args &a, cudaStream_t stream)
{
    return launch(rotate_kernel<T>, dim3(blocks_for(a.T * a.n_heads * (a.Dh / 16))), POINT_THREADS,
                  0, stream, (T *)a.x, a.cosine, a.sine, a.T, a.stride, a.n_heads, a.Dh / 2,
                  a.inverse ? -1.0f : 1.0f);
}

} // namespace qvl

using namespace qvl;

qvl_status qvl_cuda_swiglu(qvl_device *dev, const qvl_swiglu_args *args, qvl_err *err)
{
    if (args->F % 8)
        return qvl_fail(err, QVL_EINTERNAL, "swiglu: F %lld is not a multiple of 8",
                        (long long)args->F);
    if (args->T == 0)
        return QVL_OK;
    return check(QVL_DISPATCH(dev, T, launch_swiglu<T>(*args, compute_of(dev))), "swiglu", err);
}

qvl_status qvl_cuda_swiglu_backward(qvl_device *dev, const qvl_swiglu_backward_args *args,
                                    qvl_err *err)
{
    if (args->F % 8)
        return qvl_fail(err, QVL_EINTERNAL, "swiglu_backward: F %lld is not a multiple of 8",
                        (long long)args->F);
    if (args->T == 0)
        return QVL_OK;
    return check(QVL_DISPATCH(dev, T, launch_swiglu_backward<T>(*args, compute_of(dev))),
                 "swiglu_backward", err);
}

qvl_status qvl_cuda_gelu(qvl_device *dev, const qvl_gelu_args *args, qvl_err *err)
{
    if (args->n == 0)
        return QVL_OK;
    return check(QVL_DISPATCH(dev, T, launch_gelu<T>(*args, compute_of(dev))), "gelu", err);
}

qvl_status qvl_cuda_rope_table(qvl_device *dev, const qvl_rope_table_args *args, qvl_err *err)
{
    if (args->T == 0)
        return QVL_OK;
    rope_table_kernel<<<blocks_for(args->T * args->n_freq), POINT_THREADS, 0, compute_of(dev)>>>(
        args->cosine, args->sine, args->positions, args->inv_freq, args->axis, args->T,
        args->n_freq);
    return check(cudaGetLastError(), "rope_table", err);
}

qvl_status qvl_cuda_rotate(qvl_device *dev, const qvl_rotate_args *args, qvl_err *err)
{
    if (args->Dh % 16 || args->stride % 8)
        return qvl_fail(err, QVL_EINTERNAL, "rotate: heads of %lld in rows of %lld",
                        (long long)args->Dh, (long long)args->stride);
    if (args->T * args->n_heads == 0)
        return QVL_OK;
    return check(QVL_DISPATCH(dev, T, launch_rotate<T>(*args, compute_of(dev))), "rotate", err);
}
