#include "src/train/trainer.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "src/base/clock.h"
#include "src/base/memory.h"
#include "src/base/sha256.h"
#include "src/model/lora_files.h"
#include "src/train/output_dir.h"
#include "src/train/run.h"

/* ---- identity ----------------------------------------------------------------------------------
 */

/* What a checkpoint must share with the run that goes on from it, and what it should. */
static qvl_status describe_run(qvl_run *run, qvl_err *err)
{
    const qvl_config *c = run->config;
    const qvl_lora_options *lora = &run->lora_options;
    qvl_text text = {0};
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_text_printf(&text, err, "model %s rank %" PRId64 " alpha %a rslora %d targets",
                            qvl_weight_files_sha256(run->model.files), lora->rank, lora->alpha,
                            lora->use_rslora));
    for (int s = 0; s < QVL_N_SITES; s++)
        QVL_TRY(qvl_text_printf(&text, err, " %d", lora->targets[s]));
    QVL_TRY(qvl_text_printf(&text, err, " samples %" PRId64 " tokens %" PRId64 " digest %s",
                            run->train.table.n_samples, run->train.table.n_tokens,
                            qvl_dataset_digest(run->train.data)));
    QVL_TRY(qvl_sha256_bytes(run->state.identity, text.data, text.len, err));
    qvl_text_clear(&text);
    QVL_TRY(qvl_text_printf(
        &text, err,
        "ranks %d batch %" PRId64 " accumulation %" PRId64 " seed %" PRId64 " data_seed %" PRId64
        " shuffled %d rule %s reduction %s dropout %a steps %" PRId64 " pack %d %" PRId64,
        qvl_world_size(run->world), c->per_device_train_batch_size, c->gradient_accumulation_steps,
        c->seed, c->data_seed, !c->disable_shuffling, c->steps_rule, c->loss_reduction,
        lora->dropout, qvl_sampler_steps(run->sampler), c->pack, run->memory.pack_tokens));
    QVL_TRY(qvl_text_printf(&text, err, " lr %a %s warmup %" PRId64 " decay %a clip %a",
                            c->learning_rate, c->lr_scheduler_type, run->schedule.warmup,
                            c->weight_decay, c->max_grad_norm));
    rc = qvl_sha256_bytes(run->state.order, text.data, text.len, err);
out:
    qvl_text_fini(&text);
    return rc;
}

/* ---- saving ------------------------------------------------------------------------------------
 */

static qvl_adapter_layout layout_of(const qvl_config *config)
{
    return strcmp(config->adapter_layout, "hf4.51") == 0 ? QVL_LAYOUT_HF_4_51 : QVL_LAYOUT_HF_4_52;
}

/* Rank 0 writes, all agree. */
static qvl_status save_checkpoint(qvl_run *run, qvl_err *err)
{
    const qvl_config *c = run->config;
    const qvl_checkpoint_options options = {.output_dir = c->output_dir,
                                            .layout = layout_of(c),
                                            .base_model = c->model_name_or_path,
                                            .only_model = c->save_only_model,
                                            .keep =
                                                c->save_total_limit > 0 ? c->save_total_limit : 0};
    qvl_status rc = QVL_OK;
    qvl_timer_lap(&run->timer, QVL_PHASE_OTHER);
    qvl_world_set_phase(run->world, "saving a checkpoint");
    if (qvl_world_rank(run->world) == 0) {
        rc = qvl_run_download_state(run, err);
        if (rc == QVL_OK)
            rc = qvl_checkpoint_save(&options, &run->state, run->lora, run->run_log, err);
        if (rc == QVL_OK)
            qvl_log_line(run->log, "saved %s/checkpoint-%" PRId64, c->output_dir, run->state.step);
    }
    rc = qvl_world_agree(run->world, rc, err);
    qvl_world_set_phase(run->world, "training");
    qvl_timer_lap(&run->timer, QVL_PHASE_SAVING);
    return rc;
}

