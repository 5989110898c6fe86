/* A thread that writes checkpoints from memory, one at a time, while training goes on. On rank 0.
 *
 * The thread touches files only: no device, no MPI, no HDF5, no log. What became of a checkpoint is
 * fetched by qvl_checkpoint_writer_poll.
 */
#ifndef QVL_SRC_TRAIN_CHECKPOINT_WRITER_H
#define QVL_SRC_TRAIN_CHECKPOINT_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "src/base/status.h"
#include "src/train/checkpoint.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_checkpoint_writer qvl_checkpoint_writer;

typedef struct qvl_write_result {
    int64_t step;
    double seconds;
    qvl_err err;   /* of writing; status QVL_OK: the checkpoint is safe */
    qvl_err prune; /* of removing older ones: no harm */
} qvl_write_result;

/* output_dir is borrowed until destroy; keep as in qvl_checkpoint_options. */
qvl_status qvl_checkpoint_writer_create(qvl_checkpoint_writer **out, const char *output_dir,
                                        int64_t keep, qvl_err *err);

/* Waits for what is being written. NULL is fine. */
void qvl_checkpoint_writer_destroy(qvl_checkpoint_writer *writer);

/* Takes the image over (it is {0} afterwards) and begins to write it. QVL_EINTERNAL when busy, or
 * when a result was not fetched. */
qvl_status qvl_checkpoint_writer_submit(qvl_checkpoint_writer *writer, qvl_checkpoint_image *image,
                                        qvl_err *err);

/* Waits at most so long until nothing is being written; whether that is so. */
bool qvl_checkpoint_writer_wait(qvl_checkpoint_writer *writer, double seconds);

/* True, once for every checkpoint, when it was written or failed. */
bool qvl_checkpoint_writer_poll(qvl_checkpoint_writer *writer, qvl_write_result *out);

#ifdef __cplusplus
}
#endif
#endif
