#include "src/train/run_log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/json_file.h"
#include "io/loss_plot.h"
#include "src/base/clock.h"
#include "src/base/files.h"
#include "src/base/memory.h"

qvl_status qvl_run_log_create(qvl_run_log **out, const char *output_dir, const qvl_config *config,
                              int64_t total_steps, qvl_err *err)
{
    qvl_run_log *log = NULL;
    qvl_status rc = qvl_alloc(&log, 1, sizeof *log, "log", err);
    if (rc != QVL_OK)
        return rc;
    *log = (qvl_run_log){.output_dir = output_dir,
                         .config = config,
                         .history = json_array(),
                         .total_steps = total_steps,
                         .started_s = qvl_clock_s()};
    *out = log;
    return QVL_OK;
}

void qvl_run_log_destroy(qvl_run_log *log)
{
    if (!log)
        return;
    json_decref(log->history);
    qvl_text_fini(&log->pending);
    qvl_event_log_destroy(log->events);
    free(log);
}

double qvl_run_log_elapsed(const qvl_run_log *log)
{
    return log->elapsed_before_s + qvl_clock_s() - log->started_s;
}

/* The file has these bytes of the pending lines, and keeps them. */
static void drop_written(qvl_run_log *log, off_t n)
{
    qvl_text *pending = &log->pending;
    if (n <= 0 || (size_t)n > pending->len)
        return;
    pending->len -= (size_t)n;
    memmove(pending->data, pending->data + n, pending->len + 1);
}

/* All pending lines in one write. What a full disk took of them is cut off again. */
static qvl_status write_pending(qvl_run_log *log, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    qvl_status rc = qvl_path_join(path, log->output_dir, QVL_RUN_LOG_FILE, err);
    if (rc != QVL_OK)
        return rc;
    /* O_NONBLOCK: a pipe that has the name would be waited for */
    const int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC, 0666);
    if (fd < 0)
        return qvl_fail_errno(err, errno, 1, "%s", path);
    const off_t before = lseek(fd, 0, SEEK_END);
    rc = qvl_file_write_fd(fd, log->pending.data, log->pending.len, path, err);
    if (rc != QVL_OK && before >= 0 && ftruncate(fd, before) != 0)
        drop_written(log, lseek(fd, 0, SEEK_END) - before);
    if (close(fd) != 0 && rc == QVL_OK)
        rc = qvl_fail_errno(err, errno, 1, "%s", path);
    if (rc == QVL_OK)
        qvl_text_clear(&log->pending);
    return rc;
}

static qvl_status append_line(qvl_run_log *log, const qvl_text *line, qvl_err *err)
{
    const qvl_status rc = qvl_text_add(&log->pending, line->data, line->len, err);
    return rc == QVL_OK ? write_pending(log, err) : rc;
}

/* A failure to write is worth a word when it begins and now and then: the line is kept. */
static qvl_status be_late(qvl_run_log *log, qvl_status rc, qvl_err *err)
{
    enum { EVERY = 100 };
    if (rc == QVL_OK)
        log->n_in_row = 0;
    if (rc != QVL_EIO)
        return rc;
    log->n_late++;
    log->n_in_row++;
    if (log->n_in_row == 1 || log->n_in_row % EVERY == 0) {
        qvl_err told = {QVL_OK, ""};
        qvl_fail(&told, QVL_EIO, "%.1400s (%" PRId64 " line%s in a row)", err ? err->text : "",
                 log->n_in_row, log->n_in_row > 1 ? "s" : "");
        if (err)
            *err = told;
        return QVL_EIO;
    }
    qvl_err_clear(err);
    return QVL_OK;
}

/* ---- include_num_input_tokens_seen ------------------------------------------------------------
 */

static bool counts_tokens(const qvl_run_log *log)
{
    return strcmp(log->config->include_num_input_tokens_seen, "no") != 0;
}

/* As transformers: in every entry, and in the results. */
static void add_tokens(const qvl_run_log *log, json_t *entry)
{
    if (counts_tokens(log))
        json_object_set_new(entry, "num_input_tokens_seen", json_integer(log->total_tokens));
}

