/* Memory and weights of a run, as planned. */
#include <stdlib.h>
#include <string.h>

#include "src/base/memory.h"
#include "src/model/lora_files.h"
#include "src/train/guards.h"
#include "src/train/run.h"

/* Sets an arena of the plan's size up, with its guards. */
static qvl_status allocate(qvl_run *run, void **out, const qvl_plan *slots, const char *what,
                           qvl_err *err)
{
    const qvl_status rc =
        run->dev->ops->alloc(run->dev, out, slots->total_bytes, QVL_MEM_DEVICE, what, err);
    return rc == QVL_OK ? qvl_guards_set(slots, run->dev, *out, err) : rc;
}

static qvl_status allocate_workspace(qvl_run *run, qvl_err *err)
{
    const qvl_status rc = run->dev->ops->alloc(
        run->dev, &run->workspace, run->memory.workspace_bytes, QVL_MEM_DEVICE, "workspace", err);
    return rc == QVL_OK ? run->dev->ops->bind_workspace(run->dev, run->workspace,
                                                        run->memory.workspace_bytes, err)
                        : rc;
}

static qvl_status allocate_vision(qvl_run *run, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_vision_create(&run->vision, &run->model.dims, run->memory.max_patches,
                              run->dev->act_bytes, qvl_weights_vision(run->model.vision)->Fp,
                              &run->vision_slots, err));
    QVL_TRY(allocate(run, &run->vision_activations, &run->vision_slots, "vision activations", err));
    QVL_TRY(qvl_vision_bind(run->vision, run->dev, &run->vision_slots, run->vision_activations,
                            qvl_weights_vision(run->model.vision), err));
out:
    return rc;
}

/* The tower has done its work: its weights and activations go. */
static void release_vision(qvl_run *run)
{
    qvl_vision_destroy(run->vision);
    run->vision = NULL;
    run->dev->ops->release(run->dev, run->vision_activations, QVL_MEM_DEVICE);
    run->vision_activations = NULL;
    qvl_weights_destroy(run->model.vision);
    run->model.vision = NULL;
}

static qvl_status load_weights(qvl_run *run, qvl_weights *weights, qvl_err *err)
{
    const qvl_weight_source source = {.files = run->model.files,
                                      .world = run->world,
                                      .exchange = run->exchange,
                                      .n_threads = run->n_threads,
                                      .log = run->log};
    return qvl_weights_load(weights, run->dev, &source, err);
}

/* Features of both parts, or the means to compute them when they are needed. */
static qvl_status prepare_features(qvl_run *run, qvl_err *err)
{
    qvl_run_data *parts[] = {&run->train, &run->eval};
    qvl_status rc = QVL_OK;
    if (run->memory.max_patches == 0)
        return QVL_OK;
    qvl_world_set_phase(run->world, "loading the vision tower");
    QVL_TRY(load_weights(run, run->model.vision, err));
    rc = allocate_vision(run, err);
    QVL_TRY(qvl_world_agree(run->world, rc, err));
    qvl_timer_lap(&run->timer, QVL_PHASE_MODEL_LOADING);
    qvl_world_set_phase(run->world, "computing image features");
    for (int p = 0; p < 2; p++) {
        if (!parts[p]->data)
            continue;
        rc = qvl_features_create(&parts[p]->features, parts[p]->data, &run->model.dims,
                                 run->dev->act_bytes, run->memory.keeps_features, run->world, err);
        QVL_TRY(qvl_world_agree(run->world, rc, err));
        if (run->memory.keeps_features)
            QVL_TRY(qvl_features_compute(parts[p]->features, run->vision, run->log, err));
        else
            qvl_features_set_vision(parts[p]->features, run->vision);
    }
    if (run->memory.keeps_features)
        release_vision(run);
    qvl_timer_lap(&run->timer, QVL_PHASE_IMAGE_FEATURES);
out:
    return rc;
}

