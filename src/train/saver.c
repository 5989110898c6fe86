#include "src/train/saver.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "src/base/clock.h"
#include "src/base/memory.h"
#include "src/train/checkpoint_writer.h"
#include "src/train/run.h"

struct qvl_saver {
    qvl_run *run;
    qvl_checkpoint_writer *writer;
    qvl_checkpoint_options options;
    char request[QVL_PATH_BYTES]; /* the file that asks for a save */
    double looked_s;
    bool is_wanted;    /* a save is due */
    double retry_at_s; /* not before */
    double backoff_s;
    int64_t safe_step, given_step; /* newest on disk; in the writer's hands; -1 */
    bool is_safe_full, is_given_full;
    int n_failed; /* in a row */
    qvl_err last; /* failure */
    double begun_s, seconds;
};

enum { FIRST_BACKOFF_S = 10, LONGEST_BACKOFF_S = 600, LONGEST_PATIENCE_S = 10 };

qvl_status qvl_saver_create(qvl_saver **out, qvl_run *run, qvl_err *err)
{
    const qvl_config *c = run->config;
    qvl_saver *saver = NULL;
    qvl_status rc = qvl_alloc(&saver, 1, sizeof *saver, "saver", err);
    QVL_TRY(rc);
    saver->run = run;
    saver->options =
        (qvl_checkpoint_options){.output_dir = c->output_dir,
                                 .layout = qvl_adapter_layout_named(c->adapter_layout),
                                 .base_model = c->model_name_or_path,
                                 .only_model = c->save_only_model,
                                 .keep = c->save_total_limit > 0 ? c->save_total_limit : 0};
    saver->safe_step = saver->given_step = -1;
    saver->backoff_s = FIRST_BACKOFF_S;
    /* 50 MB/s until there is a measurement */
    saver->seconds = 12.0 * (double)qvl_lora_parameters(run->lora) / 50e6;
    QVL_TRY(qvl_path_join(saver->request, c->output_dir, "save", err));
    QVL_TRY(qvl_checkpoint_writer_create(&saver->writer, c->output_dir, saver->options.keep, err));
    *out = saver;
    return QVL_OK;
out:
    free(saver);
    return rc;
}

void qvl_saver_destroy(qvl_saver *saver)
{
    if (!saver)
        return;
    qvl_checkpoint_writer_destroy(saver->writer);
    free(saver);
}

double qvl_saver_seconds(const qvl_saver *saver)
{
    return saver->seconds;
}

/* ---- one attempt -------------------------------------------------------------------------------
 */

static void take_failure(qvl_saver *saver, int64_t step, const qvl_err *why)
{
    char safe[64] = "there is none yet";
    saver->last = *why;
    saver->n_failed++;
    saver->is_wanted = true;
    saver->retry_at_s = qvl_clock_s() + saver->backoff_s;
    if (saver->safe_step >= 0)
        snprintf(safe, sizeof safe, "the newest is checkpoint-%" PRId64, saver->safe_step);
    qvl_log_warn(saver->run->log,
                 "CHECKPOINT NOT SAVED: step %" PRId64 ": %s. It is tried again soon. Whole "
                 "checkpoints of this run: %s",
                 step, why->text, safe);
    saver->backoff_s = fmin(2.0 * saver->backoff_s, LONGEST_BACKOFF_S);
}

/* What the writer has to say. */
static void collect(qvl_saver *saver)
{
    qvl_write_result result;
    if (!qvl_checkpoint_writer_poll(saver->writer, &result))
        return;
    saver->given_step = -1;
    if (result.err.status != QVL_OK) {
        take_failure(saver, result.step, &result.err);
        return;
    }
    saver->safe_step = result.step;
    saver->is_safe_full = saver->is_given_full;
    saver->n_failed = 0;
    saver->backoff_s = FIRST_BACKOFF_S;
    saver->seconds = qvl_clock_s() - saver->begun_s;
    qvl_log_line(saver->run->log, "saved %s/checkpoint-%" PRId64, saver->options.output_dir,
                 result.step);
    if (result.prune.status != QVL_OK)
        qvl_log_warn(saver->run->log, "an older checkpoint could not be removed: %s",
                     result.prune.text);
}

/* Copies the state of this step and hands it to the writer, which is idle. Fails when the device
 * does; other failures are a failed attempt. */
