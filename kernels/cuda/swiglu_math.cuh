// silu(g) u and its gradient, the same bits wherever they are computed.
#ifndef QVL_KERNELS_CUDA_SWIGLU_MATH_CUH
#define QVL_KERNELS_CUDA_SWIGLU_MATH_CUH

#include "kernels/cuda/cuda_backend.cuh"

namespace qvl
{

// 1 / (1 + exp(-x)). What is rounded to bf16 does not need more than the hardware's functions.
template <typename T> __device__ __forceinline__ float sigmoid(float x);
template <> __device__ __forceinline__ float sigmoid<float>(float x)
{
    return 1.0f / (1.0f + expf(-x));
}
template <> __device__ __forceinline__ float sigmoid<bf16>(float x)
{
    return __fdividef(1.0f, 1.0f + __expf(-x));
}

template <typename T> __device__ __forceinline__ float swiglu_value(float gate, float up)
{
    return gate * sigmoid<T>(gate) * up;
}

// s is sigmoid(gate).
__device__ __forceinline__ void swiglu_gradient(float *dgate, float *dup, float dh, float gate,
                                                float up, float s)
{
    *dgate = dh * up * s * (1.0f + gate * (1.0f - s));
    *dup = dh * gate * s;
}

} // namespace qvl

#endif
