#include "src/train/trainer.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "src/base/clock.h"
#include "src/base/memory.h"
#include "src/base/stop.h"
#include "src/train/due.h"
#include "src/train/run.h"
#include "src/train/step_floor.h"

/* ---- training ----------------------------------------------------------------------------------
 */

/* A log line that could not be written is kept for the next time: no reason to stop. */
static qvl_status forgive_log(qvl_run *run, qvl_status rc, qvl_err *err)
{
    if (rc != QVL_EIO)
        return rc;
    qvl_log_warn(run->log, "the log could not be written, its lines are kept: %s", err->text);
    qvl_err_clear(err);
    return QVL_OK;
}

static qvl_status evaluate(qvl_run *run, const qvl_log_event *event, qvl_err *err)
{
    const double start = qvl_clock_s();
    double loss = NAN;
    int64_t n_batches = 0;
    qvl_status rc = QVL_OK;
    qvl_timer_lap(&run->timer, QVL_PHASE_OTHER);
    qvl_world_set_phase(run->world, "evaluating");
    QVL_TRY(qvl_run_evaluate(run, &loss, &n_batches, err));
    qvl_world_set_phase(run->world, "training");
    if (qvl_world_is_stopping(run->world)) { /* it is made up for when the run goes on */
        qvl_timer_lap(&run->timer, QVL_PHASE_EVALUATION);
        return QVL_OK;
    }
    qvl_log_line(run->log, "step %" PRId64 "  eval_loss %.4f over %" PRId64 " samples", event->step,
                 loss, run->eval.table.n_samples);
    if (run->run_log)
        rc = qvl_run_log_eval(run->run_log, event, loss, qvl_clock_s() - start,
                              run->eval.table.n_samples, n_batches, err);
    rc = qvl_world_agree(run->world, forgive_log(run, rc, err), err);
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
    return qvl_world_agree(run->world, forgive_log(run, rc, err), err);
}

/* What the log says of all steps so far. */
static void tell_totals(qvl_run *run)
{
    const int64_t frozen =
        qvl_model_parameters(&run->model.dims) - run->model.dims.text.V * run->model.dims.text.D;
    if (!run->run_log)
        return;
    run->run_log->total_flos = 6.0 * (double)frozen * (double)run->state.total_tokens;
    run->run_log->total_tokens = run->state.total_tokens;
}

/* Counts a step into the state; a skipped one has no loss. */
static void take_in(qvl_run *run, const qvl_step_result *result, bool is_skipped)
{
    qvl_train_state *state = &run->state;
    state->step++;
    state->epoch = result->epoch;
    if (!is_skipped) {
        run->n_skipped = 0;
        state->loss_sum += result->loss;
        state->loss_steps++;
        state->total_loss += result->loss;
    }
    state->total_tokens += result->tokens;
    run->progress.tokens += result->tokens;
    run->progress.own_tokens += run->step_plan->load[qvl_world_rank(run->world)];
    tell_totals(run);
}

/* The clock's say, which is rank 0's: the others learn of it at the next agree. */
static void watch_the_clock(qvl_run *run)
{
    const double now = qvl_clock_s();
    if (!run->saver)
        return;
    qvl_time_limit_step(&run->limit, now);
    if (qvl_time_limit_is_near(&run->limit, now, qvl_saver_seconds(run->saver)))
        qvl_stop_request(run->limit.reason);
}

typedef struct loop {
    qvl_due log, save, eval;
    int64_t total, first_step, tokens_at_log;
    double log_started_s;
    uint64_t free_bytes;  /* of the device, after the first step */
    qvl_status last_save; /* of the last checkpoint: the results are saved all the same */
    qvl_err last_save_err;
} loop;

static loop make_loop(const qvl_run *run)
{
    const qvl_config *c = run->config;
    const int64_t total = qvl_sampler_steps(run->sampler);
    const int64_t per_epoch = qvl_sampler_steps_per_epoch(run->sampler);
    const double eval_steps = c->eval_steps > 0 ? c->eval_steps : c->logging_steps;
    loop l = {.log = qvl_due_make(c->logging_strategy, c->logging_steps, total, per_epoch),
              .save = qvl_due_make(c->save_strategy, c->save_steps, total, per_epoch),
              .total = total,
              .first_step = run->state.step,
              .tokens_at_log = run->state.total_tokens,
              .log_started_s = qvl_clock_s()};
    if (run->eval.table.n_samples)
        l.eval = qvl_due_make(c->eval_strategy, eval_steps, total, per_epoch);
    return l;
}

