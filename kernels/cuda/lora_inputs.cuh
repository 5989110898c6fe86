// Adapters of a bf16 linear, backward, the side of the inputs: what its kernels share.
//
//   dx += sum_i drop_i(du_i A_i)         dA_i += du_i^T drop_i(x)
//
// A block has a slab of columns and a chunk of rows; the chunks' dA are added up by lora_sums.cu.
#ifndef QVL_KERNELS_CUDA_LORA_INPUTS_CUH
#define QVL_KERNELS_CUDA_LORA_INPUTS_CUH

#include "kernels/cuda/lora_tiles.cuh"
#include "kernels/cuda/tile.cuh"

namespace qvl
{

// Small blocks fill the chip more evenly: their warps have nothing in common.
enum {
    INPUT_WARPS = 4,
    INPUT_THREADS = 32 * INPUT_WARPS,
    INPUT_SLAB = INPUT_WARPS * PIECE_COLUMNS,
    MOST_INPUT_BLOCKS_PER_SM = 8
};

struct input_params {
    tile_set set;
    const bf16 *du;
    float *da_parts; // [chunk, tile of the set, 8, in]
    int64_t T, in, du_stride;
    int chunk_rows;
    mask_key key;
    const bf16 *x; // [T, in]
    int64_t x_stride;
    bf16 *dx;            // [T, in], added to; NULL: only dA
    bool is_dx_old;      // older than the kernel before this one, as x is
    const bf16 *gate_up; // of the fused pass: [T, 2 in]; dx is then read only, x not at all
    bf16 *dgate_up;
};

// Where a lane is.
struct input_place {
    int g, t;
    int64_t piece_col, col, row0, last;
};

static __device__ __forceinline__ input_place find_input_place(const input_params &p, int slab)
{
    const int lane = threadIdx.x % 32;
    input_place at;
    at.g = lane / 4;
    at.t = lane % 4;
    at.piece_col = (int64_t)blockIdx.x * slab + threadIdx.x / 32 * PIECE_COLUMNS;
    at.col = at.piece_col + 8 * at.t;
    at.row0 = (int64_t)blockIdx.y * p.chunk_rows;
    at.last = min(p.T, at.row0 + p.chunk_rows);
    return at;
}

// A as the second operand of du A: word j of lane (g, t) is ranks 2 t, 2 t + 1 of row g of tile j.
static __device__ __forceinline__ void load_a(uint32_t a[4], const bf16 *from, int64_t in,
                                              const input_place &at)
{
    load_words(a, from + at.g * in + at.col, at.col < in);
#pragma unroll
    for (int j = 0; j < 4; j++)
        a[j] = turn(a[j]);
}

// sum += c where the mask keeps it; c = 0.
template <bool DROPS>
static __device__ __forceinline__ void add_kept(float sum[4][4], float c[4][4],
                                                const uint32_t drop[2][4])
{
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const uint32_t bits = e % 2 ? 0xffff0000u : 0xffffu;
            if (!DROPS || !(drop[e / 2][j] & bits))
                sum[j][e] += c[j][e];
            c[j][e] = 0.0f;
        }
}

// What all columns of a strip share, for rows g and g + 8.
template <int TILES> struct strip_rows {
    uint32_t du[TILES][2], token[2], sample[2];
};

template <int TILES, bool DROPS>
static __device__ __forceinline__ void load_rows(strip_rows<TILES> *to, const input_params &p,
                                                 const input_place &at, int64_t row)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int64_t r = row + 8 * half;
        const bool is_there = r < at.last;
#pragma unroll
        for (int i = 0; i < TILES; i++)
            to->du[i][half] =
                is_there
                    ? *(const uint32_t *)(p.du + r * p.du_stride + p.set.tile[i].column + 2 * at.t)
                    : 0u;
        if (DROPS) {
            to->token[half] = (uint32_t)p.key.token[is_there ? r : at.row0];
            to->sample[half] = (uint32_t)p.key.sample[is_there ? r : at.row0];
        }
    }
}

