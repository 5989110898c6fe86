/* Rotary embedding in double; the angle alone is a float32 product, as the definition has it. */
#ifndef QVL_TESTS_KERNELS_REF_REF_ROPE_H
#define QVL_TESTS_KERNELS_REF_REF_ROPE_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* cosine[t,i] = cos(angle), sine[t,i] = sin(angle), angle = float(positions[axis[i], t]) *
 * inv_freq[i] rounded to float32.   cosine, sine [T, n_freq]; positions [n_axes, T]. */
void qvl_ref_rope_table(double *cosine, double *sine, const int32_t *positions,
                        const float *inv_freq, const int32_t *axis, int64_t T, int64_t n_freq);

/* In place on the first n_heads heads of each row of x [T, stride], pairs (i, i + Dh/2). */
void qvl_ref_rotate(double *x, const double *cosine, const double *sine, int64_t T, int64_t stride,
                    int64_t n_heads, int64_t Dh, bool inverse);

#ifdef __cplusplus
}
#endif
#endif
