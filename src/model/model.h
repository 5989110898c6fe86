/* A model directory, opened and checked: dimensions, weight files, and where the weights will go.
 */
#ifndef QVL_SRC_MODEL_MODEL_H
#define QVL_SRC_MODEL_MODEL_H

#include "kernels/ops.h"
#include "mpi/world.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/model/dims.h"
#include "src/model/lora.h"
#include "src/model/weight_files.h"
#include "src/model/weights.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_model {
    char directory[QVL_PATH_BYTES];
    qvl_model_dims dims;
    qvl_weight_files *files;
    qvl_weights *text, *vision; /* planned; loaded by qvl_weights_load */
} qvl_model;

/* name: a directory or a hub name (qvl_hub_find). Reads headers only. The weights are planned for
 * this device and these adapters. Start with {0}. */
qvl_status qvl_model_open(qvl_model *out, const char *name, const char *cache_dir,
                          const char *revision, const qvl_device *dev,
                          const qvl_lora_options *adapters, qvl_log *log, qvl_err *err);
void qvl_model_close(qvl_model *model);

#ifdef __cplusplus
}
#endif
#endif