/* As LLaMA-Factory: at the end of its keys. */
static qvl_status print_tokens(const qvl_run_log *log, qvl_text *line, qvl_err *err)
{
    char number[40];
    const double seconds = qvl_run_log_elapsed(log);
    if (!counts_tokens(log) || log->total_tokens == 0)
        return QVL_OK;
    return qvl_text_printf(line, err, ", \"throughput\": %s, \"total_tokens\": %" PRId64,
                           qvl_format_double(number, round(100.0 * (double)log->total_tokens /
                                                           (seconds > 0 ? seconds : 1e-9)) /
                                                         100.0),
                           log->total_tokens);
}

/* ---- events ------------------------------------------------------------------------------------
 */

/* The keys and their order are LLaMA-Factory's; grad_norm and tokens_per_second follow them. */
static qvl_status write_line(qvl_run_log *log, const qvl_log_event *event, const char *loss_key,
                             double loss, bool is_training, qvl_err *err)
{
    char number[40], elapsed[48], remaining[48];
    const double done_s = qvl_run_log_elapsed(log);
    const double here_s = qvl_clock_s() - log->started_s;
    const int64_t here = event->step - event->first_step;
    const double left_s =
        here > 0 ? here_s / (double)here * (double)(log->total_steps - event->step) : 0.0;
    qvl_text line = {0};
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_text_printf(
        &line, err, "{\"current_steps\": %" PRId64 ", \"total_steps\": %" PRId64 ", \"%s\": %s",
        event->step, log->total_steps, loss_key, qvl_format_double(number, loss)));
    if (is_training)
        QVL_TRY(qvl_text_printf(&line, err, ", \"lr\": %s",
                                qvl_format_double(number, event->learning_rate)));
    QVL_TRY(
        qvl_text_printf(&line, err, ", \"epoch\": %s", qvl_format_double(number, event->epoch)));
    QVL_TRY(qvl_text_printf(
        &line, err, ", \"percentage\": %s, \"elapsed_time\": \"%s\", \"remaining_time\": \"%s\"",
        qvl_format_double(number,
                          round(1e4 * (double)event->step / (double)log->total_steps) / 100),
        qvl_format_duration(elapsed, done_s), qvl_format_duration(remaining, left_s)));
    QVL_TRY(print_tokens(log, &line, err));
    if (is_training) {
        QVL_TRY(qvl_text_printf(&line, err, ", \"grad_norm\": %s",
                                qvl_format_double(number, event->grad_norm)));
        QVL_TRY(
            qvl_text_printf(&line, err, ", \"tokens_per_second\": %s",
                            qvl_format_double(number, round(event->tokens_per_second * 10) / 10)));
    }
    QVL_TRY(qvl_text_puts(&line, "}\n", err));
    QVL_TRY(be_late(log, append_line(log, &line, err), err));
out:
    qvl_text_fini(&line);
    return rc;
}

static qvl_status add_entry(qvl_run_log *log, json_t *entry, qvl_err *err)
{
    add_tokens(log, entry);
    if (!entry || json_array_append_new(log->history, entry) != 0)
        return qvl_fail(err, QVL_EINTERNAL, "log entry could not be kept");
    qvl_event_log_add(log->events, entry);
    return QVL_OK;
}

qvl_status qvl_run_log_train(qvl_run_log *log, const qvl_log_event *event, qvl_err *err)
{
    json_t *entry = json_pack("{s:o,s:o,s:o,s:o,s:I}", "loss", qvl_json_real(event->loss),
                              "grad_norm", qvl_json_real(event->grad_norm), "learning_rate",
                              qvl_json_real(event->learning_rate), "epoch",
                              qvl_json_real(event->epoch), "step", (json_int_t)event->step);
    const qvl_status rc = add_entry(log, entry, err);
    return rc == QVL_OK ? write_line(log, event, "loss", event->loss, true, err) : rc;
}

qvl_status qvl_run_log_eval(qvl_run_log *log, const qvl_log_event *event, double eval_loss,
                            double runtime_s, int64_t n_samples, int64_t n_steps, qvl_err *err)
{
    const double seconds = runtime_s > 0 ? runtime_s : 1e-9;
    json_t *entry = json_pack(
        "{s:o,s:o,s:o,s:o,s:o,s:I}", "eval_loss", qvl_json_real(eval_loss), "eval_runtime",
        qvl_json_real(round(seconds * 1e4) / 1e4), "eval_samples_per_second",
        qvl_json_real(round((double)n_samples / seconds * 1e3) / 1e3), "eval_steps_per_second",
        qvl_json_real(round((double)n_steps / seconds * 1e3) / 1e3), "epoch",
        qvl_json_real(event->epoch), "step", (json_int_t)event->step);
    const qvl_status rc = add_entry(log, entry, err);
    return rc == QVL_OK ? write_line(log, event, "eval_loss", eval_loss, false, err) : rc;
}

