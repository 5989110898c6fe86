// What is in parts at the end of an adapter's backward pass is added up by one launch.
#ifndef QVL_KERNELS_CUDA_LORA_SUMS_CUH
#define QVL_KERNELS_CUDA_LORA_SUMS_CUH

#include "kernels/cuda/lora_inputs.cuh"
#include "kernels/cuda/lora_outputs.cuh"

namespace qvl
{

enum { MOST_OUTPUT_SUMS = 2 };

struct lora_sums {
    // dA of the tiles of a pass
    float *da[MAX_TILES]; // first row of the tile
    int ranks[MAX_TILES]; // rows of it that exist
    const float *da_parts;
    int in, n_tiles, da_chunks;
    // dB of so many linears; of the first also du, if its slabs' parts are still apart
    output_params out[MOST_OUTPUT_SUMS];
    int n_out;
    bool has_du;
};

// dA of the tiles first .. of the linear, as p has them.
void add_input_sums(lora_sums *sums, const qvl_linear *lin, int64_t first, const input_params &p);

cudaError_t launch_sums(const lora_sums &sums, cudaStream_t stream);

} // namespace qvl

#endif
