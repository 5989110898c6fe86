/* What a run remembers of itself: the log history, and the files that show it (REFERENCE 8.8 to
 * 8.10): trainer_log.jsonl, trainer_state.json, train_results.json, eval_results.json,
 * all_results.json and the plots. On rank 0 only. */
#ifndef QVL_SRC_TRAIN_RUN_LOG_H
#define QVL_SRC_TRAIN_RUN_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "src/base/status.h"
#include "src/config/config.h"
#include "src/train/event_log.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_run_log {
    const char *output_dir;   /* borrowed */
    const qvl_config *config; /* borrowed */
    json_t *history;          /* log_history */
    int64_t total_steps;
    double total_flos;       /* so far */
    int64_t total_tokens;    /* so far, all ranks */
    double elapsed_before_s; /* of runs that this one goes on from */
    double started_s;
    qvl_text pending;      /* lines that are not in trainer_log.jsonl yet */
    int64_t n_late;        /* lines that could not be written when they came */
    int64_t n_in_row;      /* of them, since the last that could */
    qvl_event_log *events; /* owned; gets the history's entries as they come; NULL: none */
} qvl_run_log;

/* Everything of one logging event. */
typedef struct qvl_log_event {
    int64_t step; /* steps done */
    double epoch, loss, grad_norm, learning_rate, tokens_per_second;
    int64_t first_step; /* of this process, for the time that remains */
} qvl_log_event;

qvl_status qvl_run_log_create(qvl_run_log **out, const char *output_dir, const qvl_config *config,
                              int64_t total_steps, qvl_err *err);
void qvl_run_log_destroy(qvl_run_log *log); /* NULL is fine */

double qvl_run_log_elapsed(const qvl_run_log *log);

/* A training entry: into the history and as a line of trainer_log.jsonl. QVL_EIO: the entry is in
 * the history, and the line comes with the next one; returned for the first such line and each
 * hundredth in a row, as a full disk fails every one. */
qvl_status qvl_run_log_train(qvl_run_log *log, const qvl_log_event *event, qvl_err *err);
/* An evaluation entry. */
qvl_status qvl_run_log_eval(qvl_run_log *log, const qvl_log_event *event, double eval_loss,
                            double runtime_s, int64_t n_samples, int64_t n_steps, qvl_err *err);

/* Whether the history has an evaluation after this step. */
bool qvl_run_log_has_eval(const qvl_run_log *log, int64_t step);

#define QVL_RUN_LOG_FILE   "trainer_log.jsonl"
#define QVL_RUN_STATE_FILE "trainer_state.json"

/* What trainer_state.json shall contain; out is cleared first. */
qvl_status qvl_run_log_format_state(const qvl_run_log *log, qvl_text *out, int64_t step,
                                    double epoch, qvl_err *err);
/* Writes it into directory. */
qvl_status qvl_run_log_save_state(const qvl_run_log *log, const char *directory, int64_t step,
                                  double epoch, qvl_err *err);
/* run_log_resume.c: reads it back, and cuts trainer_log.jsonl to the lines up to its step. */
qvl_status qvl_run_log_load_state(qvl_run_log *log, const char *directory, qvl_err *err);

typedef struct qvl_final_metrics {
    double epoch, train_loss, runtime_s, samples, total_flos;
    int64_t steps;
} qvl_final_metrics;

/* train_results.json, eval_results.json where the history has an evaluation after the last step,
 * all_results.json (merged), the last entry of the history. */
qvl_status qvl_run_log_finish(qvl_run_log *log, const qvl_final_metrics *metrics, qvl_err *err);

/* training_loss.png, and training_eval_loss.png when there are evaluations. */
qvl_status qvl_run_log_plot(const qvl_run_log *log, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
