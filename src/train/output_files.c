#include "src/train/output_files.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/adapter.h"
#include "src/train/checkpoint.h"

/* ---- which they are ----------------------------------------------------------------------------
 */

/* What only a run that came to its end leaves; and what else it leaves. A log alone is of a run
 * that was killed before its first checkpoint, which the same command shall be able to start again.
 */
static const char *const RESULTS[] = {QVL_ADAPTER_TENSORS, QVL_RUN_STATE_FILE, "train_results.json",
                                      "eval_results.json", "all_results.json"};
static const char *const TRACES[] = {QVL_RUN_LOG_FILE, "training_loss.png",
                                     "training_eval_loss.png"};
static const char *const OTHERS[] = {QVL_CONFIG_FILE, QVL_ADAPTER_CONFIG};
static const char *const TOKENIZER[] = {"tokenizer.json",
                                        "tokenizer_config.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "chat_template.json",
                                        "chat_template.jinja",
                                        "preprocessor_config.json",
                                        "processor_config.json",
                                        "video_preprocessor_config.json"};

#define COUNT(list) (sizeof(list) / sizeof *(list))

enum { N_FILES = COUNT(RESULTS) + COUNT(TRACES) + COUNT(OTHERS) + COUNT(TOKENIZER) };

/* The name of file i of all N_FILES. */
static const char *name_of(size_t i)
{
    const struct {
        const char *const *names;
        size_t count;
    } lists[] = {{OTHERS, COUNT(OTHERS)},
                 {RESULTS, COUNT(RESULTS)},
                 {TRACES, COUNT(TRACES)},
                 {TOKENIZER, COUNT(TOKENIZER)}};
    size_t l = 0;
    for (; i >= lists[l].count; l++)
        i -= lists[l].count;
    return lists[l].names[i];
}

static bool is_one_of(const char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

bool qvl_output_file_is_leftover(const char *name)
{
    const size_t n = strlen(name);
    size_t digits = 0;
    if (n < 4 || strcmp(name + n - 4, ".tmp") != 0)
        return false;
    while (digits < n - 4 && name[n - 5 - digits] >= '0' && name[n - 5 - digits] <= '9')
        digits++;
    return strcmp(name, ".qvl_write_test.tmp") == 0 ||
           (digits > 0 && digits < n - 5 && name[n - 5 - digits] == '.');
}

/* A name of output_dir that a run makes or removes. */
static bool is_taken(const char *name)
{
    static const char *const MORE[] = {".qvl_lock", "save"};
    bool is_name = is_one_of(MORE, COUNT(MORE), name) || qvl_output_file_is_leftover(name) ||
                   qvl_checkpoint_is_name(name);
    for (size_t i = 0; i < N_FILES && !is_name; i++)
        is_name = strcmp(name_of(i), name) == 0;
    return is_name;
}

/* ---- whose they are ----------------------------------------------------------------------------
 */

/* As qvl_config_format begins and ends, in all versions. */
static qvl_status is_our_config(bool *out, const char *path, qvl_err *err)
{
    static const char FIRST[] = "# Model\n", LAST[] = "\n# Fixed\nstage: sft\n";
    qvl_text text = {0};
    const qvl_status rc = qvl_file_read(&text, path, (size_t)1 << 20, err);
    *out =
        rc == QVL_OK && strncmp(text.data, FIRST, sizeof FIRST - 1) == 0 && strstr(text.data, LAST);
    qvl_text_fini(&text);
    if (rc != QVL_EDATA) /* too large to be ours */
        return rc;
    qvl_err_clear(err);
    return QVL_OK;
}

/* A run of qvl has been in the directory: it wrote its configuration, or a checkpoint. */
static qvl_status is_our_directory(bool *out, const char *directory, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    int64_t *steps = NULL;
    size_t count = 0;
    qvl_status rc = QVL_OK;
    *out = false;
    QVL_TRY(qvl_path_join(path, directory, QVL_CONFIG_FILE, err));
    if (qvl_file_is_regular(path)) {
        QVL_TRY(is_our_config(out, path, err));
        if (!*out)
            rc = qvl_fail(err, QVL_ECONFIG,
                          "output_dir: %s was not written by qvl, and the run's own would replace "
                          "it; nothing was removed: move it away, or give another output_dir",
                          path);
        goto out;
    }
    QVL_TRY(qvl_checkpoint_list(&steps, &count, directory, err));
    for (size_t i = 0; i < count && !*out; i++)
        *out = qvl_checkpoint_is_ours(directory, steps[i]);
out:
    free(steps);
    return rc;
}

/* Nothing but a file of ours, or a link (which goes, not what it points to), makes way. */
static qvl_status check_place(const char *directory, const char *name, bool is_ours, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    struct stat st;
    const qvl_status rc = qvl_path_join(path, directory, name, err);
    if (rc != QVL_OK || lstat(path, &st) != 0)
        return rc;
    if (!S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))
        return qvl_fail(err, QVL_ECONFIG,
                        "output_dir: %s is %s, where the run writes a file; nothing was removed: "
                        "move it away, or give another output_dir",
                        path, S_ISDIR(st.st_mode) ? "a directory" : "no regular file");
    if (is_ours)
        return QVL_OK;
    return is_one_of(RESULTS, COUNT(RESULTS), name)
               ? qvl_fail(err, QVL_ECONFIG,
                          "output_dir: %s holds the results of a run (%s), but not of qvl: neither "
                          "its " QVL_CONFIG_FILE " nor a checkpoint of qvl is there; nothing of it "
                          "is replaced, nor removed by overwrite_output_dir: true: give another "
                          "output_dir",
                          directory, name)
               : qvl_fail(err, QVL_ECONFIG,
                          "output_dir: %s is there, and not of a run of qvl; the run's own would "
                          "replace it; nothing was removed: move it away, or give another "
                          "output_dir",
                          path);
}

