/* What the steps of a run ask of memory at most, found before the first one. */
#ifndef QVL_SRC_TRAIN_STEP_SCAN_H
#define QVL_SRC_TRAIN_STEP_SCAN_H

#include <stdbool.h>
#include <stdint.h>

#include "src/base/status.h"
#include "src/train/step_plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Samples that are looked at, one by one: some seconds' worth. */
enum { QVL_SCAN_SAMPLES = 1 << 26 };

typedef struct qvl_step_scan {
    int64_t most_in_step;  /* tokens of one rank */
    int64_t most_in_batch; /* tokens of a micro-batch */
    bool is_bound; /* the run is too long to look at every step: no step has more, none need have as
                      many */
} qvl_step_scan;

/* Goes through all steps that limit samples allow (QVL_SCAN_SAMPLES), and is no more than a bound
 * when these are not all. Ends early, with numbers of no use, when a stop is asked for
 * (src/base/stop.h). plan is overwritten. */
qvl_status qvl_step_scan_run(qvl_step_scan *out, qvl_sampler *sampler, qvl_step_plan *plan,
                             const qvl_sample_sizes *sizes, int64_t n_samples, bool is_balanced,
                             int64_t limit, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
