// Inside of the CUDA backend: its state, error mapping, and how elements are read and written.
//
// Three layers an operation: kernel (arithmetic), launcher (shape of the launch, returns
// cudaGetLastError), entry (contract, maps errors). Kernels are templates over the activation type:
// bf16 or float. No operation waits or allocates.
#ifndef QVL_KERNELS_CUDA_CUDA_BACKEND_CUH
#define QVL_KERNELS_CUDA_CUDA_BACKEND_CUH

#include <pthread.h>
#include <stdint.h>

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "kernels/ops.h"

namespace qvl
{

typedef __nv_bfloat16 bf16;

struct gemm_cache;

enum { PARTIAL_SUMS = 1024, STAGING_BUFFERS = 8, LORA_COUNTERS = 1 << 19 };
static const size_t STAGING_BYTES = (size_t)8 << 20;
static const size_t GEMM_WORKSPACE_BYTES = (size_t)32 << 20;

// Pinned pieces through which load_rows, fetch and, on the compute lane, uploads from pageable
// memory go; several threads share them.
struct staging {
    pthread_mutex_t mutex;
    pthread_cond_t is_free;
    void *buffers[STAGING_BUFFERS];    // allocated by the first user
    cudaEvent_t left[STAGING_BUFFERS]; // recorded when a buffer's copy is queued
    bool is_taken[STAGING_BUFFERS];
    int next;
};

// The piece that uploads are filling, of the thread that computes.
struct upload_piece {
    bool is_open;
    int buffer;
    size_t used; // bytes
};

struct cuda_state {
    cudaStream_t streams[QVL_N_LANES];
    cudaEvent_t events[QVL_N_LANES];
    cudaEvent_t marks[QVL_MARKS]; // made when first used
    cudaEvent_t timing[2];        // of products that are tried out
    cublasLtHandle_t blas;
    gemm_cache *gemms;
    char *workspace; // of bind_workspace
    size_t workspace_bytes;
    void *gemm_workspace; // [GEMM_WORKSPACE_BYTES], of the products
    double *partial_sums; // [PARTIAL_SUMS], of sum_squares
    unsigned *counters;   // [LORA_COUNTERS], 0 between launches
    staging pool;
    upload_piece uploads;
    int n_sms;
};

static inline cuda_state *state_of(const qvl_device *dev)
{
    return (cuda_state *)dev->state;
}
static inline cudaStream_t compute_of(const qvl_device *dev)
{
    return state_of(dev)->streams[QVL_LANE_COMPUTE];
}

// Whether the GPU of this process can set a kernel up before the one ahead of it has ended.
bool can_launch_early(void);

// Loads the kernels that are queued behind a sum over GPUs, but for fold's, which has run before
// the first step: loading one may wait for what runs, and a sum whose peer is gone never ends.
cudaError_t preload_optimizer(void);

// QVL_OK, or QVL_EDEVICE with the operation and CUDA's reason.
qvl_status check(cudaError_t code, const char *what, qvl_err *err);

// Scratch in the workspace; *used grows by bytes, rounded up to 256.
qvl_status scratch(qvl_device *dev, void **out, size_t *used, size_t bytes, qvl_err *err);

// Row-major C [m,n] = alpha op(A) op(B) + beta C + bias; op(A) is [m,k]. A and B are of type, C of
// c_type. bias [n] has the type of C, or is NULL.
struct gemm_shape {
    bool transpose_a, transpose_b;
    int64_t m, n, k, lda, ldb, ldc;
    float alpha, beta;
    qvl_dtype type, c_type;
};
qvl_status gemm(qvl_device *dev, const gemm_shape &shape, const void *a, const void *b, void *c,
                const void *bias, qvl_err *err);
qvl_status gemm_cache_create(gemm_cache **out, qvl_err *err);
void gemm_cache_destroy(gemm_cache *cache);

// Calls the launcher of the device's type.
#define QVL_DISPATCH(dev, T, ...)                                                                  \
    ((dev)->dtype == QVL_F32                                                                       \
         ? [&]() {                                                                                 \
               typedef float T;                                                                    \
               return __VA_ARGS__;                                                                 \
           }()                                                                                     \
         : [&]() {                                                                                 \
               typedef qvl::bf16 T;                                                                \
               return __VA_ARGS__;                                                                 \
           }())

static inline int64_t or_dense(int64_t stride, int64_t width)
{
    return stride ? stride : width;
}

static inline int64_t divide_up(int64_t n, int64_t by)
{
    return (n + by - 1) / by;
}

// ---- launches -----------------------------------------------------------------------------------
// Kernels of a step follow each other closely: the blocks of the next one are set up while the last
// blocks of this one end (programmatic dependent launch, from sm_90 on).

// Launches kernel so. Before it calls follow() a kernel may only read what is older than the kernel
// launched just ahead of it, which must itself have called follow() in every block.
template <typename... P, typename... A>
static inline cudaError_t launch(void (*kernel)(P...), dim3 grid, int threads, size_t shared,
                                 cudaStream_t stream, const A &...args)
{
    cudaLaunchAttribute early = {};
    cudaLaunchConfig_t config = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    config.gridDim = grid;
    config.blockDim = dim3((unsigned)threads);
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    config.attrs = &early;
    config.numAttrs = can_launch_early() ? 1 : 0;
    return cudaLaunchKernelEx(&config, kernel, P(args)...);
}

// Shared memory that a block may have on every GPU from compute capability 8.0 on: 8.6, 8.9
// and 12.0 have the least.
enum { MOST_SHARED_BYTES = 99 * 1024 };

// Lets a kernel have so much shared memory; *is_set: it was done. cudaErrorInvalidConfiguration:
// more than a block of this GPU may have.
template <typename K> static inline cudaError_t allow_shared(K *kernel, bool *is_set, size_t bytes)
{
    if (*is_set)
        return cudaSuccess;
    const cudaError_t code =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    *is_set = code == cudaSuccess;
    return code == cudaErrorInvalidValue ? cudaErrorInvalidConfiguration : code;
}

// What the kernels before this one wrote is there; the next one may be set up.
__device__ __forceinline__ void follow()
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    cudaGridDependencySynchronize();
    cudaTriggerProgrammaticLaunchCompletion();
#endif
}