/* ---- inputs ------------------------------------------------------------------------------------
 */

static bool is_same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* A run may be started from its own config.yaml: what is written is then what is there. */
static qvl_status is_unchanged(bool *out, const char *path, const qvl_config *config, qvl_err *err)
{
    qvl_text ours = {0}, there = {0};
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_config_format(&ours, config, err));
    QVL_TRY(qvl_file_read(&there, path, (size_t)1 << 20, err));
    *out = ours.len == there.len && memcmp(ours.data, there.data, ours.len) == 0;
out:
    qvl_text_fini(&ours);
    qvl_text_fini(&there);
    return rc;
}

static qvl_status check_config(const char *path, const char *name, const qvl_config *config,
                               qvl_err *err)
{
    bool is_same = false;
    if (!config->name || !is_same_file(path, config->name))
        return QVL_OK;
    const qvl_status rc =
        strcmp(name, QVL_CONFIG_FILE) == 0 ? is_unchanged(&is_same, path, config, err) : QVL_OK;
    if (rc != QVL_OK || is_same)
        return rc;
    return qvl_fail(err, QVL_ECONFIG,
                    "output_dir: the configuration %s lies there under a name that the run writes "
                    "(%s), and would be replaced; give it another name, or give another output_dir",
                    config->name, name);
}

static qvl_status check_adapter(const char *path, const char *name, const qvl_config *config,
                                qvl_err *err)
{
    const char *adapter = config->adapter_name_or_path;
    char file[QVL_PATH_BYTES];
    if (!adapter || !adapter[0])
        return QVL_OK;
    const qvl_status rc = qvl_path_join(file, adapter, name, err);
    if (rc != QVL_OK || !is_same_file(path, file))
        return rc;
    return qvl_fail(err, QVL_ECONFIG,
                    "adapter_name_or_path: %s lies in output_dir %s, and its %s would be replaced; "
                    "nothing was removed: give another output_dir",
                    adapter, config->output_dir, name);
}

/* Absolute and without links as far as it is there. */
static bool resolve(char out[PATH_MAX], const char *path)
{
    char known[QVL_PATH_BYTES];
    size_t n = strlen(path);
    if (n >= sizeof known)
        return false;
    memcpy(known, path, n + 1);
    while (n > 0 && !realpath(known, out)) {
        while (n > 0 && known[n - 1] == '/')
            n--;
        while (n > 0 && known[n - 1] != '/')
            n--;
        known[n] = '\0';
    }
    if (n == 0 && !realpath(".", out))
        return false;
    const size_t used = strlen(out), rest = strlen(path + n);
    if (used + 1 + rest >= PATH_MAX)
        return false;
    if (rest)
        snprintf(out + used, PATH_MAX - used, "%s%s", used > 1 ? "/" : "",
                 path + n + strspn(path + n, "/"));
    return true;
}

/* The file itself may be a link: its name is what is replaced. */
static qvl_status check_tokenized(const qvl_config *config, qvl_err *err)
{
    const char *path = config->tokenized_path;
    char directory[PATH_MAX], parent[PATH_MAX], name[QVL_PATH_BYTES];
    if (!path || !path[0] || strlen(path) >= sizeof name)
        return QVL_OK;
    const size_t stem = (size_t)(qvl_path_name(path) - path);
    memcpy(name, path, stem);
    name[stem] = '\0';
    if (!resolve(directory, config->output_dir) || !resolve(parent, stem ? name : "."))
        return QVL_OK;
    const size_t n = strlen(directory);
    if (strncmp(parent, directory, n) != 0 || (parent[n] != '\0' && parent[n] != '/'))
        return QVL_OK;
    const char *inside = parent + n + strspn(parent + n, "/");
    snprintf(name, sizeof name, "%.*s", (int)strcspn(inside, "/"), inside);
    if (!is_taken(name[0] ? name : qvl_path_name(path)))
        return QVL_OK;
    return qvl_fail(err, QVL_ECONFIG,
                    "tokenized_path: %s is what a run writes or removes in output_dir %s; give it "
                    "another name",
                    path, config->output_dir);
}

