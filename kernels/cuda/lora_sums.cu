// Sums of the parts of du, dB and dA, each in a fixed order. An item is a value of a sum, and their
// number fits 32 bits: at most a linear's columns, or a pack's rows, times its ranks.
#include "kernels/cuda/lora_sums.cuh"

namespace qvl
{

enum { DU_VALUES_A_BLOCK = 32 };

static __host__ __device__ __forceinline__ int blocks_of(int n, int per_block)
{
    return (n + per_block - 1) / per_block;
}

static __host__ __device__ __forceinline__ int du_blocks_per_part(const output_params &p)
{
    return blocks_of((int)p.T * TILE_RANK, DU_VALUES_A_BLOCK);
}

static __host__ __device__ __forceinline__ int db_blocks_per_tile(const output_params &p)
{
    return blocks_of((int)p.out_total * TILE_RANK, LORA_THREADS);
}

// A block: some values (row, rank) of du of one part. Each warp adds every LORA_WARPS-th slab, then
// the warps' sums are added. One tile a part.
static __device__ __forceinline__ void sum_du(const output_params &p, int block)
{
    __shared__ float sums[LORA_WARPS][DU_VALUES_A_BLOCK];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, per_part = du_blocks_per_part(p);
    const int index = block / per_part, values = (int)p.T * TILE_RANK;
    const int item = block % per_part * DU_VALUES_A_BLOCK + lane;
    const int end = index + 1 < p.n_parts ? p.part[index + 1].first_slab : p.n_slabs;
    const int first = p.part[index].first_slab + warp;
    float sum = 0.0f;
    if (item < values && first < end)
        sum = sum_strided(p.du_parts + (int64_t)first * values + item, LORA_WARPS * (int64_t)values,
                          (end - first + LORA_WARPS - 1) / LORA_WARPS);
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp != 0 || item >= values)
        return;
    sum = 0.0f;
#pragma unroll
    for (int w = 0; w < LORA_WARPS; w++)
        sum += sums[w][lane];
    p.du[item / TILE_RANK * p.du_stride + p.part[index].column + item % TILE_RANK] =
        __float2bfloat16(sum);
}

// A block: some values (output, rank) of one tile. One value a thread: with four there are too few
// threads to hide the loads.
static __device__ __forceinline__ void sum_db(const output_params &p, int block)
{
    const int per_tile = db_blocks_per_tile(p), tile = block / per_tile;
    const int item = block % per_tile * LORA_THREADS + threadIdx.x;
    const int column = item / TILE_RANK, r = tile * TILE_RANK + item % TILE_RANK;
    const int width = (int)p.out_total * TILE_RANK;
    if (item >= width || r >= p.rank)
        return;
    int index = 0;
    while (index + 1 < p.n_parts && column >= p.part[index + 1].first_out)
        index++;
    float *to = p.part[index].db + (column - p.part[index].first_out) * p.rank + r;
    const float old = *to;
    *to = old + p.scale * sum_strided(p.db_parts + (int64_t)tile * width + item,
                                      (int64_t)p.n_tiles * width, p.n_chunks);
}

// A block: some columns of one rank of one tile.
static __device__ __forceinline__ void sum_da(const lora_sums &s, int block)
{
    const int per_row = blocks_of(s.in, LORA_THREADS), row = block / per_row;
    const int column = block % per_row * LORA_THREADS + threadIdx.x;
    const int tile = row / TILE_RANK, r = row % TILE_RANK;
    if (column >= s.in || r >= s.ranks[tile])
        return;
    float *to = s.da[tile] + (int64_t)r * s.in + column;
    const float old = *to;
    *to = old + sum_strided(s.da_parts + (int64_t)row * s.in + column,
                            (int64_t)s.n_tiles * TILE_RANK * s.in, s.da_chunks);
}

// The first blocks are those of du, then come dB of the linears, then dA.
struct sum_blocks {
    int du, db[MOST_OUTPUT_SUMS], da;
};

static __global__ void __launch_bounds__(LORA_THREADS)
    lora_sum_kernel(const __grid_constant__ lora_sums s, sum_blocks n)
{
    int block = blockIdx.x;
    follow();
    if (block < n.du) {
        sum_du(s.out[0], block);
        return;
    }
    block -= n.du;
#pragma unroll
    for (int i = 0; i < MOST_OUTPUT_SUMS; i++) {
        if (block < n.db[i]) {
            sum_db(s.out[i], block);
            return;
        }
        block -= n.db[i];
    }
    sum_da(s, block);
}

void add_input_sums(lora_sums *sums, const qvl_linear *lin, int64_t first, const input_params &p)
{
    const int64_t per_adapter = tiles_of(lin);
    for (int i = 0; i < p.set.n; i++) {
        const int64_t rank0 = (first + i) % per_adapter * TILE_RANK;
        sums->da[i] = lin->adapters[(first + i) / per_adapter].da + rank0 * lin->in;
        sums->ranks[i] = (int)(lin->rank - rank0 < TILE_RANK ? lin->rank - rank0 : TILE_RANK);
    }
    sums->da_parts = p.da_parts;
    sums->in = (int)lin->in;
    sums->n_tiles = p.set.n;
    sums->da_chunks = (int)divide_up(p.T, p.chunk_rows);
}

cudaError_t launch_sums(const lora_sums &s, cudaStream_t stream)
{
    sum_blocks n = {};
    n.du = s.has_du ? s.out[0].n_parts * du_blocks_per_part(s.out[0]) : 0;
    for (int i = 0; i < s.n_out; i++)
        n.db[i] = s.out[i].n_tiles * db_blocks_per_tile(s.out[i]);
    n.da = s.n_tiles * TILE_RANK * blocks_of(s.in, LORA_THREADS);
    return launch(lora_sum_kernel, dim3((unsigned)(n.du + n.db[0] + n.db[1] + n.da)), LORA_THREADS,
                  0, stream, s, n);
}

} // namespace qvl
