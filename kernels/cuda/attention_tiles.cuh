// Products of 64-row tiles, given by their address in shared memory, as attention needs them, in
// two ways with one interface:
//   warp_tiles      mma.sync: each warp has 16 rows of A by itself
//   warpgroup_tiles wgmma: the block's four warps have A's 64 rows together (sm_90a, heads of 128)
// tiles_of<DH> is the faster one there is. Fragments of results are the same: a warp has rows
// 16 warp .. 16 warp + 15 (tile.cuh, C).
//
//   load      rows into a tile; rows from n_valid on are zero. Left in flight (commit_async)
//   arrived   after wait_async and before the barrier: tiles may be read by products after it
//   scores    starts c = A B^T, rows part .. part + 8 N - 1 of B
//   columns   starts c += A B, A in registers, rows part .. part + 16 N - 1 of B
//   finish    all but the last PENDING of those started have ended; c may be read
// load and arrived are for all threads of the block. So are the others with warpgroup_tiles, whose
// products take whole tiles (part is 0); with warp_tiles a warp may leave them out.
#ifndef QVL_KERNELS_CUDA_ATTENTION_TILES_CUH
#define QVL_KERNELS_CUDA_ATTENTION_TILES_CUH

#include "kernels/cuda/attention_cuda.cuh"
#include "kernels/cuda/tile.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace qvl
{

enum { ATTENTION_THREADS = 128 };

static const float LOG2_E = 1.44269504089f, LN_2 = 0.69314718056f;

template <int DH> struct tile_layout : padded_rows<DH> {
};
template <> struct tile_layout<128> : swizzled_rows {
};

template <int DH> struct warp_tiles {
    typedef tile_layout<DH> layout;
    // PART: rows of B that backward takes at once; here registers leave room for no more.
    // HEIGHT: rows of A that are multiplied together.
    enum { PART = 32, HEIGHT = 16, BYTES = layout::BYTES };

    static __device__ __forceinline__ int first_row() { return threadIdx.x / 32 * 16; }
    static __device__ __forceinline__ void load(uint32_t tile, const bf16 *from, int64_t stride,
                                                int n_valid)
    {
        load_tile_async<DH, ATTENTION_THREADS, layout>(tile, from, stride, n_valid);
    }
    static __device__ __forceinline__ void arrived() {}
    template <int N>
    static __device__ __forceinline__ void scores(float (&c)[N][4], uint32_t a, uint32_t b,
                                                  int part)
    {
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                c[n][e] = 0.0f;
        multiply_tiles<DH, layout, N>(c, a, first_row(), b, part);
    }
    template <int N>
    static __device__ __forceinline__ void columns(float (&c)[DH / 8][4], const uint32_t (&a)[N][4],
                                                   uint32_t b, int part)
    {
        multiply_columns<DH, layout, N>(c, a, b, part);
    }
    template <int PENDING, int N> static __device__ __forceinline__ void finish(float (&c)[N][4]) {}
};

template <int DH> struct tiles_of : warp_tiles<DH> {
};

#ifdef QVL_WGMMA
struct warpgroup_tiles {
    enum { PART = ATTENTION_ROWS, HEIGHT = ATTENTION_ROWS, BYTES = swizzled_rows::BYTES };

    static __device__ __forceinline__ int first_row() { return 0; }
    static __device__ __forceinline__ void load(uint32_t tile, const bf16 *from, int64_t stride,
                                                int n_valid)
    {
        load_tile_async<128, ATTENTION_THREADS, swizzled_rows>(tile, from, stride, n_valid);
    }
    static __device__ __forceinline__ void arrived() { publish_to_products(); }
    static __device__ __forceinline__ void scores(float (&c)[8][4], uint32_t a, uint32_t b, int)
    {
        start_scores(c, a, b);
    }
    static __device__ __forceinline__ void columns(float (&c)[16][4], const uint32_t (&a)[4][4],
                                                   uint32_t b, int)
    {
        start_columns(c, a, b);
    }
    template <int PENDING, int N> static __device__ __forceinline__ void finish(float (&c)[N][4])
    {
        wait_products<PENDING>(c);
    }
};

template <> struct tiles_of<128> : warpgroup_tiles {
};
#endif

// Shared memory of n tiles, the first at a multiple of 1024 bytes. Both ways need the same: which
// one it is the host does not know, device code is chosen when it is loaded.
template <int DH> static constexpr size_t attention_shared_bytes(int n_tiles)
{
    return (size_t)n_tiles * warp_tiles<DH>::BYTES + 1024;
}

// Where the first tile is in a block's shared memory, in bytes.
static __device__ __forceinline__ int first_tile_of(const unsigned char *shared)
{
    return -shared_address(shared) % 1024;
}

// The first of this lane's two rows of a tile's fragments; the other is 8 below.
static __device__ __forceinline__ int fragment_row()
{
    return threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
}

// 2^x; zero below the normal numbers.
static __device__ __forceinline__ float power_of_2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
}

} // namespace qvl

#endif
