// Strips of 16 rows of a slab of columns on their way through shared memory, for a whole block.
//
// Threads copy, and store what became of it, row by row: 512 bytes of a row are whole lines of the
// L2 cache, which the four lanes that share a row of a fragment (lora_tiles.cuh) touch by halves. A
// thread stores and fetches again the pieces that it fetched, so a store needs no barrier after it.
#ifndef QVL_KERNELS_CUDA_SLAB_RING_CUH
#define QVL_KERNELS_CUDA_SLAB_RING_CUH

#include "kernels/cuda/lora_tiles.cuh"
#include "kernels/cuda/tile.cuh"

namespace qvl
{

enum {
    RING_STAGES = 3,
    SLAB_COLUMNS = LORA_WARPS * PIECE_COLUMNS,
    SLAB_CHUNKS = SLAB_COLUMNS / 8,                 // 16-byte pieces of a row
    SLAB_ROWS_AT_ONCE = LORA_THREADS / SLAB_CHUNKS, // of a copy by all threads
    SLAB_SLOTS = PIECE_ROWS * SLAB_CHUNKS           // of a strip of one array
};

template <int ARRAYS> struct slab_ring {
    uint4 *slots;    // [RING_STAGES, ARRAYS, PIECE_ROWS, SLAB_CHUNKS]
    uint64_t policy; // read_once()

    // Of neighbouring rows the halves of a line are exchanged: the eight lanes that read at once,
    // four of each row, then read different banks.
    __device__ __forceinline__ uint4 *slot(int stage, int array, int row, int chunk) const
    {
        return slots + (stage * ARRAYS + array) * SLAB_SLOTS + row * SLAB_CHUNKS +
               (chunk ^ (row & 1) << 2);
    }
    // Rows first .. of [last, n_cols], the slab's columns from col0 on; zeros where there are none.
    __device__ __forceinline__ void fetch(int stage, int array, const bf16 *from, int64_t stride,
                                          int64_t first, int64_t last, int64_t col0,
                                          int64_t n_cols) const
    {
        const int chunk = threadIdx.x % SLAB_CHUNKS;
        const int64_t col = col0 + 8 * chunk;
#pragma unroll
        for (int row0 = 0; row0 < PIECE_ROWS; row0 += SLAB_ROWS_AT_ONCE) {
            const int row = row0 + threadIdx.x / SLAB_CHUNKS;
            const bool is_valid = first + row < last && col < n_cols;
            copy16_async_once(slot(stage, array, row, chunk),
                              is_valid ? from + (first + row) * stride + col : from, is_valid,
                              policy);
        }
    }
    // What fetch brought, or put left, to where it came from; after a barrier.
    __device__ __forceinline__ void store(int stage, int array, bf16 *to, int64_t stride,
                                          int64_t first, int64_t last, int64_t col0,
                                          int64_t n_cols) const
    {
        const int chunk = threadIdx.x % SLAB_CHUNKS;
        const int64_t col = col0 + 8 * chunk;
#pragma unroll
        for (int row0 = 0; row0 < PIECE_ROWS; row0 += SLAB_ROWS_AT_ONCE) {
            const int row = row0 + threadIdx.x / SLAB_CHUNKS;
            if (first + row < last && col < n_cols)
                *(uint4 *)(to + (first + row) * stride + col) = *slot(stage, array, row, chunk);
        }
    }
    // This warp's piece of the strip.
    __device__ __forceinline__ piece take(int stage, int array) const
    {
        const int lane = threadIdx.x % 32, chunk = threadIdx.x / 32 * 4 + lane % 4;
        piece p;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const uint4 raw = *slot(stage, array, lane / 4 + 8 * half, chunk);
            p.word[half][0] = raw.x;
            p.word[half][1] = raw.y;
            p.word[half][2] = raw.z;
            p.word[half][3] = raw.w;
        }
        return p;
    }
    __device__ __forceinline__ void put(int stage, int array, const piece &p) const
    {
        const int lane = threadIdx.x % 32, chunk = threadIdx.x / 32 * 4 + lane % 4;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const uint32_t *w = p.word[half];
            *slot(stage, array, lane / 4 + 8 * half, chunk) = make_uint4(w[0], w[1], w[2], w[3]);
        }
    }
};

} // namespace qvl

#endif
