// Attention backward on tensor cores (bf16), without atomics:
//   1. delta[h,t] = sum_d dout * out (attention_sums.cuh)
//   2. a block has 64 keys of one key/value head and walks over all queries that see them, of
//      the heads that share it: dk, dv. Where that gives too few blocks the heads are split over
//      several, whose sums a last kernel adds
//   3. in the same launch, a block has 64 queries of one head and walks over their keys: dq
// With a table, dq and dk are turned back before they are stored. Scores are computed in both
// walks; that is the price of a fixed order of sums.
#include "kernels/cuda/attention_sums.cuh"

namespace qvl
{

// PART: columns of a tile that a warp takes at once. The sums leave registers for no more, and
// parts that nobody sees are left out.
enum { ROWS = ATTENTION_ROWS, THREADS = 128, PART = 32 };

template <int DH> static size_t backward_shared_bytes()
{
    return (size_t)6 * ROWS * tile_shape<DH>::PITCH * sizeof(bf16) + 4 * ROWS * sizeof(float);
}

// 64 float values of one head's row statistics on their way into shared memory; zeros past n_valid.
static __device__ __forceinline__ void load_statistics(float *to, const float *from, int n_valid)
{
    for (int i = threadIdx.x; i < ROWS; i += THREADS)
        copy4_async(to + i, from + (i < n_valid ? i : 0), i < n_valid);
}

// Rows of C fragments of one head turned back; rows 0 .. of the sequence in the table.
template <int DH>
static __device__ __forceinline__ void turn_back(float c[DH / 8][4], const float *cosine,
                                                 const float *sine, int row, int n_rows)
{
    const int t2 = threadIdx.x % 4 * 2, half_tiles = DH / 16;
#pragma unroll
    for (int half = 0; half < 2; half++)
        if (row + half * 8 < n_rows)
#pragma unroll
            for (int n = 0; n < half_tiles; n++) {
                const int64_t at = (int64_t)(row + half * 8) * (DH / 2) + n * 8 + t2;
                const float2 c2 = *(const float2 *)(cosine + at), s2 = *(const float2 *)(sine + at);
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float *low = &c[n][half * 2 + e], *high = &c[n + half_tiles][half * 2 + e];
                    const float l = *low, h = *high, cos = e ? c2.y : c2.x, sin = e ? s2.y : s2.x;
                    *low = l * cos + h * sin;
                    *high = h * cos - l * sin;
                }
            }
}

// Rows of C fragments (16 x DH a warp) to bf16 rows in global memory.
template <int DH>
static __device__ __forceinline__ void store_gradient(bf16 *to, int64_t stride,
                                                      const float c[DH / 8][4], int row, int n_rows,
                                                      float scale)
{
    const int t2 = threadIdx.x % 4 * 2;
#pragma unroll
    for (int half = 0; half < 2; half++)
        if (row + half * 8 < n_rows)
#pragma unroll
            for (int n = 0; n < DH / 8; n++)
                *(uint32_t *)(to + (row + half * 8) * stride + n * 8 + t2) =
                    pack_bf16(c[n][half * 2] * scale, c[n][half * 2 + 1] * scale);
}

// ---- dk, dv: rows of the fragments are keys, columns are queries --------------------------------

// p^T = exp(s^T scale - lse), ds^T = p^T (dp^T - delta); s and dp are replaced.
template <bool CAUSAL>
static __device__ __forceinline__ void key_side_gradients(float s[PART / 8][4],
                                                          float dp[PART / 8][4], const float *lse,
                                                          const float *delta, float scale, int key,
                                                          int q0, int len)
{
    const int t2 = threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < PART / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int query = n * 8 + t2 + e % 2, row = key + e / 2 * 8;
            const bool is_seen = row < len && q0 + query < len && (!CAUSAL || row <= q0 + query);
            const float p = is_seen ? __expf(s[n][e] * scale - lse[query]) : 0.0f;
            s[n][e] = p;
            dp[n][e] = p * (dp[n][e] - delta[query]);
        }
}

// Query heads h0 .. h1-1 of one key/value head, all query tiles from the key tile on.
struct kv_work {
    tile_place at;
    int kv, h0, h1;
    float *part; // [T, 2 KV DH], or NULL: the sums are whole and go to dqkv
};

// Rows of C fragments as they are, float.
template <int DH>
static __device__ __forceinline__ void store_part(float *to, int64_t stride,
                                                  const float c[DH / 8][4], int row, int n_rows)
{
    const int t2 = threadIdx.x % 4 * 2;
#pragma unroll
    for (int half = 0; half < 2; half++)
        if (row + half * 8 < n_rows)
#pragma unroll
            for (int n = 0; n < DH / 8; n++)
                *(float2 *)(to + (row + half * 8) * stride + n * 8 + t2) =
                    make_float2(c[n][half * 2], c[n][half * 2 + 1]);
}

