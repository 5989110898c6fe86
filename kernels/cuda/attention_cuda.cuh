// What the attention files share.
#ifndef QVL_KERNELS_CUDA_ATTENTION_CUDA_CUH
#define QVL_KERNELS_CUDA_ATTENTION_CUDA_CUH

#include <stdint.h>

#include <cuda_runtime.h>

namespace qvl
{

enum { ATTENTION_ROWS = 64, ATTENTION_SEARCHED = 128 };

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
};

#ifdef __CUDACC__
// A tile of some sequence: number index of all tiles, in order.
struct tile_place {
    int64_t first; // row of the sequence
    int len, tile;
};

__device__ __forceinline__ tile_place place_of_tile(const attention_params &p, int index)
{
    tile_place at = {};
    for (int64_t b = 0; b < p.B; b++) {
        at.first = p.cu_seqlens[b];
        at.len = p.cu_seqlens[b + 1] - (int)at.first;
        const int n = (at.len + ATTENTION_ROWS - 1) / ATTENTION_ROWS;
        if (index < n)
            break;
        index -= n;
    }
    at.tile = index;
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