/* What stays in output_dir, on rank 0. */
static qvl_status save_results(qvl_run *run, double eval_loss, qvl_err *err)
{
    const qvl_config *c = run->config;
    const double steps = (double)qvl_sampler_steps(run->sampler);
    const double samples_per_step =
        (double)(c->per_device_train_batch_size * c->gradient_accumulation_steps) *
        qvl_world_size(run->world);
    const qvl_final_metrics metrics = {
        .epoch = run->state.epoch,
        .train_loss = run->state.total_loss / (run->state.step ? (double)run->state.step : 1.0),
        .runtime_s = qvl_run_log_elapsed(run->run_log),
        .samples = c->max_steps > 0 ? steps * samples_per_step
                                    : (double)run->train.table.n_samples * c->num_train_epochs,
        .total_flos = run->run_log->total_flos,
        .steps = run->state.step,
        .eval_loss = eval_loss};
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_run_download_state(run, err));
    QVL_TRY(qvl_lora_save(run->lora, run->state.param, c->output_dir, layout_of(c),
                          c->model_name_or_path, err));
    QVL_TRY(qvl_output_dir_copy_tokenizer(c->output_dir, run->model.directory, err));
    QVL_TRY(qvl_run_log_finish(run->run_log, &metrics, err));
    QVL_TRY(qvl_run_log_save_state(run->run_log, c->output_dir, run->state.step, run->state.epoch,
                                   err));
    if (c->plot_loss)
        QVL_TRY(qvl_run_log_plot(run->run_log, err));
    qvl_log_line(run->log, "train loss %.4f over %" PRId64 " steps; the adapter is in %s",
                 metrics.train_loss, run->state.step, c->output_dir);
out:
    return rc;
}

/* ---- starting ----------------------------------------------------------------------------------
 */

/* Rank 0 reads the checkpoint, the others receive it. */
static qvl_status resume(qvl_run *run, const char *checkpoint, qvl_err *err)
{
    const size_t bytes = (size_t)qvl_lora_parameters(run->lora) * sizeof(float);
    qvl_train_state *state = &run->state;
    bool is_same_order = true;
    qvl_status rc = QVL_OK;
    if (qvl_world_rank(run->world) == 0) {
        rc = qvl_checkpoint_load(checkpoint, state, run->lora, run->run_log, &is_same_order, err);
        if (rc == QVL_OK)
            qvl_log_line(run->log, "going on from %s: step %" PRId64 " of %" PRId64, checkpoint,
                         state->step, qvl_sampler_steps(run->sampler));
        if (rc == QVL_OK && !is_same_order)
            qvl_log_warn(
                run->log,
                "ranks, batch, seed, schedule or packing differ from the checkpoint's: the "
                "run goes on, but not bit for bit as it would have");
    }
    QVL_TRY(qvl_world_agree(run->world, rc, err));
    float *const buffers[] = {state->param, state->exp_avg, state->exp_avg_sq};
    qvl_train_state shared = *state;
    QVL_TRY(qvl_world_broadcast(run->world, &shared, sizeof shared, 0, err));
    shared.param = state->param; /* pointers are each rank's own */
    shared.exp_avg = state->exp_avg;
    shared.exp_avg_sq = state->exp_avg_sq;
    *state = shared;
    for (int i = 0; i < 3; i++)
        QVL_TRY(qvl_world_broadcast(run->world, buffers[i], bytes, 0, err));
    QVL_TRY(qvl_world_agree(run->world, qvl_run_upload_state(run, err), err));
out:
    return rc;
}

/* Directory, log and the checkpoint to go on from; before the weights are loaded, so that a
 * directory that cannot be written to is known at once. */
static qvl_status open_output(qvl_run *run, char checkpoint[QVL_PATH_BYTES], qvl_err *err)
{
    /* the adapter; the same and two moments in a checkpoint; logs and plots */
    const uint64_t needed =
        4 * sizeof(float) * (uint64_t)qvl_lora_parameters(run->lora) + (1 << 20);
    qvl_status rc = QVL_OK;
    qvl_world_set_phase(run->world, "opening output_dir");
    if (qvl_world_rank(run->world) == 0) {
        rc = qvl_output_dir_open(checkpoint, run->config, needed, run->log, err);
        if (rc == QVL_OK)
            rc = qvl_output_dir_write_config(run->config, err);
        if (rc == QVL_OK)
            rc = qvl_run_log_create(&run->run_log, run->config->output_dir, run->config,
                                    qvl_sampler_steps(run->sampler), err);
    }
    QVL_TRY(qvl_world_agree(run->world, rc, err));
    QVL_TRY(qvl_world_broadcast(run->world, checkpoint, QVL_PATH_BYTES, 0, err));
out:
    return rc;
}

/* ---- training ----------------------------------------------------------------------------------
 */

/* Steps between events: below 1 a share of all steps, rounded up. */
static int64_t interval(double given, int64_t total)
{
    const double steps = given < 1.0 ? ceil(given * (double)total) : given;
    return steps < 1.0 ? 1 : (int64_t)steps;
}

typedef enum event_kind { EVERY_STEPS, EVERY_EPOCH, NEVER } event_kind;

static event_kind kind_of(const char *strategy)
{
    return strcmp(strategy, "steps") == 0   ? EVERY_STEPS
           : strcmp(strategy, "epoch") == 0 ? EVERY_EPOCH
                                            : NEVER;
}

static bool is_due(event_kind kind, int64_t step, int64_t every, int64_t per_epoch)
{
    return kind == EVERY_STEPS ? step % every == 0 : kind == EVERY_EPOCH && step % per_epoch == 0;
}

