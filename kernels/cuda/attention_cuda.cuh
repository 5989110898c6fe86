// What the attention files share.
#ifndef QVL_KERNELS_CUDA_ATTENTION_CUDA_CUH
#define QVL_KERNELS_CUDA_ATTENTION_CUDA_CUH

#include <stdint.h>

#include <cuda_runtime.h>

namespace qvl
{

enum { ATTENTION_ROWS = 64, ATTENTION_SEARCHED = 128, ATTENTION_LISTED = 256 };

// ATTENTION_ROWS rows of some sequence.
struct tile_place {
    int32_t first; // row of the sequence
    int32_t len, tile;
};

struct attention_params {
    const void *qkv;
    void *out;
    float *lse; // [H, T]
    const int32_t *cu_seqlens;
    int64_t T, B, H, KV;
    int64_t n_tiles;     // of ATTENTION_ROWS rows, of all sequences together
    int64_t stride;      // of a row of qkv
    int64_t out_stride;  // of a row of out
    int64_t dout_stride; // of a row of dout
    float scale;
    const float *cosine, *sine;        // [T, Dh / 2]: dq and dk are turned back; NULL: they are not
    int n_listed;                      // n_tiles, or 0: too many for the list
    tile_place list[ATTENTION_LISTED]; // keys that most queries see come first
};

#ifdef __CUDACC__
// Tile number index of all tiles, in order.
__device__ __forceinline__ tile_place find_tile(const attention_params &p, int index)
{
    tile_place at = {};
    for (int64_t b = 0; b < p.B; b++) {
        at.first = p.cu_seqlens[b];
        at.len = p.cu_seqlens[b + 1] - at.first;
        const int n = (at.len + ATTENTION_ROWS - 1) / ATTENTION_ROWS;
        if (index < n)
            break;
        index -= n;
    }
    at.tile = index;
    return at;
}

// Number index of the tiles of keys, and of queries: those with most work come first, so that the
// blocks that start last are short.
__device__ __forceinline__ tile_place key_tile(const attention_params &p, int index)
{
    return p.n_listed ? p.list[index] : find_tile(p, index);
}

__device__ __forceinline__ tile_place query_tile(const attention_params &p, int index)
{
    if (!p.n_listed)
        return find_tile(p, (int)p.n_tiles - 1 - index);
    tile_place at = p.list[index]; // the tile as far from the sequence's end as this from its start
    at.tile = (at.len - 1) / ATTENTION_ROWS - at.tile;
    return at;
}
#endif

// longest: tokens of the longest sequence. delta: [H, T] scratch. parts: [splits, T, 2 KV Dh]
// scratch when the query heads of a key/value head are split over blocks (splits > 1).
cudaError_t launch_attention_forward_bf16(const attention_params &p, int Dh, bool is_causal,
                                          int64_t longest, cudaStream_t stream);
cudaError_t launch_attention_backward_bf16(const attention_params &p, int Dh, bool is_causal,
                                           const void *dout, void *dqkv, float *delta, float *parts,
                                           int splits, cudaStream_t stream);
cudaError_t launch_attention_forward_f32(const attention_params &p, int Dh, bool is_causal,
                                         int64_t longest, cudaStream_t stream);
cudaError_t launch_attention_backward_f32(const attention_params &p, int Dh, bool is_causal,
                                          const void *dout, void *dqkv, float *delta,
                                          int64_t longest, cudaStream_t stream);

} // namespace qvl

#endif
