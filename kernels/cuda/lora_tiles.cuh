// What the adapter kernels share: how a warp holds a piece of 16 rows x 32 columns, and the mask on
// it.
//
// Lane 4 g + t holds eight neighbouring columns 8 t .. 8 t + 7 of rows g and g + 8: one 16-byte
// load a row, one group of the dropout mask (src/base/dropout_mask.h), and, word j of a row being
// columns 8 t + 2 j and 8 t + 2 j + 1, also fragments of tensor-core products:
//
//   as A of 16 x 16 (rows of the piece, sums over columns): words 0 1 of both rows, then words 2 3;
//      the order of the columns inside a sum does not matter as long as B has the same
//   turned (movmatrix), as A of 16 x 16 (columns of the piece, sums over its rows): words j and
//      j + 1; row n of tile j is column 8 (n / 2) + 2 j + n % 2 of the piece
//   as C of 16 x 8 (tile j): columns 8 t + 2 j, 8 t + 2 j + 1 of rows g, g + 8
#ifndef QVL_KERNELS_CUDA_LORA_TILES_CUH
#define QVL_KERNELS_CUDA_LORA_TILES_CUH

#include "kernels/cuda/chunks.h"
#include "kernels/cuda/cuda_backend.cuh"
#include "src/base/dropout_mask.h"

namespace qvl
{

enum { PIECE_ROWS = QVL_STRIP_ROWS, PIECE_COLUMNS = 32, TILE_RANK = 8 };
enum { LORA_WARPS = 8, LORA_THREADS = 32 * LORA_WARPS, MAX_TILES = 4 }; // rank tiles of one pass

struct mask_key {
    uint32_t threshold, seed, step; // threshold 0: nothing is dropped
    const int32_t *sample, *token;
};

struct piece {
    uint32_t word[2][4]; // rows g and g + 8
};

__device__ __forceinline__ uint32_t turn(uint32_t x)
{
    uint32_t y;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;\n" : "=r"(y) : "r"(x));
    return y;
}

__device__ __forceinline__ void product_16(float c[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                           uint32_t a3, uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void product_8(float c[4], uint32_t a0, uint32_t a1, uint32_t b0)
{
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};\n"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a0), "r"(a1), "r"(b0));
}

// Eight columns of one row; zeros where not valid.
__device__ __forceinline__ void load_words(uint32_t word[4], const bf16 *from, bool is_valid)
{
    const uint4 raw = is_valid ? *(const uint4 *)from : make_uint4(0, 0, 0, 0);
    word[0] = raw.x;
    word[1] = raw.y;
    word[2] = raw.z;
    word[3] = raw.w;
}

// The same of what is not read again soon.
__device__ __forceinline__ void load_words_once(uint32_t word[4], const bf16 *from, bool is_valid)
{
    const uint4 raw = is_valid ? __ldcs((const uint4 *)from) : make_uint4(0, 0, 0, 0);
    word[0] = raw.x;
    word[1] = raw.y;
    word[2] = raw.z;
    word[3] = raw.w;
}

// Rows row, row + 8 of [n_rows, n_cols], columns col .. col + 7 (n_cols is a multiple of 8).
__device__ __forceinline__ void load_piece(piece *p, const bf16 *from, int64_t stride, int64_t row,
                                           int64_t n_rows, int64_t col, int64_t n_cols)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int64_t r = row + 8 * half;
        load_words(p->word[half], from + r * stride + col, r < n_rows && col < n_cols);
    }
}

// drop[j]: 0xffff in each half whose element goes. Differences with the threshold are between
// -65535 and 65535, so byte 3 of one is all sign; prmt puts the two of a word side by side.
__device__ __forceinline__ void drop_words(uint32_t drop[4], const mask_key &key, uint32_t group,
                                           uint32_t module, uint32_t token, uint32_t sample)
{
    const uint32_t counter[4] = {group, module, token, sample};
    uint32_t bits[4];
    qvl_philox4x32_7(bits, counter, key.seed, key.step);
#pragma unroll
    for (int j = 0; j < 4; j++)
        drop[j] = __byte_perm((bits[j] & 0xffffu) - key.threshold, (bits[j] >> 16) - key.threshold,
                              0x7733);
}

