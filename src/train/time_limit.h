/* When to stop so that a run is saved before its time is over. On rank 0. */
#ifndef QVL_SRC_TRAIN_TIME_LIMIT_H
#define QVL_SRC_TRAIN_TIME_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "src/base/log.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { QVL_TIME_LIMIT_STEPS = 16 };

/* Times are those of qvl_clock_s. */
typedef struct qvl_time_limit {
    double end_s;                         /* INFINITY: there is none */
    int reason;                           /* QVL_STOP_MAX_HOURS or QVL_STOP_JOB_END */
    double steps_s[QVL_TIME_LIMIT_STEPS]; /* the last ones, with what is done between them */
    int64_t n_steps;
    double step_began_s;
} qvl_time_limit;

/* The earlier of max_hours (0 or less: none) after started_s, and of job_end, the text of
 * SLURM_JOB_END_TIME (seconds since 1970; NULL: none). now_s and unix_now are the present on both
 * clocks. A job_end that is no time, or is over, is warned of and not followed. */
void qvl_time_limit_init(qvl_time_limit *limit, double max_hours, double started_s,
                         const char *job_end, double now_s, double unix_now, qvl_log *log);

/* A step begins; the one before has ended. */
void qvl_time_limit_step(qvl_time_limit *limit, double now_s);

/* Whether what is left is less than the margin: the longest of the last steps twice (one more step,
 * and as much again), the time of a save twice, and 5 s. Never before a step is done, so that every
 * start gets somewhere. */
bool qvl_time_limit_is_near(const qvl_time_limit *limit, double now_s, double save_s);

#ifdef __cplusplus
}
#endif
#endif
