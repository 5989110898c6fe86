#include "src/train/step_plan.h"

#include <stdlib.h>

#include "src/base/memory.h"

qvl_status qvl_step_plan_create(qvl_step_plan **out, int64_t max_samples, int n_ranks, qvl_err *err)
{
    const size_t n = (size_t)max_samples;
    qvl_step_plan *plan = NULL;
    qvl_status rc = qvl_alloc(&plan, 1, sizeof *plan, "step plan", err);
    if (rc != QVL_OK)
        return rc;
    plan->capacity = max_samples;
    plan->n_ranks = n_ranks;
    QVL_TRY(qvl_alloc(&plan->rank, n, sizeof *plan->rank, "step plan", err));
    QVL_TRY(qvl_alloc(&plan->weight, n, sizeof *plan->weight, "step plan", err));
    QVL_TRY(qvl_alloc(&plan->batch, n, sizeof *plan->batch, "step plan", err));
    QVL_TRY(qvl_alloc(&plan->order, n, sizeof *plan->order, "step plan", err));
    QVL_TRY(qvl_alloc(&plan->load, (size_t)n_ranks, sizeof *plan->load, "step plan", err));
    *out = plan;
    plan = NULL;
out:
    qvl_step_plan_destroy(plan);
    return rc;
}

void qvl_step_plan_destroy(qvl_step_plan *plan)
{
    if (!plan)
        return;
    free(plan->rank);
    free(plan->weight);
    free(plan->batch);
    free(plan->order);
    free(plan->load);
    free(plan);
}

static int32_t length_at(const qvl_step *step, const qvl_sample_sizes *sizes, int64_t i)
{
    return sizes->length[step->samples[i]];
}

static int compare_keys(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Places of the step by length, longest first and equal ones in their order: length and place are
 * one key, so the result is the same everywhere. */
static void sort_by_length(qvl_step_plan *plan, const qvl_step *step, const qvl_sample_sizes *sizes)
{
    for (int64_t i = 0; i < step->n_samples; i++)
        plan->order[i] = (int64_t)length_at(step, sizes, i) << 32 | (INT32_MAX - i);
    qsort(plan->order, (size_t)step->n_samples, sizeof *plan->order, compare_keys);
    for (int64_t i = 0; i < step->n_samples; i++)
        plan->order[i] = INT32_MAX - (plan->order[i] & INT32_MAX);
}

void qvl_step_plan_assign(qvl_step_plan *plan, const qvl_step *step, const qvl_sample_sizes *sizes,
                          bool is_balanced)
{
    for (int r = 0; r < plan->n_ranks; r++)
        plan->load[r] = 0;
    for (int64_t b = 0; b < step->n_batches; b++) {
        const qvl_micro_batch *batch = &step->batches[b];
        for (int64_t i = batch->first; i < batch->first + batch->n; i++) {
            plan->batch[i] = b;
            plan->rank[i] = batch->rank;
            plan->load[batch->rank] += length_at(step, sizes, i);
        }
    }
    if (!is_balanced || plan->n_ranks == 1)
        return;
    sort_by_length(plan, step, sizes);
    for (int r = 0; r < plan->n_ranks; r++)
        plan->load[r] = 0;
    for (int64_t k = 0; k < step->n_samples; k++) {
        const int64_t i = plan->order[k];
        int least = 0;
        for (int r = 1; r < plan->n_ranks; r++)
            least = plan->load[r] < plan->load[least] ? r : least;
        plan->rank[i] = least;
        plan->load[least] += length_at(step, sizes, i);
    }
}

void qvl_step_plan_weigh(qvl_step_plan *plan, const qvl_step *step, const qvl_sample_sizes *sizes,
                         qvl_loss_reduction reduction)
{
    int64_t total = 0;
    for (int64_t i = 0; i < step->n_samples; i++)
        total += sizes->supervised[step->samples[i]];
    for (int64_t b = 0; b < step->n_batches; b++) {
        const qvl_micro_batch *batch = &step->batches[b];
        int64_t in_batch = 0;
        for (int64_t i = batch->first; i < batch->first + batch->n; i++)
            in_batch += sizes->supervised[step->samples[i]];
        const double divisor = reduction == QVL_TOKEN_MEAN
                                   ? (double)total
                                   : (double)step->n_batches * (double)in_batch;
        for (int64_t i = batch->first; i < batch->first + batch->n; i++)
            plan->weight[i] = divisor > 0 ? (float)(1.0 / divisor) : 0.0f;
    }
}
