/* The weight files of a model directory: one model.safetensors, or shards with an index.
 *
 * Tensors are found by their hub name ("model.layers.0...", "visual.blocks.0..."); files with the
 * newer names ("model.language_model.layers.0...", "model.visual...") are read as well
 * (REFERENCE 1.3). Opening reads headers only.
 */
#ifndef QVL_SRC_MODEL_WEIGHT_FILES_H
#define QVL_SRC_MODEL_WEIGHT_FILES_H

#include <stddef.h>

#include "io/safetensors.h"
#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_weight_files qvl_weight_files;

/* QVL_EMISSING names every shard that is missing; QVL_EDATA for damaged files, tensors that the
 * index puts elsewhere, and tensors that are there twice. */
qvl_status qvl_weight_files_open(qvl_weight_files **out, const char *directory, qvl_err *err);
void qvl_weight_files_close(qvl_weight_files *files); /* NULL is fine */

size_t qvl_weight_files_count(const qvl_weight_files *files);
/* Tensor i in order of hub name: the name, the tensor and the file that holds it. */
const char *qvl_weight_files_name(const qvl_weight_files *files, size_t i);
const qvl_tensor *qvl_weight_files_at(const qvl_weight_files *files, size_t i,
                                      const qvl_safetensors **out_file);
/* NULL when there is none of this hub name; out_file may be NULL. */
const qvl_tensor *qvl_weight_files_find(const qvl_weight_files *files, const char *hub_name,
                                        const qvl_safetensors **out_file);
const char *qvl_weight_files_directory(const qvl_weight_files *files);
/* SHA-256 over the headers of all shards, 64 hexadecimal digits. */
const char *qvl_weight_files_sha256(const qvl_weight_files *files);

#ifdef __cplusplus
}
#endif
#endif
