#include "src/train/event_log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "io/event_file.h"
#include "src/base/memory.h"

enum { HOST_BYTES = 256, TAG_BYTES = 64, MOST_SCALARS = 16 };

struct qvl_event_log {
    const char *output_dir; /* borrowed */
    qvl_log *log;           /* borrowed */
    char directory[QVL_PATH_BYTES];
    qvl_event_file file;
    int64_t n_added;
    int64_t n_late;   /* records that could not be written when they came */
    int64_t n_in_row; /* of them, since the last that could */
};

/* Whether one of the words of "a,b" is it. */
static bool has_word(const char *words, const char *word)
{
    const size_t length = strlen(word);
    for (const char *at = words; at && *at;) {
        const size_t n = strcspn(at, ",");
        if (n == length && memcmp(at, word, n) == 0)
            return true;
        at += n + (at[n] == ',');
    }
    return false;
}

static double wall_time_s(void)
{
    struct timespec now = {0};
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* As transformers names them: "runs/Aug25_18-43-14_HOST" by local time, and in it a file by whose
 * name TensorBoard orders those of one directory. */
static qvl_status name_file(qvl_event_log *events, const qvl_config *config, qvl_err *err)
{
    const double now = wall_time_s();
    const time_t seconds = (time_t)now;
    char host[HOST_BYTES] = "", stamp[32] = "", name[HOST_BYTES + 80], path[QVL_PATH_BYTES];
    struct tm local = {0};
    qvl_status rc = QVL_OK;
    if (gethostname(host, sizeof host - 1) != 0 || !host[0])
        snprintf(host, sizeof host, "localhost");
    localtime_r(&seconds, &local);
    strftime(stamp, sizeof stamp, "%b%d_%H-%M-%S", &local); /* no locale is set */
    snprintf(name, sizeof name, "runs/%s_%s", stamp, host);
    if (config->logging_dir && config->logging_dir[0])
        QVL_TRY(qvl_path_join(events->directory, "", config->logging_dir, err));
    else
        QVL_TRY(qvl_path_join(events->directory, config->output_dir, name, err));
    for (int i = 0; i == 0 || qvl_file_exists(path); i++) {
        snprintf(name, sizeof name, "events.out.tfevents.%010" PRId64 ".%s.%ld.%d",
                 (int64_t)seconds, host, (long)getpid(), i);
        QVL_TRY(qvl_path_join(path, events->directory, name, err));
    }
    QVL_TRY(qvl_event_file_init(&events->file, path, now, err));
out:
    return rc;
}

/* A directory that can never be had is known at once; nothing of it stays. */
static qvl_status try_directory(const char *directory, qvl_err *err)
{
    char first[QVL_PATH_BYTES];
    qvl_status rc = qvl_directory_create_from(first, directory, err);
    if (rc == QVL_OK && access(directory, W_OK | X_OK) != 0)
        rc = qvl_fail(err, QVL_EIO, "logging_dir: %s cannot be written to", directory);
    if (first[0])
        qvl_directory_take_back(directory, first);
    return rc;
}

qvl_status qvl_event_log_create(qvl_event_log **out, const qvl_config *config, qvl_log *log,
                                qvl_err *err)
{
    qvl_event_log *events = NULL;
    qvl_status rc = QVL_OK;
    *out = NULL;
    if (!has_word(config->report_to, "tensorboard") && !has_word(config->report_to, "all"))
        return QVL_OK;
    QVL_TRY(qvl_alloc(&events, 1, sizeof *events, "event log", err));
    *events = (qvl_event_log){.output_dir = config->output_dir, .log = log};
    QVL_TRY(name_file(events, config, err));
    QVL_TRY(try_directory(events->directory, err));
    *out = events;
    events = NULL;
out:
    qvl_event_log_destroy(events);
    return rc;
}

/* Writes what waits. Where output_dir has been taken away it is not made anew: whoever did it may
 * bring it back. */
static qvl_status write_events(qvl_event_log *events, qvl_err *err)
{
    if (!qvl_file_is_directory(events->output_dir))
        return qvl_fail(err, QVL_EIO, "%s is not there", events->output_dir);
    const qvl_status rc = qvl_directory_create(events->directory, err);
    return rc == QVL_OK ? qvl_event_file_write(&events->file, err) : rc;
}

/* A failure to write is worth a word when it begins and now and then. */
static void be_late(qvl_event_log *events, const qvl_err *err)
{
    enum { EVERY = 100 };
    events->n_late++;
    events->n_in_row++;
    if (events->n_in_row == 1 || events->n_in_row % EVERY == 0)
        qvl_log_warn(events->log,
                     "events for TensorBoard could not be written, they are kept: %.1400s (%" PRId64
                     " in a row)",
                     err->text, events->n_in_row);
}

void qvl_event_log_destroy(qvl_event_log *events)
{
    qvl_err err = {QVL_OK, ""};
    if (!events)
        return;
    if (events->file.n_pending && write_events(events, &err) != QVL_OK)
        qvl_log_warn(events->log, "%" PRId64 " events for TensorBoard are lost: %.1400s",
                     events->file.n_pending, err.text);
    else if (events->n_late)
        qvl_log_warn(events->log,
                     "%" PRId64 " events for TensorBoard could not be written when they came; all "
                     "are in %.1400s now",
                     events->n_late, events->file.path);
    qvl_event_file_fini(&events->file);
    free(events);
}

/* The tag of a key: transformers' rewrite_logs. */
static void format_tag(char tag[TAG_BYTES], const char *key)
{
    const bool is_eval = strncmp(key, "eval_", 5) == 0;
    snprintf(tag, TAG_BYTES, "%s%s", is_eval ? "eval/" : "train/", is_eval ? key + 5 : key);
}

/* The numbers of an entry; returns how many. */
static size_t gather(qvl_event_scalar *scalars, char (*tags)[TAG_BYTES], const json_t *entry)
{
    json_t *values = (json_t *)(uintptr_t)entry, *value; /* jansson's loops are not const */
    const char *key;
    size_t n = 0;
    json_object_foreach(values, key, value)
    {
        if (!json_is_number(value) || strcmp(key, "step") == 0 || n == MOST_SCALARS)
            continue;
        format_tag(tags[n], key);
        scalars[n] = (qvl_event_scalar){.tag = tags[n], .value = json_number_value(value)};
        n++;
    }
    return n;
}

void qvl_event_log_add(qvl_event_log *events, const json_t *entry)
{
    char tags[MOST_SCALARS][TAG_BYTES];
    qvl_event_scalar scalars[MOST_SCALARS];
    qvl_err err = {QVL_OK, ""};
    if (!events)
        return;
    if (events->n_added++ == 0)
        qvl_log_line(events->log, "events for TensorBoard go to %s", events->directory);
    const size_t n = gather(scalars, tags, entry);
    const int64_t step = json_integer_value(json_object_get(entry, "step"));
    qvl_status rc = qvl_event_file_add(&events->file, wall_time_s(), step, scalars, n, &err);
    if (rc == QVL_OK)
        rc = write_events(events, &err);
    if (rc != QVL_OK)
        be_late(events, &err);
    else
        events->n_in_row = 0;
}
