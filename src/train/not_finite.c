/* Losses and gradients that are no numbers. AdamW does nothing when the norm is not finite (ops.h),
 * so parameters and moments are still those of the step before. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/memory.h"
#include "src/train/run.h"

enum { MOST_SKIPPED = 10 };

/* "the gradient of lora_B of layers.3.mlp.up_proj": where the first element that is no number
 * belongs. */
static qvl_status name_tensor(qvl_run *run, qvl_text *out, qvl_err *err)
{
    char name[64];
    const int64_t n = qvl_lora_parameters(run->lora);
    const qvl_ops *ops = run->dev->ops;
    int64_t first = 0;
    float *grad = NULL;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_alloc(&grad, (size_t)n, sizeof *grad, "gradient", err));
    QVL_TRY(ops->download(run->dev, grad, run->buffers.grad, (size_t)n * sizeof *grad,
                          QVL_LANE_COMPUTE, err));
    QVL_TRY(ops->wait(run->dev, QVL_LANE_COMPUTE, err));
    while (first < n && isfinite(grad[first]))
        first++;
    if (first == n) {
        rc = qvl_text_puts(out, "each gradient is finite, their norm is not", err);
        goto out;
    }
    for (int64_t i = 0; i < 2 * qvl_lora_modules(run->lora); i++) {
        const qvl_lora_matrix m = qvl_lora_matrix_at(run->lora, i);
        if (first < m.offset || first >= m.offset + m.rows * m.cols)
            continue;
        rc = qvl_text_printf(out, err, "first in the gradient of lora_%c of %s (%g)",
                             m.is_b ? 'B' : 'A', qvl_lora_module_name(name, m.layer, m.site),
                             (double)grad[first]);
        break;
    }
out:
    free(grad);
    return rc;
}

/* This rank's first sample of the step with a loss that is no number, in the order in which step.c
 * ran them; -1: none. */
static qvl_status find_sample(qvl_run *run, const qvl_step *step, int64_t n_rows, int64_t *out,
                              qvl_err *err)
{
    const int32_t *ids = NULL, *labels = NULL;
    int64_t row = 0;
    qvl_status rc = QVL_OK;
    *out = -1;
    for (int64_t i = 0; i < step->n_samples && *out < 0; i++) {
        const int64_t number = step->samples[i];
        if (run->step_plan->rank[i] != qvl_world_rank(run->world))
            continue;
        QVL_TRY(qvl_sample_reader_get(run->train.reader, number, &ids, &labels, err));
        const int64_t end =
            row + qvl_supervised_tokens(labels, qvl_dataset_length(run->train.data, number));
        for (; row < end && row < n_rows && *out < 0; row++)
            if (!isfinite(run->host_losses[row]))
                *out = number;
        row = end;
    }
out:
    return rc;
}

/* The bad samples of all ranks; where every loss is finite, the samples of the step. */
static qvl_status name_samples(qvl_run *run, int64_t k, int64_t n_rows, qvl_text *out, qvl_err *err)
{
    enum { SHOWN = 16 };
    const int n_ranks = qvl_world_size(run->world);
    char buffer[512];
    int64_t mine = -1, *all = NULL;
    int n_named = 0;
    qvl_step step = {0};
    qvl_status rc = qvl_sampler_step(run->sampler, k, &step, err);
    if (rc == QVL_OK)
        rc = find_sample(run, &step, n_rows, &mine, err);
    if (rc == QVL_OK)
        rc = qvl_alloc(&all, (size_t)n_ranks, sizeof *all, "samples", err);
    QVL_TRY(qvl_world_agree(run->world, rc, err));
    QVL_TRY(qvl_world_all_gather(run->world, all, &mine, sizeof mine, err));
    for (int r = 0; r < n_ranks; r++)
        if (all[r] >= 0 && n_named < 4)
            QVL_TRY(qvl_text_printf(out, err, "%s%s (rank %d)", n_named++ ? ", " : "the loss of ",
                                    qvl_dataset_describe(run->train.data, all[r], buffer), r));
    if (n_named)
        goto out;
    QVL_TRY(qvl_text_puts(out, "samples of the step:", err));
    for (int64_t i = 0; i < step.n_samples && i < SHOWN; i++)
        QVL_TRY(qvl_text_printf(out, err, " %" PRId64, step.samples[i]));
    if (step.n_samples > SHOWN)
        rc = qvl_text_printf(out, err, " and %" PRId64 " more", step.n_samples - SHOWN);
out:
    free(all);
    return rc;
}

static qvl_status skip(qvl_run *run, const char *what, qvl_err *err)
{
    const size_t bytes = (size_t)qvl_lora_parameters(run->lora) * sizeof(float);
    qvl_log_warn(run->log, "step %" PRId64 " is skipped (nan_policy: skip): %s",
                 run->state.step + 1, what);
    run->n_skipped++;
    return run->dev->ops->zero(run->dev, run->buffers.grad, bytes, err);
}

/* Whether some step before k has changed the adapter: steps that are skipped, or of rate 0 as the
 * first of a warm-up, have not. */
static bool has_learnt(const qvl_run *run, int64_t k)
{
    for (int64_t i = 0; i < k - run->n_skipped; i++)
        if (qvl_schedule_rate(&run->schedule, i) > 0.0)
            return true;
    return false;
}

static const char *advice(const qvl_run *run, int64_t k)
{
    const char *adapter = run->config->adapter_name_or_path;
    if (has_learnt(run, k))
        return "a lower learning_rate, or a look at the data, may help";
    return adapter && adapter[0]
               ? "nothing has been learnt yet: the model's weights, or the adapter that it started "
                 "from, hold or lead to values that are no numbers"
               : "nothing has been learnt yet: the model's weights hold or lead to values that are "
                 "no numbers";
}

qvl_status qvl_run_not_finite(qvl_run *run, int64_t k, const qvl_step_result *result, qvl_err *err)
{
    qvl_text what = {0};
    const bool may_skip = strcmp(run->config->nan_policy, "skip") == 0 &&
                          !isfinite(result->grad_norm) && run->n_skipped < MOST_SKIPPED;
    qvl_status rc =
        qvl_text_printf(&what, err, "loss %g, gradient norm %g; ", result->loss, result->grad_norm);
    if (rc == QVL_OK)
        rc = name_tensor(run, &what, err);
    if (rc == QVL_OK)
        rc = qvl_text_puts(&what, "; ", err);
    QVL_TRY(qvl_world_agree(run->world, rc, err));
    QVL_TRY(qvl_world_agree(run->world, name_samples(run, k, result->rows, &what, err), err));
    if (may_skip)
        rc = skip(run, what.data, err);
    else
        rc = qvl_fail(err, QVL_EDATA,
                      "step %" PRId64 ": %s; stopped%s, nothing of this step is saved (%s)", k + 1,
                      what.data,
                      run->n_skipped >= MOST_SKIPPED ? " after 10 skipped steps in a row" : "",
                      advice(run, k));
    rc = qvl_world_agree(run->world, rc, err);
out:
    qvl_text_fini(&what);
    return rc;
}
