// Tensor-core building blocks: bf16 tiles in shared memory, 16 x 8 x 16 products.
//
// Fragments of mma.m16n8k16 (lane = 4 g + t, g = 0..7, t = 0..3):
//   A 16x16  a0 (g, 2t..) a1 (g+8, 2t..) a2 (g, 2t+8..) a3 (g+8, 2t+8..)   two values a register
//   B 16x8   b0 (k 2t.., n g) b1 (k 2t+8.., n g)
//   C 16x8   c0 c1 (g, 2t..2t+1)  c2 c3 (g+8, 2t..2t+1)
// The eight rows that ldmatrix reads at once have to lie in different banks. Two ways for a tile of
// 64 rows: padded ones are DH + 8 values apart, an odd number of 16-byte pieces; swizzled ones, of
// 128 values, take no room for that, which counts where a block may have 99 KiB of shared memory.
#ifndef QVL_KERNELS_CUDA_TILE_CUH
#define QVL_KERNELS_CUDA_TILE_CUH

#include <stdint.h>

#include <cuda_bf16.h>

namespace qvl
{

typedef __nv_bfloat16 bf16;

// Where a 16-byte piece of a row lies in a tile, in bytes, and where that is from another one, some
// rows (a multiple of 8) below it and some pieces (even; the first's was 0 or 1) to the right.
template <int DH> struct padded_rows {
    enum { PITCH = (DH + 8) * (int)sizeof(__nv_bfloat16), BYTES = 64 * PITCH };
    static __device__ __forceinline__ uint32_t place(int row, int piece)
    {
        return row * PITCH + piece * 16;
    }
    static __device__ __forceinline__ uint32_t move(uint32_t at, int rows, int pieces)
    {
        return at + rows * PITCH + pieces * 16;
    }
};

// Two halves of 64 columns, a row of a half is 128 bytes; its pieces are exchanged by the row's
// number: piece c of row r lies at c ^ r % 8 (Hopper's 128-byte swizzle). Tiles start at multiples
// of 1024 bytes.
struct swizzled_rows {
    enum { PITCH = 128, HALF = 64 * PITCH, BYTES = 2 * HALF };
    static __device__ __forceinline__ uint32_t place(int row, int piece)
    {
        return piece / 8 * HALF + row * PITCH + (piece % 8 ^ row % 8) * 16;
    }
    static __device__ __forceinline__ uint32_t move(uint32_t at, int rows, int pieces)
    {
        return (at ^ pieces % 8 * 16) + rows * PITCH + pieces / 8 * HALF;
    }
};

__device__ __forceinline__ uint32_t shared_address(const void *pointer)
{
    return (uint32_t)__cvta_generic_to_shared(pointer);
}

// 16 bytes from global to shared memory; zeros when not valid. to: an address in shared memory.
__device__ __forceinline__ void copy16_async(uint32_t to, const void *from, bool is_valid)
{
    const int bytes = is_valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(from),
                 "r"(bytes));
}

__device__ __forceinline__ void copy16_async(void *to, const void *from, bool is_valid)
{
    copy16_async(shared_address(to), from, is_valid);
}

// For what is not read again soon: its lines of the L2 cache are the first to go.
__device__ __forceinline__ uint64_t read_once()
{
    uint64_t policy;
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;\n" : "=l"(policy));
    return policy;
}

// copy16_async with that policy.
__device__ __forceinline__ void copy16_async_once(void *to, const void *from, bool is_valid,
                                                  uint64_t policy)
{
    const int bytes = is_valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;\n" ::"r"(
                     shared_address(to)),
                 "l"(from), "r"(bytes), "l"(policy));
}

// 4 bytes likewise.
__device__ __forceinline__ void copy4_async(void *to, const void *from, bool is_valid)
{
    const int bytes = is_valid ? 4 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"(shared_address(to)),
                 "l"(from), "r"(bytes));
}

__device__ __forceinline__ void commit_async()
{
    asm volatile("cp.async.commit_group;\n" ::);
}

template <int PENDING> __device__ __forceinline__ void wait_async()
{
    asm volatile("cp.async.wait_group %0;\n" ::"n"(PENDING));
}

// row: an address in shared memory.
__device__ __forceinline__ void load_matrix_x4(uint32_t r[4], uint32_t row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row));
}

__device__ __forceinline__ void load_matrix_x4_trans(uint32_t r[4], uint32_t row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row));
}