// AT_ONCE values of from[0], from[stride], .., of which n exist, added in order; the loads, from
// the L2 cache, wait together. T: float or float4; stride in T.
template <int AT_ONCE, typename T>
__device__ __forceinline__ void add_some(T *sum, const T *from, int64_t stride, int n)
{
    T x[AT_ONCE];
#pragma unroll
    for (int k = 0; k < AT_ONCE; k++)
        x[k] = __ldcg(from + min(k, n - 1) * stride);
#pragma unroll
    for (int k = 0; k < AT_ONCE; k++)
        if (k < n)
            add_to(sum, x[k]);
}

// from[0] + from[stride] + .. of n, in order.
template <typename T> __device__ __forceinline__ T sum_strided(const T *from, int64_t stride, int n)
{
    T sum = {};
    int i = 0;
    for (; i + 4 < n; i += 8)
        add_some<8>(&sum, from + i * stride, stride, n - i);
    if (i < n)
        add_some<4>(&sum, from + i * stride, stride, n - i);
    return sum;
}

// True in all threads of the last of n blocks to come here; what the others wrote is then to be
// read.
static __device__ __forceinline__ bool is_last_block(unsigned *counter, unsigned n)
{
    __shared__ bool is_last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        is_last = atomicAdd(counter, 1u) == n - 1;
        if (is_last)
            *counter = 0; // for the next launch
    }
    __syncthreads();
    return is_last;
}

// 1 / (1 - p), exactly as the threshold has it.
__host__ __device__ __forceinline__ float keep_scale(uint32_t threshold)
{
    return 65536.0f / (65536.0f - (float)threshold);
}

// ---- tiles of ranks -----------------------------------------------------------------------------

// One tile of 8 ranks of one adapter.
struct rank_tile {
    const bf16 *a;   // [8, in]
    uint32_t module; // of the mask
    int column;      // in the tail
};

struct tile_set {
    rank_tile tile[MAX_TILES];
    int n;
};

static inline int64_t tiles_of(const qvl_linear *lin)
{
    return divide_up(lin->rank, TILE_RANK);
}

static inline int64_t tail_used(const qvl_linear *lin)
{
    return lin->n_adapters * tiles_of(lin) * TILE_RANK;
}

// Tiles first .. first + 3 of all tiles of the group.
static inline tile_set pick_tiles(const qvl_linear *lin, int64_t first)
{
    const int64_t per_adapter = tiles_of(lin), all = lin->n_adapters * per_adapter;
    tile_set set = {};
    for (int64_t i = first; i < all && set.n < MAX_TILES; i++) {
        const qvl_adapter *adapter = &lin->adapters[i / per_adapter];
        set.tile[set.n++] = {(const bf16 *)adapter->a_act + i % per_adapter * TILE_RANK * lin->in,
                             adapter->module, (int)(i * TILE_RANK)};
    }
    return set;
}

static inline mask_key key_of(const qvl_dropout *dropout)
{
    mask_key key = {};
    if (dropout)
        key = {dropout->threshold, dropout->seed, dropout->step, dropout->sample, dropout->token};
    return key;
}

// Launches kernel with more shared memory than a kernel has unasked; *is_set: it was asked for.
template <typename P>
static inline cudaError_t launch_large(void (*kernel)(P), bool *is_set, size_t bytes, const P &p,
                                       dim3 grid, int threads, cudaStream_t stream)
{
    const cudaError_t code = allow_shared(kernel, is_set, bytes);
    return code == cudaSuccess ? launch(kernel, grid, threads, bytes, stream, p) : code;
}

// Scratch of each part, see the files.
size_t lora_forward_scratch(const qvl_device *dev, const qvl_workspace_limits *limits);
size_t lora_du_scratch(const qvl_device *dev, const qvl_workspace_limits *limits);
size_t lora_db_scratch(const qvl_device *dev, const qvl_workspace_limits *limits);
size_t lora_inputs_scratch(const qvl_device *dev, const qvl_workspace_limits *limits);
size_t lora_mlp_scratch(const qvl_device *dev, const qvl_workspace_limits *limits);

} // namespace qvl

#endif
