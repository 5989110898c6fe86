// Attention forward on tensor cores (bf16): one block of four warps has 64 queries of one head and
// walks over the keys, 64 at a time, with a running maximum and sum. Memory is O(T).
#include "kernels/cuda/attention_cuda.cuh"
#include "kernels/cuda/cuda_backend.cuh"
#include "kernels/cuda/tile.cuh"

namespace qvl
{

enum { QUERIES = ATTENTION_ROWS, KEYS = 64, THREADS = 128 };

template <int DH> static size_t forward_shared_bytes()
{
    return (size_t)(QUERIES + 4 * KEYS) * tile_shape<DH>::PITCH * sizeof(bf16);
}

// Scores into probabilities relative to the running maximum (base 2), rescaling what was summed.
// Rows of this lane: q0 + g and q0 + g + 8.
template <int DH, bool CAUSAL>
static __device__ __forceinline__ void softmax_tile(float s[KEYS / 8][4], float o[DH / 8][4],
                                                    float top[2], float sum[2], float scale_log2,
                                                    int row, int key0, int len)
{
    const int t2 = threadIdx.x % 4 * 2;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int limit = CAUSAL ? min(len, row + half * 8 + 1) : len;
        float best = -INFINITY;
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float &x = s[n][half * 2 + e];
                x = key0 + n * 8 + t2 + e < limit ? x * scale_log2 : -INFINITY;
                best = fmaxf(best, x);
            }
        best = fmaxf(quad_max(best), top[half]);
        // a row without a visible key yet (only past the end of a sequence) keeps zeros
        const float base = best == -INFINITY ? 0.0f : best;
        const float keep = exp2f(top[half] - base);
        float part = 0.0f;
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float &x = s[n][half * 2 + e];
                x = exp2f(x - base);
                part += x;
            }
        sum[half] = sum[half] * keep + part;
        top[half] = best;
#pragma unroll
        for (int n = 0; n < DH / 8; n++) {
            o[n][half * 2] *= keep;
            o[n][half * 2 + 1] *= keep;
        }
    }
}

template <int DH>
static __device__ __forceinline__ void store_rows(const attention_params &p, float o[DH / 8][4],
                                                  const float top[2], const float sum[2],
                                                  int64_t first, int row, int len, int head)
{
    const int t2 = threadIdx.x % 4 * 2;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float total = quad_sum(sum[half]);
        const int r = row + half * 8;
        if (r >= len)
            continue;
        const float inverse = 1.0f / total;
        bf16 *to = (bf16 *)p.out + (first + r) * p.out_stride + head * DH + t2;
#pragma unroll
        for (int n = 0; n < DH / 8; n++)
            *(uint32_t *)(to + n * 8) =
                pack_bf16(o[n][half * 2] * inverse, o[n][half * 2 + 1] * inverse);
        if (p.lse && t2 == 0)
            p.lse[(int64_t)head * p.T + first + r] =
                top[half] * 0.69314718056f + logf(total); // back to base e
    }
}

