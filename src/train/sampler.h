/* Which samples each step sees: the order of Hugging Face's Trainer for the same seed
 * (REFERENCE 8.1 to 8.3). Every rank computes all of it. */
#ifndef QVL_SRC_TRAIN_SAMPLER_H
#define QVL_SRC_TRAIN_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_sampler qvl_sampler;

typedef struct qvl_sampler_options {
    int64_t n_samples;
    int64_t batch; /* samples of a micro-batch */
    int64_t n_ranks;
    int64_t accumulation; /* micro-batches of a rank in a step */
    double epochs;
    int64_t max_steps; /* above 0 it wins over epochs */
    uint64_t seed;     /* of epoch 0; epoch e has seed + e */
    bool is_shuffled;
    bool is_floor; /* groups of micro-batches run across epoch ends; else each epoch has its own */
} qvl_sampler_options;

/* A micro-batch: samples first .. first+n-1 of the step's list, computed by rank. */
typedef struct qvl_micro_batch {
    int rank;
    int64_t first, n;
} qvl_micro_batch;

/* One step; arrays are the sampler's and valid until the next call. Micro-batches come in order of
 * their place in the step, then rank. */
typedef struct qvl_step {
    const int64_t *samples;
    const qvl_micro_batch *batches;
    int64_t n_samples, n_batches;
    double epoch; /* what fraction of epochs is done after it */
} qvl_step;

/* Samples of a step, of all ranks together: far above what anybody trains with, far below what
 * would not fit. */
enum { QVL_MOST_STEP_SAMPLES = 1 << 24 };

/* QVL_ECONFIG when a step of this batch and accumulation could have more samples than that;
 * QVL_EDATA without samples. */
qvl_status qvl_sampler_create(qvl_sampler **out, const qvl_sampler_options *options, qvl_err *err);
void qvl_sampler_destroy(qvl_sampler *sampler); /* NULL is fine */

int64_t qvl_sampler_steps(const qvl_sampler *sampler); /* of the whole run */
int64_t qvl_sampler_steps_per_epoch(const qvl_sampler *sampler);
int64_t qvl_sampler_batches_per_rank(const qvl_sampler *sampler); /* in an epoch */
int64_t qvl_sampler_most_samples(const qvl_sampler *sampler);     /* of a step, all ranks */
int64_t qvl_sampler_most_in_batch(const qvl_sampler *sampler);    /* samples of a micro-batch */
int64_t qvl_sampler_most_repeats(const qvl_sampler *sampler);     /* of a sample in a step */

/* Step k, from 0. */
qvl_status qvl_sampler_step(qvl_sampler *sampler, int64_t k, qvl_step *out, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
