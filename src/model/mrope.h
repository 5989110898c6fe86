/* Multimodal rotary positions: get_rope_index of transformers 4.49-4.57 for images (REFERENCE 3.1).
 */
#ifndef QVL_SRC_MODEL_MROPE_H
#define QVL_SRC_MODEL_MROPE_H

#include <stdint.h>

#include "src/base/status.h"
#include "src/model/dims.h"

#ifdef __cplusplus
extern "C" {
#endif

/* positions of one sample: axis a (frame, row, column) of token i goes to out[a * stride + i].
 * ids [n]; grids [n_images, 3] in patches, in order of appearance. *out_delta (may be NULL) is what
 * generation adds to a token's index: largest position + 1 - n.
 * QVL_EDATA when the image tokens are not the runs that the grids say. */
qvl_status qvl_mrope_positions(int32_t *out, int64_t stride, int64_t *out_delta, const int32_t *ids,
                               int64_t n, const int32_t *grids, int64_t n_images,
                               const qvl_model_dims *dims, qvl_err *err);

/* The rotary table's constants (REFERENCE 2.4): inv_freq [Dh/2], and axis [Dh/2], which of the
 * three positions turns pair i. */
void qvl_mrope_frequencies(float *inv_freq, int32_t *axis, const qvl_text_dims *dims);

#ifdef __cplusplus
}
#endif
#endif
