/* What the model's files say of how images become patches. */
#ifndef QVL_SRC_MODEL_PREPROCESSOR_H
#define QVL_SRC_MODEL_PREPROCESSOR_H

#include "src/base/status.h"
#include "src/model/dims.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Fills min_pixels, max_pixels, image_mean and image_std from preprocessor_config.json, or from the
 * image_processor of processor_config.json, which transformers 5 writes and prefers; from neither:
 * Qwen2VLImageProcessor's own. QVL_EDATA for settings that ask for other patches than qvl makes. */
qvl_status qvl_preprocessor_read(qvl_model_dims *dims, const char *directory, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
