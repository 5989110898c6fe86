/* The floor of a step: its frozen matrix products alone, forward and back, which no step can do
 * without. */
#ifndef QVL_SRC_TRAIN_STEP_FLOOR_H
#define QVL_SRC_TRAIN_STEP_FLOOR_H

#include "src/train/run.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Milliseconds that the device has worked since its mark 0. */
qvl_status qvl_time_since_mark(qvl_device *dev, double *ms, qvl_err *err);

/* Runs and times the products of a step in which this rank has so many tokens, in the packs that it
 * would have. Activations are lost. */
qvl_status qvl_step_floor_time(qvl_run *run, int64_t tokens, double *ms, qvl_err *err);

typedef struct qvl_step_floor {
    double share;   /* of what this rank's device did for its steps; NaN: not measured */
    double ms;      /* of the products of a mean step */
    int64_t tokens; /* of this rank, in it */
} qvl_step_floor;

/* After the last step of a run: the products timed in at most about a second, and compared with the
 * time of forward, loss, backward, exchange and optimiser. Not measured: after fewer than 3 steps,
 * where a step takes more than a second, and when a stop was asked for. Every rank for itself;
 * QVL_OK unless the device fails. */
qvl_status qvl_step_floor_measure(qvl_run *run, qvl_step_floor *out, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