// FLAT: blockIdx.y is one of all tiles, which is looked up; otherwise blockIdx.z is the sequence
// and y its tile, and blocks past its end do nothing: for many short sequences, as the tower's
// windows are.
template <int DH, bool CAUSAL, bool FLAT>
static __global__ void __launch_bounds__(THREADS)
    attention_forward_kernel(const __grid_constant__ attention_params p)
{
    extern __shared__ __align__(16) unsigned char shared[];
    bf16 *q_tile = (bf16 *)shared;
    bf16 *k_tiles = q_tile + QUERIES * tile_shape<DH>::PITCH;
    bf16 *v_tiles = k_tiles + 2 * KEYS * tile_shape<DH>::PITCH;
    // the longest rows of a causal sequence start first
    const int head = blockIdx.x;
    tile_place at = {};
    follow();
    if (FLAT) {
        at = query_tile(p, (int)blockIdx.y);
    } else {
        at.first = p.cu_seqlens[blockIdx.z];
        at.len = p.cu_seqlens[blockIdx.z + 1] - at.first;
        at.tile = (int)(gridDim.y - 1 - blockIdx.y);
    }
    const int64_t first = at.first;
    const int len = at.len, q0 = at.tile * QUERIES;
    if (q0 >= len)
        return;
    const int kv = head / (p.H / p.KV);
    const bf16 *base = (const bf16 *)p.qkv + first * p.stride;
    const bf16 *k_rows = base + (p.H + kv) * DH, *v_rows = base + (p.H + p.KV + kv) * DH;
    const int last = CAUSAL ? min(len, q0 + QUERIES) : len;
    const int n_tiles = (last + KEYS - 1) / KEYS;

    load_tile_async<DH, QUERIES, THREADS>(q_tile, base + q0 * p.stride + head * DH, p.stride,
                                          len - q0);
    load_tile_async<DH, KEYS, THREADS>(k_tiles, k_rows, p.stride, len);
    load_tile_async<DH, KEYS, THREADS>(v_tiles, v_rows, p.stride, len);
    commit_async();

    const int warp = threadIdx.x / 32, row = q0 + warp * 16 + threadIdx.x % 32 / 4;
    uint32_t q[DH / 16][4];
    float o[DH / 8][4] = {}, top[2] = {-INFINITY, -INFINITY}, sum[2] = {};
    for (int j = 0; j < n_tiles; j++) {
        wait_async<0>();
        __syncthreads();
        if (j == 0)
            load_a_rows<DH>(q, q_tile, warp * 16);
        if (j + 1 < n_tiles) {
            const int next = (j + 1) % 2, key0 = (j + 1) * KEYS;
            load_tile_async<DH, KEYS, THREADS>(k_tiles + next * KEYS * tile_shape<DH>::PITCH,
                                               k_rows + key0 * p.stride, p.stride, len - key0);
            load_tile_async<DH, KEYS, THREADS>(v_tiles + next * KEYS * tile_shape<DH>::PITCH,
                                               v_rows + key0 * p.stride, p.stride, len - key0);
            commit_async();
        }
        if (row - threadIdx.x % 32 / 4 >= len)
            continue; // none of the warp's queries exists
        const bf16 *k_tile = k_tiles + j % 2 * KEYS * tile_shape<DH>::PITCH;
        const bf16 *v_tile = v_tiles + j % 2 * KEYS * tile_shape<DH>::PITCH;
        float s[KEYS / 8][4] = {};
        uint32_t a[KEYS / 16][4];
        multiply_rows<DH, KEYS / 8>(s, q, k_tile, 0);
        softmax_tile<DH, CAUSAL>(s, o, top, sum, p.scale * 1.44269504089f, row, j * KEYS, len);
        to_a_fragments<KEYS / 8>(a, s);
        multiply_columns<DH, KEYS / 16>(o, a, v_tile, 0);
    }
    store_rows<DH>(p, o, top, sum, first, row, len, head);
}

template <int DH, bool CAUSAL, bool FLAT>
static cudaError_t launch_kernel(const attention_params &p, dim3 grid, cudaStream_t stream)
{
    const size_t bytes = forward_shared_bytes<DH>();
    static bool is_set = false;
    if (!is_set) {
        const cudaError_t rc =
            cudaFuncSetAttribute(attention_forward_kernel<DH, CAUSAL, FLAT>,
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
        if (rc != cudaSuccess)
            return rc;
        is_set = true;
    }
    return launch(attention_forward_kernel<DH, CAUSAL, FLAT>, grid, THREADS, bytes, stream, p);
}

template <int DH>
static cudaError_t launch_forward(const attention_params &p, bool is_causal, int64_t longest,
                                  cudaStream_t stream)
{
    const dim3 flat((unsigned)p.H, (unsigned)p.n_tiles);
    const dim3 by_sequence((unsigned)p.H, (unsigned)((longest + QUERIES - 1) / QUERIES),
                           (unsigned)p.B);
    const bool is_flat = p.n_listed || (p.B <= ATTENTION_SEARCHED && p.n_tiles <= 65535);
    if (is_causal)
        return is_flat ? launch_kernel<DH, true, true>(p, flat, stream)
                       : launch_kernel<DH, true, false>(p, by_sequence, stream);
    return is_flat ? launch_kernel<DH, false, true>(p, flat, stream)
                   : launch_kernel<DH, false, false>(p, by_sequence, stream);
}

cudaError_t launch_attention_forward_bf16(const attention_params &p, int Dh, bool is_causal,
                                          int64_t longest, cudaStream_t stream)
{
    switch (Dh) {
    case 16:
        return launch_forward<16>(p, is_causal, longest, stream);
    case 32:
        return launch_forward<32>(p, is_causal, longest, stream);
    case 64:
        return launch_forward<64>(p, is_causal, longest, stream);
    case 80:
        return launch_forward<80>(p, is_causal, longest, stream);
    case 128:
        return launch_forward<128>(p, is_causal, longest, stream);
    default:
        return cudaErrorInvalidValue;
    }
}

} // namespace qvl
