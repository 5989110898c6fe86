// What attention's backward pass does before and after its main kernel (attention_backward.cu):
// delta, and the sums of what several blocks have of dk and dv.
#ifndef QVL_KERNELS_CUDA_ATTENTION_SUMS_CUH
#define QVL_KERNELS_CUDA_ATTENTION_SUMS_CUH

#include "kernels/cuda/attention_cuda.cuh"
#include "kernels/cuda/cuda_backend.cuh"
#include "kernels/cuda/tile.cuh"

namespace qvl
{

// One warp a row and head.
template <int DH>
static __global__ void attention_delta_kernel(const __grid_constant__ attention_params p,
                                              const bf16 *dout, float *delta)
{
    const int item = (int)(blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32), H = (int)p.H;
    const int lane = threadIdx.x % 32;
    follow();
    if (item >= (int)p.T * H)
        return;
    const int64_t t = item / H, head = item % H;
    const bf16 *out = (const bf16 *)p.out + t * p.out_stride + head * DH;
    dout += t * p.dout_stride + head * DH;
    float sum = 0.0f;
    for (int d = 4 * lane; d < DH; d += 4 * 32) {
        const uint2 o = *(const uint2 *)(out + d), g = *(const uint2 *)(dout + d);
        sum += low_half(o.x) * low_half(g.x) + high_half(o.x) * high_half(g.x) +
               low_half(o.y) * low_half(g.y) + high_half(o.y) * high_half(g.y);
    }
    for (int offset = 16; offset; offset /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    if (lane == 0)
        delta[head * p.T + t] = sum;
}

static __device__ __forceinline__ float4 sum_splits(const float *from, int64_t stride, int splits)
{
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (int s = 0; s < splits; s++)
        add_to(&sum, __ldcs((const float4 *)(from + s * stride)));
    return sum;
}

static __device__ __forceinline__ void store4(bf16 *to, const float x[4], float scale)
{
    *(uint2 *)to =
        make_uint2(pack_bf16(x[0] * scale, x[1] * scale), pack_bf16(x[2] * scale, x[3] * scale));
}

// dk, dv of the splits added up, in order. A thread has four columns of either half of a head.
template <int DH>
static __global__ void attention_sum_parts_kernel(const __grid_constant__ attention_params p,
                                                  const float *parts, int splits, bf16 *dqkv)
{
    const int KV = (int)p.KV, item = (int)(blockIdx.x * 256 + threadIdx.x);
    const int col = item % (DH / 8) * 4, head = item / (DH / 8) % (2 * KV);
    const int64_t t = item / (DH / 8) / (2 * KV), width = 2 * KV * DH;
    follow();
    if (t >= p.T)
        return;
    const float *from = parts + t * width + head * DH + col;
    const float4 l = sum_splits(from, p.T * width, splits);
    const float4 h = sum_splits(from + DH / 2, p.T * width, splits);
    float low[4] = {l.x, l.y, l.z, l.w}, high[4] = {h.x, h.y, h.z, h.w};
    if (p.cosine && head < KV) {
        const float4 c = *(const float4 *)(p.cosine + t * (DH / 2) + col);
        const float4 s = *(const float4 *)(p.sine + t * (DH / 2) + col);
        const float cosine[4] = {c.x, c.y, c.z, c.w}, sine[4] = {s.x, s.y, s.z, s.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float x = low[i], y = high[i];
            low[i] = x * cosine[i] + y * sine[i];
            high[i] = y * cosine[i] - x * sine[i];
        }
    }
    bf16 *to = dqkv + t * p.stride + (p.H + head) * DH + col;
    store4(to, low, head < KV ? p.scale : 1.0f);
    store4(to + DH / 2, high, head < KV ? p.scale : 1.0f);
}

} // namespace qvl

#endif