enum { COMPARE_RANKS_EVERY = 100 };

static qvl_log_event event_of(const qvl_run *run, const loop *l)
{
    return (qvl_log_event){
        .step = run->state.step, .epoch = run->state.epoch, .first_step = l->first_step};
}

/* One step and what is due after it: log, evaluation, checkpoint. */
static qvl_status run_one(qvl_run *run, loop *l, qvl_err *err)
{
    qvl_step_result result;
    bool is_skipped = false;
    qvl_status rc = QVL_OK;
    qvl_world_set_step(run->world, run->state.step + 1);
    QVL_TRY(qvl_run_step(run, run->state.step, &result, err));
    if (!isfinite(result.loss) || !isfinite(result.grad_norm)) {
        QVL_TRY(qvl_run_not_finite(run, run->state.step, &result, err));
        is_skipped = true;
    }
    take_in(run, &result, is_skipped);
    watch_the_clock(run);
    QVL_TRY(qvl_world_agree(run->world, QVL_OK, err));
    const int64_t step = run->state.step;
    qvl_log_event event = event_of(run, l);
    event.grad_norm = result.grad_norm;
    event.learning_rate = result.rate;
    if ((qvl_is_due(&l->log, step) || (step == 1 && run->config->logging_first_step)) &&
        run->state.loss_steps > 0) {
        const double seconds = qvl_clock_s() - l->log_started_s;
        event.tokens_per_second =
            (double)(run->state.total_tokens - l->tokens_at_log) / (seconds > 0 ? seconds : 1e-9);
        QVL_TRY(log_step(run, &event, err));
        l->tokens_at_log = run->state.total_tokens;
        l->log_started_s = qvl_clock_s();
    }
    qvl_progress_draw(&run->progress, step, result.loss, result.rate, run->log);
    if (step % COMPARE_RANKS_EVERY == 0 || step == l->total)
        QVL_TRY(qvl_run_compare_ranks(run, err));
    if (qvl_is_due(&l->eval, step))
        QVL_TRY(evaluate(run, &event, err));
    if (run->saver)
        QVL_TRY(qvl_saver_after_step(run->saver, qvl_is_due(&l->save, step), err));
out:
    return rc;
}

/* The evaluation after the steps that are done, unless the log has it. Without training it is what
 * was asked for, whatever an earlier run found. is_cut: a stop was asked for before its end. */
static qvl_status make_up_evaluation(qvl_run *run, const loop *l, bool *is_cut, qvl_err *err)
{
    const qvl_log_event event = event_of(run, l);
    int64_t is_missing = run->run_log && !(run->config->do_train &&
                                           qvl_run_log_has_eval(run->run_log, run->state.step));
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_world_max_i64(run->world, &is_missing, 1, err));
    if (is_missing)
        QVL_TRY(evaluate(run, &event, err));
    *is_cut = is_missing && qvl_world_is_stopping(run->world);
out:
    return rc;
}

/* Saves and tells how to go on. The same on all ranks. */
static qvl_status stop(qvl_run *run, qvl_err *err)
{
    char why[96];
    qvl_status rc = QVL_OK;
    qvl_log_line(run->log, "stopping on request (%s)", qvl_world_stop_text(why, run->world));
    QVL_TRY(qvl_saver_finish(run->saver, run, true, err));
    rc = qvl_fail(err, QVL_ESTOPPED,
                  "stopped on request (%s) after step %" PRId64 " of %" PRId64
                  ", saved in %s/checkpoint-%" PRId64 "; run the same command again to go on",
                  qvl_world_stop_text(why, run->world), run->state.step,
                  qvl_sampler_steps(run->sampler), run->config->output_dir, run->state.step);
    rc = qvl_world_agree(run->world, rc, err);
out:
    return rc;
}