// ---- elements -----------------------------------------------------------------------------------

__device__ __forceinline__ float to_float(float x)
{
    return x;
}
__device__ __forceinline__ float to_float(bf16 x)
{
    return __bfloat162float(x);
}
template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x)
{
    return x;
}
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x)
{
    return __float2bfloat16(x);
}

// Two neighbouring bf16 of a word.
__device__ __forceinline__ float low_half(uint32_t word)
{
    return __uint_as_float(word << 16);
}
__device__ __forceinline__ float high_half(uint32_t word)
{
    return __uint_as_float(word & 0xffff0000u);
}
__device__ __forceinline__ uint32_t pack_halves(float low, float high)
{
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t word;
    memcpy(&word, &pair, sizeof word);
    return word;
}

// Eight neighbouring values, read or written in 16-byte pieces; the address is a multiple of 16
// bytes.
template <typename T> struct pack8;
template <> struct pack8<bf16> {
    static __device__ __forceinline__ void load(float x[8], const bf16 *from)
    {
        const uint4 raw = *(const uint4 *)from;
        const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            x[2 * i] = low_half(words[i]);
            x[2 * i + 1] = high_half(words[i]);
        }
    }
    static __device__ __forceinline__ void store(bf16 *to, const float x[8])
    {
        *(uint4 *)to = make_uint4(pack_halves(x[0], x[1]), pack_halves(x[2], x[3]),
                                  pack_halves(x[4], x[5]), pack_halves(x[6], x[7]));
    }
};
template <> struct pack8<float> {
    static __device__ __forceinline__ void load(float x[8], const float *from)
    {
        *(float4 *)x = *(const float4 *)from;
        *(float4 *)(x + 4) = *(const float4 *)(from + 4);
    }
    static __device__ __forceinline__ void store(float *to, const float x[8])
    {
        *(float4 *)to = *(const float4 *)x;
        *(float4 *)(to + 4) = *(const float4 *)(x + 4);
    }
};

__device__ __forceinline__ void add_to(float *sum, float x)
{
    *sum += x;
}
__device__ __forceinline__ void add_to(float4 *sum, float4 x)
{
    sum->x += x.x;
    sum->y += x.y;
    sum->z += x.z;
    sum->w += x.w;
}

// Sum over a block of up to 1024 threads, the same for all; scratch [32]. Fixed order.
template <typename T> __device__ __forceinline__ T block_sum(T x, T *scratch)
{
    for (int offset = 16; offset; offset /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, offset);
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        scratch[threadIdx.x / 32] = x;
    __syncthreads();
    T sum = 0;
    for (int w = 0; w < (int)(blockDim.x / 32); w++)
        sum += scratch[w];
    return sum;
}

