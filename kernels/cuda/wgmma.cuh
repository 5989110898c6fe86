// Products of a warpgroup (four warps) on Hopper's tensor cores, straight from shared memory.
//
// Only sm_90a has them: code for it is compiled where QVL_WGMMA is defined, and tile.cuh's mma.sync
// does the work elsewhere. A tile is 64 rows of 128 bf16 values, swizzled_rows of tile.cuh.
// Shapes of registers and descriptors: PTX ISA, "Asynchronous Warpgroup Level Matrix Instructions".
#ifndef QVL_KERNELS_CUDA_WGMMA_CUH
#define QVL_KERNELS_CUDA_WGMMA_CUH

#include "kernels/cuda/tile.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define QVL_WGMMA
#endif

#ifdef QVL_WGMMA
namespace qvl
{

// What this thread wrote to shared memory is seen by products that start after the next barrier.
__device__ __forceinline__ void publish_to_products()
{
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
}

// Registers written so far may be read and added to by products started from here on; c is what is
// added to: nothing may write to it after this point.
template <int N> __device__ __forceinline__ void open_products(float (&c)[N][4])
{
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            asm volatile("" : "+f"(c[n][e])::"memory");
    asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
}

__device__ __forceinline__ void close_products()
{
    asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}

// All groups but the last PENDING have ended; c is the result of one of them.
template <int PENDING, int N> __device__ __forceinline__ void wait_products(float (&c)[N][4])
{
    asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(PENDING) : "memory");
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            asm volatile("" : "+f"(c[n][e])::"memory"); // no reading of c before this point
}

// The operand at (16 start + bytes) in shared memory. LEADING: bytes from 64 columns to the next
// 64, of operands read down their columns; rows of a swizzled half do not use it.
template <uint32_t LEADING>
__device__ __forceinline__ uint64_t product_operand(uint32_t start, uint32_t bytes)
{
    const uint32_t swizzle_128 = 1u << 30, eight_rows = 1024 >> 4; // the upper half
    uint64_t operand;
    asm("mov.b64 %0, {%1, %2};\n"
        : "=l"(operand)
        : "r"(start + (bytes >> 4 | LEADING >> 4 << 16)), "r"(swizzle_128 | eight_rows));
    return operand;
}

#define QVL_C4(n) "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])
#define QVL_C32(n)                                                                                 \
    QVL_C4(n), QVL_C4(n + 1), QVL_C4(n + 2), QVL_C4(n + 3), QVL_C4(n + 4), QVL_C4(n + 5),          \
        QVL_C4(n + 6), QVL_C4(n + 7)

// c = or += (SUM) a b^T, 64 x 64 x 16.
template <bool SUM>
__device__ __forceinline__ void product_64(float c[8][4], uint64_t a, uint64_t b)
{
    asm volatile("{\n.reg .pred is_sum;\nsetp.ne.b32 is_sum, %34, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
                 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,"
                 "%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, %32, %33, is_sum, 1, 1, 0, 0;\n}\n"
                 : QVL_C32(0)
                 : "l"(a), "l"(b), "n"(SUM ? 1 : 0));
}

// c += a b, 64 x 128 x 16: a in registers, b read down its columns.
__device__ __forceinline__ void product_128(float c[16][4], const uint32_t a[4], uint64_t b)
{
    asm volatile("{\n.reg .pred is_sum;\nsetp.ne.b32 is_sum, 1, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
                 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,"
                 "%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,"
                 "%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,"
                 "%62,%63}, {%64,%65,%66,%67}, %68, is_sum, 1, 1, 1;\n}\n"
                 : QVL_C32(0), QVL_C32(8)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

#undef QVL_C32
#undef QVL_C4

// Starts c = A B^T of two tiles, over all 128 columns; wait_products before c is read.
__device__ __forceinline__ void start_scores(float (&c)[8][4], uint32_t a, uint32_t b)
{
    open_products(c);
#pragma unroll
    for (int k = 0; k < 8; k++) {
        const int at = k / 4 * swizzled_rows::HALF + k % 4 * 32;
        const uint64_t rows_a = product_operand<16>(a / 16, at);
        const uint64_t rows_b = product_operand<16>(b / 16, at);
        if (k == 0)
            product_64<false>(c, rows_a, rows_b);
        else
            product_64<true>(c, rows_a, rows_b);
    }
    close_products();
}

// Starts c += A B, A 64 x 64 in registers, B a tile.
__device__ __forceinline__ void start_columns(float (&c)[16][4], const uint32_t a[4][4], uint32_t b)
{
    open_products(c);
#pragma unroll
    for (int k = 0; k < 4; k++)
        product_128(c, a[k], product_operand<swizzled_rows::HALF>(b / 16, k * 16 * 128));
    close_products();
}

} // namespace qvl
#endif

#endif
