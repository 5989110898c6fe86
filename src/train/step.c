/* One optimiser step: the rank's samples as packs, forward and backward, the sum over ranks, AdamW.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "src/base/dropout_mask.h"
#include "src/train/guards.h"
#include "src/train/run.h"

qvl_status qvl_run_pack_sample(qvl_run *run, qvl_run_data *part, int64_t number, float weight,
                               qvl_err *err)
{
    const int32_t *images = NULL, *ids = NULL, *labels = NULL;
    qvl_status rc = QVL_OK;
    const int64_t n_images = qvl_dataset_sample_images(part->data, number, &images);
    QVL_TRY(qvl_sample_reader_get(part->reader, number, &ids, &labels, err));
    for (int64_t i = 0; i < n_images; i++) {
        memcpy(run->grids + 3 * i, qvl_dataset_grid(part->data, images[i]), 3 * sizeof *run->grids);
        QVL_TRY(qvl_features_get(part->features, images[i], &run->feature_list[i], err));
    }
    qvl_sample_view sample = {.ids = ids,
                              .labels = labels,
                              .n = qvl_dataset_length(part->data, number),
                              .grids = run->grids,
                              .features = run->feature_list,
                              .n_images = n_images,
                              .number = number};
    sample.n_needed = qvl_needed_tokens(&sample, &run->model.dims);
    QVL_TRY(qvl_pack_add(&run->pack, &sample, weight, &run->model.dims, err));
out:
    return rc;
}

/* ---- sums over GPUs ----------------------------------------------------------------------------
 * Gradients are summed some layers at a time (run_buckets.c), while backward goes on with the
 * layers below. Every rank sums the same ranges in the same order, also one that has no samples in
 * this step. */

/* Layers layer .. last are done; a bucket is summed when its lowest layer is. */
static qvl_status sum_layer(void *context, int layer, qvl_err *err)
{
    qvl_run *run = context;
    const qvl_ops *ops = run->dev->ops;
    const int size = run->bucket_layers, L = (int)run->model.dims.text.L;
    int64_t first = 0, count = 0;
    qvl_status rc = QVL_OK;
    if (layer % size != 0)
        return QVL_OK;
    qvl_lora_layer_range(run->lora, layer, &first, &count);
    const int n = L - layer < size ? L - layer : size;
    QVL_TRY(ops->order(run->dev, QVL_LANE_REDUCE, QVL_LANE_COMPUTE, err));
    QVL_TRY(qvl_exchange_sum_f32(run->exchange, run->buffers.grad + first, n * count, err));
    run->summed_to = layer;
out:
    return rc;
}

/* What is not summed yet, and the lanes meet again. */
static qvl_status finish_sums(qvl_run *run, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    for (int layer = run->summed_to - 1; layer >= 0; layer--)
        QVL_TRY(sum_layer(run, layer, err));
    rc = run->dev->ops->order(run->dev, QVL_LANE_COMPUTE, QVL_LANE_REDUCE, err);
out:
    return rc;
}

static qvl_status mark(qvl_run *run, qvl_phase phase, qvl_err *err)
{
    return qvl_timer_mark(&run->timer, run->dev, phase, err);
}

/* ---- packs -------------------------------------------------------------------------------------
 */

/* Runs the pack and empties it; *rows counts the supervised rows of the step so far. */
static qvl_status run_pack(qvl_run *run, int64_t k, bool is_last, int64_t *rows, qvl_err *err)
{
    const qvl_layer_watch watch = {.is_done = sum_layer, .context = run};
    qvl_pack *pack = &run->pack;
    const double drop_prob = run->lora_options.dropout;
    const qvl_decoder_dropout dropout = {.threshold = qvl_dropout_threshold(drop_prob),
                                         .seed = (uint32_t)run->config->seed,
                                         .step = (uint32_t)k};
    qvl_status rc = QVL_OK;
    if (pack->T == 0)
        return QVL_OK;
    qvl_pack_finish(pack);
    qvl_exchange_expect(run->exchange, true);
    QVL_TRY(mark(run, QVL_PHASE_SAMPLES, err));
    QVL_TRY(qvl_decoder_forward(run->decoder, pack, drop_prob > 0 ? &dropout : NULL, err));
    QVL_TRY(mark(run, QVL_PHASE_FORWARD, err));
    qvl_exchange_expect(run->exchange, true); /* in the first step kernels are loaded on the way */
    QVL_TRY(qvl_decoder_loss(run->decoder, run->row_loss + *rows, true, err));
    QVL_TRY(mark(run, QVL_PHASE_LOSS, err));
    QVL_TRY(qvl_decoder_backward(run->decoder, is_last && run->exchange ? &watch : NULL, err));
    QVL_TRY(mark(run, QVL_PHASE_BACKWARD, err));
    memcpy(run->row_weights + *rows, pack->weights, (size_t)pack->n_rows * sizeof *pack->weights);
    *rows += pack->n_rows;
    qvl_pack_clear(pack);
    if (run->train.features)
        qvl_features_forget(run->train.features);
out:
    qvl_exchange_expect(run->exchange, false);
    return rc;
}

