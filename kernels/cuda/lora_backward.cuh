// The backward passes of a bf16 linear's adapters: first the side of the outputs, then that of the
// inputs, or for an MLP's down projection one that goes on through SwiGLU.
#ifndef QVL_KERNELS_CUDA_LORA_BACKWARD_CUH
#define QVL_KERNELS_CUDA_LORA_BACKWARD_CUH

#include "kernels/cuda/lora_outputs.cuh"

namespace qvl
{

// du and dB from dy, dB still in parts, which the next pass adds up (lora_sums.cuh).
qvl_status lora_backward_outputs(qvl_device *dev, const qvl_linear_backward_args *args,
                                 output_params *out, size_t *used, qvl_err *err);

// dx and dA from du, and what is left of dB: out, or NULL when that was added up before.
qvl_status lora_backward_inputs(qvl_device *dev, const qvl_linear_backward_args *args,
                                const bf16 *du, const output_params *out, size_t used,
                                qvl_err *err);

// From dh on to dgate and dup, in the same pass (lora_can_fuse_swiglu).
qvl_status lora_backward_swiglu(qvl_device *dev, const qvl_mlp_backward_args *args,
                                const output_params *down, size_t used, qvl_err *err);

// Whether gate's and up's, the side of the outputs, share that pass as well; their du is made
// there.
bool lora_can_fuse_mlp(const qvl_mlp_backward_args *args);
qvl_status lora_backward_mlp(qvl_device *dev, const qvl_mlp_backward_args *args,
                             const output_params *down, bf16 **du_gate_up, size_t *used,
                             qvl_err *err);

} // namespace qvl

#endif
