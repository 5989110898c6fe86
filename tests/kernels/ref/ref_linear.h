/* A frozen linear with LoRA adapters and dropout, in double. */
#ifndef QVL_TESTS_KERNELS_REF_REF_LINEAR_H
#define QVL_TESTS_KERNELS_REF_REF_LINEAR_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_ref_adapter {
    const double *a; /* [R, in] */
    const double *b; /* [out, R] */
    double *da, *db; /* added to */
    int64_t out_offset, out;
    uint32_t module;
} qvl_ref_adapter;

typedef struct qvl_ref_linear {
    const double *weight; /* [out, in] */
    const double *bias;   /* [out] or NULL */
    int64_t in, out;
    int n_adapters;
    qvl_ref_adapter adapters[QVL_MAX_FUSED];
    int64_t rank;
    double scale;
} qvl_ref_linear;

/* What element `column` of token t is multiplied with: 0, or 65536 / (65536 - threshold). The
 * arrays of dropout are host memory here; NULL drops nothing. */
double qvl_ref_drop_factor(const qvl_dropout *dropout, uint32_t module, int64_t t, int64_t column);

/* y[t,:] = W x[t,:] + bias, and for each adapter i
 *   u[t, i*R + r] = a[r,:] . drop(x[t,:])
 *   y[t, out_offset + o] += scale * b[o,:] . u[t, i*R ..]
 * y [T, out], u [T, n_adapters * R], x [T, in]. */
void qvl_ref_linear_forward(double *y, double *u, const double *x, const qvl_ref_linear *linear,
                            int64_t T, const qvl_dropout *dropout);

/* dx [T, in] is set (NULL: not wanted); da and db are added to. */
void qvl_ref_linear_backward(double *dx, const double *dy, const double *x,
                             const qvl_ref_linear *linear, int64_t T, const qvl_dropout *dropout);

#ifdef __cplusplus
}
#endif
#endif
