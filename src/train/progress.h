/* Where a run stands, on the terminal, and where its time went. */
#ifndef QVL_SRC_TRAIN_PROGRESS_H
#define QVL_SRC_TRAIN_PROGRESS_H

#include <stdint.h>

#include "src/base/log.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What the wall time of the whole process is divided into. */
typedef enum qvl_phase {
    QVL_PHASE_DATA_PREPARATION,
    QVL_PHASE_MODEL_LOADING,
    QVL_PHASE_IMAGE_FEATURES,
    QVL_PHASE_SAMPLES,
    QVL_PHASE_FORWARD,
    QVL_PHASE_LOSS,
    QVL_PHASE_BACKWARD,
    QVL_PHASE_WAITING,
    QVL_PHASE_EXCHANGE,
    QVL_PHASE_OPTIMISER,
    QVL_PHASE_EVALUATION,
    QVL_PHASE_SAVING,
    QVL_PHASE_OTHER,
    QVL_N_PHASES
} qvl_phase;

typedef struct qvl_timer {
    double seconds[QVL_N_PHASES];
    double mark_s, started_s;
} qvl_timer;

void qvl_timer_start(qvl_timer *timer);
/* The time since the last call belongs to phase. */
void qvl_timer_lap(qvl_timer *timer, qvl_phase phase);

typedef struct qvl_progress {
    int64_t first_step, total_steps;
    double started_s;
    int64_t tokens; /* since then, all ranks */
} qvl_progress;

/* The progress bar: bar, steps, loss, rate, tokens/s, time left. Nothing where standard output is
 * no terminal. */
void qvl_progress_draw(const qvl_progress *progress, int64_t step, double loss, double rate,
                       qvl_log *log);

/* The table at the end: seconds and shares of the phases, tokens/s, peak memory. */
void qvl_timer_print(const qvl_timer *timer, const qvl_progress *progress, int64_t step,
                     qvl_log *log);

#ifdef __cplusplus
}
#endif
#endif