static qvl_status evaluate(qvl_run *run, const qvl_log_event *event, double *out_loss, qvl_err *err)
{
    const double start = qvl_clock_s();
    int64_t n_batches = 0;
    qvl_status rc = QVL_OK;
    qvl_timer_lap(&run->timer, QVL_PHASE_OTHER);
    qvl_world_set_phase(run->world, "evaluating");
    QVL_TRY(qvl_run_evaluate(run, out_loss, &n_batches, err));
    qvl_world_set_phase(run->world, "training");
    qvl_log_line(run->log, "step %" PRId64 "  eval_loss %.4f over %" PRId64 " samples", event->step,
                 *out_loss, run->eval.table.n_samples);
    if (run->run_log)
        rc = qvl_run_log_eval(run->run_log, event, *out_loss, qvl_clock_s() - start,
                              run->eval.table.n_samples, n_batches, err);
    rc = qvl_world_agree(run->world, rc, err);
    qvl_timer_lap(&run->timer, QVL_PHASE_EVALUATION);
out:
    return rc;
}

static qvl_status log_step(qvl_run *run, qvl_log_event *event, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    event->loss = run->state.loss_sum / (double)run->state.loss_steps;
    run->state.loss_sum = 0.0;
    run->state.loss_steps = 0;
    qvl_log_line(run->log,
                 "step %" PRId64 "/%" PRId64 "  loss %.4f  grad_norm %.4f  lr %.4e  epoch %.3f  "
                 "%.0f tokens/s",
                 event->step, qvl_sampler_steps(run->sampler), event->loss, event->grad_norm,
                 event->learning_rate, event->epoch, event->tokens_per_second);
    if (run->run_log)
        rc = qvl_run_log_train(run->run_log, event, err);
    return qvl_world_agree(run->world, rc, err);
}

/* Counts of a step into the state; losses that are not numbers stop the run before it saves them.
 */
static qvl_status take_in(qvl_run *run, const qvl_step_result *result, qvl_err *err)
{
    qvl_train_state *state = &run->state;
    const int64_t frozen =
        qvl_model_parameters(&run->model.dims) - run->model.dims.text.V * run->model.dims.text.D;
    if (!isfinite(result->loss) || !isfinite(result->grad_norm))
        return qvl_fail(err, QVL_EDATA,
                        "step %" PRId64
                        ": loss %g, gradient norm %g; stopped, nothing of this step "
                        "is saved (a lower learning_rate, or a look at the data, may help)",
                        state->step + 1, result->loss, result->grad_norm);
    state->step++;
    state->epoch = result->epoch;
    state->loss_sum += result->loss;
    state->loss_steps++;
    state->total_loss += result->loss;
    state->total_tokens += result->tokens;
    run->progress.tokens += result->tokens;
    if (run->run_log)
        run->run_log->total_flos = 6.0 * (double)frozen * (double)state->total_tokens;
    return QVL_OK;
}

typedef struct loop {
    int64_t total, per_epoch, log_every, save_every, eval_every;
    event_kind save_kind, eval_kind;
    int64_t first_step, tokens_at_log;
    double log_started_s, eval_loss;
} loop;

static loop make_loop(const qvl_run *run)
{
    const qvl_config *c = run->config;
    loop l = {.total = qvl_sampler_steps(run->sampler),
              .per_epoch = qvl_sampler_steps_per_epoch(run->sampler),
              .save_kind = kind_of(c->save_strategy),
              .eval_kind = kind_of(c->eval_strategy),
              .first_step = run->state.step,
              .log_started_s = qvl_clock_s(),
              .eval_loss = NAN};
    l.log_every = interval(c->logging_steps, l.total);
    l.save_every = interval(c->save_steps, l.total);
    l.eval_every = interval(c->eval_steps > 0 ? c->eval_steps : c->logging_steps, l.total);
    if (qvl_config_is_given(c, "eval_steps") && !qvl_config_is_given(c, "eval_strategy"))
        l.eval_kind = EVERY_STEPS;
    if (run->eval.table.n_samples == 0)
        l.eval_kind = NEVER;
    return l;
}

