// What attention's backward pass does with the fragments of its products, element by element:
// masks, weights and their gradients, and the ways to global memory. Fragments are C of tile.cuh.
#ifndef QVL_KERNELS_CUDA_ATTENTION_FRAGMENTS_CUH
#define QVL_KERNELS_CUDA_ATTENTION_FRAGMENTS_CUH

#include "kernels/cuda/attention_tiles.cuh"

namespace qvl
{

// ---- rows are keys, columns are queries ---------------------------------------------------------

// Scores of keys key, key + 8 that do not count, to -infinity: those of queries that do not see
// them, and of rows past the end, whose lse is no real one.
template <bool CAUSAL, int N>
static __device__ __forceinline__ void mask_keys(float (&s)[N][4], int key, int q0, int len)
{
    const int t2 = threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int query = q0 + n * 8 + t2 + e % 2, row = key + e / 2 * 8;
            if (row >= len || query >= len || (CAUSAL && row > query))
                s[n][e] = -INFINITY;
        }
}

// p^T = exp(s^T scale - lse), in place.
template <int N>
static __device__ __forceinline__ void key_side_weights(float (&s)[N][4], const float *lse,
                                                        float scale_log2)
{
    const int t2 = threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < N; n++) {
        const float2 l = *(const float2 *)(lse + n * 8 + t2);
        const float base[2] = {l.x * LOG2_E, l.y * LOG2_E};
#pragma unroll
        for (int e = 0; e < 4; e++)
            s[n][e] = power_of_2(s[n][e] * scale_log2 - base[e % 2]);
    }
}

// ds^T = p^T (dp^T - delta), in place of dp^T.
template <int N>
static __device__ __forceinline__ void key_side_gradients(float (&dp)[N][4], const float (&p)[N][4],
                                                          const float *delta)
{
    const int t2 = threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < N; n++) {
        const float2 d = *(const float2 *)(delta + n * 8 + t2);
#pragma unroll
        for (int e = 0; e < 4; e++)
            dp[n][e] = p[n][e] * (dp[n][e] - (e % 2 ? d.y : d.x));
    }
}

// ---- rows are queries, columns are keys ---------------------------------------------------------

// Scores of queries query, query + 8 with keys that they do not see, to -infinity.
template <bool CAUSAL, int N>
static __device__ __forceinline__ void mask_queries(float (&s)[N][4], int query, int k0, int len)
{
    const int t2 = threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int key = k0 + n * 8 + t2 + e % 2, row = query + e / 2 * 8;
            if (key >= len || (CAUSAL && key > row))
                s[n][e] = -INFINITY;
        }
}

// p = exp(s scale - lse); base: lse to base 2. In place.
template <int N>
static __device__ __forceinline__ void query_side_weights(float (&s)[N][4], const float base[2],
                                                          float scale_log2)
{
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            s[n][e] = power_of_2(s[n][e] * scale_log2 - base[e / 2]);
}

// ---- to global memory ---------------------------------------------------------------------------

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

} // namespace qvl

#endif