static qvl_status train(qvl_run *run, loop *l, qvl_err *err)
{
    bool is_cut = false;
    qvl_status rc = QVL_OK;
    if (qvl_is_due(&l->eval, run->state.step)) /* the run may have been stopped in it */
        QVL_TRY(make_up_evaluation(run, l, &is_cut, err));
    QVL_TRY(qvl_world_agree(run->world, QVL_OK, err)); /* asked for while loading */
    while (run->state.step < l->total) {
        if (qvl_world_is_stopping(run->world) && run->state.step > l->first_step)
            return stop(run, err);
        if (qvl_world_is_stopping(run->world)) /* nothing was done that is not saved */
            return qvl_world_refuse_to_go_on(run->world, err);
        QVL_TRY(run_one(run, l, err));
        if (l->free_bytes == 0)
            QVL_TRY(run->dev->ops->free_bytes(run->dev, &l->free_bytes, err));
    }
    qvl_world_set_step(run->world, -1);
    /* A run that went on leaves its last state even where none was asked for, so that starting it
     * once more finds nothing to do. */
    if (l->save.every || l->first_step > 0)
        l->last_save = qvl_saver_finish(run->saver, run, false, &l->last_save_err);
out:
    return rc;
}

/* transformers sets do_eval where there is an eval_strategy. */
static bool evaluates_at_end(const qvl_config *config)
{
    return config->do_eval || strcmp(config->eval_strategy, "no") != 0;
}

/* What the steps of this process took beside what they could not do without. When everything is
 * saved: activations are lost, and a device that fails now fails nothing. */
static void print_floor(qvl_run *run)
{
    enum { FEW_STEPS = 50 };
    const bool is_new = run->state.step - run->progress.first_step < FEW_STEPS;
    qvl_step_floor measured;
    qvl_err err = {QVL_OK, ""};
    qvl_world_set_phase(run->world, "measuring the floor of a step");
    if (qvl_step_floor_measure(run, &measured, &err) != QVL_OK)
        qvl_log_warn(run->log, "the floor of a step was not measured: %s", err.text);
    else if (!isnan(measured.share))
        qvl_log_line(run->log,
                     "share of the floor %.1f %%: the frozen products of a step's %" PRId64
                     " tokens alone take %.3f ms%s",
                     100.0 * measured.share, measured.tokens, measured.ms,
                     is_new ? " (in the first steps products are tried out, which is counted)"
                            : "");
}

/* The last evaluation, and the files in output_dir. */
static qvl_status conclude(qvl_run *run, loop *l, qvl_err *err)
{
    const qvl_config *c = run->config;
    bool is_cut = false;
    qvl_status rc = QVL_OK;
    if (evaluates_at_end(c) && run->eval.table.n_samples)
        QVL_TRY(make_up_evaluation(run, l, &is_cut, err));
    if (is_cut)
        return c->do_train ? stop(run, err) : qvl_world_refuse_to_go_on(run->world, err);
    qvl_timer_lap(&run->timer, QVL_PHASE_OTHER);
    qvl_world_set_phase(run->world, "saving the results");
    if (run->run_log)
        rc = qvl_run_save_results(run, err);
    QVL_TRY(qvl_world_agree(run->world, rc, err));
    qvl_timer_lap(&run->timer, QVL_PHASE_SAVING);
    qvl_timer_print(&run->timer, &run->progress, run->state.step, run->log);
    print_floor(run);
    QVL_TRY(qvl_world_agree(run->world, QVL_OK, err)); /* nobody closes while another measures */
    if (l->free_bytes)
        qvl_memory_plan_report(&run->memory, run->dev, l->free_bytes, run->log);
    if (l->last_save != QVL_OK)
        rc = qvl_fail(err, l->last_save, "%s", l->last_save_err.text);
out:
    return rc;
}

