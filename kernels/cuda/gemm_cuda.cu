// Matrix products through cuBLASLt. The algorithm of a shape is chosen once and kept; the number of
// rows is rounded up to 128 for that, so that packs of different lengths share algorithms.
//
// For large bf16 products the library's proposals are timed, on the operands at hand. A proposal is
// taken only if its result has the very bits of the first proposal's: most differ in how they cut C
// into tiles, not in the order in which they add along K. So the choice, which depends on the
// clock, shows in speed alone, and results do not depend on history.
#include "kernels/cuda/cuda_backend.cuh"

#include <stdlib.h>
#include <string.h>

namespace qvl
{

enum { ROW_STEP = 128, SLOTS = 4096, PROPOSALS = 4, TIMED_RUNS = 2 };

// Products below this many multiplications are not worth timing.
static const double WORTH_TIMING = 4e9;

struct gemm_key {
    int64_t rows, n, k, lda, ldb, ldc;
    int transpose_a, transpose_b, type, c_type, has_bias, is_added, alignment, pad;
};

struct gemm_slot {
    gemm_key key;
    cublasLtMatmulAlgo_t algo;
    bool is_used;
};

struct gemm_cache {
    gemm_slot slots[SLOTS];
    int n_used;
};

qvl_status gemm_cache_create(gemm_cache **out, qvl_err *err)
{
    *out = (gemm_cache *)calloc(1, sizeof **out);
    return *out ? QVL_OK : qvl_fail_memory(err, sizeof **out, "algorithms of products");
}

void gemm_cache_destroy(gemm_cache *cache)
{
    free(cache);
}

// The slot of key, or the empty one where it goes.
static gemm_slot *find_slot(gemm_cache *cache, const gemm_key *key)
{
    const unsigned char *bytes = (const unsigned char *)key;
    uint64_t hash = 1469598103934665603u;
    if (cache->n_used > SLOTS * 3 / 4) // shapes without end: start anew
        memset(cache, 0, sizeof *cache);
    for (size_t i = 0; i < sizeof *key; i++)
        hash = (hash ^ bytes[i]) * 1099511628211u;
    for (size_t i = hash % SLOTS;; i = (i + 1) % SLOTS) {
        gemm_slot *slot = &cache->slots[i];
        if (!slot->is_used || memcmp(&slot->key, key, sizeof *key) == 0)
            return slot;
    }
}

static cudaDataType_t type_of(qvl_dtype type)
{
    return type == QVL_F32 ? CUDA_R_32F : CUDA_R_16BF;
}

// Largest power of two up to 16 that divides the address.
static int alignment_of(const void *pointer)
{
    const uintptr_t low = (uintptr_t)pointer | 16;
    return (int)(low & (~low + 1));
}

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

// cuBLAS counts columns first: our C [m,n] is its C [n,m], and its A is our B.
struct layouts {
    cublasLtMatmulDescOpaque_t op;
    cublasLtMatrixLayoutOpaque_t a, b, c;
};

static cublasStatus_t describe(layouts *to, const gemm_shape &s, int64_t rows, const void *bias)
{
    const cublasOperation_t op_a = s.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t op_b = s.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    const cudaDataType_t type = type_of(s.type), c_type = type_of(s.c_type);
    const uint64_t n = (uint64_t)s.n, k = (uint64_t)s.k, m = (uint64_t)rows;
    cublasStatus_t rc = cublasLtMatmulDescInit(&to->op, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (rc == CUBLAS_STATUS_SUCCESS)
        rc = cublasLtMatmulDescSetAttribute(&to->op, CUBLASLT_MATMUL_DESC_TRANSA, &op_a,
                                            sizeof op_a);
    if (rc == CUBLAS_STATUS_SUCCESS)
        rc = cublasLtMatmulDescSetAttribute(&to->op, CUBLASLT_MATMUL_DESC_TRANSB, &op_b,
                                            sizeof op_b);
    if (bias && rc == CUBLAS_STATUS_SUCCESS)
        rc = cublasLtMatmulDescSetAttribute(&to->op, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                            sizeof epilogue);
    if (bias && rc == CUBLAS_STATUS_SUCCESS)
        rc = cublasLtMatmulDescSetAttribute(&to->op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                                            sizeof bias);
    if (rc == CUBLAS_STATUS_SUCCESS)
        rc = cublasLtMatrixLayoutInit(&to->a, type, s.transpose_b ? k : n, s.transpose_b ? n : k,
                                      s.ldb);
    if (rc == CUBLAS_STATUS_SUCCESS)
        rc = cublasLtMatrixLayoutInit(&to->b, type, s.transpose_a ? m : k, s.transpose_a ? k : m,
                                      s.lda);
    if (rc == CUBLAS_STATUS_SUCCESS)
        rc = cublasLtMatrixLayoutInit(&to->c, c_type, n, m, s.ldc);
    return rc;
}

struct proposals {
    cublasLtMatmulHeuristicResult_t result[PROPOSALS];
    int n;
};

static cublasStatus_t propose(proposals *out, cuda_state *state, layouts *of, int alignment,
                              int wanted)
{
    cublasLtMatmulPreferenceOpaque_t preference;
    const uint32_t bytes = (uint32_t)alignment;
    const size_t workspace = GEMM_WORKSPACE_BYTES;
    cublasStatus_t rc = cublasLtMatmulPreferenceInit(&preference);
    if (rc == CUBLAS_STATUS_SUCCESS)
        rc = cublasLtMatmulPreferenceSetAttribute(
            &preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    const cublasLtMatmulPreferenceAttributes_t alignments[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    for (int i = 0; i < 4 && rc == CUBLAS_STATUS_SUCCESS; i++)
        rc = cublasLtMatmulPreferenceSetAttribute(&preference, alignments[i], &bytes, sizeof bytes);
    if (rc == CUBLAS_STATUS_SUCCESS)
        rc = cublasLtMatmulAlgoGetHeuristic(state->blas, &of->op, &of->a, &of->b, &of->c, &of->c,
                                            &preference, wanted, out->result, &out->n);
    if (rc == CUBLAS_STATUS_SUCCESS && out->n < 1)
        rc = CUBLAS_STATUS_NOT_SUPPORTED;
    return rc;
}

struct operands {
    const void *a, *b, *bias;
    void *c;
};

static cublasStatus_t multiply(cuda_state *state, const gemm_shape &s, layouts *of,
                               const operands &o, const cublasLtMatmulAlgo_t *algo)
{
    return cublasLtMatmul(state->blas, &of->op, &s.alpha, o.b, &of->a, o.a, &of->b, &s.beta, o.c,
                          &of->c, o.c, &of->c, algo, state->gemm_workspace, GEMM_WORKSPACE_BYTES,
                          state->streams[QVL_LANE_COMPUTE]);
}

// ---- timing -------------------------------------------------------------------------------------

// Adds a hash of every word of C [m, n] and its place to *sum; integers, so order does not matter.
// Rows are whole pieces of 8 (C of the products that are timed has such widths).
static __global__ void checksum_kernel(unsigned long long *sum, const bf16 *c, int64_t m, int64_t n,
                                       int64_t ldc)
{
    unsigned long long own = 0;
    const int64_t per_row = n / 8;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < m * per_row;
         i += (int64_t)gridDim.x * blockDim.x) {
        const ulonglong2 x = *(const ulonglong2 *)(c + i / per_row * ldc + i % per_row * 8);
        const unsigned long long place = 0x9E3779B97F4A7C15ull * (unsigned long long)(2 * i + 1);
        own += (x.x ^ place) * 0xD6E8FEB86659FD93ull + (x.y ^ place >> 7) * 0xA0761D6478BD642Full;
    }
    for (int offset = 16; offset; offset /= 2)
        own += __shfl_xor_sync(0xffffffffu, own, offset);
    if (threadIdx.x % 32 == 0)
        atomicAdd(sum, own);
}

// Milliseconds of the fastest of some runs; the first one may have to load its code.
static cudaError_t time_one(float *ms, cuda_state *state, const gemm_shape &s, layouts *of,
                            const operands &o, const cublasLtMatmulAlgo_t *algo)
{
    cudaStream_t stream = state->streams[QVL_LANE_COMPUTE];
    cudaError_t rc = cudaSuccess;
    *ms = 1e30f;
    for (int run = 0; run < TIMED_RUNS && rc == cudaSuccess; run++) {
        float took = 0.0f;
        rc = cudaEventRecord(state->timing[0], stream);
        if (rc == cudaSuccess && multiply(state, s, of, o, algo) != CUBLAS_STATUS_SUCCESS)
            return cudaErrorNotSupported;
        if (rc == cudaSuccess)
            rc = cudaEventRecord(state->timing[1], stream);
        if (rc == cudaSuccess)
            rc = cudaEventSynchronize(state->timing[1]);
        if (rc == cudaSuccess)
            rc = cudaEventElapsedTime(&took, state->timing[0], state->timing[1]);
        *ms = took < *ms ? took : *ms;
    }
    return rc;
}

// The checksum of C.
static cudaError_t checksum(unsigned long long *sum, cuda_state *state, const gemm_shape &s,
                            const void *c)
{
    cudaStream_t stream = state->streams[QVL_LANE_COMPUTE];
    unsigned long long *device_sum = (unsigned long long *)state->partial_sums;
    cudaError_t rc = cudaMemsetAsync(device_sum, 0, sizeof *device_sum, stream);
    if (rc != cudaSuccess)
        return rc;
    checksum_kernel<<<256, 256, 0, stream>>>(device_sum, (const bf16 *)c, s.m, s.n, s.ldc);
    rc = cudaMemcpyAsync(sum, device_sum, sizeof *sum, cudaMemcpyDeviceToHost, stream);
    return rc == cudaSuccess ? cudaStreamSynchronize(stream) : rc;
}

// Index of the fastest proposal that gives the first one's bits; C is left to be computed again.
static int fastest(cuda_state *state, const gemm_shape &s, layouts *of, const operands &o,
                   const proposals &from)
{
    unsigned long long first_sum = 0, sum = 0;
    float best_ms = 0.0f, ms = 0.0f;
    int best = 0;
    if (time_one(&best_ms, state, s, of, o, &from.result[0].algo) != cudaSuccess ||
        checksum(&first_sum, state, s, o.c) != cudaSuccess)
        return 0;
    for (int i = 1; i < from.n; i++)
        if (time_one(&ms, state, s, of, o, &from.result[i].algo) == cudaSuccess && ms < best_ms &&
            checksum(&sum, state, s, o.c) == cudaSuccess && sum == first_sum) {
            best = i;
            best_ms = ms;
        }
    cudaGetLastError(); // a proposal that cannot run is no fault
    return best;
}

// The algorithm for this shape, from the cache or new.
static cublasStatus_t algorithm(cublasLtMatmulAlgo_t **out, cuda_state *state, const gemm_shape &s,
                                int alignment, const operands &o)
{
    const bool is_timed = s.c_type == QVL_BF16 && s.beta == 0.0f && !s.transpose_a &&
                          s.n % 8 == 0 && s.ldc % 8 == 0 && alignment == 16 &&
                          (double)s.m * (double)s.n * (double)s.k >= WORTH_TIMING;
    gemm_key key;
    layouts of;
    proposals found;
    memset(&key, 0, sizeof key);
    key.rows = divide_up(s.m, ROW_STEP) * ROW_STEP;
    key.n = s.n;
    key.k = s.k;
    key.lda = s.lda;
    key.ldb = s.ldb;
    key.ldc = s.ldc;
    key.transpose_a = s.transpose_a;
    key.transpose_b = s.transpose_b;
    key.type = s.type;
    key.c_type = s.c_type;
    key.has_bias = o.bias != NULL;
    key.is_added = s.beta != 0.0f;
    key.alignment = alignment;
    gemm_slot *slot = find_slot(state->gemms, &key);
    if (!slot->is_used) {
        // with transpose_a the rows of A are K, and lie s.lda apart: the real number is asked for
        const int64_t rows = s.transpose_a ? s.m : key.rows;
        cublasStatus_t rc = describe(&of, s, rows, o.bias);
        if (rc == CUBLAS_STATUS_SUCCESS)
            rc = propose(&found, state, &of, alignment, is_timed ? PROPOSALS : 1);
        if (rc == CUBLAS_STATUS_SUCCESS)
            rc = describe(&of, s, s.m, o.bias);
        if (rc != CUBLAS_STATUS_SUCCESS)
            return rc;
        slot->algo = found.result[is_timed ? fastest(state, s, &of, o, found) : 0].algo;
        slot->key = key;
        slot->is_used = true;
        state->gemms->n_used++;
    }
    *out = &slot->algo;
    return CUBLAS_STATUS_SUCCESS;
}

qvl_status gemm(qvl_device *dev, const gemm_shape &s, const void *a, const void *b, void *c,
                const void *bias, qvl_err *err)
{
    cuda_state *state = state_of(dev);
    const int alignment = smaller(smaller(alignment_of(a), alignment_of(b)),
                                  smaller(alignment_of(c), bias ? alignment_of(bias) : 16));
    const operands o = {a, b, bias, c};
    cublasLtMatmulAlgo_t *algo = NULL;
    layouts of;
    if (s.m == 0 || s.n == 0)
        return QVL_OK;
    cublasStatus_t rc = algorithm(&algo, state, s, alignment, o);
    if (rc == CUBLAS_STATUS_SUCCESS)
        rc = describe(&of, s, s.m, bias);
    if (rc == CUBLAS_STATUS_SUCCESS)
        rc = multiply(state, s, &of, o, algo);
    if (rc != CUBLAS_STATUS_SUCCESS)
        return qvl_fail(err, QVL_EDEVICE, "GPU: product [%lld, %lld] = [.., %lld]: cuBLASLt: %s",
                        (long long)s.m, (long long)s.n, (long long)s.k,
                        cublasLtGetStatusString(rc));
    return QVL_OK;
}

} // namespace qvl
