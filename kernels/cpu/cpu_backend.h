/* Inside of the CPU backend: float32, OpenMP over fixed tiles, single-threaded CBLAS per tile.
 *
 * Work is cut into tiles whose number depends on the shapes only. Threads take tiles; they never
 * change how a sum is ordered, so results are the same bits for any number of threads.
 */
#ifndef QVL_KERNELS_CPU_CPU_BACKEND_H
#define QVL_KERNELS_CPU_CPU_BACKEND_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Inner loops get a version for each vector width, picked by what the processor can do, whoever
 * made it (the names of processors, all that older compilers know here, are Intel's). Not under
 * sanitizers: their run time is not ready when the loader picks the version. */
#if defined(__x86_64__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__) &&           \
    !defined(__SANITIZE_ADDRESS__) && !defined(QVL_NO_SIMD_CLONES)
#define QVL_SIMD_CLONES                                                                            \
    __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define QVL_SIMD_CLONES
#endif

enum { QVL_CPU_QUERY_BLOCK = 64 }; /* query rows of attention that are worked on at once */

typedef struct qvl_cpu_state {
    int n_threads;
    char *workspace;
    size_t workspace_bytes;
    double marks[QVL_MARKS]; /* seconds */
} qvl_cpu_state;

int qvl_cpu_threads(const qvl_device *dev);

/* Scratch: *out is at offset *used of the workspace, which then grows by count floats (rounded up
 * to 256 bytes). QVL_EINTERNAL when the workspace is too small. */
qvl_status qvl_cpu_scratch(qvl_device *dev, float **out, size_t *used, int64_t count, qvl_err *err);

/* C [M,N] = alpha * op(A) op(B) + beta * C in row-major order; op(A) is [M,K]. */
typedef struct qvl_cpu_gemm {
    bool transpose_a, transpose_b;
    int64_t m, n, k;
    float alpha, beta;
    const float *a, *b;
    float *c;
    int64_t lda, ldb, ldc;
} qvl_cpu_gemm;

void qvl_cpu_gemm_run(const qvl_device *dev, const qvl_cpu_gemm *gemm); /* tiles over all threads */
void qvl_cpu_gemm_serial(const qvl_cpu_gemm *gemm); /* inside a parallel region */

/* exp of n values in place, to about one unit in the last place; below -87 it gives 0. */
void qvl_cpu_exp(float *x, int64_t n);

static inline int64_t qvl_or_dense(int64_t stride, int64_t width)
{
    return stride ? stride : width;
}

/* The module's mask: keep [T, in], 1 where an element stays, 0 where it goes. */
void qvl_cpu_dropout_mask(const qvl_device *dev, uint8_t *keep, int64_t T, int64_t in,
                          uint32_t module, const qvl_dropout *dropout);
/* Rows of x [T, in] with the mask applied: out [T, in]. */
void qvl_cpu_mask_rows(const qvl_device *dev, float *out, const float *x, int64_t x_stride,
                       const uint8_t *keep, int64_t T, int64_t in, const qvl_dropout *dropout);
/* dst += mask(src), the backward of the above. */
void qvl_cpu_mask_rows_add(const qvl_device *dev, float *dst, const float *src, const uint8_t *keep,
                           int64_t T, int64_t in, const qvl_dropout *dropout);

qvl_status qvl_cpu_embed(qvl_device *, const qvl_embed_args *, qvl_err *);
qvl_status qvl_cpu_move_rows(qvl_device *, const qvl_move_rows_args *, qvl_err *);
qvl_status qvl_cpu_norm(qvl_device *, const qvl_norm_args *, qvl_err *);
qvl_status qvl_cpu_norm_backward(qvl_device *, const qvl_norm_backward_args *, qvl_err *);
qvl_status qvl_cpu_linear(qvl_device *, const qvl_linear_args *, qvl_err *);
qvl_status qvl_cpu_linear_backward(qvl_device *, const qvl_linear_backward_args *, qvl_err *);
qvl_status qvl_cpu_rope_table(qvl_device *, const qvl_rope_table_args *, qvl_err *);
qvl_status qvl_cpu_rotate(qvl_device *, const qvl_rotate_args *, qvl_err *);
qvl_status qvl_cpu_attention(qvl_device *, const qvl_attention_args *, qvl_err *);
qvl_status qvl_cpu_attention_backward(qvl_device *, const qvl_attention_backward_args *, qvl_err *);
qvl_status qvl_cpu_swiglu(qvl_device *, const qvl_swiglu_args *, qvl_err *);
qvl_status qvl_cpu_swiglu_backward(qvl_device *, const qvl_swiglu_backward_args *, qvl_err *);
qvl_status qvl_cpu_mlp(qvl_device *, const qvl_mlp_args *, qvl_err *);
qvl_status qvl_cpu_mlp_backward(qvl_device *, const qvl_mlp_backward_args *, qvl_err *);
qvl_status qvl_cpu_gelu(qvl_device *, const qvl_gelu_args *, qvl_err *);
qvl_status qvl_cpu_patches(qvl_device *, const qvl_patches_args *, qvl_err *);
qvl_status qvl_cpu_head_loss(qvl_device *, const qvl_head_loss_args *, qvl_err *);
qvl_status qvl_cpu_sum_squares(qvl_device *, const qvl_sum_squares_args *, qvl_err *);
qvl_status qvl_cpu_adamw(qvl_device *, const qvl_adamw_args *, qvl_err *);
qvl_status qvl_cpu_fold(qvl_device *, const qvl_fold_args *, qvl_err *);

/* Floats of scratch that each family needs for these limits; the largest is the workspace. */
int64_t qvl_cpu_linear_scratch(const qvl_workspace_limits *limits);
int64_t qvl_cpu_attention_scratch(const qvl_workspace_limits *limits, int n_threads);
int64_t qvl_cpu_head_loss_scratch(const qvl_workspace_limits *limits);

#ifdef __cplusplus
}
#endif
#endif
