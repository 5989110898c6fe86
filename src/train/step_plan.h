/* Who computes which samples of a step, and what each token weighs in its loss. */
#ifndef QVL_SRC_TRAIN_STEP_PLAN_H
#define QVL_SRC_TRAIN_STEP_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "src/base/status.h"
#include "src/train/sampler.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum qvl_loss_reduction { QVL_MICRO_BATCH_MEAN, QVL_TOKEN_MEAN } qvl_loss_reduction;

/* What is known of the samples. */
typedef struct qvl_sample_sizes {
    const int32_t *length, *supervised; /* [samples of the data set] */
} qvl_sample_sizes;

typedef struct qvl_step_plan {
    int *rank;      /* [n_samples of the step] */
    float *weight;  /* [n_samples] of each supervised token of the sample */
    int64_t *batch; /* [n_samples] its micro-batch */
    int64_t *load;  /* [n_ranks] tokens of each rank */
    int64_t *order; /* scratch */
    int64_t capacity;
    int n_ranks;
} qvl_step_plan;

qvl_status qvl_step_plan_create(qvl_step_plan **out, int64_t max_samples, int n_ranks,
                                qvl_err *err);
void qvl_step_plan_destroy(qvl_step_plan *plan); /* NULL is fine */

/* Fills rank, batch and load. With is_balanced samples move between ranks to even out tokens: the
 * longest first, each to the rank with the fewest; else a micro-batch stays with its rank. */
void qvl_step_plan_assign(qvl_step_plan *plan, const qvl_step *step, const qvl_sample_sizes *sizes,
                          bool is_balanced);

/* Fills weight: 1 / (micro-batches of the step * supervised tokens of the sample's micro-batch), or
 * 1 / supervised tokens of the step. 0 where there are none. */
void qvl_step_plan_weigh(qvl_step_plan *plan, const qvl_step *step, const qvl_sample_sizes *sizes,
                         qvl_loss_reduction reduction);

#ifdef __cplusplus
}
#endif
#endif
