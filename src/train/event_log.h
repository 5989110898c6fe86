/* report_to: tensorboard. The entries of a run's log history as event files, with the tags and in
 * the place that transformers gives them:
 *
 *     <logging_dir, or output_dir/runs/Aug25_18-43-14_HOST>/events.out.tfevents.SECONDS.HOST.PID.0
 *
 * A file that TensorBoard wants is no reason to stop: what cannot be written waits for the next
 * entry, with a warning when that begins and every 100 records. On rank 0 only. */
#ifndef QVL_SRC_TRAIN_EVENT_LOG_H
#define QVL_SRC_TRAIN_EVENT_LOG_H

#include <jansson.h>

#include "src/base/log.h"
#include "src/base/status.h"
#include "src/config/config.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_event_log qvl_event_log;

/* *out is NULL when report_to does not ask for event files. Checks that the directory can be made
 * and written to (QVL_EIO), and leaves no trace: directory and file come with the first entry. The
 * file is this process's own: a run that goes on begins another. config and log are borrowed. */
qvl_status qvl_event_log_create(qvl_event_log **out, const qvl_config *config, qvl_log *log,
                                qvl_err *err);

/* Tries once more to write what waits, and says what is lost. NULL is fine. */
void qvl_event_log_destroy(qvl_event_log *events);

/* An entry of log_history: each of its numbers under its key's tag ("eval_loss": "eval/loss",
 * others: "train/KEY"), at the entry's "step". NULL is fine. */
void qvl_event_log_add(qvl_event_log *events, const json_t *entry);

#ifdef __cplusplus
}
#endif
#endif