/* ---- all of it ---------------------------------------------------------------------------------
 */

/* Room for what is written below it: a checkpoint's files under their passing names. */
enum { LONGEST_DIRECTORY = QVL_PATH_BYTES - 128 };

static qvl_status check_directory(const char *directory, qvl_err *err)
{
    struct stat st;
    if (strlen(directory) > LONGEST_DIRECTORY)
        return qvl_fail(err, QVL_ECONFIG,
                        "output_dir: a path of %zu bytes; expected %d at most, so that what is "
                        "written there has a path as well",
                        strlen(directory), LONGEST_DIRECTORY);
    if (lstat(directory, &st) != 0 || qvl_file_is_directory(directory))
        return QVL_OK;
    return qvl_fail(err, QVL_EIO, "output_dir: %s is %s; expected a directory, or nothing",
                    directory,
                    S_ISLNK(st.st_mode) ? "a link that leads to no directory" : "no directory");
}

qvl_status qvl_output_files_check(const qvl_config *config, qvl_err *err)
{
    const char *directory = config->output_dir;
    char path[QVL_PATH_BYTES];
    bool is_ours = false;
    qvl_status rc = QVL_OK;
    QVL_TRY(check_directory(directory, err));
    QVL_TRY(check_tokenized(config, err));
    if (!qvl_file_is_directory(directory))
        return QVL_OK;
    for (size_t i = 0; i < N_FILES; i++) {
        QVL_TRY(qvl_path_join(path, directory, name_of(i), err));
        QVL_TRY(check_config(path, name_of(i), config, err));
        QVL_TRY(check_adapter(path, name_of(i), config, err));
    }
    QVL_TRY(is_our_directory(&is_ours, directory, err));
    for (size_t i = 0; i < N_FILES; i++)
        QVL_TRY(check_place(directory, name_of(i), is_ours, err));
out:
    return rc;
}

qvl_status qvl_output_files_refuse_results(const char *directory, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    for (size_t i = 0; i < COUNT(RESULTS); i++) {
        const qvl_status rc = qvl_path_join(path, directory, RESULTS[i], err);
        if (rc != QVL_OK)
            return rc;
        if (qvl_file_exists(path))
            return qvl_fail(
                err, QVL_ECONFIG,
                "output_dir: %s holds the results of a run (%s) and no checkpoint to go "
                "on from; give another directory, or set overwrite_output_dir: true",
                directory, RESULTS[i]);
    }
    return QVL_OK;
}

/* Files and links: what is anything else was refused, and is refused here if it came since. */
static qvl_status remove_files(const char *directory, const char *const *names, size_t count,
                               qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    qvl_status rc = QVL_OK;
    for (size_t i = 0; i < count; i++) {
        QVL_TRY(check_place(directory, names[i], true, err));
        QVL_TRY(qvl_path_join(path, directory, names[i], err));
        QVL_TRY(qvl_tree_remove(path, err));
    }
out:
    return rc;
}

qvl_status qvl_output_files_remove(const char *directory, bool with_results, qvl_err *err)
{
    const qvl_status rc =
        with_results ? remove_files(directory, RESULTS, COUNT(RESULTS), err) : QVL_OK;
    return rc == QVL_OK ? remove_files(directory, TRACES, COUNT(TRACES), err) : rc;
}

qvl_status qvl_output_dir_copy_tokenizer(const char *output_dir, const char *model_dir,
                                         qvl_log *log, qvl_err *err)
{
    char from[QVL_PATH_BYTES], to[QVL_PATH_BYTES];
    qvl_status rc = QVL_OK;
    for (size_t i = 0; i < COUNT(TOKENIZER); i++) {
        QVL_TRY(qvl_path_join(from, model_dir, TOKENIZER[i], err));
        QVL_TRY(qvl_path_join(to, output_dir, TOKENIZER[i], err));
        int64_t bytes = 0;
        qvl_err why = {QVL_OK, ""};
        if (qvl_file_is_regular(from))
            QVL_TRY(qvl_file_copy(to, from, err));
        else if (qvl_file_exists(from) && qvl_file_size(&bytes, from, &why) != QVL_OK)
            qvl_log_warn(log, "not copied into output_dir: %s", why.text);
    }
out:
    return rc;
}
