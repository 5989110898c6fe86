// Attention in float32, for exactness (bf16: false): one warp a query row and head, or a key row
// and key/value head, with each lane holding every 32nd value of the head. Plain, and in a fixed
// order.
#include "kernels/cuda/attention_cuda.cuh"

namespace qvl
{

enum { WARPS = 4, LANE_VALUES = 4 }; // heads of up to 128 values

static __device__ __forceinline__ float warp_sum(float x)
{
    for (int offset = 16; offset; offset /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}

static __device__ __forceinline__ void load_row(float r[LANE_VALUES], const float *from, int Dh)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < LANE_VALUES; i++)
        r[i] = lane + 32 * i < Dh ? from[lane + 32 * i] : 0.0f;
}

static __device__ __forceinline__ void store_row(float *to, const float r[LANE_VALUES], int Dh,
                                                 float scale)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < LANE_VALUES; i++)
        if (lane + 32 * i < Dh)
            to[lane + 32 * i] = r[i] * scale;
}

static __device__ __forceinline__ float dot(const float a[LANE_VALUES], const float b[LANE_VALUES])
{
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < LANE_VALUES; i++)
        sum += a[i] * b[i];
    return warp_sum(sum);
}

// Where a warp works: sequence blockIdx.z, row blockIdx.x * WARPS + warp of it, head blockIdx.y.
struct place {
    int64_t first;
    int len, row;
};

static __device__ __forceinline__ place find_place(const attention_params &p)
{
    place at;
    at.first = p.cu_seqlens[blockIdx.z];
    at.len = p.cu_seqlens[blockIdx.z + 1] - (int)at.first;
    at.row = blockIdx.x * WARPS + threadIdx.x / 32;
    return at;
}

static __global__ void forward_kernel(attention_params p, int Dh, bool is_causal)
{
    const place at = find_place(p);
    const int head = blockIdx.y, kv = head / (int)(p.H / p.KV);
    if (at.row >= at.len)
        return;
    const float *base = (const float *)p.qkv + at.first * p.stride;
    float q[LANE_VALUES], o[LANE_VALUES] = {}, top = -INFINITY, sum = 0.0f;
    load_row(q, base + at.row * p.stride + head * Dh, Dh);
    const int n_keys = is_causal ? at.row + 1 : at.len;
    for (int j = 0; j < n_keys; j++) {
        float k[LANE_VALUES], v[LANE_VALUES];
        load_row(k, base + j * p.stride + (p.H + kv) * Dh, Dh);
        load_row(v, base + j * p.stride + (p.H + p.KV + kv) * Dh, Dh);
        const float s = dot(q, k) * p.scale, best = fmaxf(top, s);
        const float keep = expf(top - best), weight = expf(s - best);
        sum = sum * keep + weight;
#pragma unroll
        for (int i = 0; i < LANE_VALUES; i++)
            o[i] = o[i] * keep + weight * v[i];
        top = best;
    }
    store_row((float *)p.out + (at.first + at.row) * p.out_stride + head * Dh, o, Dh, 1.0f / sum);
    if (p.lse && threadIdx.x % 32 == 0)
        p.lse[(int64_t)head * p.T + at.first + at.row] = top + logf(sum);
}

static __global__ void delta_kernel(attention_params p, int Dh, const float *dout, float *delta)
{
    const place at = find_place(p);
    const int head = blockIdx.y;
    if (at.row >= at.len)
        return;
    const int64_t t = at.first + at.row;
    float o[LANE_VALUES], d[LANE_VALUES];
    load_row(o, (const float *)p.out + t * p.out_stride + head * Dh, Dh);
    load_row(d, dout + t * p.dout_stride + head * Dh, Dh);
    const float sum = dot(o, d);
    if (threadIdx.x % 32 == 0)
        delta[(int64_t)head * p.T + t] = sum;
}