// dk and dv: whole, turned back, to dqkv, or this block's part.
template <int DH>
static __device__ __forceinline__ void store_keys(const attention_params &p, const kv_work &work,
                                                  float dk[DH / 8][4], const float dv[DH / 8][4],
                                                  bf16 *dqkv, int key)
{
    const int64_t first = work.at.first;
    const int len = work.at.len, kv = work.kv;
    if (work.part) {
        const int64_t stride = 2 * p.KV * DH;
        float *to = work.part + first * stride;
        store_part<DH>(to + kv * DH, stride, dk, key, len);
        store_part<DH>(to + (p.KV + kv) * DH, stride, dv, key, len);
        return;
    }
    bf16 *to = dqkv + first * p.stride;
    if (p.cosine)
        turn_back<DH>(dk, p.cosine + first * (DH / 2), p.sine + first * (DH / 2), key, len);
    store_gradient<DH>(to + (p.H + kv) * DH, p.stride, dk, key, len, p.scale);
    store_gradient<DH>(to + (p.H + p.KV + kv) * DH, p.stride, dv, key, len, 1.0f);
}

template <int DH, bool CAUSAL>
static __device__ __forceinline__ void key_side(const attention_params &p, const kv_work &work,
                                                const bf16 *dout, const float *delta, bf16 *dqkv,
                                                unsigned char *shared)
{
    const int tile = ROWS * tile_shape<DH>::PITCH;
    bf16 *k_tile = (bf16 *)shared, *v_tile = k_tile + tile;
    bf16 *q_tiles = v_tile + tile, *do_tiles = q_tiles + 2 * tile;
    float *lse_rows = (float *)(do_tiles + 2 * tile), *delta_rows = lse_rows + 2 * ROWS;
    const int64_t first = work.at.first;
    const int len = work.at.len, k0 = work.at.tile * ROWS, kv = work.kv;
    const bf16 *base = (const bf16 *)p.qkv + first * p.stride;
    const int warp = threadIdx.x / 32, first_key = k0 + warp * 16;
    const int key = first_key + threadIdx.x % 32 / 4;
    const int first_tile = CAUSAL ? work.at.tile : 0;
    const int n_tiles = (len + ROWS - 1) / ROWS - first_tile;
    const int n_steps = (work.h1 - work.h0) * n_tiles;

    auto load_step = [&](int step) {
        const int head = work.h0 + step / n_tiles, q0 = (first_tile + step % n_tiles) * ROWS;
        const int64_t statistics = (int64_t)head * p.T + first + q0;
        load_tile_async<DH, ROWS, THREADS>(q_tiles + step % 2 * tile,
                                           base + q0 * p.stride + head * DH, p.stride, len - q0);
        load_tile_async<DH, ROWS, THREADS>(do_tiles + step % 2 * tile,
                                           dout + (first + q0) * p.dout_stride + head * DH,
                                           p.dout_stride, len - q0);
        load_statistics(lse_rows + step % 2 * ROWS, p.lse + statistics, len - q0);
        load_statistics(delta_rows + step % 2 * ROWS, delta + statistics, len - q0);
        commit_async();
    };
    load_tile_async<DH, ROWS, THREADS>(k_tile, base + k0 * p.stride + (p.H + kv) * DH, p.stride,
                                       len - k0);
    load_tile_async<DH, ROWS, THREADS>(v_tile, base + k0 * p.stride + (p.H + p.KV + kv) * DH,
                                       p.stride, len - k0);
    load_step(0);

    float dk[DH / 8][4] = {}, dv[DH / 8][4] = {};
    for (int step = 0; step < n_steps; step++) {
        wait_async<0>();
        __syncthreads();
        if (step + 1 < n_steps)
            load_step(step + 1);
        const int q0 = (first_tile + step % n_tiles) * ROWS;
        const bf16 *q_tile = q_tiles + step % 2 * tile, *do_tile = do_tiles + step % 2 * tile;
#pragma unroll 1
        for (int part = 0; part < ROWS; part += PART) {
            if (first_key >= len || q0 + part >= len || (CAUSAL && first_key >= q0 + part + PART))
                continue;
            const int statistics = step % 2 * ROWS + part;
            float s[PART / 8][4] = {}, dp[PART / 8][4] = {};
            uint32_t a[PART / 16][4];
            multiply_tiles<DH, PART / 8>(s, k_tile, warp * 16, q_tile, part);
            multiply_tiles<DH, PART / 8>(dp, v_tile, warp * 16, do_tile, part);
            key_side_gradients<CAUSAL>(s, dp, lse_rows + statistics, delta_rows + statistics,
                                       p.scale, key, q0 + part, len);
            to_a_fragments<PART / 8>(a, s);
            multiply_columns<DH, PART / 16>(dv, a, do_tile, part);
            to_a_fragments<PART / 8>(a, dp);
            multiply_columns<DH, PART / 16>(dk, a, q_tile, part);
        }
    }
    store_keys<DH>(p, work, dk, dv, dqkv, key);
}

