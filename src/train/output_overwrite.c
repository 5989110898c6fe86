#include "src/train/output_overwrite.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/train/checkpoint.h"
#include "src/train/output_files.h"

/* ---- the same run? -----------------------------------------------------------------------------
 */

/* They change where and when something is written, not what is learned. */
static const char *const FREE_KEYS[] = {"cache_dir",
                                        "output_dir",
                                        "overwrite_output_dir",
                                        "overwrite_cache",
                                        "logging_strategy",
                                        "logging_steps",
                                        "logging_first_step",
                                        "include_num_input_tokens_seen",
                                        "logging_dir",
                                        "report_to",
                                        "save_strategy",
                                        "save_steps",
                                        "plot_loss",
                                        "save_total_limit",
                                        "resume_from_checkpoint",
                                        "save_only_model",
                                        "ddp_timeout",
                                        "peer_timeout",
                                        "max_hours",
                                        "strict_paths",
                                        "vision_cache",
                                        "share_gpu",
                                        "activation_offloading"};

static bool is_free(const char *line, size_t n)
{
    for (size_t i = 0; i < sizeof FREE_KEYS / sizeof *FREE_KEYS; i++) {
        const size_t length = strlen(FREE_KEYS[i]);
        if (n > length && memcmp(line, FREE_KEYS[i], length) == 0 && line[length] == ':')
            return true;
    }
    return false;
}

/* The next line of text that counts, without its end; NULL after the last. */
static const char *next_line(const char **at, size_t *n)
{
    while (**at) {
        const char *line = *at;
        *n = strcspn(line, "\n");
        *at = line + *n + (line[*n] == '\n');
        if (*n && *line != '#' && !is_free(line, *n))
            return line;
    }
    return NULL;
}

/* Two configurations as qvl_config_format writes them, a key a line. *differs: the first key that
 * does, "" for none. */
static void compare(char differs[64], const char *ours, const char *theirs)
{
    size_t n = 0, other_n = 0;
    const char *line, *other;
    differs[0] = '\0';
    do {
        line = next_line(&ours, &n);
        other = next_line(&theirs, &other_n);
        if (line && other && n == other_n && memcmp(line, other, n) == 0)
            continue;
        if (line || other)
            snprintf(differs, 64, "%.*s", (int)strcspn(line ? line : other, ":\n"),
                     line ? line : other);
        return;
    } while (line);
}

/* Whether the directory holds this run, not come to its end: its results are not there,
 * trainer_state.json being the last of them. why: what says that it does not. */
static qvl_status is_same_unfinished(bool *out, char why[128], const qvl_config *config,
                                     qvl_err *err)
{
    char path[QVL_PATH_BYTES], differs[64];
    qvl_text ours = {0}, theirs = {0};
    qvl_status rc = QVL_OK;
    *out = false;
    snprintf(why, 128, "has come to its end");
    QVL_TRY(qvl_path_join(path, config->output_dir, QVL_RUN_STATE_FILE, err));
    if (qvl_file_exists(path))
        goto out;
    snprintf(why, 128, "left no %s", QVL_CONFIG_FILE);
    QVL_TRY(qvl_path_join(path, config->output_dir, QVL_CONFIG_FILE, err));
    if (!qvl_file_is_regular(path))
        goto out;
    QVL_TRY(qvl_config_format(&ours, config, err));
    QVL_TRY(qvl_file_read(&theirs, path, (size_t)1 << 20, err));
    compare(differs, ours.data, theirs.data);
    *out = !differs[0];
    snprintf(why, 128, "has another %s", differs);
out:
    qvl_text_fini(&ours);
    qvl_text_fini(&theirs);
    return rc;
}

/* ---- what must not go --------------------------------------------------------------------------
 */

static qvl_status check_adapter(const qvl_config *config, qvl_err *err)
{
    const char *adapter = config->adapter_name_or_path;
    char directory[PATH_MAX], start[PATH_MAX];
    if (!adapter || !adapter[0] || !realpath(config->output_dir, directory) ||
        !realpath(adapter, start))
        return QVL_OK;
    const size_t n = strlen(directory);
    if (strncmp(start, directory, n) != 0 || (start[n] != '\0' && start[n] != '/'))
        return QVL_OK;
    return qvl_fail(err, QVL_ECONFIG,
                    "adapter_name_or_path: %s lies in output_dir %s, whose contents "
                    "overwrite_output_dir: true removes; nothing was removed: give another "
                    "output_dir",
                    adapter, config->output_dir);
}

/* Every checkpoint of ours has a manifest. */
static qvl_status check_checkpoints(size_t *count, const char *directory, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    int64_t *steps = NULL;
    qvl_status rc = qvl_checkpoint_list(&steps, count, directory, err);
    for (size_t i = 0; i < *count && rc == QVL_OK; i++) {
        QVL_TRY(qvl_checkpoint_path(path, directory, steps[i], "", err));
        if (!qvl_checkpoint_is_ours(directory, steps[i]))
            rc = qvl_fail(err, QVL_ECONFIG,
                          "overwrite_output_dir: %s has no manifest.json of qvl's, so it is no "
                          "checkpoint of qvl; nothing was removed: move it away, or give another "
                          "output_dir",
                          path);
    }
out:
    free(steps);
    return rc;
}

qvl_status qvl_output_dir_overwrite(char resume[QVL_PATH_BYTES], const qvl_config *config,
                                    qvl_log *log, qvl_err *err)
{
    const char *directory = config->output_dir;
    char why[128] = "shall not go on", events[QVL_PATH_BYTES];
    bool is_same = false;
    size_t count = 0;
    qvl_status rc = QVL_OK;
    if (!config->resume_from_checkpoint || strcmp(config->resume_from_checkpoint, "false") != 0)
        QVL_TRY(is_same_unfinished(&is_same, why, config, err));
    if (is_same)
        QVL_TRY(qvl_checkpoint_find(resume, directory, log, err));
    if (resume[0]) {
        qvl_log_line(
            log,
            "%s holds this very run, not finished: it goes on, although overwrite_output_dir is "
            "true (resume_from_checkpoint: false starts anew)",
            directory);
        goto out;
    }
    QVL_TRY(check_adapter(config, err));
    QVL_TRY(check_checkpoints(&count, directory, err));
    if (count)
        qvl_log_warn(log,
                     "overwrite_output_dir: %zu checkpoint%s and the results in %s are removed "
                     "before the first step: the run that is there %s",
                     count, count == 1 ? "" : "s", directory, is_same ? "cannot go on" : why);
    QVL_TRY(qvl_path_join(events, directory, "runs", err));
    if (qvl_file_is_directory(events))
        qvl_log_line(log, "overwrite_output_dir: %s, event files of earlier runs, stays", events);
out:
    return rc;
}
