/* LD_PRELOAD: the QVL_FAIL_BLAS-th product through cuBLASLt fails, as it does when a GPU breaks;
 * the QVL_HANG_BLAS-th does not return, as it does not when the driver waits for what never ends.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cublasLt.h>

static bool is_call(const char *variable, long number)
{
    const char *which = getenv(variable);
    return which && number == atol(which);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t op, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t bytes, cudaStream_t stream)
{
    static cublasStatus_t (*own)(
        cublasLtHandle_t, cublasLtMatmulDesc_t, const void *, const void *, cublasLtMatrixLayout_t,
        const void *, cublasLtMatrixLayout_t, const void *, const void *, cublasLtMatrixLayout_t,
        void *, cublasLtMatrixLayout_t, const cublasLtMatmulAlgo_t *, void *, size_t, cudaStream_t);
    static long calls;
    if (!own) {
        void *symbol = dlsym(RTLD_NEXT, "cublasLtMatmul");
        memcpy(&own, &symbol, sizeof own); /* C has no cast between these */
    }
    calls++;
    while (is_call("QVL_HANG_BLAS", calls))
        pause();
    if (is_call("QVL_FAIL_BLAS", calls))
        return CUBLAS_STATUS_EXECUTION_FAILED;
    return own(handle, op, alpha, a, a_layout, b, b_layout, beta, c, c_layout, d, d_layout, algo,
               workspace, bytes, stream);
}