static qvl_status allocate_state(qvl_run *run, qvl_err *err)
{
    const int64_t n = qvl_lora_parameters(run->lora);
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_lora_plan(run->lora, &run->state_slots, true, run->lora_slots, err));
    QVL_TRY(qvl_plan_add(&run->state_slots, &run->slot_a_act, "rounded adapters",
                         run->dev->tail_align ? qvl_lora_act_elements(run->lora) : 0,
                         run->dev->act_bytes, err));
    QVL_TRY(qvl_plan_add(&run->state_slots, &run->slot_row_loss, "row losses",
                         run->memory.step_rows, sizeof(float), err));
    QVL_TRY(qvl_plan_add(&run->state_slots, &run->slot_sum_squares, "sum of squares", 1,
                         sizeof(float), err));
    QVL_TRY(allocate(run, &run->state_memory, &run->state_slots, "adapters", err));
    float *at[4];
    for (int i = 0; i < 4; i++)
        at[i] = qvl_plan_at(&run->state_slots, run->state_memory, run->lora_slots[i]);
    run->buffers = (qvl_lora_buffers){.param = at[0],
                                      .grad = at[1],
                                      .exp_avg = at[2],
                                      .exp_avg_sq = at[3],
                                      .act_bytes = run->dev->act_bytes};
    if (run->dev->tail_align)
        run->buffers.a_act = qvl_plan_at(&run->state_slots, run->state_memory, run->slot_a_act);
    run->row_loss = qvl_plan_at(&run->state_slots, run->state_memory, run->slot_row_loss);
    run->sum_squares = qvl_plan_at(&run->state_slots, run->state_memory, run->slot_sum_squares);
    for (int i = 1; i < 4; i++)
        QVL_TRY(run->dev->ops->zero(run->dev, at[i], (size_t)n * sizeof(float), err));
    QVL_TRY(qvl_alloc(&run->state.param, (size_t)n, sizeof(float), "adapters", err));
    QVL_TRY(qvl_alloc(&run->state.exp_avg, (size_t)n, sizeof(float), "adam exp_avg", err));
    QVL_TRY(qvl_alloc(&run->state.exp_avg_sq, (size_t)n, sizeof(float), "adam exp_avg_sq", err));
out:
    return rc;
}

static qvl_status allocate_decoder(qvl_run *run, qvl_err *err)
{
    const qvl_memory_plan *m = &run->memory;
    const qvl_decoder_options options = {.tokens = m->pack_tokens,
                                         .n_kept = m->n_kept,
                                         .spare_bytes = m->spare_bytes,
                                         .head_rows = m->head_rows,
                                         .is_training = true,
                                         .loss_rows_only = true};
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_decoder_create(&run->decoder, &run->model.dims, run->lora, run->dev, &options,
                               &run->activation_slots, err));
    QVL_TRY(allocate(run, &run->activations, &run->activation_slots, "activations", err));
    QVL_TRY(qvl_decoder_bind(run->decoder, run->dev, &run->activation_slots, run->activations,
                             qvl_weights_text(run->model.text), &run->buffers, err));
out:
    return rc;
}

static qvl_status allocate_host(qvl_run *run, qvl_err *err)
{
    const size_t longest = (size_t)run->memory.longest_sample;
    const size_t rows = (size_t)run->memory.step_rows;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_alloc(&run->pack_buffer, qvl_pack_bytes(run->memory.pack_tokens), 1, "pack", err));
    qvl_pack_init(&run->pack, run->memory.pack_tokens, run->pack_buffer);
    qvl_run_data *const parts[] = {&run->train, &run->eval};
    for (int i = 0; i < 2; i++)
        if (parts[i]->data)
            QVL_TRY(qvl_sample_reader_create(&parts[i]->reader, parts[i]->data, err));
    QVL_TRY(qvl_alloc(&run->next_samples, (size_t)run->step_plan->capacity,
                      sizeof *run->next_samples, "sample", err));
    /* Every image has a token of its own at least, so the longest sample bounds both. */
    QVL_TRY(qvl_alloc(&run->feature_list, longest, sizeof *run->feature_list, "sample", err));
    QVL_TRY(qvl_alloc(&run->grids, 3 * longest, sizeof *run->grids, "sample", err));
    QVL_TRY(qvl_alloc(&run->host_losses, rows, sizeof *run->host_losses, "losses", err));
    QVL_TRY(qvl_alloc(&run->row_weights, rows, sizeof *run->row_weights, "losses", err));
