/* RMSNorm in double. No residual addition: the caller adds and rounds as the device stores it. */
#ifndef QVL_TESTS_KERNELS_REF_REF_NORM_H
#define QVL_TESTS_KERNELS_REF_REF_NORM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* y[t,:] = x[t,:] * inv_rms[t] * weight,  inv_rms[t] = 1 / sqrt(mean(x[t,:]^2) + eps).
 * y, x [T, D]; inv_rms [T]; weight [D]. */
void qvl_ref_norm(double *y, double *inv_rms, const double *x, const double *weight, int64_t T,
                  int64_t D, double eps);

/* dx [T, D] += d(loss)/dx given dy [T, D]. */
void qvl_ref_norm_backward(double *dx, const double *dy, const double *x, const double *weight,
                           int64_t T, int64_t D, double eps);

#ifdef __cplusplus
}
#endif
#endif
