#include "src/train/run.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/hub_cache.h"
#include "src/base/memory.h"
#include "src/model/lora_files.h"
#include "src/train/device.h"
#include "src/train/output_dir.h"
#include "src/train/step_scan.h"

/* ---- opening -----------------------------------------------------------------------------------
 */

/* "q_proj,v_proj", as lora_target has it. */
static const char *format_targets(char buffer[96], const bool targets[QVL_N_SITES])
{
    char module[64];
    size_t n = 0;
    buffer[0] = '\0';
    for (int s = 0; s < QVL_N_SITES; s++) {
        const char *name = strrchr(qvl_lora_module_name(module, 0, (qvl_site)s), '.') + 1;
        if (targets[s] && n < 96)
            n += (size_t)snprintf(buffer + n, 96 - n, "%s%s", n ? "," : "", name);
    }
    return buffer;
}

/* Rank, alpha and targets: the configuration's, or those of the adapter that is continued. */
static qvl_status choose_lora(qvl_run *run, qvl_err *err)
{
    const qvl_config *c = run->config;
    const char *adapter = c->adapter_name_or_path;
    qvl_lora_options *to = &run->lora_options;
    qvl_status rc = QVL_OK;
    to->rank = c->lora_rank;
    to->alpha = (double)qvl_config_lora_alpha(c);
    to->dropout = c->lora_dropout;
    to->use_rslora = c->use_rslora;
    QVL_TRY(qvl_lora_parse_targets(to->targets, c->lora_target, err));
    if (adapter && adapter[0]) {
        char targets[96];
        const qvl_lora_options asked = *to;
        qvl_model_dims dims;
        QVL_TRY(qvl_hub_find(run->model.directory, c->model_name_or_path, c->cache_dir,
                             c->model_revision, err));
        QVL_TRY(qvl_model_dims_read(&dims, run->model.directory, err));
        QVL_TRY(qvl_lora_read_options_for(to, &dims, adapter, err));
        if (asked.rank != to->rank || asked.alpha != to->alpha || asked.dropout != to->dropout ||
            asked.use_rslora != to->use_rslora ||
            memcmp(asked.targets, to->targets, sizeof to->targets) != 0)
            qvl_log_warn(run->log,
                         "%s has rank %" PRId64 ", alpha %g, dropout %g%s, on %s; these are used, "
                         "not the configuration's",
                         adapter, to->rank, to->alpha, to->dropout,
                         to->use_rslora ? ", rslora" : "", format_targets(targets, to->targets));
    }
out:
    return rc;
}

static void print_model(const qvl_run *run)
{
    const qvl_text_dims *t = &run->model.dims.text;
    const int64_t trainable = qvl_lora_parameters(run->lora);
    const int64_t all = qvl_model_parameters(&run->model.dims) + trainable;
    char a[32], b[32];
    qvl_log_line(run->log,
                 "model  %s: %" PRId64 " layers, hidden %" PRId64 ", vocabulary %" PRId64 "%s",
                 run->model.directory, t->L, t->D, t->V, t->is_tied ? ", head tied" : "");
    qvl_log_line(run->log,
                 "LoRA  rank %" PRId64 ", alpha %g, dropout %g, on %" PRId64
                 " linears: %s trainable "
                 "of %s (%.4f %%)",
                 run->lora_options.rank, run->lora_options.alpha, run->lora_options.dropout,
                 qvl_lora_modules(run->lora), qvl_format_count(a, trainable),
                 qvl_format_count(b, all), 100.0 * (double)trainable / (double)all);
}

/* The adapter to start from, before anything is written or removed for its sake. Rank 0's word is
 * enough: all read the same files when they are loaded. */
static qvl_status check_adapter(const qvl_run *run, qvl_err *err)
{
    const char *adapter = run->config->adapter_name_or_path;
    return qvl_world_rank(run->world) == 0 && adapter && adapter[0]
               ? qvl_lora_check(run->lora, adapter, err)
               : QVL_OK;
}

/* All ranks have the same model and data; program and configuration were compared when they began.
 */
static qvl_status compare_ranks(qvl_run *run, qvl_err *err)
{
    qvl_text text = {0};
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_world_compare(run->world, "model files (headers)",
                              qvl_weight_files_sha256(run->model.files), err));
    if (run->train.data) {
        rc = qvl_text_printf(&text, err, "%" PRId64 " samples %" PRId64 " tokens digest %s",
                             run->train.table.n_samples, run->train.table.n_tokens,
                             qvl_dataset_digest(run->train.data));
        QVL_TRY(qvl_world_agree(run->world, rc, err));
        QVL_TRY(qvl_world_compare(run->world, "data", text.data, err));
    }
