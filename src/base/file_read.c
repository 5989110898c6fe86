/* Reading what others may have put there: a name may be anything, also what would be waited for. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/files.h"
#include "src/base/memory.h"
#include "src/base/stop.h"

static qvl_status fail_kind(const struct stat *st, const char *path, qvl_err *err)
{
    if (S_ISDIR(st->st_mode))
        return qvl_fail(err, QVL_EMISSING, "%s: is a directory, not a regular file", path);
    return qvl_fail(err, QVL_EMISSING, "%s: not a regular file", path);
}

qvl_status qvl_file_size(int64_t *out_bytes, const char *path, qvl_err *err)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return qvl_fail_errno(err, errno, 0, "%s", path);
    if (!S_ISREG(st.st_mode))
        return qvl_fail(err, QVL_EMISSING, "%s: not a regular file", path);
    *out_bytes = st.st_size;
    return QVL_OK;
}

qvl_status qvl_file_open(int *out_fd, const char *path, qvl_err *err)
{
    struct stat st;
    qvl_status rc = QVL_OK;
    *out_fd = -1;
    /* O_NONBLOCK: opening a pipe waits for its writer, and some devices wait as well */
    const int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0) {
        const int why = errno;
        if (why == ENXIO && stat(path, &st) == 0 && !S_ISREG(st.st_mode)) /* a socket */
            return fail_kind(&st, path, err);
        return qvl_fail_errno(err, why, 0, "%s", path);
    }
    const int flags = fcntl(fd, F_GETFL);
    if (fstat(fd, &st) != 0)
        rc = qvl_fail_errno(err, errno, 0, "%s", path);
    else if (!S_ISREG(st.st_mode))
        rc = fail_kind(&st, path, err);
    else if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) != 0)
        rc = qvl_fail_errno(err, errno, 0, "%s", path);
    if (rc != QVL_OK) {
        close(fd);
        return rc;
    }
    *out_fd = fd;
    return QVL_OK;
}

/* Until there is something to read, or a stop is asked for. The handler has SA_RESTART, which poll
 * does not follow; a signal just before it is seen when its time is over. */
static qvl_status await_input(int fd, const char *name, qvl_err *err)
{
    enum { LOOK_MS = 100 };
    char doing[256];
    snprintf(doing, sizeof doing, "waiting for %.200s", name);
    for (;;) {
        struct pollfd input = {.fd = fd, .events = POLLIN};
        const qvl_status rc = qvl_stop_check(doing, err);
        if (rc != QVL_OK)
            return rc;
        const int n = poll(&input, 1, LOOK_MS);
        if (n > 0)
            return QVL_OK;
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return qvl_fail_errno(err, errno, 0, "%s", name);
    }
}

static qvl_status read_all(qvl_text *out, int fd, bool is_waited_for, const char *path,
                           size_t limit_bytes, qvl_err *err)
{
    qvl_status rc = qvl_text_add(out, "", 0, err);
    while (rc == QVL_OK) {
        QVL_TRY(qvl_reserve(&out->data, &out->capacity, out->len + 65537, 1, path, err));
        if (is_waited_for)
            QVL_TRY(await_input(fd, path, err));
        const ssize_t n = read(fd, out->data + out->len, 65536);
        if (n < 0 && (errno == EINTR || (is_waited_for && errno == EAGAIN)))
            continue;
        if (n < 0)
            return qvl_fail_errno(err, errno, 0, "%s", path);
        if (n == 0)
            break;
        out->len += (size_t)n;
        if (out->len > limit_bytes)
            return qvl_fail(err, QVL_EDATA, "%s: larger than the limit of %zu bytes", path,
                            limit_bytes);
    }
    out->data[out->len] = '\0';
out:
    return rc;
}

qvl_status qvl_file_read(qvl_text *out, const char *path, size_t limit_bytes, qvl_err *err)
{
    int fd = -1;
    qvl_text_clear(out);
    qvl_status rc = qvl_file_open(&fd, path, err);
    if (rc != QVL_OK)
        return rc;
    rc = read_all(out, fd, false, path, limit_bytes, err);
    close(fd);
    return rc;
}

qvl_status qvl_file_read_any(qvl_text *out, const char *path, size_t limit_bytes, qvl_err *err)
{
    const bool is_input = strcmp(path, "-") == 0;
    struct stat st;
    qvl_status rc = QVL_OK;
    qvl_text_clear(out);
    if (is_input && fstat(STDIN_FILENO, &st) != 0)
        return qvl_fail_errno(err, errno, 0, "standard input");
    const int fd = is_input ? STDIN_FILENO : open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return qvl_fail_errno(err, errno, 0, "%s", path);
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode))
        rc = fail_kind(&st, path, err);
    else
        rc = read_all(out, fd, true, is_input ? "standard input" : path, limit_bytes, err);
    if (!is_input)
        close(fd);
    return rc;
}

qvl_status qvl_file_read_at(int fd, void *out, size_t n_bytes, int64_t offset, const char *path,
                            qvl_err *err)
{
    size_t done = 0;
    while (done < n_bytes) {
        const ssize_t n = pread(fd, (char *)out + done, n_bytes - done, offset + (int64_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return qvl_fail_errno(err, errno, 0, "%s", path);
        if (n == 0)
            return qvl_fail(err, QVL_EDATA, "%s: ends at byte %lld, %zu more were expected", path,
                            (long long)offset + (long long)done, n_bytes - done);
        done += (size_t)n;
    }
    return QVL_OK;
}
