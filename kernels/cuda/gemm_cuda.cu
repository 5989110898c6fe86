// Matrix products through cuBLASLt. The algorithm of a shape is asked for once and kept; the number
// of rows is rounded up to 128 for that, so that packs of different lengths share algorithms, and
// so that the same shape always gets the same one, whatever came before it: results do not depend
// on history.
#include "kernels/cuda/cuda_backend.cuh"

#include <stdlib.h>
#include <string.h>

namespace qvl
{

enum { ROW_STEP = 128, SLOTS = 4096 };

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

static cublasStatus_t choose(cublasLtMatmulAlgo_t *out, cuda_state *state, layouts *of,
                             int alignment)
{
    cublasLtMatmulPreferenceOpaque_t preference;
    cublasLtMatmulHeuristicResult_t result;
    const uint32_t bytes = (uint32_t)alignment;
    const size_t workspace = GEMM_WORKSPACE_BYTES;
    int n_found = 0;
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
                                            &preference, 1, &result, &n_found);
    if (rc == CUBLAS_STATUS_SUCCESS && n_found < 1)
        rc = CUBLAS_STATUS_NOT_SUPPORTED;
    if (rc == CUBLAS_STATUS_SUCCESS)
        *out = result.algo;
    return rc;
}

// The algorithm for this shape, from the cache or new.
static cublasStatus_t algorithm(cublasLtMatmulAlgo_t **out, cuda_state *state, const gemm_shape &s,
                                int alignment, const void *bias)
{
    gemm_key key;
    layouts of;
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
    key.has_bias = bias != NULL;
    key.is_added = s.beta != 0.0f;
    key.alignment = alignment;
    gemm_slot *slot = find_slot(state->gemms, &key);
    if (!slot->is_used) {
        // with transpose_a the rows of A are K, and lie s.lda apart: the real number is asked for
        const int64_t rows = s.transpose_a ? s.m : key.rows;
        cublasStatus_t rc = describe(&of, s, rows, bias);
        if (rc == CUBLAS_STATUS_SUCCESS)
            rc = choose(&slot->algo, state, &of, alignment);
        if (rc != CUBLAS_STATUS_SUCCESS)
            return rc;
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
    cublasLtMatmulAlgo_t *algo = NULL;
    layouts of;
    if (s.m == 0 || s.n == 0)
        return QVL_OK;
    cublasStatus_t rc = algorithm(&algo, state, s, alignment, bias);
    if (rc == CUBLAS_STATUS_SUCCESS)
        rc = describe(&of, s, s.m, bias);
    if (rc == CUBLAS_STATUS_SUCCESS)
        rc = cublasLtMatmul(state->blas, &of.op, &s.alpha, b, &of.a, a, &of.b, &s.beta, c, &of.c, c,
                            &of.c, algo, state->gemm_workspace, GEMM_WORKSPACE_BYTES,
                            compute_of(dev));
    if (rc != CUBLAS_STATUS_SUCCESS)
        return qvl_fail(err, QVL_EDEVICE, "GPU: product [%lld, %lld] = [.., %lld]: cuBLASLt: %s",
                        (long long)s.m, (long long)s.n, (long long)s.k,
                        cublasLtGetStatusString(rc));
    return QVL_OK;
}

} // namespace qvl
