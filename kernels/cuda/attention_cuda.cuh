// What the attention files share.
#ifndef QVL_KERNELS_CUDA_ATTENTION_CUDA_CUH
#define QVL_KERNELS_CUDA_ATTENTION_CUDA_CUH

#include <stdint.h>

#include <cuda_runtime.h>

namespace qvl
{

struct attention_params {
    const void *qkv;
    void *out;
    float *lse; // [H, T]
    const int32_t *cu_seqlens;
    int64_t T, B, H, KV;
    int64_t stride;      // of a row of qkv
    int64_t out_stride;  // of a row of out
    int64_t dout_stride; // of a row of dout
    float scale;
};

// longest: tokens of the longest sequence. delta: [H, T] scratch.
cudaError_t launch_attention_forward_bf16(const attention_params &p, int Dh, bool is_causal,
                                          int64_t longest, cudaStream_t stream);
cudaError_t launch_attention_backward_bf16(const attention_params &p, int Dh, bool is_causal,
                                           const void *dout, void *dqkv, float *delta,
                                           int64_t longest, cudaStream_t stream);
cudaError_t launch_attention_forward_f32(const attention_params &p, int Dh, bool is_causal,
                                         int64_t longest, cudaStream_t stream);
cudaError_t launch_attention_backward_f32(const attention_params &p, int Dh, bool is_causal,
                                          const void *dout, void *dqkv, float *delta,
                                          int64_t longest, cudaStream_t stream);

} // namespace qvl

#endif
