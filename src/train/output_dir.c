#include "src/train/output_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "src/base/memory.h"
#include "src/train/checkpoint.h"
#include "src/train/output_overwrite.h"

/* What only a run that came to its end leaves; and what else it leaves. A log alone is of a run
 * that was killed before its first checkpoint, which the same command shall be able to start again.
 */
static const char *const RESULTS[] = {"adapter_model.safetensors", "trainer_state.json",
                                      "train_results.json", "eval_results.json",
                                      "all_results.json"};
static const char *const TRACES[] = {"trainer_log.jsonl", "training_loss.png",
                                     "training_eval_loss.png"};

static const char LOCK[] = ".qvl_lock";

/* The directory can be made and written to, and has room. */
static qvl_status check_writable(const char *directory, uint64_t needed_bytes, qvl_err *err)
{
    char path[QVL_PATH_BYTES], needed[32], available[32];
    uint64_t free_bytes = 0;
    const bool was_there = qvl_file_exists(directory);
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_directory_create(directory, err));
    QVL_TRY(qvl_path_join(path, directory, ".qvl_write_test.tmp", err));
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        rc = qvl_fail_errno(err, errno, 1, "output_dir %s cannot be written to", directory);
        goto out;
    }
    close(fd);
    unlink(path);
    QVL_TRY(qvl_disk_free(&free_bytes, directory, err));
    if (free_bytes < needed_bytes)
        rc = qvl_fail(err, QVL_EIO, "output_dir %s: %s free, the adapter and a checkpoint need %s",
                      directory, qvl_format_bytes(available, free_bytes),
                      qvl_format_bytes(needed, needed_bytes));
out:
    if (rc != QVL_OK && !was_there)
        rmdir(directory); /* only an empty one goes */
    return rc;
}

/* Names under which we write before we rename: X.PID.tmp, where digits may follow PID. */
static bool is_leftover(const char *name)
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

/* What a killed run left half-written. */
static qvl_status remove_leftovers(const char *directory, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    char **names = NULL;
    size_t count = 0;
    qvl_status rc = qvl_checkpoint_clean(directory, err);
    if (rc == QVL_OK)
        rc = qvl_directory_list(&names, &count, directory, err);
    for (size_t i = 0; i < count && rc == QVL_OK; i++) {
        if (!is_leftover(names[i]))
            continue;
        rc = qvl_path_join(path, directory, names[i], err);
        if (rc == QVL_OK)
            rc = qvl_tree_remove(path, err);
    }
    qvl_names_free(names, count);
    return rc;
}

static qvl_status remove_files(const char *directory, const char *const *names, size_t count,
                               qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    qvl_status rc = QVL_OK;
    for (size_t i = 0; i < count; i++) {
        QVL_TRY(qvl_path_join(path, directory, names[i], err));
        QVL_TRY(qvl_tree_remove(path, err));
    }
out:
    return rc;
}

qvl_status qvl_output_dir_empty(const char *directory, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_checkpoint_remove_all(directory, err));
    QVL_TRY(remove_files(directory, RESULTS, sizeof RESULTS / sizeof *RESULTS, err));
    QVL_TRY(remove_files(directory, TRACES, sizeof TRACES / sizeof *TRACES, err));
out:
    return rc;
}