static __global__ void query_kernel(attention_params p, int Dh, bool is_causal, const float *dout,
                                    const float *delta, float *dqkv)
{
    const place at = find_place(p);
    const int head = blockIdx.y, kv = head / (int)(p.H / p.KV);
    if (at.row >= at.len)
        return;
    const float *base = (const float *)p.qkv + at.first * p.stride;
    const int64_t t = at.first + at.row;
    float q[LANE_VALUES], d[LANE_VALUES], dq[LANE_VALUES] = {};
    load_row(q, base + at.row * p.stride + head * Dh, Dh);
    load_row(d, dout + t * p.dout_stride + head * Dh, Dh);
    const float lse = p.lse[(int64_t)head * p.T + t], row_delta = delta[(int64_t)head * p.T + t];
    const int n_keys = is_causal ? at.row + 1 : at.len;
    for (int j = 0; j < n_keys; j++) {
        float k[LANE_VALUES], v[LANE_VALUES];
        load_row(k, base + j * p.stride + (p.H + kv) * Dh, Dh);
        load_row(v, base + j * p.stride + (p.H + p.KV + kv) * Dh, Dh);
        const float weight = expf(dot(q, k) * p.scale - lse), ds = weight * (dot(d, v) - row_delta);
#pragma unroll
        for (int i = 0; i < LANE_VALUES; i++)
            dq[i] += ds * k[i];
    }
    store_row(dqkv + t * p.stride + head * Dh, dq, Dh, p.scale);
}

static __global__ void key_kernel(attention_params p, int Dh, bool is_causal, const float *dout,
                                  const float *delta, float *dqkv)
{
    const place at = find_place(p);
    const int kv = blockIdx.y, group = (int)(p.H / p.KV);
    if (at.row >= at.len)
        return;
    const float *base = (const float *)p.qkv + at.first * p.stride;
    float k[LANE_VALUES], v[LANE_VALUES], dk[LANE_VALUES] = {}, dv[LANE_VALUES] = {};
    load_row(k, base + at.row * p.stride + (p.H + kv) * Dh, Dh);
    load_row(v, base + at.row * p.stride + (p.H + p.KV + kv) * Dh, Dh);
    for (int head = kv * group; head < (kv + 1) * group; head++)
        for (int i = is_causal ? at.row : 0; i < at.len; i++) {
            const int64_t t = at.first + i;
            float q[LANE_VALUES], d[LANE_VALUES];
            load_row(q, base + i * p.stride + head * Dh, Dh);
            load_row(d, dout + t * p.dout_stride + head * Dh, Dh);
            const int64_t statistics = (int64_t)head * p.T + t;
            const float weight = expf(dot(q, k) * p.scale - p.lse[statistics]);
            const float ds = weight * (dot(d, v) - delta[statistics]);
#pragma unroll
            for (int n = 0; n < LANE_VALUES; n++) {
                dv[n] += weight * d[n];
                dk[n] += ds * q[n];
            }
        }
    float *to = dqkv + (at.first + at.row) * p.stride;
    store_row(to + (p.H + kv) * Dh, dk, Dh, p.scale);
    store_row(to + (p.H + p.KV + kv) * Dh, dv, Dh, 1.0f);
}

static dim3 grid_of(const attention_params &p, int64_t longest, int64_t heads)
{
    return dim3((unsigned)((longest + WARPS - 1) / WARPS), (unsigned)heads, (unsigned)p.B);
}

cudaError_t launch_attention_forward_f32(const attention_params &p, int Dh, bool is_causal,
                                         int64_t longest, cudaStream_t stream)
{
    if (Dh > 32 * LANE_VALUES)
        return cudaErrorInvalidValue;
    forward_kernel<<<grid_of(p, longest, p.H), 32 * WARPS, 0, stream>>>(p, Dh, is_causal);
    return cudaGetLastError();
}

cudaError_t launch_attention_backward_f32(const attention_params &p, int Dh, bool is_causal,
                                          const void *dout, void *dqkv, float *delta,
                                          int64_t longest, cudaStream_t stream)
{
    if (Dh > 32 * LANE_VALUES)
        return cudaErrorInvalidValue;
    const dim3 heads = grid_of(p, longest, p.H), kv_heads = grid_of(p, longest, p.KV);
    delta_kernel<<<heads, 32 * WARPS, 0, stream>>>(p, Dh, (const float *)dout, delta);
    key_kernel<<<kv_heads, 32 * WARPS, 0, stream>>>(p, Dh, is_causal, (const float *)dout, delta,
                                                    (float *)dqkv);
    query_kernel<<<heads, 32 * WARPS, 0, stream>>>(p, Dh, is_causal, (const float *)dout, delta,
                                                   (float *)dqkv);
    return cudaGetLastError();
}

} // namespace qvl