// All tiles on one piece of x: dA, and what the adapters add to dx (before the scale of dropout).
template <int TILES, bool DROPS, bool HAS_DX>
static __device__ __forceinline__ void run_piece(float da[TILES][2][4], float sum[4][4],
                                                 const piece &x, const uint32_t a[TILES][4],
                                                 const input_params &p, const input_place &at,
                                                 const strip_rows<TILES> &rows)
{
    uint32_t drop[2][4] = {};
    float c[4][4] = {};
#pragma unroll
    for (int i = 0; i < TILES; i++) {
        const rank_tile &tile = p.set.tile[i];
        const uint32_t *du = rows.du[i];
        if (i == 0 || tile.module != p.set.tile[i - 1].module) {
            if (HAS_DX && i > 0)
                add_kept<DROPS>(sum, c, drop);
#pragma unroll
            for (int half = 0; half < 2; half++)
                if (DROPS)
                    drop_words(drop[half], p.key, (uint32_t)(at.col / 8), tile.module,
                               rows.token[half], rows.sample[half]);
        }
        const uint32_t turned[2] = {turn(du[0]), turn(du[1])};
#pragma unroll
        for (int j = 0; j < 4; j += 2) {
            uint32_t w[2][2];
#pragma unroll
            for (int half = 0; half < 2; half++)
#pragma unroll
                for (int e = 0; e < 2; e++)
                    w[half][e] = turn(DROPS ? x.word[half][j + e] & ~drop[half][j + e]
                                            : x.word[half][j + e]);
            product_16(da[i][j / 2], w[0][0], w[0][1], w[1][0], w[1][1], turned[0], turned[1]);
        }
        if (HAS_DX)
#pragma unroll
            for (int j = 0; j < 4; j++)
                product_8(c[j], du[0], du[1], a[i][j]);
    }
    if (HAS_DX)
        add_kept<DROPS>(sum, c, drop);
}

// The part of this block's rows. Row g of tile j of a piece is column 8 (g / 2) + 2 j + g % 2 of
// it: in room [ROOM], shared memory of the warp, they are put in order.
enum { ROOM_PITCH = PIECE_COLUMNS + 4, ROOM = TILE_RANK * ROOM_PITCH };

template <int TILES>
static __device__ __forceinline__ void store_da(const input_params &p, const input_place &at,
                                                float da[TILES][2][4], float scale, float *room)
{
    const int lane = threadIdx.x % 32, column = lane % 8 * 4;
    float *to = p.da_parts + (int64_t)blockIdx.y * TILES * TILE_RANK * p.in + at.piece_col + column;
#pragma unroll
    for (int i = 0; i < TILES; i++) {
        __syncwarp();
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int e = 0; e < 2; e++)
                room[(2 * at.t + e) * ROOM_PITCH + 8 * (at.g / 2) + 2 * j + at.g % 2] =
                    scale * da[i][j / 2][j % 2 * 2 + e];
        __syncwarp();
#pragma unroll
        for (int rank = lane / 8; rank < TILE_RANK; rank += 4)
            if (at.piece_col + column < p.in)
                *(float4 *)(to + (i * TILE_RANK + rank) * p.in) =
                    *(const float4 *)(room + rank * ROOM_PITCH + column);
    }
}

// ---- pieces ahead -------------------------------------------------------------------------------
// While a strip of rows is worked on, the next two are on their way into shared memory. A lane
// reads only what it copied itself, so nothing waits for other threads.

enum { STAGES = 3 };

template <int ARRAYS> struct ahead {
    uint4 *slots; // [STAGES, ARRAYS, 2, INPUT_THREADS]

    __device__ __forceinline__ uint4 *slot(int stage, int array, int half) const
    {
        return slots + ((stage * ARRAYS + array) * 2 + half) * INPUT_THREADS + threadIdx.x;
    }
    // Rows row, row + 8 of [last, in], this lane's columns; zeros where there are none.
    __device__ __forceinline__ void fetch(int stage, int array, const bf16 *from, int64_t stride,
                                          int64_t row, const input_place &at, int64_t in) const
    {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int64_t r = row + 8 * half;
            const bool is_valid = r < at.last && at.col < in;
            copy16_async(slot(stage, array, half), is_valid ? from + r * stride + at.col : from,
                         is_valid);
        }
    }
    __device__ __forceinline__ piece take(int stage, int array) const
    {
        piece p;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const uint4 raw = *slot(stage, array, half);
            p.word[half][0] = raw.x;
            p.word[half][1] = raw.y;
            p.word[half][2] = raw.z;
            p.word[half][3] = raw.w;
        }
        return p;
    }
};

template <int ARRAYS> static constexpr size_t ahead_bytes()
{
    return (size_t)STAGES * ARRAYS * 2 * INPUT_THREADS * sizeof(uint4);
}

// ---- host side ----------------------------------------------------------------------------------

static inline dim3 input_grid(const input_params &p, int slab)
{
    return dim3((unsigned)divide_up(p.in, slab), (unsigned)divide_up(p.T, p.chunk_rows));
}

// Chunks, for blocks of slab columns, so many at once on a multiprocessor, and room for their parts
// in scratch.
qvl_status prepare_inputs(input_params *p, qvl_device *dev, const qvl_linear *lin, int64_t T,
                          const qvl_dropout *dropout, int slab, int blocks_at_once, size_t *used,
                          qvl_err *err);

} // namespace qvl

#endif