static qvl_status run_loop(qvl_run *run, qvl_err *err)
{
    loop l = make_loop(run);
    int64_t is_done = 0;
    qvl_status rc = QVL_OK;
    qvl_world_set_phase(run->world, "training");
    qvl_world_await_stop(run->world);
    run->progress = (qvl_progress){
        .first_step = run->state.step, .total_steps = l.total, .started_s = qvl_clock_s()};
    tell_totals(run);
    if (run->state.step >= l.total && run->config->do_train) {
        is_done = run->run_log && qvl_run_has_results(run);
        QVL_TRY(qvl_world_max_i64(run->world, &is_done, 1, err));
    }
    if (is_done) {
        qvl_log_line(run->log, "nothing to do: all %" PRId64 " steps are done", l.total);
        return QVL_OK;
    }
    if (run->config->do_train)
        QVL_TRY(train(run, &l, err));
    QVL_TRY(conclude(run, &l, err));
out:
    return rc;
}

static qvl_status report_check(qvl_run *run)
{
    qvl_err why = {QVL_OK, ""};
    if (qvl_memory_plan_require(&run->memory, run->dev, &why) == QVL_OK)
        qvl_log_line(run->log, "check: everything is in order");
    else
        qvl_log_warn(run->log, "check: everything is in order, but this host has too little: %s",
                     why.text);
    return QVL_OK;
}

/* A run without do_train that has nothing to evaluate either; with the place of the key. */
static qvl_status check_purpose(const qvl_config *config, qvl_err *err)
{
    const int line = qvl_config_given_at(config, "do_train");
    if (config->do_train || evaluates_at_end(config))
        return QVL_OK;
    if (line == QVL_GIVEN_AS_OVERRIDE)
        return qvl_fail(err, QVL_ECONFIG,
                        "command line: do_train: false leaves nothing to do; say do_train=true");
    return line ? qvl_fail(err, QVL_ECONFIG,
                           "%s:%d: do_train: false leaves nothing to do; say do_train: true",
                           config->name, line)
                : qvl_fail(err, QVL_ECONFIG,
                           "%s: do_train: is missing, there is nothing to do; add do_train: true",
                           config->name);
}

static void warn_of_keys(const qvl_config *config, qvl_log *log)
{
    if (qvl_config_is_given(config, "ddp_timeout") &&
        config->ddp_timeout > qvl_config_deadline(config) && config->peer_timeout < 0)
        qvl_log_warn(log,
                     "ddp_timeout: %.0f s would hide a rank that hangs; %.0f s are waited "
                     "(peer_timeout allows more)",
                     config->ddp_timeout, qvl_config_deadline(config));
    if (config->eval_steps > 0 && strcmp(config->eval_strategy, "steps") != 0)
        qvl_log_warn(log, "eval_steps does nothing without eval_strategy: steps");
}

qvl_status qvl_train(const qvl_config *config, bool is_check, qvl_world *world, qvl_log *log,
                     qvl_err *err)
{
    qvl_run run = {.lock = -1};
    char checkpoint[QVL_PATH_BYTES] = "";
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_world_agree(world, check_purpose(config, err), err));
    qvl_world_set_deadline(world, qvl_config_deadline(config));
    warn_of_keys(config, log);
    QVL_TRY(
        qvl_run_open(&run, config, is_check ? QVL_RUN_CHECKS : QVL_RUN_TRAINS, world, log, err));
    QVL_TRY(qvl_run_plan(&run, err));
    qvl_run_print_plan(&run);
    if (is_check) {
        QVL_TRY(qvl_world_agree(world, qvl_run_check_output(&run, err), err));
        rc = report_check(&run);
        goto out;
    }
    rc = qvl_memory_plan_require(&run.memory, run.dev, err);
    if (rc == QVL_OK)
        rc = qvl_run_describe(&run, err);
    QVL_TRY(qvl_world_agree(world, rc, err));
    QVL_TRY(qvl_run_open_output(&run, checkpoint, err));
    QVL_TRY(qvl_run_allocate(&run, err));
    if (checkpoint[0])
        QVL_TRY(qvl_run_resume(&run, checkpoint, err));
    QVL_TRY(qvl_run_begin_output(&run, checkpoint, err));
    QVL_TRY(run_loop(&run, err));
out:
    /* Closing meets the other ranks, and a rank that fails alone does not find them there. */
    if (rc != QVL_OK && qvl_world_size(world) > 1 && qvl_world_failed_rank(world) < 0)
        qvl_world_abort(world, rc, err->text);
    qvl_run_close(&run);
    return rc;
}