__device__ __forceinline__ void mma_16816(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ uint32_t pack_bf16(float low, float high)
{
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}

// The pieces of 64 rows of DH values that this thread of THREADS copies, asynchronously:
// offset(row, piece) is where a 16-byte piece lies in the tile, in bytes; from one row to the next
// that has the same place in a pattern of eight rows it grows by PITCH_BYTES a row. Rows from
// n_valid on are zero. Few instructions, as a tile is used for a short time: hence the addresses
// that grow by constants.
template <int DH, int THREADS, int PITCH_BYTES, typename OFFSET>
__device__ __forceinline__ void load_rows_async(uint32_t tile, const bf16 *from, int64_t stride,
                                                int n_valid, OFFSET offset)
{
    const unsigned pieces = DH / 8, thread = threadIdx.x;
    if constexpr (THREADS % pieces == 0 && THREADS / pieces % 8 == 0 && THREADS / pieces <= 64) {
        const int rows = THREADS / pieces, row = thread / pieces, piece = thread % pieces;
        const uint32_t to = tile + offset(row, piece);
        from += row * stride + piece * 8;
        if (n_valid >= 64) {
#pragma unroll
            for (int i = 0; i < 64 / rows; i++, from += rows * stride)
                copy16_async(to + i * rows * PITCH_BYTES, from, true);
        } else {
            const bf16 *first = from - row * stride;
#pragma unroll
            for (int i = 0; i < 64 / rows; i++, from += rows * stride) {
                const bool is_valid = row + i * rows < n_valid;
                copy16_async(to + i * rows * PITCH_BYTES, is_valid ? from : first, is_valid);
            }
        }
    } else {
        for (unsigned i = thread; i < 64 * pieces; i += THREADS) {
            const int row = i / pieces, piece = i % pieces;
            const bool is_valid = row < n_valid;
            copy16_async(tile + offset(row, piece),
                         from + (is_valid ? row : 0) * stride + piece * 8, is_valid);
        }
    }
}

// Such rows into a tile; tiles are given by their address in shared memory.
template <int DH, int THREADS, typename LAYOUT>
__device__ __forceinline__ void load_tile_async(uint32_t tile, const bf16 *from, int64_t stride,
                                                int n_valid)
{
    load_rows_async<DH, THREADS, LAYOUT::PITCH>(
        tile, from, stride, n_valid, [](int row, int piece) { return LAYOUT::place(row, piece); });
}

// c[N8][4] += A * rows^T: A's rows a_row .. a_row + 15 of one tile, of which few are in registers
// at a time; rows row0 .. row0 + 8 N8 - 1 of another.
template <int DH, typename LAYOUT, int N8>
__device__ __forceinline__ void multiply_tiles(float c[N8][4], uint32_t a_tile, int a_row,
                                               uint32_t tile, int row0)
{
    const int lane = threadIdx.x % 32;
    // matrices of ldmatrix: rows 0-7 | columns 0-7, 8-15; then rows 8-15 | columns 0-7, 8-15
    const int row = lane % 8 + (lane / 16) * 8, piece = lane / 8 % 2;
    const uint32_t a_at = a_tile + LAYOUT::place(a_row + lane % 16, lane / 16);
    const uint32_t b_at = tile + LAYOUT::place(row0 + row, piece);
#pragma unroll
    for (int k = 0; k < DH / 16; k++) {
        uint32_t a[4];
        load_matrix_x4(a, LAYOUT::move(a_at, 0, 2 * k));
#pragma unroll
        for (int n = 0; n < N8; n += 2) {
            uint32_t b[4];
            load_matrix_x4(b, LAYOUT::move(b_at, n * 8, 2 * k));
            mma_16816(c[n], a, b[0], b[1]);
            mma_16816(c[n + 1], a, b[2], b[3]);
        }
    }
}

// c[DH / 8][4] += A (16 x 16 K16, in registers) * tile rows row0 .. row0 + 16 K16 - 1.
template <int DH, typename LAYOUT, int K16>
__device__ __forceinline__ void multiply_columns(float c[DH / 8][4], const uint32_t a[K16][4],
                                                 uint32_t tile, int row0)
{
    const int lane = threadIdx.x % 32;
    const int row = lane % 8 + (lane / 8 % 2) * 8, piece = lane / 16;
    const uint32_t at = tile + LAYOUT::place(row0 + row, piece);
#pragma unroll
    for (int k = 0; k < K16; k++)
#pragma unroll
        for (int n = 0; n < DH / 8; n += 2) {
            uint32_t b[4];
            load_matrix_x4_trans(b, LAYOUT::move(at, k * 16, n));
            mma_16816(c[n], a[k], b[0], b[1]);
            mma_16816(c[n + 1], a[k], b[2], b[3]);
        }
}

// C fragments of 16 x 8 N8 as A fragments of the next product, rounded to bf16.
template <int N8>
__device__ __forceinline__ void to_a_fragments(uint32_t a[N8 / 2][4], const float c[N8][4])
{
#pragma unroll
    for (int k = 0; k < N8 / 2; k++) {
        a[k][0] = pack_bf16(c[2 * k][0], c[2 * k][1]);
        a[k][1] = pack_bf16(c[2 * k][2], c[2 * k][3]);
        a[k][2] = pack_bf16(c[2 * k + 1][0], c[2 * k + 1][1]);
        a[k][3] = pack_bf16(c[2 * k + 1][2], c[2 * k + 1][3]);
    }
}

// Over the four lanes that share a row of a C fragment.
__device__ __forceinline__ float quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

__device__ __forceinline__ float quad_sum(float x)
{
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

} // namespace qvl

#endif
