/* The demo's models: their dimensions, config files and weights (REFERENCE 1). */
#ifndef QVL_SRC_DEMO_MODEL_H
#define QVL_SRC_DEMO_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "src/base/status.h"
#include "src/model/dims.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum qvl_demo_size { QVL_DEMO_TINY, QVL_DEMO_3B, QVL_DEMO_7B } qvl_demo_size;

/* The dimensions of a size. The vocabulary of the tiny model is 64 * ceil(n_ids / 64) rows, and its
 * added tokens are the last 22 of n_ids; the real sizes have Qwen's own and ignore n_ids. */
void qvl_demo_dims(qvl_model_dims *out, qvl_demo_size size, int64_t n_ids);

/* Files of weights: 2, for 7B 5. */
int qvl_demo_shards(qvl_demo_size size);

/* The id of the first added token, <|endoftext|>. */
int64_t qvl_demo_first_added(const qvl_model_dims *dims);

typedef struct qvl_demo_weights {
    int64_t n_tensors, n_parameters;
    int n_shards;
    uint64_t total_bytes;
} qvl_demo_weights;

/* Writes config.json (the flat layout of the hub), generation_config.json and
 * preprocessor_config.json into directory. */
qvl_status qvl_demo_write_config(const char *directory, const qvl_model_dims *dims, qvl_err *err);

/* Writes n_shards files (BF16, names as on the hub) and their index into directory. is_sparse
 * leaves holes that read as zeros and take no room on disk; else weights are random, their size set
 * by how many values a matrix adds up, so that values keep theirs from layer to layer. *out says
 * what was written. */
qvl_status qvl_demo_write_weights(qvl_demo_weights *out, const char *directory,
                                  const qvl_model_dims *dims, int n_shards, bool is_sparse,
                                  uint64_t seed, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
