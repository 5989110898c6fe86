/* Checkpoints: output_dir/checkpoint-N with the adapter, optimizer.h5, trainer_state.json and a
 * manifest (docs/FORMATS.md). A directory is written under another name and renamed when whole. */
#ifndef QVL_SRC_TRAIN_CHECKPOINT_H
#define QVL_SRC_TRAIN_CHECKPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "io/adapter.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/base/status.h"
#include "src/model/lora.h"
#include "src/train/run_log.h"

#ifdef __cplusplus
extern "C" {
#endif

#define QVL_DESCRIPTION_BYTES 1024

/* What a run needs to go on as if nothing had happened, besides the adapter itself. Host memory. */
typedef struct qvl_train_state {
    int64_t step; /* steps done */
    double epoch;
    double loss_sum;    /* since the last log line */
    int64_t loss_steps; /* steps in it */
    double total_loss;  /* of all steps */
    int64_t total_tokens;
    float *param, *exp_avg, *exp_avg_sq; /* [parameters] */
    /* "key=value; key=value": of model, data and adapters, which must be the same; and of what
     * orders the samples, which must be the same for the same bits. */
    char identity[QVL_DESCRIPTION_BYTES], order[QVL_DESCRIPTION_BYTES];
} qvl_train_state;

typedef struct qvl_checkpoint_options {
    const char *output_dir;
    qvl_adapter_layout layout;
    const char *base_model;
    bool only_model;
    int64_t keep; /* newest that stay; 0: all */
} qvl_checkpoint_options;

/* All bytes of a checkpoint, in memory: made at a step, written by anybody at any time. Start with
 * {0}. */
typedef struct qvl_checkpoint_image {
    int64_t step;
    qvl_text adapter_config, adapter, optimizer, trainer_state;
} qvl_checkpoint_image;

qvl_status qvl_checkpoint_image_make(qvl_checkpoint_image *image,
                                     const qvl_checkpoint_options *options,
                                     const qvl_train_state *state, const qvl_lora *lora,
                                     const qvl_run_log *log, qvl_err *err);
void qvl_checkpoint_image_fini(qvl_checkpoint_image *image);

/* Writes output_dir/checkpoint-N: every file flushed, the manifest last, then the directory
 * renamed. A checkpoint-N that is there (of an earlier run, when this one went on from an older
 * checkpoint) stays until the new one is whole, and then makes way. QVL_EIO when it cannot be
 * written: the older checkpoints are then as they were. Calls nothing but POSIX and SHA-256, so any
 * thread may do it. QVL_EIO also when something that is not ours has one of the names. */
qvl_status qvl_checkpoint_image_write(const qvl_checkpoint_image *image, const char *output_dir,
                                      qvl_err *err);

/* Removes the oldest checkpoints until keep are left (0: none goes); never that of step newest.
 * Directories that are not ours are left alone and do not count. */
qvl_status qvl_checkpoint_prune(const char *output_dir, int64_t keep, int64_t newest, qvl_err *err);

/* All of it at once: make, write, prune. */
qvl_status qvl_checkpoint_save(const qvl_checkpoint_options *options, const qvl_train_state *state,
                               const qvl_lora *lora, const qvl_run_log *log, qvl_err *err);

/* The newest checkpoint of output_dir that is whole; "" when there is none. Damaged ones are warned
 * of; those that are not ours are passed over. */
qvl_status qvl_checkpoint_find(char out[QVL_PATH_BYTES], const char *output_dir, qvl_log *log,
                               qvl_err *err);

/* Reads a checkpoint into state (whose buffers are allocated and whose identity and order are set)
 * and, if run is not NULL, the history. QVL_EDATA when it belongs to another model, data or
 * adapters, with what differs; *other_order says what differs in what orders the samples, "" when
 * nothing does. */
qvl_status qvl_checkpoint_load(const char *directory, qvl_train_state *state, const qvl_lora *lora,
                               qvl_run_log *run, qvl_text *other_order, qvl_err *err);

/* Removes the checkpoints of an earlier run, as overwrite_output_dir asks. */
qvl_status qvl_checkpoint_remove_all(const char *output_dir, qvl_err *err);

/* What a killed save left in output_dir: half-written ones go, and a checkpoint that was about to
 * make way comes back. What is not ours stays. */
qvl_status qvl_checkpoint_clean(const char *output_dir, qvl_err *err);

/* Whether checkpoint-N is one of qvl's: it has our manifest, or one that is damaged and otherwise
 * only files that we write. False also where it cannot be read: then nothing is done to it. */
bool qvl_checkpoint_is_ours(const char *output_dir, int64_t step);
/* Whether what has the name of a half-written checkpoint is one: a file, a link, a checkpoint, or a
 * directory with nothing but files that we write. */
bool qvl_checkpoint_is_leftover(const char *path);
/* Removes such a one, if it is there; QVL_EIO when it is something else. */
qvl_status qvl_checkpoint_remove_leftover(const char *path, qvl_err *err);
/* "checkpoint-N", or a name under which it is written or removed. */
bool qvl_checkpoint_is_name(const char *name);
/* The first such name in output_dir that something else has, "" for none, and how many they are. */
qvl_status qvl_checkpoint_find_others(char first[QVL_PATH_BYTES], size_t *out_count,
                                      const char *output_dir, qvl_err *err);

/* N of "checkpoint-N" (and of no other way to write it) followed by suffix, or -1. */
int64_t qvl_checkpoint_step_of(const char *name, const char *suffix);
/* output_dir/checkpoint-N followed by suffix. */
qvl_status qvl_checkpoint_path(char out[QVL_PATH_BYTES], const char *output_dir, int64_t step,
                               const char *suffix, qvl_err *err);
/* Steps of the checkpoints of output_dir, ascending. *out is the caller's. */
qvl_status qvl_checkpoint_list(int64_t **out, size_t *out_count, const char *output_dir,
                               qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
