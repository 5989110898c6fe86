/* An image cut into normalised patches, pixel by pixel (REFERENCE 5.6 for one frame pair). */
#ifndef QVL_TESTS_KERNELS_REF_REF_PATCHES_H
#define QVL_TESTS_KERNELS_REF_REF_PATCHES_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* out [rows*cols, 1176]; rgb [rows*14, cols*14, 3]; unit_order [rows*cols/4]. Output rows 4u..4u+3
 * are the patches (0,0) (0,1) (1,0) (1,1) of the 2 x 2 unit unit_order[u], counted row by row;
 * column ((c*2 + frame)*14 + y)*14 + x. */
void qvl_ref_patches(double *out, const uint8_t *rgb, const int32_t *unit_order, int64_t rows,
                     int64_t cols, const float mean[3], const float stddev[3]);

#ifdef __cplusplus
}
#endif
#endif