// ---- dq: rows of the fragments are queries, columns are keys ------------------------------------

template <bool CAUSAL>
static __device__ __forceinline__ void query_side_gradients(float s[PART / 8][4],
                                                            const float dp[PART / 8][4],
                                                            const float lse[2],
                                                            const float delta[2], float scale,
                                                            int query, int k0, int len)
{
    const int t2 = threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < PART / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int key = k0 + n * 8 + t2 + e % 2, row = query + e / 2 * 8;
            const bool is_seen = key < len && (!CAUSAL || key <= row);
            const float p = is_seen ? __expf(s[n][e] * scale - lse[e / 2]) : 0.0f;
            s[n][e] = p * (dp[n][e] - delta[e / 2]);
        }
}

template <int DH, bool CAUSAL>
static __device__ __forceinline__ void query_side(const attention_params &p, tile_place at,
                                                  int head, const bf16 *dout, const float *delta,
                                                  bf16 *dqkv, unsigned char *shared)
{
    const int tile = ROWS * tile_shape<DH>::PITCH;
    bf16 *q_tile = (bf16 *)shared, *do_tile = q_tile + tile;
    bf16 *k_tiles = do_tile + tile, *v_tiles = k_tiles + 2 * tile;
    const int64_t first = at.first;
    const int len = at.len, q0 = at.tile * ROWS, kv = head / (int)(p.H / p.KV);
    const bf16 *base = (const bf16 *)p.qkv + first * p.stride;
    const bf16 *k_rows = base + (p.H + kv) * DH, *v_rows = base + (p.H + p.KV + kv) * DH;
    const int warp = threadIdx.x / 32, first_query = q0 + warp * 16;
    const int query = first_query + threadIdx.x % 32 / 4;
    const int last = CAUSAL ? min(len, q0 + ROWS) : len, n_tiles = (last + ROWS - 1) / ROWS;

    auto load_step = [&](int step) {
        const int k0 = step * ROWS;
        load_tile_async<DH, ROWS, THREADS>(k_tiles + step % 2 * tile, k_rows + k0 * p.stride,
                                           p.stride, len - k0);
        load_tile_async<DH, ROWS, THREADS>(v_tiles + step % 2 * tile, v_rows + k0 * p.stride,
                                           p.stride, len - k0);
        commit_async();
    };
    load_tile_async<DH, ROWS, THREADS>(q_tile, base + q0 * p.stride + head * DH, p.stride,
                                       len - q0);
    load_tile_async<DH, ROWS, THREADS>(do_tile, dout + (first + q0) * p.dout_stride + head * DH,
                                       p.dout_stride, len - q0);
    load_step(0);

    float lse[2], row_delta[2], dq[DH / 8][4] = {};
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int r = query + half * 8;
        const int64_t at = (int64_t)head * p.T + first + r;
        lse[half] = r < len ? p.lse[at] : 0.0f;
        row_delta[half] = r < len ? delta[at] : 0.0f;
    }
    for (int step = 0; step < n_tiles; step++) {
        wait_async<0>();
        __syncthreads();
        if (step + 1 < n_tiles)
            load_step(step + 1);
        const bf16 *k_tile = k_tiles + step % 2 * tile, *v_tile = v_tiles + step % 2 * tile;
#pragma unroll 1
        for (int part = 0; part < ROWS; part += PART) {
            const int k0 = step * ROWS + part;
            if (first_query >= len || k0 >= len || (CAUSAL && k0 >= first_query + 16))
                continue;
            float s[PART / 8][4] = {}, dp[PART / 8][4] = {};
            uint32_t a[PART / 16][4];
            multiply_tiles<DH, PART / 8>(s, q_tile, warp * 16, k_tile, part);
            multiply_tiles<DH, PART / 8>(dp, do_tile, warp * 16, v_tile, part);
            query_side_gradients<CAUSAL>(s, dp, lse, row_delta, p.scale, query, k0, len);
            to_a_fragments<PART / 8>(a, s);
            multiply_columns<DH, PART / 16>(dq, a, k_tile, part);
        }
    }
    if (p.cosine)
        turn_back<DH>(dq, p.cosine + first * (DH / 2), p.sine + first * (DH / 2), query, len);
    store_gradient<DH>(dqkv + first * p.stride + head * DH, p.stride, dq, query, len, p.scale);
}

