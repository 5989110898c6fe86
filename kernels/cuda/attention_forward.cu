// Attention forward on tensor cores (bf16): one block of four warps has 64 queries of one head and
// walks over the keys, 64 at a time, with a running maximum and sum. Memory is O(T). Keys and
// values have one tile each: while one is multiplied the other is on its way, and blocks that share
// a multiprocessor fill each other's gaps; with two tiles each fewer of them would fit.
#include "kernels/cuda/attention_tiles.cuh"
#include "kernels/cuda/cuda_backend.cuh"

namespace qvl
{

enum { QUERIES = ATTENTION_ROWS, KEYS = ATTENTION_ROWS, THREADS = ATTENTION_THREADS };

template <int DH> static size_t forward_shared_bytes()
{
    return attention_shared_bytes<DH>(3);
}

// Scores of keys that a row does not see, to -infinity.
template <bool CAUSAL>
static __device__ __forceinline__ void mask_tile(float (&s)[KEYS / 8][4], int row, int key0,
                                                 int len)
{
    const int t2 = threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int key = key0 + n * 8 + t2 + e % 2;
            if (key >= len || (CAUSAL && key > row + e / 2 * 8))
                s[n][e] = -INFINITY;
        }
}

// Scores into probabilities relative to the running maximum (base 2), rescaling what was summed.
// Rows of this lane: q0 + g and q0 + g + 8.
template <int DH>
static __device__ __forceinline__ void softmax_tile(float (&s)[KEYS / 8][4], float (&o)[DH / 8][4],
                                                    float top[2], float sum[2], float scale_log2)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float best = -INFINITY;
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
            best = fmaxf(best, fmaxf(s[n][half * 2], s[n][half * 2 + 1]));
        best = fmaxf(quad_max(best) * scale_log2, top[half]);
        // scores that are all -infinity (values that overflowed) give zeros, not what is no number
        const float base = best == -INFINITY ? 0.0f : best;
        const float keep = power_of_2(top[half] - base);
        float part = 0.0f;
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float &x = s[n][half * 2 + e];
                x = power_of_2(x * scale_log2 - base);
                part += x;
            }
        sum[half] = sum[half] * keep + part;
        top[half] = best;
        if (__any_sync(0xffffffffu, keep != 1.0f)) // rarely, in a long row
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
                top[half] * LN_2 + logf(total); // back to base e
    }
}

// FLAT: blockIdx.y is one of all tiles, which is looked up; otherwise blockIdx.z is the sequence
// and y its tile, and blocks past its end do nothing: for many short sequences, as the tower's
// windows are. The longest rows of a causal sequence start first.
template <bool FLAT>
static __device__ __forceinline__ tile_place find_queries(const attention_params &p)
{
    tile_place at = {};
    if (FLAT)
        return query_tile(p, (int)blockIdx.y);
    at.first = p.cu_seqlens[blockIdx.z];
    at.len = p.cu_seqlens[blockIdx.z + 1] - at.first;
    at.tile = (int)(gridDim.y - 1 - blockIdx.y);
    return at;
}

template <int DH, bool CAUSAL, bool FLAT>
static __global__ void __launch_bounds__(THREADS)
    attention_forward_kernel(const __grid_constant__ attention_params p)
{
    extern __shared__ __align__(16) unsigned char shared[];
    typedef tiles_of<DH> tiles;
    const uint32_t q_tile = shared_address(shared + first_tile_of(shared));
    const uint32_t k_tile = q_tile + tiles::BYTES, v_tile = k_tile + tiles::BYTES;
    const int head = blockIdx.x;
    follow();
    const tile_place at = find_queries<FLAT>(p);
    const int64_t first = at.first;
    const int len = at.len, q0 = at.tile * QUERIES;
    if (q0 >= len)
        return;
    const int kv = head / (p.H / p.KV);
    const bf16 *base = (const bf16 *)p.qkv + first * p.stride;
    const bf16 *k_rows = base + (p.H + kv) * DH, *v_rows = base + (p.H + p.KV + kv) * DH;
    const int last = CAUSAL ? min(len, q0 + QUERIES) : len;
    const int n_tiles = (last + KEYS - 1) / KEYS;

    auto load_step = [&](uint32_t tile, const bf16 *rows, int step) {
        if (step < n_tiles)
            tiles::load(tile, rows + step * KEYS * p.stride, p.stride, len - step * KEYS);
        commit_async();
    };
    tiles::load(q_tile, base + q0 * p.stride + head * DH, p.stride, len - q0);
    load_step(k_tile, k_rows, 0);
    load_step(v_tile, v_rows, 0);

    const int row = q0 + fragment_row();
    const bool has_queries = q0 + tiles::first_row() < len;
    float o[DH / 8][4] = {}, top[2] = {-INFINITY, -INFINITY}, sum[2] = {};
    for (int step = 0; step < n_tiles; step++) {
        const int key0 = step * KEYS;
        float s[KEYS / 8][4];
        uint32_t a[KEYS / 16][4];
        step ? wait_async<0>() : wait_async<1>(); // these keys
        tiles::arrived();
        __syncthreads();
        if (step > 0)
            load_step(v_tile, v_rows, step);
        if (has_queries) {
            tiles::scores(s, q_tile, k_tile, 0);
            tiles::template finish<0>(s);
        }
        __syncthreads();
        load_step(k_tile, k_rows, step + 1);
        if (has_queries) {
            if (key0 + KEYS > len || (CAUSAL && key0 + KEYS > q0))
                mask_tile<CAUSAL>(s, row, key0, len);
            softmax_tile<DH>(s, o, top, sum, p.scale * LOG2_E);
            to_a_fragments<KEYS / 8>(a, s);
        }
        wait_async<1>(); // these values
        tiles::arrived();
        __syncthreads();
        if (has_queries) {
            tiles::columns(o, a, v_tile, 0);
            tiles::template finish<0>(o);
        }
    }
    store_rows<DH>(p, o, top, sum, first, row, len, head);
}

template <int DH, bool CAUSAL, bool FLAT>
static cudaError_t launch_kernel(const attention_params &p, dim3 grid, cudaStream_t stream)
{
    const size_t bytes = forward_shared_bytes<DH>();
    static bool is_set = false;
    const cudaError_t code =
        allow_shared(attention_forward_kernel<DH, CAUSAL, FLAT>, &is_set, bytes);
    return code == cudaSuccess
               ? launch(attention_forward_kernel<DH, CAUSAL, FLAT>, grid, THREADS, bytes, stream, p)
               : code;
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
