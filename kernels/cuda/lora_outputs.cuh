// Adapters of a bf16 linear, backward, the side of the outputs: what its kernels share.
//
//   du_i = scale dy_i B_i         dB_i += scale dy_i^T u_i
//
// What a block sums over its columns (du) and over its rows (dB) are parts that are added up
// afterwards, in order: in lora_outputs.cu du by the last block to end, everything else by
// lora_sums.cu.
#ifndef QVL_KERNELS_CUDA_LORA_OUTPUTS_CUH
#define QVL_KERNELS_CUDA_LORA_OUTPUTS_CUH

#include "kernels/cuda/lora_tiles.cuh"

namespace qvl
{

// Slabs of one adapter: columns of its part of dy.
struct output_part {
    const bf16 *dy; // first column; of lora_outputs.cu, as are pieces and counters below
    const float *b; // [out, rank]
    float *db;      // [out, rank]
    int64_t out;
    int64_t first_out; // outputs of the adapters before it
    int column;        // of its u in the tail
    int first_slab;    // of the adapter among all slabs
};

struct output_params {
    output_part part[QVL_MAX_FUSED];
    int pieces, n_parts, n_slabs, n_chunks, chunk_rows, rank, n_tiles; // tiles of an adapter
    int64_t T, dy_stride, x_stride, out_total;                         // sum of all parts' out
    const bf16 *u;                                                     // tail of x
    bf16 *du;                                                          // [T, du_stride]
    int du_stride;
    float *du_parts; // [slab, tile, T, 8]
    float *db_parts; // [chunk, tile, out_total, 8]
    float scale;
    unsigned *counters; // [chunk, tile, part], 0 between launches
};

// B as the second operand of dy B: word j of lane (g, t) is columns 8 t + 2 j, + 1 of rank g.
static __device__ __forceinline__ void load_b(uint32_t b[4], const output_part &part, int64_t col,
                                              int rank_index, int rank, float scale)
{
#pragma unroll
    for (int j = 0; j < 4; j++) {
        float v[2];
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const int64_t o = col + 2 * j + e;
            v[e] = o < part.out && rank_index < rank ? part.b[o * rank + rank_index] * scale : 0.0f;
        }
        b[j] = pack_halves(v[0], v[1]);
    }
}

// Row g of tile j of a piece is column 8 (g / 2) + 2 j + g % 2 of it.
template <int PIECES>
static __device__ __forceinline__ void store_db(const output_params &p, const output_part &part,
                                                float db[PIECES][2][4], int64_t warp_col, int tile)
{
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    float *to =
        p.db_parts +
        (((int64_t)blockIdx.y * p.n_tiles + tile) * p.out_total + part.first_out) * TILE_RANK +
        2 * t;
#pragma unroll
    for (int n = 0; n < PIECES; n++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int64_t col = warp_col + n * PIECE_COLUMNS + 8 * (g / 2) + 2 * j + g % 2;
            if (col < part.out)
                *(float2 *)(to + col * TILE_RANK) =
                    make_float2(db[n][j / 2][j % 2 * 2], db[n][j / 2][j % 2 * 2 + 1]);
        }
}

// One strip of 16 rows of a piece of dy: du and dB of one tile. u_turned: u of the same rows.
static __device__ __forceinline__ void run_outputs(float du[4], float db[2][4],
                                                   const uint32_t w[2][4], const uint32_t b[4],
                                                   const uint32_t u_turned[2])
{
    product_16(du, w[0][0], w[1][0], w[0][1], w[1][1], b[0], b[1]);
    product_16(du, w[0][2], w[1][2], w[0][3], w[1][3], b[2], b[3]);
#pragma unroll
    for (int j = 0; j < 2; j++)
        product_16(db[j], turn(w[0][2 * j]), turn(w[0][2 * j + 1]), turn(w[1][2 * j]),
                   turn(w[1][2 * j + 1]), u_turned[0], u_turned[1]);
}

} // namespace qvl

#endif