// ---- launch -------------------------------------------------------------------------------------

// The first blocks are the key side, which takes longer, the others the query side.
template <int DH, bool CAUSAL>
static __global__ void __launch_bounds__(THREADS)
    attention_backward_kernel(const __grid_constant__ attention_params p, const bf16 *dout,
                              const float *delta, bf16 *dqkv, float *parts, int splits)
{
    extern __shared__ __align__(16) unsigned char shared[];
    const int n_key_side = (int)(p.n_tiles * p.KV) * splits;
    const int group = (int)(p.H / p.KV), per_split = (group + splits - 1) / splits;
    int index = blockIdx.x;
    follow();
    if (index < n_key_side) {
        const int split = index % splits;
        kv_work work;
        work.kv = index / splits % (int)p.KV;
        work.at = key_tile(p, index / (splits * (int)p.KV));
        work.h0 = work.kv * group + split * per_split;
        work.h1 = min(work.h0 + per_split, (work.kv + 1) * group);
        work.part = splits > 1 ? parts + split * p.T * 2 * p.KV * DH : NULL;
        key_side<DH, CAUSAL>(p, work, dout, delta, dqkv, shared);
        return;
    }
    index -= n_key_side;
    query_side<DH, CAUSAL>(p, query_tile(p, index / (int)p.H), index % (int)p.H, dout, delta, dqkv,
                           shared);
}

template <int DH, bool CAUSAL>
static cudaError_t launch_backward(const attention_params &p, const void *dout, void *dqkv,
                                   float *delta, float *parts, int splits, cudaStream_t stream)
{
    const size_t bytes = backward_shared_bytes<DH>();
    const int64_t items = p.T * p.H, sums = p.T * 2 * p.KV * DH / 8;
    const int64_t blocks = p.n_tiles * (p.KV * splits + p.H);
    static bool is_set = false;
    if (!is_set) {
        const cudaError_t rc =
            cudaFuncSetAttribute(attention_backward_kernel<DH, CAUSAL>,
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
        if (rc != cudaSuccess)
            return rc;
        is_set = true;
    }
    cudaError_t code = launch(attention_delta_kernel<DH>, dim3((unsigned)((items + 7) / 8)), 256, 0,
                              stream, p, (const bf16 *)dout, delta);
    if (code == cudaSuccess)
        code = launch(attention_backward_kernel<DH, CAUSAL>, dim3((unsigned)blocks), THREADS, bytes,
                      stream, p, (const bf16 *)dout, delta, (bf16 *)dqkv, parts, splits);
    if (code == cudaSuccess && splits > 1)
        code = launch(attention_sum_parts_kernel<DH>, dim3((unsigned)((sums + 255) / 256)), 256, 0,
                      stream, p, parts, splits, (bf16 *)dqkv);
    return code;
}

template <int DH>
static cudaError_t launch_either(const attention_params &p, bool is_causal, const void *dout,
                                 void *dqkv, float *delta, float *parts, int splits,
                                 cudaStream_t stream)
{
    return is_causal ? launch_backward<DH, true>(p, dout, dqkv, delta, parts, splits, stream)
                     : launch_backward<DH, false>(p, dout, dqkv, delta, parts, splits, stream);
}

cudaError_t launch_attention_backward_bf16(const attention_params &p, int Dh, bool is_causal,
                                           const void *dout, void *dqkv, float *delta, float *parts,
                                           int splits, cudaStream_t stream)
{
    switch (Dh) {
    case 16:
        return launch_either<16>(p, is_causal, dout, dqkv, delta, parts, splits, stream);
    case 32:
        return launch_either<32>(p, is_causal, dout, dqkv, delta, parts, splits, stream);
    case 64:
        return launch_either<64>(p, is_causal, dout, dqkv, delta, parts, splits, stream);
    case 80:
        return launch_either<80>(p, is_causal, dout, dqkv, delta, parts, splits, stream);
    case 128:
        return launch_either<128>(p, is_causal, dout, dqkv, delta, parts, splits, stream);
    default:
        return cudaErrorInvalidValue;
    }
}

} // namespace qvl