static qvl_status begin(qvl_saver *saver, bool is_full, qvl_err *err)
{
    qvl_run *run = saver->run;
    qvl_checkpoint_options options = saver->options;
    qvl_checkpoint_image image = {0};
    qvl_err why = {QVL_OK, ""};
    qvl_status rc = QVL_OK;
    options.only_model &= !is_full;
    saver->is_wanted = false;
    saver->begun_s = qvl_clock_s();
    QVL_TRY(qvl_run_download_state(run, err));
    if (qvl_checkpoint_image_make(&image, &options, &run->state, run->lora, run->run_log, &why) ==
        QVL_OK)
        qvl_checkpoint_writer_submit(saver->writer, &image, &why);
    if (why.status != QVL_OK) {
        take_failure(saver, run->state.step, &why);
    } else {
        saver->given_step = run->state.step;
        saver->is_given_full = !options.only_model;
    }
out:
    qvl_checkpoint_image_fini(&image);
    return rc;
}

/* ---- while training ----------------------------------------------------------------------------
 */

/* At most once a second: output_dir may be on a slow file system. */
static bool is_requested(qvl_saver *saver, double now)
{
    if (now - saver->looked_s < 1.0)
        return false;
    saver->looked_s = now;
    if (unlink(saver->request) != 0)
        return false;
    qvl_log_line(saver->run->log, "%s: saving on request", saver->request);
    return true;
}

/* How long training may stand still for a save that is still being written: the others wait. */
static double patience_s(const qvl_saver *saver)
{
    return fmin(LONGEST_PATIENCE_S, qvl_config_deadline(saver->run->config) / 4.0);
}

qvl_status qvl_saver_after_step(qvl_saver *saver, bool is_due, qvl_err *err)
{
    const double now = qvl_clock_s();
    collect(saver);
    if (is_requested(saver, now) || is_due) {
        saver->is_wanted = true;
        saver->retry_at_s = now;
    }
    if (!saver->is_wanted || now < saver->retry_at_s)
        return QVL_OK;
    qvl_timer_lap(&saver->run->timer, QVL_PHASE_OTHER);
    qvl_status rc = QVL_OK;
    if (!qvl_checkpoint_writer_wait(saver->writer, patience_s(saver))) {
        saver->retry_at_s = now + LONGEST_PATIENCE_S;
        qvl_log_warn(saver->run->log,
                     "checkpoint-%" PRId64 " has been in writing for %.0f s; that of step %" PRId64
                     " or a later one follows it",
                     saver->given_step, qvl_clock_s() - saver->begun_s, saver->run->state.step);
    } else {
        collect(saver);
        if (saver->safe_step == saver->run->state.step)
            saver->is_wanted = false;
        else
            rc = begin(saver, false, err);
    }
    qvl_timer_lap(&saver->run->timer, QVL_PHASE_SAVING);
    return rc;
}

/* ---- at the end --------------------------------------------------------------------------------
 */

enum { WORKING, SAFE, FAILED };

/* One look, of a fraction of a second, at how the last checkpoint is getting on. */
static qvl_status look(qvl_saver *saver, bool is_full, int64_t *out_state, qvl_err *err)
{
    const int64_t step = saver->run->state.step;
    qvl_checkpoint_writer_wait(saver->writer, 0.05);
    collect(saver);
    *out_state = WORKING;
    if (saver->safe_step == step && (saver->is_safe_full || !is_full))
        *out_state = SAFE;
    else if (saver->n_failed > 3)
        *out_state = FAILED;
    if (*out_state != WORKING || saver->given_step >= 0 ||
        qvl_clock_s() < saver->begun_s + saver->n_failed)
        return QVL_OK;
    return begin(saver, is_full, err);
}

/* The others would give up if rank 0 just waited for a slow disk, so all look together. */
qvl_status qvl_saver_finish(qvl_saver *saver, qvl_run *run, bool is_to_go_on, qvl_err *err)
{
    int64_t state = WORKING;
    qvl_status rc = QVL_OK;
    const bool is_full = is_to_go_on || !run->config->save_only_model;
    qvl_world_set_phase(run->world, "saving the last checkpoint");
    if (saver)
        saver->n_failed = 0;
    while (state == WORKING) {
        if (saver)
            rc = look(saver, is_full, &state, err);
        if (rc != QVL_OK) /* the device is lost: no attempt will do better */
            state = FAILED;
        QVL_TRY(qvl_world_max_i64(run->world, &state, 1, err));
    }
    if (state == FAILED && saver && rc == QVL_OK)
        rc = qvl_fail(err, QVL_EIO, "the last checkpoint (step %" PRId64 ") was not saved: %s",
                      run->state.step, saver->last.text);
    rc = qvl_world_agree(run->world, rc, err);
out:
    return rc;
}