/* One step and what is due after it: log, evaluation, checkpoint. */
static qvl_status run_one(qvl_run *run, loop *l, qvl_err *err)
{
    qvl_step_result result;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_run_step(run, run->state.step, &result, err));
    QVL_TRY(qvl_world_agree(run->world, take_in(run, &result, err), err));
    const int64_t step = run->state.step;
    qvl_log_event event = {.step = step,
                           .epoch = result.epoch,
                           .grad_norm = result.grad_norm,
                           .learning_rate = result.rate,
                           .first_step = l->first_step};
    if (step % l->log_every == 0 || (step == 1 && run->config->logging_first_step)) {
        const double seconds = qvl_clock_s() - l->log_started_s;
        event.tokens_per_second =
            (double)(run->state.total_tokens - l->tokens_at_log) / (seconds > 0 ? seconds : 1e-9);
        QVL_TRY(log_step(run, &event, err));
        l->tokens_at_log = run->state.total_tokens;
        l->log_started_s = qvl_clock_s();
    }
    qvl_progress_draw(&run->progress, step, result.loss, result.rate, run->log);
    if (is_due(l->eval_kind, step, l->eval_every, l->per_epoch))
        QVL_TRY(evaluate(run, &event, &l->eval_loss, err));
    if (is_due(l->save_kind, step, l->save_every, l->per_epoch) ||
        (step == l->total && l->save_kind != NEVER))
        QVL_TRY(save_checkpoint(run, err));
out:
    return rc;
}

static qvl_status run_loop(qvl_run *run, qvl_err *err)
{
    loop l = make_loop(run);
    uint64_t free_bytes = 0; /* after the first step */
    qvl_status rc = QVL_OK;
    qvl_world_set_phase(run->world, "training");
    run->progress = (qvl_progress){
        .first_step = run->state.step, .total_steps = l.total, .started_s = qvl_clock_s()};
    l.tokens_at_log = run->state.total_tokens;
    if (run->state.step >= l.total && run->config->do_train) {
        qvl_log_line(run->log, "nothing to do: all %" PRId64 " steps are done", l.total);
        return QVL_OK;
    }
    while (run->config->do_train && run->state.step < l.total) {
        QVL_TRY(run_one(run, &l, err));
        if (free_bytes == 0)
            QVL_TRY(run->dev->ops->free_bytes(run->dev, &free_bytes, err));
    }
    if (run->config->do_eval && run->eval.table.n_samples)
        QVL_TRY(evaluate(run,
                         &(qvl_log_event){.step = run->state.step,
                                          .epoch = run->state.epoch,
                                          .first_step = l.first_step},
                         &l.eval_loss, err));
    qvl_timer_lap(&run->timer, QVL_PHASE_OTHER);
    qvl_world_set_phase(run->world, "saving the results");
    if (qvl_world_rank(run->world) == 0)
        rc = save_results(run, l.eval_loss, err);
    QVL_TRY(qvl_world_agree(run->world, rc, err));
    qvl_timer_lap(&run->timer, QVL_PHASE_SAVING);
    qvl_timer_print(&run->timer, &run->progress, run->state.step, run->log);
    if (free_bytes)
        qvl_memory_plan_report(&run->memory, run->dev, free_bytes, run->log);
out:
    return rc;
}

static qvl_status report_check(qvl_run *run)
{
    char needed[32], available[32];
    if (run->memory.fits)
        qvl_log_line(run->log, "check: everything is in order");
    else
        qvl_log_warn(run->log,
                     "check: everything is in order, but this host has too little memory: %s "
                     "needed, %s available",
                     qvl_format_bytes(needed, run->memory.needed_bytes),
                     qvl_format_bytes(available, run->memory.available_bytes));
    return QVL_OK;
}

qvl_status qvl_train(const qvl_config *config, bool is_check, qvl_world *world, qvl_log *log,
                     qvl_err *err)
{
    qvl_run run = {0};
    char checkpoint[QVL_PATH_BYTES] = "";
    qvl_status rc = QVL_OK;
    if (!is_check && !config->do_train && !config->do_eval)
        return qvl_fail(err, QVL_ECONFIG, "do_train and do_eval are false: there is nothing to do");
    /* Published examples ask for 5.7 years, which hides every real hang. */
    qvl_world_set_deadline(world, fmin(config->ddp_timeout, 600.0));
    QVL_TRY(qvl_run_open(&run, config, is_check, world, log, err));
    QVL_TRY(qvl_run_plan(&run, err));
    qvl_run_print_plan(&run);
    if (is_check) {
        rc = report_check(&run);
        goto out;
    }
    rc = qvl_memory_plan_require(&run.memory, run.dev, err);
    if (rc == QVL_OK)
        rc = describe_run(&run, err);
    QVL_TRY(qvl_world_agree(world, rc, err));
    QVL_TRY(open_output(&run, checkpoint, err));
    QVL_TRY(qvl_run_allocate(&run, err));
    if (checkpoint[0])
        QVL_TRY(resume(&run, checkpoint, err));
    QVL_TRY(run_loop(&run, err));
out:
    /* Closing meets the other ranks, and a rank that fails alone does not find them there. */
    if (rc != QVL_OK && qvl_world_size(world) > 1 && qvl_world_failed_rank(world) < 0)
        qvl_world_abort(world, rc, err->text);
    qvl_run_close(&run);
    return rc;
}