/* This rank's samples of the step: as few packs as hold them, or a pack a micro-batch. */
static qvl_status run_samples(qvl_run *run, const qvl_step *step, int64_t k, int64_t *rows,
                              qvl_err *err)
{
    const qvl_step_plan *plan = run->step_plan;
    const int rank = qvl_world_rank(run->world);
    int64_t batch = -1;
    qvl_status rc = QVL_OK;
    qvl_pack_clear(&run->pack);
    for (int64_t i = 0; i < step->n_samples; i++) {
        const int64_t number = step->samples[i];
        if (plan->rank[i] != rank)
            continue;
        const bool is_full =
            run->pack.T + run->train.table.length[number] > run->memory.pack_tokens;
        const bool is_new_batch = !run->config->pack && plan->batch[i] != batch;
        if (is_full || is_new_batch)
            QVL_TRY(run_pack(run, k, false, rows, err));
        batch = plan->batch[i];
        QVL_TRY(qvl_run_pack_sample(run, &run->train, number, plan->weight[i], err));
    }
    QVL_TRY(run_pack(run, k, true, rows, err));
out:
    return rc;
}

static qvl_status update(qvl_run *run, int64_t k, double rate, qvl_err *err)
{
    const qvl_config *c = run->config;
    const int64_t n = qvl_lora_parameters(run->lora);
    const qvl_ops *ops = run->dev->ops;
    qvl_status rc = QVL_OK;
    QVL_TRY(ops->sum_squares(
        run->dev, &(qvl_sum_squares_args){.out = run->sum_squares, .x = run->buffers.grad, .n = n},
        err));
    QVL_TRY(ops->adamw(run->dev,
                       &(qvl_adamw_args){.param = run->buffers.param,
                                         .grad = run->buffers.grad,
                                         .exp_avg = run->buffers.exp_avg,
                                         .exp_avg_sq = run->buffers.exp_avg_sq,
                                         .grad_sum_squares = run->sum_squares,
                                         .n = n,
                                         .lr = rate,
                                         .beta1 = c->adam_beta1,
                                         .beta2 = c->adam_beta2,
                                         .eps = c->adam_epsilon,
                                         .weight_decay = c->weight_decay,
                                         .max_grad_norm = c->max_grad_norm,
                                         .bias1 = 1.0 - pow(c->adam_beta1, (double)(k + 1)),
                                         .bias2 = 1.0 - pow(c->adam_beta2, (double)(k + 1))},
                       err));
    QVL_TRY(qvl_decoder_fold(run->decoder, err));
out:
    return rc;
}

/* The samples of the step after step k, while the device works on k. */
static void read_ahead(qvl_run *run, int64_t k, const qvl_sample_sizes *sizes)
{
    const int rank = qvl_world_rank(run->world);
    qvl_err unsaid = {QVL_OK, ""};
    qvl_step step;
    int64_t n = 0;
    if (k + 1 >= qvl_sampler_steps(run->sampler) ||
        qvl_sampler_step(run->sampler, k + 1, &step, &unsaid) != QVL_OK)
        return;
    qvl_step_plan_assign(run->next_plan, &step, sizes, run->config->pack);
    for (int64_t i = 0; i < step.n_samples; i++)
        if (run->next_plan->rank[i] == rank)
            run->next_samples[n++] = step.samples[i];
    qvl_sample_reader_ahead(run->train.reader, run->next_samples, n);
}

