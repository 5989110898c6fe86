/* What a run leaves in output_dir when it is done. */
#include <inttypes.h>
#include <string.h>

#include "io/json_file.h"
#include "src/model/lora_files.h"
#include "src/train/output_dir.h"
#include "src/train/run.h"

qvl_status qvl_run_save_results(qvl_run *run, qvl_err *err)
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
        .steps = run->state.step};
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_run_download_state(run, err));
    QVL_TRY(qvl_lora_save(run->lora, run->state.param, c->output_dir,
                          qvl_adapter_layout_named(c->adapter_layout), c->model_name_or_path, err));
    QVL_TRY(qvl_output_dir_copy_tokenizer(c->output_dir, run->model.directory, run->log, err));
    QVL_TRY(qvl_run_log_finish(run->run_log, &metrics, err));
    if (run->run_log->n_late)
        qvl_log_warn(run->log,
                     "%" PRId64 " lines of the log could not be written when they came; all are in "
                     "it now",
                     run->run_log->n_late);
    if (c->plot_loss)
        QVL_TRY(qvl_run_log_plot(run->run_log, err));
    QVL_TRY(qvl_run_log_save_state(run->run_log, c->output_dir, run->state.step, run->state.epoch,
                                   err));
    qvl_log_line(run->log, "train loss %.4f over %" PRId64 " steps; the adapter is in %s",
                 metrics.train_loss, run->state.step, c->output_dir);
out:
    return rc;
}

bool qvl_run_has_results(const qvl_run *run)
{
    char path[QVL_PATH_BYTES];
    const char *directory = run->config->output_dir;
    json_t *state = NULL;
    int64_t step = -1;
    if (qvl_path_join(path, directory, QVL_ADAPTER_TENSORS, NULL) != QVL_OK ||
        !qvl_file_is_regular(path) ||
        qvl_path_join(path, directory, QVL_RUN_STATE_FILE, NULL) != QVL_OK ||
        qvl_json_read(&state, path, (size_t)1 << 30, NULL) != QVL_OK)
        return false;
    qvl_json_get_i64(&step, state, "global_step", 0, INT64_MAX, path, NULL);
    json_decref(state);
    return step == run->state.step;
}