// Adapters of a bf16 linear, forward: lora_forward.cu; backward: lora_backward.cuh.
// Whether down's adapters and SwiGLU share a pass: for one pass' worth of ranks, which is what
// SWIGLU_RANK says of the one adapter that down has.
enum { SWIGLU_RANK = 32 };
bool lora_can_fuse_swiglu(const qvl_linear *linear);
// gate_up: NULL, or what x is made of here, silu(gate) up (lora_can_fuse_swiglu).
qvl_status lora_forward(qvl_device *dev, const qvl_linear_args *args, const void *gate_up,
                        qvl_err *err);
// Instead of it, where u was kept.
qvl_status lora_restore(qvl_device *dev, const qvl_linear_args *args, qvl_err *err);
size_t lora_scratch_bytes(const qvl_device *dev, const qvl_workspace_limits *limits);

} // namespace qvl

// Entries of the table, one for each operation.
qvl_status qvl_cuda_embed(qvl_device *, const qvl_embed_args *, qvl_err *);
qvl_status qvl_cuda_move_rows(qvl_device *, const qvl_move_rows_args *, qvl_err *);
qvl_status qvl_cuda_norm(qvl_device *, const qvl_norm_args *, qvl_err *);
qvl_status qvl_cuda_norm_backward(qvl_device *, const qvl_norm_backward_args *, qvl_err *);
qvl_status qvl_cuda_linear(qvl_device *, const qvl_linear_args *, qvl_err *);
qvl_status qvl_cuda_linear_backward(qvl_device *, const qvl_linear_backward_args *, qvl_err *);
qvl_status qvl_cuda_fold(qvl_device *, const qvl_fold_args *, qvl_err *);
qvl_status qvl_cuda_rope_table(qvl_device *, const qvl_rope_table_args *, qvl_err *);
qvl_status qvl_cuda_rotate(qvl_device *, const qvl_rotate_args *, qvl_err *);
qvl_status qvl_cuda_attention(qvl_device *, const qvl_attention_args *, qvl_err *);
qvl_status qvl_cuda_attention_backward(qvl_device *, const qvl_attention_backward_args *,
                                       qvl_err *);
qvl_status qvl_cuda_swiglu(qvl_device *, const qvl_swiglu_args *, qvl_err *);
qvl_status qvl_cuda_swiglu_backward(qvl_device *, const qvl_swiglu_backward_args *, qvl_err *);
qvl_status qvl_cuda_mlp(qvl_device *, const qvl_mlp_args *, qvl_err *);
qvl_status qvl_cuda_mlp_backward(qvl_device *, const qvl_mlp_backward_args *, qvl_err *);
qvl_status qvl_cuda_gelu(qvl_device *, const qvl_gelu_args *, qvl_err *);
qvl_status qvl_cuda_patches(qvl_device *, const qvl_patches_args *, qvl_err *);
qvl_status qvl_cuda_head_loss(qvl_device *, const qvl_head_loss_args *, qvl_err *);
qvl_status qvl_cuda_sum_squares(qvl_device *, const qvl_sum_squares_args *, qvl_err *);
qvl_status qvl_cuda_adamw(qvl_device *, const qvl_adamw_args *, qvl_err *);

// Memory and transfers (transfer_cuda.cu).
qvl_status qvl_cuda_alloc(qvl_device *, void **, size_t, qvl_mem, const char *, qvl_err *);
void qvl_cuda_release(qvl_device *, void *, qvl_mem);
qvl_status qvl_cuda_upload(qvl_device *, void *, const void *, size_t, qvl_lane, qvl_err *);
qvl_status qvl_cuda_download(qvl_device *, void *, const void *, size_t, qvl_lane, qvl_err *);
qvl_status qvl_cuda_copy(qvl_device *, void *, const void *, size_t, qvl_err *);
qvl_status qvl_cuda_zero(qvl_device *, void *, size_t, qvl_err *);
qvl_status qvl_cuda_load_rows(qvl_device *, void *, int64_t, const void *, qvl_dtype, int64_t,
                              int64_t, qvl_err *);
qvl_status qvl_cuda_fetch(qvl_device *, float *, const void *, int64_t, qvl_err *);
qvl_status qvl_cuda_wait(qvl_device *, qvl_lane, qvl_err *);
void qvl_cuda_staging_fini(qvl_device *);

// Bytes of scratch that each family needs for these limits; the largest is the workspace.
size_t qvl_cuda_linear_scratch(const qvl_device *dev, const qvl_workspace_limits *limits);
size_t qvl_cuda_attention_scratch(const qvl_device *dev, const qvl_workspace_limits *limits);
size_t qvl_cuda_head_loss_scratch(const qvl_device *dev, const qvl_workspace_limits *limits);

#endif
