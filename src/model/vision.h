/* The vision tower: one resized image in, the features of its tokens out (REFERENCE 4). Frozen, so
 * there is only a forward pass. */
#ifndef QVL_SRC_MODEL_VISION_H
#define QVL_SRC_MODEL_VISION_H

#include <stdint.h>

#include "kernels/ops.h"
#include "src/base/plan.h"
#include "src/model/dims.h"
#include "src/model/weights.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_vision qvl_vision;

/* Adds the activations for images of at most max_patches patches to plan. */
qvl_status qvl_vision_create(qvl_vision **out, const qvl_model_dims *dims, int64_t max_patches,
                             size_t act_bytes, int64_t Fp, qvl_plan *plan, qvl_err *err);
void qvl_vision_destroy(qvl_vision *vision); /* NULL is fine */

qvl_status qvl_vision_bind(qvl_vision *vision, qvl_device *dev, const qvl_plan *plan, void *base,
                           const qvl_vision_weights *weights, qvl_err *err);

qvl_workspace_limits qvl_vision_limits(const qvl_vision *vision);

/* rgb [rows*14, cols*14, 3] host, of a still image of rows x cols patches. features: host,
 * act [rows*cols/4, out], in row-major order of the merged units; complete on return. */
qvl_status qvl_vision_run(qvl_vision *vision, void *features, const uint8_t *rgb, int64_t rows,
                          int64_t cols, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
