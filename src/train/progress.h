/* Where a run stands, on the terminal, and where its time went. */
#ifndef QVL_SRC_TRAIN_PROGRESS_H
#define QVL_SRC_TRAIN_PROGRESS_H

#include <stdint.h>

#include "kernels/ops.h"
#include "src/base/log.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What the wall time of the whole process is divided into. Those from SAMPLES to OPTIMISER are
 * times of the device. */
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
    /* marks of the step in work, and the phase that ends with each */
    int n_marks;
    qvl_phase phases[QVL_MARKS];
} qvl_timer;

void qvl_timer_start(qvl_timer *timer);
/* The time since the last call belongs to phase. */
void qvl_timer_lap(qvl_timer *timer, qvl_phase phase);

/* What the device does between the last call and this one belongs to phase. Collected once the
 * device was waited for; host time in between that the device did not fill goes to OTHER. */
qvl_status qvl_timer_mark(qvl_timer *timer, qvl_device *dev, qvl_phase phase, qvl_err *err);
qvl_status qvl_timer_collect(qvl_timer *timer, qvl_device *dev, qvl_err *err);

typedef struct qvl_progress {
    int64_t first_step, total_steps;
    double started_s;
    int64_t tokens;     /* since then, all ranks */
    int64_t own_tokens; /* this rank's of them */
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
