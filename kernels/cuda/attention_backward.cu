// Attention backward on tensor cores (bf16), without atomics:
//   1. delta[h,t] = sum_d dout * out (attention_sums.cuh)
//   2. a block has 64 keys of one key/value head and walks over all queries that see them, of
//      the heads that share it: dk, dv. Where that gives too few blocks the heads are split over
//      several, whose sums a last kernel adds
//   3. in the same launch, a block has 64 queries of one head and walks over their keys: dq
// With a table, dq and dk are turned back before they are stored. Scores are computed in both
// walks; that is the price of a fixed order of sums.
#include "kernels/cuda/attention_fragments.cuh"
#include "kernels/cuda/attention_sums.cuh"

namespace qvl
{

enum { ROWS = ATTENTION_ROWS, THREADS = ATTENTION_THREADS };

template <int DH> static constexpr size_t backward_shared_bytes()
{
    return attention_shared_bytes<DH>(6) + 4 * ROWS * sizeof(float);
}
static_assert(backward_shared_bytes<128>() <= MOST_SHARED_BYTES, "not on every GPU");

// Tiles in shared memory.
struct tile_addresses {
    uint32_t q, k, v, dout;
};

// 64 float values of one head's row statistics on their way into shared memory; zeros past n_valid.
static __device__ __forceinline__ void load_statistics(float *to, const float *from, int n_valid)
{
    for (int i = threadIdx.x; i < ROWS; i += THREADS)
        copy4_async(to + i, from + (i < n_valid ? i : 0), i < n_valid);
}

// ---- dk, dv: rows of the fragments are keys, columns are queries --------------------------------

// Query heads h0 .. h1-1 of one key/value head, all query tiles from the key tile on.
struct kv_work {
    tile_place at;
    int kv, h0, h1;
    float *part; // [T, 2 KV DH], or NULL: the sums are whole and go to dqkv
};

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

// What queries q0 .. q0 + PART - 1 of the sequence, rows part .. of the tiles, add to dk and dv of
// keys k0 .. k0 + ROWS - 1.
template <int DH, bool CAUSAL, typename TILES = tiles_of<DH>>
static __device__ __forceinline__ void add_to_keys(float (&dk)[DH / 8][4], float (&dv)[DH / 8][4],
                                                   const tile_addresses &t, int part,
                                                   const float *lse, const float *delta,
                                                   float scale, int k0, int q0, int len)
{
    const int N = TILES::PART / 8;
    float s[N][4], dp[N][4];
    uint32_t a[N / 2][4], b[N / 2][4];
    TILES::scores(s, t.k, t.q, part);
    TILES::scores(dp, t.v, t.dout, part);
    TILES::template finish<1>(s);
    if (q0 + TILES::PART > len || k0 + ROWS > len || (CAUSAL && k0 + ROWS > q0))
        mask_keys<CAUSAL>(s, k0 + fragment_row(), q0, len);
    key_side_weights(s, lse, scale * LOG2_E);
    to_a_fragments<N>(a, s);
    TILES::columns(dv, a, t.dout, part);
    TILES::template finish<1>(dp);
    key_side_gradients(dp, s, delta);
    to_a_fragments<N>(b, dp);
    TILES::columns(dk, b, t.q, part);
    TILES::template finish<0>(dv);
    TILES::template finish<0>(dk);
}

template <int DH, bool CAUSAL>
static __device__ __forceinline__ void key_side(const attention_params &p, const kv_work &work,
                                                const bf16 *dout, const float *delta, bf16 *dqkv,
                                                unsigned char *shared)
{
    typedef tiles_of<DH> tiles;
    const int tile = tiles::BYTES, PART = tiles::PART;
    shared += first_tile_of(shared);
    const uint32_t k_tile = shared_address(shared), v_tile = k_tile + tile;
    const uint32_t q_tiles = v_tile + tile, do_tiles = q_tiles + 2 * tile;
    float *lse_rows = (float *)(shared + 6 * tile), *delta_rows = lse_rows + 2 * ROWS;
    const int64_t first = work.at.first;
    const int len = work.at.len, k0 = work.at.tile * ROWS, kv = work.kv;
    const bf16 *base = (const bf16 *)p.qkv + first * p.stride;
    const int first_key = k0 + tiles::first_row();
    const int first_tile = CAUSAL ? work.at.tile : 0;
    const int n_tiles = (len + ROWS - 1) / ROWS - first_tile;
    const int n_steps = (work.h1 - work.h0) * n_tiles;

    auto load_step = [&](int step) {
        const int head = work.h0 + step / n_tiles, q0 = (first_tile + step % n_tiles) * ROWS;
        const int64_t statistics = (int64_t)head * p.T + first + q0;
        tiles::load(q_tiles + step % 2 * tile, base + q0 * p.stride + head * DH, p.stride,
                    len - q0);
        tiles::load(do_tiles + step % 2 * tile, dout + (first + q0) * p.dout_stride + head * DH,
                    p.dout_stride, len - q0);
        load_statistics(lse_rows + step % 2 * ROWS, p.lse + statistics, len - q0);
        load_statistics(delta_rows + step % 2 * ROWS, delta + statistics, len - q0);
        commit_async();
    };
    tiles::load(k_tile, base + k0 * p.stride + (p.H + kv) * DH, p.stride, len - k0);
    tiles::load(v_tile, base + k0 * p.stride + (p.H + p.KV + kv) * DH, p.stride, len - k0);
    load_step(0);

    float dk[DH / 8][4] = {}, dv[DH / 8][4] = {};
    for (int step = 0; step < n_steps; step++) {
        wait_async<0>();
        tiles::arrived();
        __syncthreads();
        if (step + 1 < n_steps)
            load_step(step + 1);
        const int q0 = (first_tile + step % n_tiles) * ROWS;
        const tile_addresses at = {q_tiles + step % 2 * tile, k_tile, v_tile,
                                   do_tiles + step % 2 * tile};
#pragma unroll 1
        for (int part = 0; part < ROWS; part += PART) {
            if (first_key >= len || q0 + part >= len || (CAUSAL && first_key >= q0 + part + PART))
                continue;
            const int statistics = step % 2 * ROWS + part;
            add_to_keys<DH, CAUSAL>(dk, dv, at, part, lse_rows + statistics,
                                    delta_rows + statistics, p.scale, k0, q0 + part, len);
        }
    }
    store_keys<DH>(p, work, dk, dv, dqkv, k0 + fragment_row());
}

// ---- dq: rows of the fragments are queries, columns are keys ------------------------------------

// What keys k0 .. k0 + PART - 1 of the sequence, rows part .. of the tiles, add to dq of queries
// q0 .. q0 + ROWS - 1.
template <int DH, bool CAUSAL, typename TILES = tiles_of<DH>>
static __device__ __forceinline__ void add_to_queries(float (&dq)[DH / 8][4],
                                                      const tile_addresses &t, int part,
                                                      const float base[2], const float delta[2],
                                                      float scale, int q0, int k0, int len)
{
    const int N = TILES::PART / 8;
    float s[N][4], dp[N][4];
    uint32_t a[N / 2][4];
    TILES::scores(s, t.q, t.k, part);
    TILES::scores(dp, t.dout, t.v, part);
    TILES::template finish<1>(s);
    if (k0 + TILES::PART > len || (CAUSAL && k0 + TILES::PART > q0))
        mask_queries<CAUSAL>(s, q0 + fragment_row(), k0, len);
    query_side_weights(s, base, scale * LOG2_E);
    TILES::template finish<0>(dp);
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            dp[n][e] = s[n][e] * (dp[n][e] - delta[e / 2]);
    to_a_fragments<N>(a, dp);
    TILES::columns(dq, a, t.k, part);
    TILES::template finish<0>(dq);
}

template <int DH, bool CAUSAL>
static __device__ __forceinline__ void query_side(const attention_params &p, tile_place at,
                                                  int head, const bf16 *dout, const float *delta,
                                                  bf16 *dqkv, unsigned char *shared)
{
    typedef tiles_of<DH> tiles;
    const int tile = tiles::BYTES, PART = tiles::PART;
    const uint32_t q_tile = shared_address(shared + first_tile_of(shared)), do_tile = q_tile + tile;
    const uint32_t k_tiles = do_tile + tile, v_tiles = k_tiles + 2 * tile;
    const int64_t first = at.first;
    const int len = at.len, q0 = at.tile * ROWS, kv = head / (int)(p.H / p.KV);
    const bf16 *base = (const bf16 *)p.qkv + first * p.stride;
    const bf16 *k_rows = base + (p.H + kv) * DH, *v_rows = base + (p.H + p.KV + kv) * DH;
    const int first_query = q0 + tiles::first_row();
    const int query = q0 + fragment_row();
    const int last = CAUSAL ? min(len, q0 + ROWS) : len, n_tiles = (last + ROWS - 1) / ROWS;

    auto load_step = [&](int step) {
        const int k0 = step * ROWS;
        tiles::load(k_tiles + step % 2 * tile, k_rows + k0 * p.stride, p.stride, len - k0);
        tiles::load(v_tiles + step % 2 * tile, v_rows + k0 * p.stride, p.stride, len - k0);
        commit_async();
    };
    tiles::load(q_tile, base + q0 * p.stride + head * DH, p.stride, len - q0);
    tiles::load(do_tile, dout + (first + q0) * p.dout_stride + head * DH, p.dout_stride, len - q0);
    load_step(0);

    float base2[2], row_delta[2], dq[DH / 8][4] = {};
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int r = query + half * 8;
        const int64_t at = (int64_t)head * p.T + first + r;
        base2[half] = r < len ? p.lse[at] * LOG2_E : 0.0f;
        row_delta[half] = r < len ? delta[at] : 0.0f;
    }
    for (int step = 0; step < n_tiles; step++) {
        wait_async<0>();
        tiles::arrived();
        __syncthreads();
        if (step + 1 < n_tiles)
            load_step(step + 1);
        const tile_addresses tiles_at = {q_tile, k_tiles + step % 2 * tile,
                                         v_tiles + step % 2 * tile, do_tile};
#pragma unroll 1
        for (int part = 0; part < ROWS; part += PART) {
            const int k0 = step * ROWS + part;
            if (first_query >= len || k0 >= len || (CAUSAL && k0 >= first_query + tiles::HEIGHT))
                continue;
            add_to_queries<DH, CAUSAL>(dq, tiles_at, part, base2, row_delta, p.scale, q0, k0, len);
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
    cudaError_t code = allow_shared(attention_backward_kernel<DH, CAUSAL>, &is_set, bytes);
    if (code == cudaSuccess)
        code = launch(attention_delta_kernel<DH>, dim3((unsigned)((items + 7) / 8)), 256, 0, stream,
                      p, (const bf16 *)dout, delta);
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
