/* What comes round while a run trains: log lines, evaluations, checkpoints. */
#ifndef QVL_SRC_TRAIN_DUE_H
#define QVL_SRC_TRAIN_DUE_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_due {
    int64_t every; /* steps; 0: never */
    int64_t last;  /* a step at which it is due whatever its number; 0: none */
} qvl_due;

/* strategy is steps, epoch or no. steps below 1 are a share of all steps, rounded up. As in
 * transformers an epoch also ends where the run does. */
qvl_due qvl_due_make(const char *strategy, double steps, int64_t total_steps,
                     int64_t steps_per_epoch);

/* Whether it is due after this many steps. */
bool qvl_is_due(const qvl_due *due, int64_t step);

#ifdef __cplusplus
}
#endif
#endif
