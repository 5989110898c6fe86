#include "src/base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "src/base/host_memory.h"
#include "src/base/text.h"

static void record(qvl_err *err, qvl_status status, const char *format, va_list args)
{
    if (!err || err->status != QVL_OK)
        return;
    err->status = status;
    vsnprintf(err->text, sizeof err->text, format, args);
    qvl_text_keep_one_line(err->text); /* it may quote names and values from files */
}

qvl_status qvl_fail(qvl_err *err, qvl_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    record(err, status, format, args);
    va_end(args);
    return status;
}

qvl_status qvl_fail_errno(qvl_err *err, int saved_errno, int is_write, const char *format, ...)
{
    const int is_missing = saved_errno == ENOENT || saved_errno == EACCES ||
                           saved_errno == ENOTDIR || saved_errno == ENAMETOOLONG ||
                           saved_errno == ELOOP;
    const qvl_status status = !is_write && is_missing ? QVL_EMISSING : QVL_EIO;
    if (!err || err->status != QVL_OK)
        return status;
    va_list args;
    va_start(args, format);
    record(err, status, format, args);
    va_end(args);
    const size_t used = strlen(err->text);
    snprintf(err->text + used, sizeof err->text - used, ": %s", strerror(saved_errno));
    return status;
}

qvl_status qvl_fail_memory(qvl_err *err, unsigned long long bytes, const char *what)
{
    const qvl_process_memory left = qvl_process_memory_left();
    if (left.limit) /* a limit of the user's, not a fault of ours */
        return qvl_fail(err, QVL_EDEVICE, "out of memory: %llu bytes for %s; %s allows %llu more",
                        bytes, what, left.limit, (unsigned long long)left.left_bytes);
    return qvl_fail(err, QVL_EINTERNAL, "out of memory: %llu bytes for %s", bytes, what);
}

void qvl_err_clear(qvl_err *err)
{
    if (err) {
        err->status = QVL_OK;
        err->text[0] = '\0';
    }
}

const char *qvl_status_name(qvl_status status)
{
    switch (status) {
    case QVL_OK:
        return "QVL_OK";
    case QVL_EUSAGE:
        return "QVL_EUSAGE";
    case QVL_EDATA:
        return "QVL_EDATA";
    case QVL_EMISSING:
        return "QVL_EMISSING";
    case QVL_EDEVICE:
        return "QVL_EDEVICE";
    case QVL_EINTERNAL:
        return "QVL_EINTERNAL";
    case QVL_EIO:
        return "QVL_EIO";
    case QVL_ESTOPPED:
        return "QVL_ESTOPPED";
    case QVL_ECONFIG:
        return "QVL_ECONFIG";
    }
    return "unknown status";
}
