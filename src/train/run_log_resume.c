/* Going on with the log of an earlier process. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "io/json_file.h"
#include "src/base/files.h"
#include "src/train/run_log.h"

/* Lines of steps that the checkpoint does not have belong to what is done again. */
static qvl_status cut_log(const qvl_run_log *log, int64_t step, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    qvl_text old = {0}, kept = {0};
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_path_join(path, log->output_dir, QVL_RUN_LOG_FILE, err));
    if (!qvl_file_exists(path))
        return QVL_OK;
    QVL_TRY(qvl_file_read(&old, path, (size_t)1 << 30, err));
    QVL_TRY(qvl_text_puts(&kept, "", err));
    for (char *line = old.data; *line;) {
        const size_t n = strcspn(line, "\n");
        const bool is_whole = line[n] == '\n';
        int64_t current = 0;
        line[n] = '\0'; /* sscanf looks for the end of its text */
        /* The last line of a run has no loss: it comes again when the run ends again. */
        if (is_whole && sscanf(line, "{\"current_steps\": %" SCNd64, &current) == 1 &&
            current <= step && strstr(line, "loss\": ")) {
            line[n] = '\n';
            QVL_TRY(qvl_text_add(&kept, line, n + 1, err));
        }
        line += n + is_whole;
    }
    QVL_TRY(qvl_file_replace(path, kept.data, kept.len, err));
out:
    qvl_text_fini(&old);
    qvl_text_fini(&kept);
    return rc;
}

qvl_status qvl_run_log_load_state(qvl_run_log *log, const char *directory, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    json_t *state = NULL;
    int64_t step = 0;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_path_join(path, directory, QVL_RUN_STATE_FILE, err));
    QVL_TRY(qvl_json_read(&state, path, (size_t)1 << 30, err));
    QVL_TRY(qvl_json_get_double(&log->elapsed_before_s, state, "qvl_elapsed_s", path, err));
    QVL_TRY(qvl_json_get_i64(&step, state, "global_step", 0, INT64_MAX, path, err));
    json_t *history = json_object_get(state, "log_history");
    if (!json_is_array(history)) {
        rc = qvl_fail(err, QVL_EDATA, "%s: log_history is not a list", path);
        goto out;
    }
    json_decref(log->history);
    log->history = json_incref(history);
    QVL_TRY(cut_log(log, step, err));
out:
    json_decref(state);
    return rc;
}
