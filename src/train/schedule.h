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
    QVL_POLYNOMIAL,
    QVL_COSINE_WITH_MIN_LR,
    QVL_COSINE_WARMUP_WITH_MIN_LR,
    QVL_INVERSE_SQRT,
    QVL_WARMUP_STABLE_DECAY
} qvl_schedule_type;

/* QVL_SCHEDULE_SHAPES as numbers. */
typedef enum qvl_schedule_shape {
    QVL_SHAPE_LINEAR,
    QVL_SHAPE_COSINE,
    QVL_SHAPE_1_SQRT
} qvl_schedule_shape;

typedef struct qvl_schedule {
    qvl_schedule_type type;
    double base;
    int64_t warmup, steps;
    double num_cycles; /* cosine_with_restarts 1, others 0.5 unless given */
    double lr_end, power;
    double min_rate;       /* share of base at the end: min_lr_rate, min_lr / base, min_lr_ratio */
    double warmup_rate;    /* share of base at the first step; NaN: 1 / warmup */
    double timescale;      /* of inverse_sqrt */
    int64_t stable, decay; /* steps of warmup_stable_decay's second and third part */
    qvl_schedule_shape warmup_shape, decay_shape; /* of its first and third part */
} qvl_schedule;

/* warmup_steps above 0 wins over warmup_ratio; below 1 it is a ratio; ratios are rounded up. A
 * constant rate has no warm-up. */
qvl_schedule qvl_schedule_make(const qvl_config *config, int64_t steps);

/* Rate that step k (from 0) uses. The first step of a warm-up has rate 0, but for
 * cosine_warmup_with_min_lr and a min_lr_ratio. */
double qvl_schedule_rate(const qvl_schedule *schedule, int64_t k);

#ifdef __cplusplus
}
#endif
#endif