out:
    return rc;
}

/* New adapters, or those of adapter_name_or_path. */
static qvl_status start_adapters(qvl_run *run, qvl_err *err)
{
    const char *adapter = run->config->adapter_name_or_path;
    if (adapter && adapter[0])
        return qvl_lora_load(run->lora, run->state.param, adapter, err);
    qvl_lora_init(run->lora, run->state.param, (uint32_t)run->config->seed,
                  qvl_weights_text(run->model.text)->is_bf16);
    return QVL_OK;
}

qvl_status qvl_run_upload_state(qvl_run *run, qvl_err *err)
{
    const size_t bytes = (size_t)qvl_lora_parameters(run->lora) * sizeof(float);
    const qvl_ops *ops = run->dev->ops;
    qvl_status rc = QVL_OK;
    QVL_TRY(
        ops->upload(run->dev, run->buffers.param, run->state.param, bytes, QVL_LANE_COMPUTE, err));
    QVL_TRY(ops->upload(run->dev, run->buffers.exp_avg, run->state.exp_avg, bytes, QVL_LANE_COMPUTE,
                        err));
    QVL_TRY(ops->upload(run->dev, run->buffers.exp_avg_sq, run->state.exp_avg_sq, bytes,
                        QVL_LANE_COMPUTE, err));
    QVL_TRY(qvl_decoder_fold(run->decoder, err));
    QVL_TRY(ops->wait(run->dev, QVL_LANE_COMPUTE, err));
out:
    return rc;
}

qvl_status qvl_run_download_state(qvl_run *run, qvl_err *err)
{
    const size_t bytes = (size_t)qvl_lora_parameters(run->lora) * sizeof(float);
    const qvl_ops *ops = run->dev->ops;
    qvl_status rc = QVL_OK;
    QVL_TRY(ops->download(run->dev, run->state.param, run->buffers.param, bytes, QVL_LANE_COMPUTE,
                          err));
    QVL_TRY(ops->download(run->dev, run->state.exp_avg, run->buffers.exp_avg, bytes,
                          QVL_LANE_COMPUTE, err));
    QVL_TRY(ops->download(run->dev, run->state.exp_avg_sq, run->buffers.exp_avg_sq, bytes,
                          QVL_LANE_COMPUTE, err));
    QVL_TRY(ops->wait(run->dev, QVL_LANE_COMPUTE, err));
out:
    return rc;
}

qvl_status qvl_run_allocate(qvl_run *run, qvl_err *err)
{
    qvl_status rc = allocate_workspace(run, err);
    QVL_TRY(qvl_world_agree(run->world, rc, err));
    QVL_TRY(prepare_features(run, err));
    qvl_world_set_phase(run->world, "loading the language model");
    qvl_weights_put_embed(run->model.text,
                          run->memory.embeds_on_host ? QVL_MEM_HOST : QVL_MEM_DEVICE);
    QVL_TRY(load_weights(run, run->model.text, err));
    rc = allocate_state(run, err);
    if (rc == QVL_OK)
        rc = allocate_decoder(run, err);
    if (rc == QVL_OK)
        rc = allocate_host(run, err);
    if (rc == QVL_OK)
        rc = start_adapters(run, err);
    if (rc == QVL_OK)
        rc = qvl_run_upload_state(run, err);
    QVL_TRY(qvl_world_agree(run->world, rc, err));
    QVL_TRY(qvl_world_agree(run->world, qvl_run_set_offload(run, err), err));
    QVL_TRY(qvl_run_choose_buckets(run, err));
    qvl_timer_lap(&run->timer, QVL_PHASE_MODEL_LOADING);
out:
    return rc;
}