/* Losses and norm come to the host once a step, after everything was queued. */
static qvl_status read_results(qvl_run *run, int64_t rows, double *loss, double *grad_norm,
                               qvl_err *err)
{
    const qvl_ops *ops = run->dev->ops;
    float sum_squares = 0.0f;
    qvl_status rc = QVL_OK;
    QVL_TRY(ops->download(run->dev, run->host_losses, run->row_loss, (size_t)rows * sizeof(float),
                          QVL_LANE_COMPUTE, err));
    QVL_TRY(ops->download(run->dev, &sum_squares, run->sum_squares, sizeof sum_squares,
                          QVL_LANE_COMPUTE, err));
    QVL_TRY(ops->wait(run->dev, QVL_LANE_COMPUTE, err));
    *loss = 0.0;
    for (int64_t i = 0; i < rows; i++)
        *loss += (double)run->row_weights[i] * (double)run->host_losses[i];
    *grad_norm = sqrt((double)sum_squares);
out:
    return rc;
}

static qvl_status check_guards(qvl_run *run, qvl_err *err)
{
    const qvl_status rc = qvl_guards_check(&run->activation_slots, run->dev, run->activations, err);
    return rc == QVL_OK ? qvl_guards_check(&run->state_slots, run->dev, run->state_memory, err)
                        : rc;
}

/* A fault of a device says in which step it surfaced; those of other ranks do so themselves. */
static void name_step(int64_t step, qvl_err *err)
{
    const qvl_err fault = *err;
    char own[32];
    snprintf(own, sizeof own, "step %" PRId64, step);
    if (strstr(fault.text, own))
        return;
    qvl_err_clear(err); /* the first error is the one that is kept */
    qvl_fail(err, fault.status, "step %" PRId64 ": %s", step, fault.text);
}

/* The sum over ranks, and everything behind it, queued and waited for. Disks are not waited for
 * under the watch over the GPU. */
static qvl_status finish_step(qvl_run *run, int64_t k, const qvl_sample_sizes *sizes,
                              qvl_step_result *out, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    qvl_exchange_expect(run->exchange, true);
    QVL_TRY(mark(run, QVL_PHASE_WAITING, err));
    if (run->exchange)
        QVL_TRY(finish_sums(run, err));
    else
        QVL_TRY(
            qvl_world_sum_f32(run->world, run->buffers.grad, qvl_lora_parameters(run->lora), err));
    QVL_TRY(mark(run, QVL_PHASE_EXCHANGE, err));
    QVL_TRY(update(run, k, out->rate, err));
    QVL_TRY(mark(run, QVL_PHASE_OPTIMISER, err));
    qvl_exchange_expect(run->exchange, false);
    read_ahead(run, k, sizes);
    qvl_exchange_expect(run->exchange, true);
    QVL_TRY(read_results(run, out->rows, &out->loss, &out->grad_norm, err));
    QVL_TRY(qvl_timer_collect(&run->timer, run->dev, err));
out:
    qvl_exchange_expect(run->exchange, false);
    return rc;
}

qvl_status qvl_run_step(qvl_run *run, int64_t k, qvl_step_result *out, qvl_err *err)
{
    const qvl_sample_sizes sizes = {run->train.table.length, run->train.table.supervised};
    const bool is_token_mean = strcmp(run->config->loss_reduction, "token_mean") == 0;
    qvl_step step;
    int64_t rows = 0;
    qvl_status rc = qvl_sampler_step(run->sampler, k, &step, err);
    QVL_TRY(rc);
    qvl_step_plan_assign(run->step_plan, &step, &sizes, run->config->pack);
    qvl_step_plan_weigh(run->step_plan, &step, &sizes,
                        is_token_mean ? QVL_TOKEN_MEAN : QVL_MICRO_BATCH_MEAN);
    *out = (qvl_step_result){.rate = qvl_schedule_rate(&run->schedule, k), .epoch = step.epoch};
    for (int r = 0; r < run->step_plan->n_ranks; r++)
        out->tokens += run->step_plan->load[r];
    run->summed_to = (int)run->model.dims.text.L;
    qvl_timer_lap(&run->timer, QVL_PHASE_OTHER);
    rc = mark(run, QVL_PHASE_OTHER, err);
    if (rc == QVL_OK)
        rc = run_samples(run, &step, k, &rows, err);
    out->rows = rows;
    if (rc == QVL_OK)
        rc = check_guards(run, err);
    QVL_TRY(qvl_world_agree(run->world, rc, err));
    QVL_TRY(finish_step(run, k, &sizes, out, err));
    QVL_TRY(qvl_world_sum_f64(run->world, &out->loss, 1, err));
    qvl_timer_lap(&run->timer, QVL_PHASE_EXCHANGE);
out:
    if (rc == QVL_EDEVICE)
        name_step(k + 1, err);
    return rc;
}