out:
    qvl_text_fini(&text);
    return rc;
}

/* Before data are encoded, which may write a file: a second qvl_sft with the same output_dir does
 * not replace what the first is reading, and nothing replaces what is not qvl's. */
static qvl_status take_output(qvl_run *run, qvl_err *err)
{
    const char *dataset = run->config->dataset;
    const bool is_due = run->purpose == QVL_RUN_TRAINS && dataset && dataset[0];
    qvl_status rc = QVL_OK;
    if (run->purpose != QVL_RUN_MEASURES && qvl_world_rank(run->world) == 0)
        rc = qvl_output_files_check(run->config, err);
    if (rc == QVL_OK && is_due)
        rc = qvl_run_take_output(run, err);
    return qvl_world_agree(run->world, rc, err);
}

qvl_status qvl_run_open(qvl_run *run, const qvl_config *config, qvl_run_purpose purpose,
                        qvl_world *world, qvl_log *log, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    *run = (qvl_run){.config = config, .purpose = purpose, .world = world, .log = log, .lock = -1};
    qvl_timer_start(&run->timer);
    qvl_world_set_phase(world, "opening the model");
    QVL_TRY(qvl_device_choose(&run->dev, &run->exchange, &run->n_threads, config, world, log, err));
    rc = choose_lora(run, err);
    if (rc == QVL_OK)
        rc = qvl_model_open(&run->model, config->model_name_or_path, config->cache_dir,
                            config->model_revision, run->dev, &run->lora_options, log, err);
    if (rc == QVL_OK)
        rc = qvl_lora_create(&run->lora, &run->model.dims, &run->lora_options, err);
    if (rc == QVL_OK)
        rc = check_adapter(run, err);
    QVL_TRY(qvl_world_agree(world, rc, err));
    print_model(run);
    qvl_timer_lap(&run->timer, QVL_PHASE_OTHER);
    QVL_TRY(take_output(run, err));
    QVL_TRY(qvl_run_open_data(run, err));
    QVL_TRY(compare_ranks(run, err));
    qvl_timer_lap(&run->timer, QVL_PHASE_DATA_PREPARATION);
out:
    return rc;
}

/* ---- planning ----------------------------------------------------------------------------------
 */

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static qvl_status plan_memory(qvl_run *run, qvl_err *err)
{
    const qvl_sample_table *parts[] = {&run->train.table, &run->eval.table};
    qvl_memory_needs needs = {.longest_sample = 1,
                              .ranks_per_host = qvl_world_local_size(run->world),
                              .n_threads = run->n_threads,
                              .process = qvl_process_memory_left()};
    const qvl_sample_sizes sizes = {run->train.table.length, run->train.table.supervised};
    qvl_step_scan scan;
    qvl_status rc =
        qvl_step_scan_run(&scan, run->sampler, run->step_plan, &sizes, run->train.table.n_samples,
                          run->config->pack, QVL_SCAN_SAMPLES, err);
    QVL_TRY(qvl_world_agree(run->world, rc, err)); /* a stop ends it early */
    for (int p = 0; p < 2; p++) {
        for (int64_t i = 0; i < parts[p]->n_samples; i++)
            needs.longest_sample = larger(needs.longest_sample, parts[p]->length[i]);
        needs.max_patches = larger(needs.max_patches, parts[p]->max_patches);
        needs.feature_bytes +=
            (uint64_t)(parts[p]->n_image_tokens * run->model.dims.text.D) * run->dev->act_bytes;
    }
    needs.longest_pack =
        larger(run->config->pack ? scan.most_in_step : scan.most_in_batch, needs.longest_sample);
    needs.step_rows = larger(scan.most_in_step, needs.longest_pack);
    if (rc == QVL_OK)
        rc = qvl_memory_plan_make(&run->memory, run->config, &run->model, run->lora, run->dev,
                                  &needs, err);
    QVL_TRY(qvl_world_agree(run->world, rc, err));
    /* Every rank must run the same plan: the one of the rank with the least memory. */
    int64_t numbers[4] = {-run->memory.pack_tokens, -run->memory.n_kept,
                          !run->memory.keeps_features, run->memory.embeds_on_host};
    QVL_TRY(qvl_world_max_i64(run->world, numbers, 4, err));
    run->memory.pack_tokens = -numbers[0];
    run->memory.n_kept = -numbers[1];
    run->memory.keeps_features = !numbers[2];
    run->memory.embeds_on_host = numbers[3] != 0;
out:
    return rc;
}

