/* Features of the images of a data set. The tower is frozen, so each image needs to be computed
 * once; kept features are shared by the ranks of a host. */
#ifndef QVL_SRC_MODEL_FEATURES_H
#define QVL_SRC_MODEL_FEATURES_H

#include <stdbool.h>
#include <stdint.h>

#include "io/dataset_h5.h"
#include "mpi/world.h"
#include "src/base/log.h"
#include "src/base/status.h"
#include "src/model/vision.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_features qvl_features;

/* Bytes that the kept features of all images of data take. */
uint64_t qvl_features_bytes(const qvl_dataset *data, const qvl_model_dims *dims, size_t act_bytes);

/* is_kept: memory for all features is taken now (collective) and qvl_features_compute fills it;
 * else each request computes. data and vision are borrowed. */
qvl_status qvl_features_create(qvl_features **out, qvl_dataset *data, const qvl_model_dims *dims,
                               size_t act_bytes, bool is_kept, qvl_world *world, qvl_err *err);
void qvl_features_destroy(qvl_features *features); /* NULL is fine; collective when kept */

/* All images, spread over the ranks. Collective. */
qvl_status qvl_features_compute(qvl_features *features, qvl_vision *vision, qvl_log *log,
                                qvl_err *err);

/* For features that are not kept: computes with this tower from now on. */
void qvl_features_set_vision(qvl_features *features, qvl_vision *vision);

/* Features of an image: host, act [tokens, D]. Valid until the next qvl_features_forget. */
qvl_status qvl_features_get(qvl_features *features, int64_t image, const void **out, qvl_err *err);
void qvl_features_forget(qvl_features *features);

#ifdef __cplusplus
}
#endif
#endif
