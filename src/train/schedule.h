/* The learning rate of each step (REFERENCE 8.7; transformers' get_scheduler). */
#ifndef QVL_SRC_TRAIN_SCHEDULE_H
#define QVL_SRC_TRAIN_SCHEDULE_H

#include <stdint.h>

#include "src/config/config.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum qvl_schedule_type {
    QVL_LINEAR,
    QVL_COSINE,
    QVL_CONSTANT,
    QVL_CONSTANT_WITH_WARMUP,
    QVL_COSINE_WITH_RESTARTS,
    QVL_POLYNOMIAL
} qvl_schedule_type;

typedef struct qvl_schedule {
    qvl_schedule_type type;
    double base;
    int64_t warmup, steps;
    double num_cycles; /* cosine 0.5, cosine_with_restarts 1 unless given */
    double lr_end, power;
} qvl_schedule;

/* warmup_steps above 0 wins over warmup_ratio; below 1 it is a ratio; ratios are rounded up. A
 * constant rate has no warm-up. */
qvl_schedule qvl_schedule_make(const qvl_config *config, int64_t steps);

/* Rate that step k (from 0) uses. The first step of a warm-up has rate 0. */
double qvl_schedule_rate(const qvl_schedule *schedule, int64_t k);

#ifdef __cplusplus
}
#endif
#endif