qvl_status qvl_run_plan(qvl_run *run, qvl_err *err)
{
    const qvl_config *c = run->config;
    const int n_ranks = qvl_world_size(run->world);
    const qvl_sampler_options options = {.n_samples = run->train.table.n_samples,
                                         .batch = c->per_device_train_batch_size,
                                         .n_ranks = n_ranks,
                                         .accumulation = c->gradient_accumulation_steps,
                                         .epochs = c->num_train_epochs,
                                         .max_steps = c->max_steps,
                                         .seed =
                                             (uint64_t)(c->data_seed >= 0 ? c->data_seed : c->seed),
                                         .is_shuffled = !c->disable_shuffling,
                                         .is_floor = strcmp(c->steps_rule, "floor") == 0};
    qvl_status rc = qvl_sampler_create(&run->sampler, &options, err);
    qvl_step_plan **const plans[] = {&run->step_plan, &run->next_plan};
    for (int i = 0; i < 2 && rc == QVL_OK; i++)
        rc = qvl_step_plan_create(plans[i], qvl_sampler_most_samples(run->sampler), n_ranks, err);
    QVL_TRY(qvl_world_agree(run->world, rc, err));
    run->schedule = qvl_schedule_make(c, qvl_sampler_steps(run->sampler));
    rc = plan_memory(run, err);
out:
    return rc;
}

void qvl_run_print_plan(qvl_run *run)
{
    const qvl_config *c = run->config;
    const qvl_sample_table *t = &run->train.table;
    char tokens[32], warmup[48] = "no warm-up";
    if (run->schedule.warmup)
        snprintf(warmup, sizeof warmup, "%" PRId64 " of warm-up", run->schedule.warmup);
    qvl_log_line(run->log,
                 "plan  %" PRId64 " samples, %s tokens, %" PRId64 " images; %d rank%s x batch "
                 "%" PRId64 " x accumulation %" PRId64,
                 t->n_samples, qvl_format_count(tokens, t->n_tokens), t->n_images,
                 qvl_world_size(run->world), qvl_world_size(run->world) > 1 ? "s" : "",
                 c->per_device_train_batch_size, c->gradient_accumulation_steps);
    qvl_log_line(run->log,
                 "steps  %" PRId64 " in all (steps_rule %s: %" PRId64 " micro-batches a rank and "
                 "epoch give %" PRId64 " steps), %s, %s",
                 qvl_sampler_steps(run->sampler), c->steps_rule,
                 qvl_sampler_batches_per_rank(run->sampler),
                 qvl_sampler_steps_per_epoch(run->sampler), warmup, c->lr_scheduler_type);
    if (run->eval.table.n_samples)
        qvl_log_line(run->log, "evaluation  %" PRId64 " samples", run->eval.table.n_samples);
    qvl_memory_plan_print(&run->memory, &run->model, run->log);
}

/* ---- closing -----------------------------------------------------------------------------------
 */

void qvl_run_close(qvl_run *run)
{
    qvl_saver_destroy(run->saver);
    qvl_run_release_output(run);
    /* First: after a failure sums may be queued that will never end, and freeing waits for them. */
    qvl_exchange_destroy(run->exchange);
    if (run->dev)
        run->dev->poll = NULL;
    qvl_run_release_offload(run);
    void *const memory[] = {run->activations, run->vision_activations, run->state_memory,
                            run->workspace};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        if (memory[i])
            run->dev->ops->release(run->dev, memory[i], QVL_MEM_DEVICE);
    qvl_features_destroy(run->train.features);
    qvl_features_destroy(run->eval.features);
    qvl_sample_reader_destroy(run->train.reader);
    qvl_sample_reader_destroy(run->eval.reader);
    qvl_dataset_close(run->train.data);
    qvl_dataset_close(run->eval.data);
    qvl_sample_table_fini(&run->train.table);
    qvl_sample_table_fini(&run->eval.table);
    qvl_decoder_destroy(run->decoder);
    qvl_vision_destroy(run->vision);
    qvl_sampler_destroy(run->sampler);
    qvl_step_plan_destroy(run->step_plan);
    qvl_step_plan_destroy(run->next_plan);
    qvl_pack_fini(&run->pack);
    qvl_plan_fini(&run->activation_slots);
    qvl_plan_fini(&run->vision_slots);
    qvl_plan_fini(&run->state_slots);
    free(run->pack_buffer);
    free(run->next_samples);
    free(run->feature_list);
    free(run->grids);
    free(run->host_losses);
    free(run->row_weights);
    free(run->state.param);
    free(run->state.exp_avg);
    free(run->state.exp_avg_sq);
    qvl_run_log_destroy(run->run_log);
    qvl_lora_destroy(run->lora);
    qvl_model_close(&run->model);
    qvl_device_close(run->dev);
}
