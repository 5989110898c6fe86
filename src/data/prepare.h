/* From the configuration to pre-tokenized files: found, checked against their digest, or written by
 * all ranks (docs/FORMATS.md; REFERENCE 7). */
#ifndef QVL_SRC_DATA_PREPARE_H
#define QVL_SRC_DATA_PREPARE_H

#include <stdbool.h>
#include <stdint.h>

#include "mpi/world.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/base/status.h"
#include "src/config/config.h"
#include "src/model/dims.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What planning needs to know of the samples of one part. */
typedef struct qvl_sample_table {
    int64_t n_samples, n_tokens, n_images, n_image_tokens, max_patches;
    int32_t *length;     /* [n_samples] tokens */
    int32_t *supervised; /* [n_samples] supervised tokens */
} qvl_sample_table;

void qvl_sample_table_fini(qvl_sample_table *table);

typedef enum qvl_prepare_mode {
    QVL_PREPARE_FILES, /* the files are there afterwards */
    QVL_PREPARE_CHECK  /* everything is encoded and decoded, nothing is written */
} qvl_prepare_mode;

/* Start with {0}; qvl_prepared_fini frees it. */
typedef struct qvl_prepared {
    char train_path[QVL_PATH_BYTES]; /* "" when nothing was written */
    char eval_path[QVL_PATH_BYTES];  /* "" when there is no evaluation part */
    qvl_sample_table train, eval;    /* filled in by encoding only, on rank 0 */
    bool was_encoded;                /* false: existing files are used */
} qvl_prepared;

void qvl_prepared_fini(qvl_prepared *prepared);

/* Collective. model_dir holds tokenizer.json. All bad samples are listed, with file and index,
 * before it fails with the first of them or, with on_bad_sample: skip, goes on without them.
 * n_threads of this rank. */
qvl_status qvl_prepare(qvl_prepared *out, const qvl_config *config, const qvl_model_dims *dims,
                       const char *model_dir, qvl_prepare_mode mode, int n_threads,
                       qvl_world *world, qvl_log *log, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
