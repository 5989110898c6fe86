// Backward of the MLP's inner part in one pass, h = silu(gate) * up: h is made again from gate and
// up, which are read anyway, and dh, which is read once, becomes dgate and dup. On the way, of down
// (lora_inputs.cuh),
//
//   dh += drop(du A)         dA += du^T drop(h)
#ifndef QVL_KERNELS_CUDA_LORA_SWIGLU_CUH
#define QVL_KERNELS_CUDA_LORA_SWIGLU_CUH

#include "kernels/cuda/lora_sums.cuh"
#include "kernels/cuda/swiglu_math.cuh"

namespace qvl
{

// s = sigmoid(gate), and h as the forward pass rounded it.
static __device__ __forceinline__ void make_h(piece *h, float s[2][8], const piece &gate,
                                              const piece &up)
{
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const uint32_t g = gate.word[half][j], u = up.word[half][j];
            s[half][2 * j] = sigmoid<bf16>(low_half(g));
            s[half][2 * j + 1] = sigmoid<bf16>(high_half(g));
            h->word[half][j] = pack_halves(low_half(g) * s[half][2 * j] * low_half(u),
                                           high_half(g) * s[half][2 * j + 1] * high_half(u));
        }
}

// gate and up become their gradients.
static __device__ __forceinline__ void make_gradients(piece *gate, piece *up, const piece &dh,
                                                      const float sum[4][4], const float s[2][8],
                                                      float scale)
{
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const uint32_t g = gate->word[half][j], u = up->word[half][j], d = dh.word[half][j];
            float dgate[2], dup[2];
            swiglu_gradient(&dgate[0], &dup[0], low_half(d) + scale * sum[j][2 * half], low_half(g),
                            low_half(u), s[half][2 * j]);
            swiglu_gradient(&dgate[1], &dup[1], high_half(d) + scale * sum[j][2 * half + 1],
                            high_half(g), high_half(u), s[half][2 * j + 1]);
            gate->word[half][j] = pack_halves(dgate[0], dgate[1]);
            up->word[half][j] = pack_halves(dup[0], dup[1]);
        }
}

// The pass over down's inputs: its parameters, chunks for blocks of slab columns, and scratch.
qvl_status prepare_down(input_params *p, qvl_device *dev, const qvl_mlp_backward_args *args,
                        const output_params *down, int slab, int blocks_at_once, size_t *used,
                        qvl_err *err);

} // namespace qvl

#endif
