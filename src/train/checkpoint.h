/* Checkpoints: output_dir/checkpoint-N with the adapter, optimizer.h5, trainer_state.json and a
 * manifest (docs/FORMATS.md). A directory is written under another name and renamed when whole. */
#ifndef QVL_SRC_TRAIN_CHECKPOINT_H
#define QVL_SRC_TRAIN_CHECKPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "io/adapter.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/base/sha256.h"
#include "src/base/status.h"
#include "src/model/lora.h"
#include "src/train/run_log.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a run needs to go on as if nothing had happened, besides the adapter itself. Host memory. */
typedef struct qvl_train_state {
    int64_t step; /* steps done */
    double epoch;
    double loss_sum;    /* since the last log line */
    int64_t loss_steps; /* steps in it */
    double total_loss;  /* of all steps */
    int64_t total_tokens;
    float *param, *exp_avg, *exp_avg_sq;  /* [parameters] */
    char identity[QVL_SHA256_TEXT_BYTES]; /* of model, data and adapters: must be the same */
    char order[QVL_SHA256_TEXT_BYTES];    /* of what orders the samples: same, or not bit for bit */
} qvl_train_state;

typedef struct qvl_checkpoint_options {
    const char *output_dir;
    qvl_adapter_layout layout;
    const char *base_model;
    bool only_model;
    int64_t keep; /* newest that stay; 0: all */
} qvl_checkpoint_options;

/* Writes checkpoint-N, then removes older ones beyond keep. An existing checkpoint-N (of an earlier
 * run, when this one went on from an older checkpoint) is replaced by the new one when that is
 * whole. QVL_EIO and nothing left behind when it cannot be written. */
qvl_status qvl_checkpoint_save(const qvl_checkpoint_options *options, const qvl_train_state *state,
                               const qvl_lora *lora, const qvl_run_log *log, qvl_err *err);

/* The newest checkpoint of output_dir that is whole; "" when there is none. Damaged ones are warned
 * of. */
qvl_status qvl_checkpoint_find(char out[QVL_PATH_BYTES], const char *output_dir, qvl_log *log,
                               qvl_err *err);

/* Reads a checkpoint into state (whose buffers are allocated and whose identity is set) and, if run
 * is not NULL, the history. QVL_EDATA when it belongs to another model, data or adapters;
 * *out_same_order tells whether the samples will come in the same order. */
qvl_status qvl_checkpoint_load(const char *directory, qvl_train_state *state, const qvl_lora *lora,
                               qvl_run_log *run, bool *out_same_order, qvl_err *err);

/* Removes the checkpoints of an earlier run, as overwrite_output_dir asks. */
qvl_status qvl_checkpoint_remove_all(const char *output_dir, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
