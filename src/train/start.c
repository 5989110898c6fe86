/* Where a run starts: output_dir, and the checkpoint to go on from. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "src/base/clock.h"
#include "src/train/output_dir.h"
#include "src/train/run.h"

/* Rank 0 reads the checkpoint, the others receive it. */
qvl_status qvl_run_resume(qvl_run *run, const char *checkpoint, qvl_err *err)
{
    const size_t bytes = (size_t)qvl_lora_parameters(run->lora) * sizeof(float);
    qvl_train_state *state = &run->state;
    qvl_text other_order = {0};
    qvl_status rc = QVL_OK;
    if (qvl_world_rank(run->world) == 0) {
        rc = qvl_checkpoint_load(checkpoint, state, run->lora, run->run_log, &other_order, err);
        if (rc == QVL_OK)
            qvl_log_line(run->log, "going on from %s: step %" PRId64 " of %" PRId64, checkpoint,
                         state->step, qvl_sampler_steps(run->sampler));
        if (rc == QVL_OK && other_order.len)
            qvl_log_warn(
                run->log,
                "not as it was when the checkpoint was saved: %.700s; the run goes on, but "
                "not bit for bit as it would have",
                other_order.data);
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
    qvl_text_fini(&other_order);
    return rc;
}

qvl_status qvl_run_take_output(qvl_run *run, qvl_err *err)
{
    const char *directory = run->config->output_dir;
    struct stat st;
    if (run->lock >= 0 && fstat(run->lock, &st) == 0 && st.st_nlink == 0) {
        close(run->lock); /* somebody removed the directory: this lock keeps nobody out */
        run->lock = -1;
        run->has_output = false;
    }
    if (qvl_world_rank(run->world) != 0 || run->has_output)
        return QVL_OK;
    qvl_status rc = qvl_output_dir_make(run->first_made, directory, err);
    if (rc == QVL_OK) {
        run->has_output = true;
        rc = qvl_output_dir_lock(&run->lock, directory, run->log, err);
    }
    return rc;
}

void qvl_run_release_output(qvl_run *run)
{
    if (!run->has_output)
        return;
    qvl_output_dir_unlock(&run->lock, run->config->output_dir);
    if (run->first_made[0])
        qvl_directory_take_back(run->config->output_dir, run->first_made);
    run->has_output = false;
}

/* Takes output_dir and looks at what is in it. */
static qvl_status open_directory(qvl_run *run, char checkpoint[QVL_PATH_BYTES], uint64_t needed,
                                 qvl_err *err)
{
    qvl_status rc = qvl_run_take_output(run, err);
    if (rc == QVL_OK)
        rc = qvl_output_dir_open(checkpoint, run->config, needed, run->log, err);
    if (rc != QVL_OK)
        qvl_run_release_output(run);
    return rc;
}

/* The adapter; the same and two moments in a checkpoint; logs and plots. */
static uint64_t bytes_needed(const qvl_run *run)
{
    return 4 * sizeof(float) * (uint64_t)qvl_lora_parameters(run->lora) + (1 << 20);
}

/* The last checkpoint is worth the whole run: what would keep it from its place is known before. */
static qvl_status check_last(const qvl_run *run, const char *checkpoint, qvl_err *err)
{
    static const char *const SUFFIXES[] = {"", ".tmp"};
    const int64_t last = qvl_sampler_steps(run->sampler);
    const char *directory = run->config->output_dir;
    char path[QVL_PATH_BYTES];
    qvl_status rc = QVL_OK;
    if (!run->config->do_train || (strcmp(run->config->save_strategy, "no") == 0 && !checkpoint[0]))
        return QVL_OK;
    for (int i = 0; i < 2 && rc == QVL_OK; i++) {
        QVL_TRY(qvl_checkpoint_path(path, directory, last, SUFFIXES[i], err));
        if (qvl_file_exists(path) &&
            !(i ? qvl_checkpoint_is_leftover(path) : qvl_checkpoint_is_ours(directory, last)))
            rc = qvl_fail(err, QVL_ECONFIG,
                          "output_dir: %s is no checkpoint of qvl, and the last one of this run "
                          "would have its name; move it away, or give another output_dir",
                          path);
    }
out:
    return rc;
}

qvl_status qvl_run_check_output(qvl_run *run, qvl_err *err)
{
    qvl_event_log *events = NULL;
    if (qvl_world_rank(run->world) != 0)
        return QVL_OK;
    qvl_status rc = qvl_output_dir_check(run->config, bytes_needed(run), run->log, err);
    if (rc == QVL_OK)
        rc = check_last(run, "", err);
    if (rc == QVL_OK)
        rc = qvl_event_log_create(&events, run->config, run->log, err);
    qvl_event_log_destroy(events);
    return rc;
}

/* Directory, log and the checkpoint to go on from; before the weights are loaded, so that a
 * directory that cannot be written to is known at once. */
qvl_status qvl_run_open_output(qvl_run *run, char checkpoint[QVL_PATH_BYTES], qvl_err *err)
{
    qvl_status rc = QVL_OK;
    qvl_world_set_phase(run->world, "opening output_dir");
    if (qvl_world_rank(run->world) == 0) {
        rc = open_directory(run, checkpoint, bytes_needed(run), err);
        if (rc == QVL_OK)
            rc = check_last(run, checkpoint, err);
        if (rc == QVL_OK)
            rc = qvl_run_log_create(&run->run_log, run->config->output_dir, run->config,
                                    qvl_sampler_steps(run->sampler), err);
        if (rc == QVL_OK)
            rc = qvl_event_log_create(&run->run_log->events, run->config, run->log, err);
        if (rc == QVL_OK)
            rc = qvl_saver_create(&run->saver, run, err);
        qvl_time_limit_init(&run->limit, run->config->max_hours, run->timer.started_s,
                            getenv("SLURM_JOB_END_TIME"), qvl_clock_s(), (double)time(NULL),
                            run->log);
    }
    QVL_TRY(qvl_world_agree(run->world, rc, err));
    QVL_TRY(qvl_world_broadcast(run->world, checkpoint, QVL_PATH_BYTES, 0, err));
out:
    return rc;
}

/* As late as can be: a run whose weights, data or adapter turn out to be bad has removed nothing.
 */
qvl_status qvl_run_begin_output(qvl_run *run, const char *checkpoint, qvl_err *err)
{
    return qvl_world_agree(run->world,
                           qvl_world_rank(run->world) == 0
                               ? qvl_output_dir_begin(run->config, checkpoint[0] != '\0', err)
                               : QVL_OK,
                           err);
}
