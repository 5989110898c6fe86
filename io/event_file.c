#include "io/event_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Keys of protocol buffers: number of the field << 3 | how it is stored. */
enum {
    EVENT_WALL_TIME = 1 << 3 | 1, /* 8 bytes */
    EVENT_STEP = 2 << 3 | 0,      /* varint */
    EVENT_VERSION = 3 << 3 | 2,   /* a length, and bytes */
    EVENT_SUMMARY = 5 << 3 | 2,
    SUMMARY_VALUE = 1 << 3 | 2,
    VALUE_TAG = 1 << 3 | 2,
    VALUE_SIMPLE = 2 << 3 | 5 /* 4 bytes */
};
static const char VERSION[] = "brain.Event:2";

uint32_t qvl_crc32c(const void *bytes, size_t n_bytes)
{
    /* Of the 16 values of 4 bits; the polynomial is 0x82f63b78, lowest bit first. */
    static const uint32_t OF_NIBBLE[16] = {0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1,
                                           0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
                                           0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
                                           0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};
    const unsigned char *at = bytes;
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < n_bytes; i++) {
        crc ^= at[i];
        crc = crc >> 4 ^ OF_NIBBLE[crc & 15];
        crc = crc >> 4 ^ OF_NIBBLE[crc & 15];
    }
    return ~crc;
}

static uint32_t masked_crc(const void *bytes, size_t n_bytes)
{
    const uint32_t crc = qvl_crc32c(bytes, n_bytes);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

/* ---- records -----------------------------------------------------------------------------------
 */

static qvl_status add_little_endian(qvl_text *out, uint64_t value, int n_bytes, qvl_err *err)
{
    char bytes[8];
    for (int i = 0; i < n_bytes; i++)
        bytes[i] = (char)(value >> (8 * i) & 0xff);
    return qvl_text_add(out, bytes, (size_t)n_bytes, err);
}

static qvl_status add_varint(qvl_text *out, uint64_t value, qvl_err *err)
{
    char bytes[10];
    size_t n = 0;
    for (; value > 0x7f; value >>= 7)
        bytes[n++] = (char)((value & 0x7f) | 0x80);
    bytes[n++] = (char)value;
    return qvl_text_add(out, bytes, n, err);
}

static qvl_status add_double(qvl_text *out, int key, double value, qvl_err *err)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    const qvl_status rc = add_varint(out, (uint64_t)key, err);
    return rc == QVL_OK ? add_little_endian(out, bits, 8, err) : rc;
}

static qvl_status add_float(qvl_text *out, int key, float value, qvl_err *err)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const qvl_status rc = add_varint(out, (uint64_t)key, err);
    return rc == QVL_OK ? add_little_endian(out, bits, 4, err) : rc;
}

static qvl_status add_bytes(qvl_text *out, int key, const char *bytes, size_t n, qvl_err *err)
{
    qvl_status rc = add_varint(out, (uint64_t)key, err);
    if (rc == QVL_OK)
        rc = add_varint(out, n, err);
    return rc == QVL_OK ? qvl_text_add(out, bytes, n, err) : rc;
}

static qvl_status add_scalar(qvl_text *summary, const qvl_event_scalar *scalar, qvl_err *err)
{
    qvl_text value = {0};
    qvl_status rc = QVL_OK;
    QVL_TRY(add_bytes(&value, VALUE_TAG, scalar->tag, strlen(scalar->tag), err));
    QVL_TRY(add_float(&value, VALUE_SIMPLE, (float)scalar->value, err));
    QVL_TRY(add_bytes(summary, SUMMARY_VALUE, value.data, value.len, err));
out:
    qvl_text_fini(&value);
    return rc;
}

/* The frame around an event. On failure out is as it was. */
static qvl_status add_record(qvl_text *out, const qvl_text *event, qvl_err *err)
{
    qvl_text record = {0};
    qvl_status rc = QVL_OK;
    QVL_TRY(add_little_endian(&record, event->len, 8, err));
    QVL_TRY(add_little_endian(&record, masked_crc(record.data, 8), 4, err));
    QVL_TRY(qvl_text_add(&record, event->data, event->len, err));
    QVL_TRY(add_little_endian(&record, masked_crc(event->data, event->len), 4, err));
    QVL_TRY(qvl_text_add(out, record.data, record.len, err));
out:
    qvl_text_fini(&record);
    return rc;
}

/* ---- files -------------------------------------------------------------------------------------
 */

qvl_status qvl_event_file_init(qvl_event_file *file, const char *path, double wall_time_s,
                               qvl_err *err)
{
    qvl_text event = {0};
    *file = (qvl_event_file){.n_pending = 0};
    qvl_status rc = qvl_path_join(file->path, "", path, err);
    QVL_TRY(rc);
    QVL_TRY(add_double(&event, EVENT_WALL_TIME, wall_time_s, err));
    QVL_TRY(add_bytes(&event, EVENT_VERSION, VERSION, sizeof VERSION - 1, err));
    QVL_TRY(add_record(&file->pending, &event, err));
    file->head_bytes = file->pending.len;
out:
    qvl_text_fini(&event);
    return rc;
}

void qvl_event_file_fini(qvl_event_file *file)
{
    qvl_text_fini(&file->pending);
    file->n_pending = 0;
}

qvl_status qvl_event_file_add(qvl_event_file *file, double wall_time_s, int64_t step,
                              const qvl_event_scalar *scalars, size_t n, qvl_err *err)
{
    qvl_text summary = {0}, event = {0};
    qvl_status rc = QVL_OK;
    for (size_t i = 0; i < n; i++)
        QVL_TRY(add_scalar(&summary, &scalars[i], err));
    QVL_TRY(add_double(&event, EVENT_WALL_TIME, wall_time_s, err));
    QVL_TRY(add_varint(&event, EVENT_STEP, err));
    QVL_TRY(add_varint(&event, (uint64_t)step, err));
    QVL_TRY(add_bytes(&event, EVENT_SUMMARY, summary.data ? summary.data : "", summary.len, err));
    QVL_TRY(add_record(&file->pending, &event, err));
    file->n_pending++;
out:
    qvl_text_fini(&summary);
    qvl_text_fini(&event);
    return rc;
}

/* Where that fails records may come to stand there twice, which does less harm than none. */
static void cut_back(const char *path, off_t n_bytes)
{
    if (truncate(path, n_bytes) != 0)
        return;
}

qvl_status qvl_event_file_write(qvl_event_file *file, qvl_err *err)
{
    qvl_text *pending = &file->pending;
    if (file->n_pending == 0)
        return QVL_OK;
    const int fd = open(file->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd < 0)
        return qvl_fail_errno(err, errno, 1, "%s", file->path);
    const off_t before = lseek(fd, 0, SEEK_END);
    if (before <= 0) /* new, or somebody emptied it */
        file->sent_bytes = 0;
    qvl_status rc = qvl_file_write_fd(fd, pending->data + file->sent_bytes,
                                      pending->len - file->sent_bytes, file->path, err);
    if (rc != QVL_OK && before >= 0 && ftruncate(fd, before) != 0) {
        const off_t kept = lseek(fd, 0, SEEK_END) - before; /* goes on behind them next time */
        file->sent_bytes += kept > 0 ? (size_t)kept : 0;
    }
    if (close(fd) != 0 && rc == QVL_OK) {
        rc = qvl_fail_errno(err, errno, 1, "%s", file->path);
        cut_back(file->path, before);
    }
    if (rc == QVL_OK) {
        pending->len = file->sent_bytes = file->head_bytes;
        file->n_pending = 0;
    }
    return rc;
}
