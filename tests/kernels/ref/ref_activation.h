/* SwiGLU and GELU in double. */
#ifndef QVL_TESTS_KERNELS_REF_REF_ACTIVATION_H
#define QVL_TESTS_KERNELS_REF_REF_ACTIVATION_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* h[t,f] = silu(gate) * up,  gate = gate_up[t, f], up = gate_up[t, F + f],
 * silu(g) = g / (1 + exp(-g)). */
void qvl_ref_swiglu(double *h, const double *gate_up, int64_t T, int64_t F);

/* dgate_up [T, 2F] (set) from dh [T, F]. */
void qvl_ref_swiglu_backward(double *dgate_up, const double *dh, const double *gate_up, int64_t T,
                             int64_t F);

/* x/2 (1 + erf(x / sqrt 2)) in place. */
void qvl_ref_gelu(double *x, int64_t n);

#ifdef __cplusplus
}
#endif
#endif