static qvl_status check_results(const char *directory, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    for (size_t i = 0; i < sizeof RESULTS / sizeof *RESULTS; i++) {
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

static qvl_status require_checkpoint(const char *found, const char *directory, qvl_err *err)
{
    return found[0] ? QVL_OK
                    : qvl_fail(err, QVL_EMISSING,
                               "resume_from_checkpoint: true, but %s has no checkpoint", directory);
}

/* A path that resume_from_checkpoint names: the mistakes are an output_dir, and a checkpoint of
 * somebody else. */
static qvl_status check_named(const char *path, qvl_err *err)
{
    char manifest[QVL_PATH_BYTES], adapter[QVL_PATH_BYTES];
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_path_join(manifest, path, "manifest.json", err));
    QVL_TRY(qvl_path_join(adapter, path, "adapter_config.json", err));
    if (!qvl_file_is_directory(path))
        rc = qvl_fail(err, QVL_EMISSING,
                      "resume_from_checkpoint: %s is not there; give the path of a checkpoint-N "
                      "directory, or true for the newest in output_dir",
                      path);
    else if (!qvl_file_exists(manifest))
        rc = qvl_fail(err, QVL_EMISSING,
                      "resume_from_checkpoint: %s has no manifest.json, so it is no checkpoint of "
                      "qvl; give the path of a checkpoint-N directory%s",
                      path,
                      qvl_file_exists(adapter) ? "; a PEFT adapter alone is started from with "
                                                 "adapter_name_or_path"
                                               : "");
out:
    return rc;
}

qvl_status qvl_output_dir_open(char resume[QVL_PATH_BYTES], const qvl_config *config,
                               uint64_t needed_bytes, qvl_log *log, qvl_err *err)
{
    const char *directory = config->output_dir, *asked = config->resume_from_checkpoint;
    const bool is_asked = asked && asked[0] && strcmp(asked, "false") != 0;
    qvl_status rc = QVL_OK;
    resume[0] = '\0';
    QVL_TRY(check_writable(directory, needed_bytes, err));
    QVL_TRY(remove_leftovers(directory, err));
    if (is_asked && strcmp(asked, "true") != 0) {
        QVL_TRY(check_named(asked, err));
        return qvl_path_join(resume, "", asked, err);
    }
    if (!is_asked && config->overwrite_output_dir)
        return qvl_output_dir_overwrite(resume, config, log, err);
    QVL_TRY(qvl_checkpoint_find(resume, directory, log, err));
    if (resume[0] && asked && strcmp(asked, "false") == 0) {
        rc = qvl_fail(err, QVL_ECONFIG,
                      "resume_from_checkpoint: false, but %s holds %s; with overwrite_output_dir: "
                      "true the run starts anew, and what is there goes; or give another directory",
                      directory, qvl_path_name(resume));
        goto out;
    }
    if (is_asked)
        rc = require_checkpoint(resume, directory, err);
    else if (!resume[0])
        rc = check_results(directory, err);
    if (rc == QVL_OK && !resume[0])
        rc = remove_files(directory, TRACES, sizeof TRACES / sizeof *TRACES, err);
out:
    return rc;
}

qvl_status qvl_output_dir_check(const qvl_config *config, uint64_t needed_bytes, qvl_log *log,
                                qvl_err *err)
{
    const char *directory = config->output_dir, *asked = config->resume_from_checkpoint;
    char first[QVL_PATH_BYTES] = "", found[QVL_PATH_BYTES] = "";
    qvl_status rc = qvl_directory_create_from(first, directory, err);
    if (rc != QVL_OK)
        return rc;
    rc = check_writable(directory, needed_bytes, err);
    if (rc == QVL_OK && asked && strcmp(asked, "true") == 0)
        rc = qvl_checkpoint_find(found, directory, log, err);
    if (first[0])
        qvl_directory_take_back(directory, first);
    if (rc != QVL_OK || !asked || !asked[0] || strcmp(asked, "false") == 0)
        return rc;
    return strcmp(asked, "true") == 0 ? require_checkpoint(found, directory, err)
                                      : check_named(asked, err);
}

/* Opens the file and tries to lock it. Whoever had it may have removed it in between: a lock on a
 * file without a name keeps nobody out. */
static bool try_lock(int *fd, const char *path)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct stat st;
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (*fd < 0)
        return false;
    if (fcntl(*fd, F_SETLK, &lock) == 0 && fstat(*fd, &st) == 0 && st.st_nlink > 0)
        return true;
    const int failed = errno;
    close(*fd);
    *fd = -1;
    errno = failed;
    return false;
}

/* The process of this host that has the lock; 0: not known. */
static long holder_of(const char *path)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    const bool is_known = fd >= 0 && fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    if (fd >= 0)
        close(fd);
    return is_known ? (long)lock.l_pid : 0;
}

qvl_status qvl_output_dir_lock(int *out_fd, const char *output_dir, qvl_log *log, qvl_err *err)
{
    enum { TRIES = 50 };
    char path[QVL_PATH_BYTES];
    qvl_status rc = qvl_path_join(path, output_dir, LOCK, err);
    *out_fd = -1;
    for (int i = 0; i < TRIES && rc == QVL_OK; i++) {
        errno = EAGAIN;
        if (try_lock(out_fd, path))
            return QVL_OK;
        if (errno == ENOLCK || errno == EOPNOTSUPP || errno == ENOSYS) {
            qvl_log_warn(
                log, "%s: no locks on this file system: see that no other run writes there", path);
            return QVL_OK;
        }
        const int failed = errno;
        if (failed == ENOENT && qvl_directory_create(output_dir, err) == QVL_OK)
            continue; /* whoever had it took it back with the directory */
        if ((failed != EAGAIN && failed != EACCES) || access(path, W_OK) != 0)
            return qvl_fail_errno(err, failed, 1, "%s", path);
        nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    }
    if (rc == QVL_OK)
        rc = qvl_fail(err, QVL_EIO,
                      "output_dir %s is in use by another run (process %ld); wait for its end, or "
                      "give another directory",
                      output_dir, holder_of(path));
    return rc;
}

void qvl_output_dir_unlock(int *fd, const char *output_dir)
{
    char path[QVL_PATH_BYTES];
    if (*fd < 0)
        return;
    if (qvl_path_join(path, output_dir, LOCK, NULL) == QVL_OK)
        unlink(path);
    close(*fd);
    *fd = -1;
}

qvl_status qvl_output_dir_write_config(const qvl_config *config, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    qvl_text text = {0};
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_config_format(&text, config, err));
    QVL_TRY(qvl_path_join(path, config->output_dir, QVL_CONFIG_FILE, err));
    QVL_TRY(qvl_file_replace(path, text.data, text.len, err));
out:
    qvl_text_fini(&text);
    return rc;
}

qvl_status qvl_output_dir_copy_tokenizer(const char *output_dir, const char *model_dir,
                                         qvl_err *err)
{
    static const char *const NAMES[] = {"tokenizer.json",
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
    char from[QVL_PATH_BYTES], to[QVL_PATH_BYTES];
    qvl_status rc = QVL_OK;
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        QVL_TRY(qvl_path_join(from, model_dir, NAMES[i], err));
        QVL_TRY(qvl_path_join(to, output_dir, NAMES[i], err));
        if (qvl_file_is_regular(from))
            QVL_TRY(qvl_file_copy(to, from, err));
    }
out:
    return rc;
}
