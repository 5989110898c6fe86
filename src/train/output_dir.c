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
#include "src/train/output_files.h"
#include "src/train/output_overwrite.h"

static const char LOCK[] = ".qvl_lock";

qvl_status qvl_output_dir_make(char first[QVL_PATH_BYTES], const char *directory, qvl_err *err)
{
    qvl_err why = {QVL_OK, ""};
    const qvl_status rc = qvl_directory_create_from(first, directory, &why);
    return rc == QVL_OK ? QVL_OK : qvl_fail(err, rc, "output_dir: %s", why.text);
}

/* The directory can be made and written to, and has room. */
static qvl_status check_writable(const char *directory, uint64_t needed_bytes, qvl_err *err)
{
    char path[QVL_PATH_BYTES], first[QVL_PATH_BYTES], needed[32], available[32];
    uint64_t free_bytes = 0;
    const bool was_there = qvl_file_exists(directory);
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_output_dir_make(first, directory, err));
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
        if (!qvl_output_file_is_leftover(names[i]))
            continue;
        rc = qvl_path_join(path, directory, names[i], err);
        if (rc == QVL_OK && qvl_file_is_regular(path))
            rc = qvl_tree_remove(path, err);
    }
    qvl_names_free(names, count);
    return rc;
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

/* What stands where checkpoints do and is not ours is nobody's business here, but once a word. */
static qvl_status tell_of_others(const char *directory, qvl_log *log, qvl_err *err)
{
    char first[QVL_PATH_BYTES], more[48] = "";
    size_t count = 0;
    const qvl_status rc = qvl_checkpoint_find_others(first, &count, directory, err);
    if (count > 1)
        snprintf(more, sizeof more, " (and %zu more)", count - 1);
    if (count)
        qvl_log_warn(log,
                     "%s%s: no checkpoint of qvl (no manifest.json of qvl's), so it is left alone: "
                     "not gone on from, not removed, not counted by save_total_limit, and no "
                     "checkpoint takes its place",
                     first, more);
    return rc;
}

static bool is_asked_for(const qvl_config *config)
{
    const char *asked = config->resume_from_checkpoint;
    return asked && asked[0] && strcmp(asked, "false") != 0;
}

/* *resume, given as "": the checkpoint to go on from. */
static qvl_status choose_start(char resume[QVL_PATH_BYTES], const qvl_config *config, qvl_log *log,
                               qvl_err *err)
{
    const char *directory = config->output_dir, *asked = config->resume_from_checkpoint;
    const bool is_asked = is_asked_for(config);
    qvl_status rc = QVL_OK;
    if (is_asked && strcmp(asked, "true") != 0) {
        QVL_TRY(check_named(asked, err));
        return qvl_path_join(resume, "", asked, err);
    }
    if (!is_asked && config->overwrite_output_dir)
        return qvl_output_dir_overwrite(resume, config, log, err);
    QVL_TRY(qvl_checkpoint_find(resume, directory, log, err));
    if (resume[0] && asked && strcmp(asked, "false") == 0)
        rc = qvl_fail(err, QVL_ECONFIG,
                      "resume_from_checkpoint: false, but %s holds %s; with overwrite_output_dir: "
                      "true the run starts anew, and what is there goes; or give another directory",
                      directory, qvl_path_name(resume));
    else if (is_asked)
        rc = require_checkpoint(resume, directory, err);
    else if (!resume[0])
        rc = qvl_output_files_refuse_results(directory, err);
out:
    return rc;
}

qvl_status qvl_output_dir_open(char resume[QVL_PATH_BYTES], const qvl_config *config,
                               uint64_t needed_bytes, qvl_log *log, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    resume[0] = '\0';
    QVL_TRY(qvl_output_files_check(config, err));
    QVL_TRY(check_writable(config->output_dir, needed_bytes, err));
    QVL_TRY(remove_leftovers(config->output_dir, err));
    QVL_TRY(choose_start(resume, config, log, err));
    QVL_TRY(tell_of_others(config->output_dir, log, err));
out:
    return rc;
}

qvl_status qvl_output_dir_begin(const qvl_config *config, bool is_resumed, qvl_err *err)
{
    const bool overwrites = config->overwrite_output_dir && !is_asked_for(config);
    qvl_status rc = QVL_OK;
    /* Results last, config.yaml after them: a process that is killed in between leaves a directory
     * that still is another run's, or a finished one's, and is emptied by the next. */
    if (!is_resumed && overwrites)
        QVL_TRY(qvl_checkpoint_remove_all(config->output_dir, err));
    if (!is_resumed)
        QVL_TRY(qvl_output_files_remove(config->output_dir, overwrites, err));
    QVL_TRY(qvl_output_dir_write_config(config, err));
out:
    return rc;
}

qvl_status qvl_output_dir_check(const qvl_config *config, uint64_t needed_bytes, qvl_log *log,
                                qvl_err *err)
{
    const char *directory = config->output_dir;
    char first[QVL_PATH_BYTES] = "", resume[QVL_PATH_BYTES] = "";
    qvl_status rc = qvl_output_files_check(config, err);
    if (rc == QVL_OK)
        rc = qvl_output_dir_make(first, directory, err);
    if (rc != QVL_OK)
        return rc;
    rc = check_writable(directory, needed_bytes, err);
    if (rc == QVL_OK)
        rc = choose_start(resume, config, log, err);
    if (rc == QVL_OK)
        rc = tell_of_others(directory, log, err);
    if (first[0])
        qvl_directory_take_back(directory, first);
    return rc;
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