/* The newest evaluation after this step, borrowed; NULL: there is none. */
static json_t *find_eval(const qvl_run_log *log, int64_t step)
{
    for (size_t i = json_array_size(log->history); i-- > 0;) {
        json_t *entry = json_array_get(log->history, i);
        if (json_object_get(entry, "eval_loss") &&
            json_integer_value(json_object_get(entry, "step")) == step)
            return entry;
    }
    return NULL;
}

bool qvl_run_log_has_eval(const qvl_run_log *log, int64_t step)
{
    return find_eval(log, step) != NULL;
}

/* ---- trainer_state.json ------------------------------------------------------------------------
 */

/* Steps as transformers keeps them: below 1 a share of all steps, rounded up. */
static json_int_t steps_of(const qvl_run_log *log, double given)
{
    return (json_int_t)(given < 1.0 ? ceil(given * (double)log->total_steps) : given);
}

static json_t *state_json(const qvl_run_log *log, int64_t step, double epoch)
{
    const qvl_config *c = log->config;
    json_t *control =
        json_pack("{s:{s:{s:b,s:b,s:b,s:b,s:b},s:{}}}", "TrainerControl", "args",
                  "should_epoch_stop", 0, "should_evaluate", 0, "should_log", 0, "should_save", 1,
                  "should_training_stop", step >= log->total_steps, "attributes");
    json_t *state = json_pack(
        "{s:n,s:n,s:n,s:o,s:I,s:I,s:b,s:b,s:b,s:O,s:I,s:I,s:I,s:I,s:I,s:o,s:f,s:I,s:n,s:n}",
        "best_global_step", "best_metric", "best_model_checkpoint", "epoch", qvl_json_real(epoch),
        "eval_steps", steps_of(log, c->eval_steps > 0 ? c->eval_steps : c->logging_steps),
        "global_step", (json_int_t)step, "is_hyper_param_search", 0, "is_local_process_zero", 1,
        "is_world_process_zero", 1, "log_history", log->history, "logging_steps",
        steps_of(log, c->logging_steps), "max_steps", (json_int_t)log->total_steps,
        "num_input_tokens_seen", (json_int_t)(counts_tokens(log) ? log->total_tokens : 0),
        "num_train_epochs", (json_int_t)ceil(c->num_train_epochs), "save_steps",
        steps_of(log, c->save_steps), "stateful_callbacks", control, "total_flos", log->total_flos,
        "train_batch_size", (json_int_t)c->per_device_train_batch_size, "trial_name",
        "trial_params");
    if (state)
        json_object_set_new(state, "qvl_elapsed_s", qvl_json_real(qvl_run_log_elapsed(log)));
    return state;
}

static qvl_status format_json(qvl_text *out, const char *name, const json_t *value, int indent,
                              qvl_err *err)
{
    qvl_status rc = value ? QVL_OK : qvl_fail(err, QVL_EINTERNAL, "%s could not be made", name);
    qvl_text_clear(out);
    if (rc == QVL_OK)
        rc = qvl_json_dump_indented(out, value, indent, err);
    return rc == QVL_OK ? qvl_text_puts(out, "\n", err) : rc;
}

static qvl_status write_json(const char *directory, const char *name, const json_t *value,
                             int indent, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    qvl_text text = {0};
    qvl_status rc = format_json(&text, name, value, indent, err);
    if (rc == QVL_OK)
        rc = qvl_path_join(path, directory, name, err);
    if (rc == QVL_OK)
        rc = qvl_file_replace(path, text.data, text.len, err);
    qvl_text_fini(&text);
    return rc;
}

qvl_status qvl_run_log_format_state(const qvl_run_log *log, qvl_text *out, int64_t step,
                                    double epoch, qvl_err *err)
{
    json_t *state = state_json(log, step, epoch);
    const qvl_status rc = format_json(out, QVL_RUN_STATE_FILE, state, 2, err);
    json_decref(state);
    return rc;
}

