#include "src/train/step_scan.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/memory.h"
#include "src/base/stop.h"

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int longest_first(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Tokens of the longest count samples (sorted, longest first) when each may be there so often. */
static int64_t longest_tokens(const int32_t *sorted, int64_t n_samples, int64_t count,
                              int64_t repeats)
{
    int64_t tokens = 0;
    for (int64_t i = 0; i < n_samples && count > 0; i++) {
        const int64_t n = count < repeats ? count : repeats;
        tokens += n * sorted[i];
        count -= n;
    }
    return tokens;
}

/* Whatever order the epochs have. A balanced rank has no more than its share and one sample, since
 * each goes to the rank that has the least. */
static qvl_status bound(qvl_step_scan *out, const qvl_sampler *sampler, const qvl_step_plan *plan,
                        const qvl_sample_sizes *sizes, int64_t n_samples, bool is_balanced,
                        qvl_err *err)
{
    const int64_t n_ranks = plan->n_ranks, repeats = qvl_sampler_most_repeats(sampler);
    const int64_t in_step = qvl_sampler_most_samples(sampler);
    int32_t *sorted = NULL;
    qvl_status rc = qvl_alloc(&sorted, (size_t)n_samples, sizeof *sorted, "sample lengths", err);
    if (rc != QVL_OK)
        return rc;
    memcpy(sorted, sizes->length, (size_t)n_samples * sizeof *sorted);
    qsort(sorted, (size_t)n_samples, sizeof *sorted, longest_first);
    const int64_t of_rank = longest_tokens(sorted, n_samples, in_step / n_ranks, repeats);
    const int64_t share = longest_tokens(sorted, n_samples, in_step, repeats) / n_ranks + sorted[0];
    out->is_bound = true;
    out->most_in_step = is_balanced && n_ranks > 1 ? share : of_rank;
    out->most_in_batch =
        longest_tokens(sorted, n_samples, qvl_sampler_most_in_batch(sampler), repeats);
    free(sorted);
    return QVL_OK;
}

static void take_in(qvl_step_scan *out, const qvl_step *step, const qvl_step_plan *plan,
                    const qvl_sample_sizes *sizes)
{
    for (int r = 0; r < plan->n_ranks; r++)
        out->most_in_step = larger(out->most_in_step, plan->load[r]);
    for (int64_t b = 0; b < step->n_batches; b++) {
        int64_t tokens = 0;
        for (int64_t i = 0; i < step->batches[b].n; i++)
            tokens += sizes->length[step->samples[step->batches[b].first + i]];
        out->most_in_batch = larger(out->most_in_batch, tokens);
    }
}

qvl_status qvl_step_scan_run(qvl_step_scan *out, qvl_sampler *sampler, qvl_step_plan *plan,
                             const qvl_sample_sizes *sizes, int64_t n_samples, bool is_balanced,
                             int64_t limit, qvl_err *err)
{
    const int64_t steps = qvl_sampler_steps(sampler);
    *out = (qvl_step_scan){.most_in_step = 1, .most_in_batch = 1};
    if (steps > limit / qvl_sampler_most_samples(sampler))
        return bound(out, sampler, plan, sizes, n_samples, is_balanced, err);
    for (int64_t k = 0; k < steps && !qvl_stop_reason(); k++) {
        qvl_step step;
        const qvl_status rc = qvl_sampler_step(sampler, k, &step, err);
        if (rc != QVL_OK)
            return rc;
        qvl_step_plan_assign(plan, &step, sizes, is_balanced);
        take_in(out, &step, plan, sizes);
    }
    return QVL_OK;
}
