/* When checkpoints are written, and what becomes of them. The decisions are rank 0's; the others
 * have no saver.
 *
 * A save that fails does not stop training: it is warned of, and tried again at a later step, with
 * that step's state. Only a checkpoint without which work would be lost is waited for
 * (qvl_saver_finish).
 */
#ifndef QVL_SRC_TRAIN_SAVER_H
#define QVL_SRC_TRAIN_SAVER_H

#include <stdbool.h>
#include <stdint.h>

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct qvl_run;
typedef struct qvl_saver qvl_saver;

/* On rank 0. run is borrowed until destroy. */
qvl_status qvl_saver_create(qvl_saver **out, struct qvl_run *run, qvl_err *err);
/* Waits for what is being written. NULL is fine. */
void qvl_saver_destroy(qvl_saver *saver);

/* On rank 0, after every step. is_due: a checkpoint of this step is asked for by the configuration.
 * A file `save` in output_dir asks for one too, and is removed. Fails only when the device does. */
qvl_status qvl_saver_after_step(qvl_saver *saver, bool is_due, qvl_err *err);

/* Seconds that a save takes: measured, or guessed from its size. */
double qvl_saver_seconds(const qvl_saver *saver);

/* Collective; saver is NULL on all ranks but 0. Returns when a checkpoint of the present step is
 * safe on disk, complete with the optimiser's state if it is for going on; QVL_EIO, on all ranks,
 * when three more attempts did not bring it there. */
qvl_status qvl_saver_finish(qvl_saver *saver, struct qvl_run *run, bool is_to_go_on, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