qvl_status qvl_run_log_save_state(const qvl_run_log *log, const char *directory, int64_t step,
                                  double epoch, qvl_err *err)
{
    json_t *state = state_json(log, step, epoch);
    const qvl_status rc = write_json(directory, QVL_RUN_STATE_FILE, state, 2, err);
    json_decref(state);
    return rc;
}

/* ---- the end -----------------------------------------------------------------------------------
 */

qvl_status qvl_run_log_finish(qvl_run_log *log, const qvl_final_metrics *m, qvl_err *err)
{
    const double seconds = m->runtime_s > 0 ? m->runtime_s : 1e-9;
    qvl_text line = {0};
    char number[40], elapsed[48];
    json_t *results = json_pack(
        "{s:o,s:o,s:o,s:o,s:o,s:o}", "epoch", qvl_json_real(m->epoch), "total_flos",
        qvl_json_real(m->total_flos), "train_loss", qvl_json_real(m->train_loss), "train_runtime",
        qvl_json_real(round(seconds * 1e4) / 1e4), "train_samples_per_second",
        qvl_json_real(round(m->samples / seconds * 1e3) / 1e3), "train_steps_per_second",
        qvl_json_real(round((double)m->steps / seconds * 1e3) / 1e3));
    json_t *all, *entry, *evaluation = json_copy(find_eval(log, m->steps));
    add_tokens(log, results);
    all = json_copy(results);
    entry = json_copy(results);
    qvl_status rc = write_json(log->output_dir, "train_results.json", results, 4, err);
    QVL_TRY(rc);
    if (evaluation) {
        json_object_del(evaluation, "step");
        QVL_TRY(write_json(log->output_dir, "eval_results.json", evaluation, 4, err));
        json_object_update(all, evaluation);
    }
    QVL_TRY(write_json(log->output_dir, "all_results.json", all, 4, err));
    json_object_set_new(entry, "step", json_integer(m->steps));
    QVL_TRY(add_entry(log, json_incref(entry), err));
    QVL_TRY(qvl_text_printf(&line, err,
                            "{\"current_steps\": %" PRId64 ", \"total_steps\": %" PRId64
                            ", \"epoch\": %s, \"percentage\": 100.0, \"elapsed_time\": \"%s\", "
                            "\"remaining_time\": \"0:00:00\"",
                            m->steps, log->total_steps, qvl_format_double(number, m->epoch),
                            qvl_format_duration(elapsed, qvl_run_log_elapsed(log))));
    QVL_TRY(print_tokens(log, &line, err));
    QVL_TRY(qvl_text_puts(&line, "}\n", err));
    QVL_TRY(append_line(log, &line, err));
out:
    qvl_text_fini(&line);
    json_decref(results);
    json_decref(all);
    json_decref(entry);
    json_decref(evaluation);
    return rc;
}

static qvl_status plot_key(const qvl_run_log *log, const char *key, const char *file,
                           const char *y_label, qvl_err *err)
{
    const size_t n = json_array_size(log->history);
    double *steps = NULL, *values = NULL;
    char path[QVL_PATH_BYTES], title[QVL_PATH_BYTES];
    json_t *entry;
    size_t i, count = 0;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_alloc(&steps, n, sizeof *steps, "plot", err));
    QVL_TRY(qvl_alloc(&values, n, sizeof *values, "plot", err));
    json_array_foreach(log->history, i, entry)
    {
        const json_t *value = json_object_get(entry, key);
        if (!json_is_number(value))
            continue;
        steps[count] = json_number_value(json_object_get(entry, "step"));
        values[count++] = json_number_value(value);
    }
    QVL_TRY(qvl_path_join(path, log->output_dir, file, err));
    snprintf(title, sizeof title, "training %s of %.3900s", key, log->output_dir);
    QVL_TRY(qvl_loss_plot(path, title, y_label, steps, values, count, err));
out:
    free(steps);
    free(values);
    return rc;
}

qvl_status qvl_run_log_plot(const qvl_run_log *log, qvl_err *err)
{
    const qvl_status rc = plot_key(log, "loss", "training_loss.png", "loss", err);
    return rc == QVL_OK ? plot_key(log, "eval_loss", "training_eval_loss.png", "eval_loss", err)
                        : rc;
}
