#include "src/base/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "src/base/memory.h"

qvl_status qvl_path_join(char out[QVL_PATH_BYTES], const char *directory, const char *name,
                         qvl_err *err)
{
    const size_t n = strlen(directory);
    const char *slash = n && directory[n - 1] != '/' ? "/" : "";
    const int used = name[0] == '/'
                         ? snprintf(out, QVL_PATH_BYTES, "%s", name)
                         : snprintf(out, QVL_PATH_BYTES, "%s%s%s", directory, slash, name);
    if (used < 0 || used >= QVL_PATH_BYTES)
        return qvl_fail(err, QVL_EDATA, "path longer than %d bytes: %.80s...", QVL_PATH_BYTES - 1,
                        name);
    return QVL_OK;
}

const char *qvl_path_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

bool qvl_file_exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

bool qvl_file_is_regular(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool qvl_file_is_directory(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

qvl_status qvl_file_write_fd(int fd, const void *bytes, size_t n_bytes, const char *path,
                             qvl_err *err)
{
    size_t done = 0;
    while (done < n_bytes) {
        const ssize_t n = write(fd, (const char *)bytes + done, n_bytes - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return qvl_fail_errno(err, n < 0 ? errno : EIO, 1, "write %s", path);
        done += (size_t)n;
    }
    return QVL_OK;
}

static qvl_status parent_of(char out[QVL_PATH_BYTES], const char *path, qvl_err *err)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return qvl_path_join(out, ".", "", err);
    const size_t n = slash == path ? 1 : (size_t)(slash - path);
    if (n >= QVL_PATH_BYTES)
        return qvl_fail(err, QVL_EDATA, "path longer than %d bytes", QVL_PATH_BYTES - 1);
    memcpy(out, path, n);
    out[n] = '\0';
    return QVL_OK;
}

qvl_status qvl_file_flush(const char *path, qvl_err *err)
{
    const int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return qvl_fail_errno(err, errno, 1, "flush %s", path);
    /* Some file systems cannot flush a directory and say EINVAL; the rename is then as safe as
     * that file system makes it. */
    const int failed = fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP;
    const int saved = errno;
    close(fd);
    return failed ? qvl_fail_errno(err, saved, 1, "flush %s", path) : QVL_OK;
}

qvl_status qvl_file_flush_parent(const char *path, qvl_err *err)
{
    char parent[QVL_PATH_BYTES];
    const qvl_status rc = parent_of(parent, path, err);
    return rc == QVL_OK ? qvl_file_flush(parent, err) : rc;
}

/* name is what the messages call the file. */
static qvl_status write_whole(const char *path, const void *bytes, size_t n_bytes, const char *name,
                              qvl_err *err)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return qvl_fail_errno(err, errno, 1, "create %s", name);
    qvl_status rc = qvl_file_write_fd(fd, bytes, n_bytes, name, err);
    if (rc == QVL_OK && fsync(fd) != 0)
        rc = qvl_fail_errno(err, errno, 1, "flush %s", name);
    if (close(fd) != 0 && rc == QVL_OK)
        rc = qvl_fail_errno(err, errno, 1, "close %s", name);
    return rc;
}

qvl_status qvl_file_write(const char *path, const void *bytes, size_t n_bytes, qvl_err *err)
{
    return write_whole(path, bytes, n_bytes, path, err);
}

qvl_status qvl_file_replace(const char *path, const void *bytes, size_t n_bytes, qvl_err *err)
{
    char temporary[QVL_PATH_BYTES];
    if (snprintf(temporary, sizeof temporary, "%s.%ld.tmp", path, (long)getpid()) >=
        (int)sizeof temporary)
        return qvl_fail(err, QVL_EDATA, "path longer than %d bytes", QVL_PATH_BYTES - 1);
    qvl_status rc = write_whole(temporary, bytes, n_bytes, path, err);
    if (rc == QVL_OK && rename(temporary, path) != 0)
        rc = qvl_fail_errno(err, errno, 1, "rename to %s", path);
    if (rc != QVL_OK) {
        unlink(temporary);
        return rc;
    }
    return qvl_file_flush_parent(path, err);
}

qvl_status qvl_file_copy(const char *to, const char *from, qvl_err *err)
{
    qvl_text content = {0};
    qvl_status rc = qvl_file_read(&content, from, (size_t)1 << 31, err);
    if (rc == QVL_OK)
        rc = qvl_file_replace(to, content.data, content.len, err);
    qvl_text_fini(&content);
    return rc;
}

/* One that exists is fine. What stands there and is no directory is called so. */
static qvl_status make_directory(bool *out_is_new, const char *path, qvl_err *err)
{
    *out_is_new = mkdir(path, 0777) == 0;
    const int why = errno == EEXIST ? ENOTDIR : errno; /* the next call changes it */
    if (*out_is_new || qvl_file_is_directory(path))
        return QVL_OK;
    return qvl_fail_errno(err, why, 1, "create directory %s", path);
}

qvl_status qvl_directory_create_from(char first[QVL_PATH_BYTES], const char *path, qvl_err *err)
{
    char partial[QVL_PATH_BYTES];
    qvl_status rc = qvl_path_join(partial, "", path, err);
    first[0] = '\0';
    if (rc != QVL_OK)
        return rc;
    for (char *c = partial + 1; *path; c++) {
        const char kept = *c;
        bool is_new = false;
        if (kept && kept != '/')
            continue;
        *c = '\0';
        rc = make_directory(&is_new, partial, err);
        if (rc != QVL_OK) {
            qvl_directory_take_back(path, first);
            return rc;
        }
        if (is_new && !first[0])
            memcpy(first, partial, (size_t)(c - partial) + 1);
        if (!kept)
            break;
        *c = kept;
    }
    return QVL_OK;
}

qvl_status qvl_directory_create(const char *path, qvl_err *err)
{
    char first[QVL_PATH_BYTES];
    return qvl_directory_create_from(first, path, err);
}

void qvl_directory_take_back(const char *path, const char *first)
{
    char at[QVL_PATH_BYTES];
    const size_t least = strlen(first);
    size_t n = strlen(path);
    if (least == 0 || n >= sizeof at || strncmp(path, first, least) != 0)
        return;
    memcpy(at, path, n + 1);
    for (;;) {
        if ((rmdir(at) != 0 && qvl_file_exists(at)) || n <= least)
            return;
        while (n > least && at[n - 1] != '/')
            n--;
        while (n > least && at[n - 1] == '/')
            n--;
        at[n] = '\0';
    }
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st;
    (void)kind;
    (void)where;
    return remove(path);
}

qvl_status qvl_tree_remove(const char *path, qvl_err *err)
{
    if (nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT)
        return qvl_fail_errno(err, errno, 1, "remove %s", path);
    return QVL_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

qvl_status qvl_directory_list(char ***out_names, size_t *out_count, const char *path, qvl_err *err)
{
    size_t capacity = 0, count = 0;
    char **names = NULL;
    qvl_status rc = QVL_OK;
    DIR *directory = opendir(path);
    *out_names = NULL;
    *out_count = 0;
    if (!directory)
        return qvl_fail_errno(err, errno, 0, "%s", path);
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        QVL_TRY(qvl_reserve(&names, &capacity, count + 1, sizeof *names, "directory", err));
        QVL_TRY(qvl_copy_text(&names[count], entry->d_name, err));
        count++;
    }
    if (count)
        qsort(names, count, sizeof *names, compare_names);
out:
    closedir(directory);
    if (rc != QVL_OK) {
        qvl_names_free(names, count);
        names = NULL;
        count = 0;
    }
    *out_names = names;
    *out_count = count;
    return rc;
}

void qvl_names_free(char **names, size_t count)
{
    for (size_t i = 0; names && i < count; i++)
        free(names[i]);
    free(names);
}

qvl_status qvl_disk_free(uint64_t *out_bytes, const char *path, qvl_err *err)
{
    struct statvfs fs;
    if (statvfs(path, &fs) != 0)
        return qvl_fail_errno(err, errno, 1, "%s", path);
    *out_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    return QVL_OK;
}
