/* Event files, which TensorBoard reads: scalars over steps (DESIGN 1).
 *
 * A file is records end to end, numbers little-endian:
 *
 *     uint64  n, bytes of data
 *     uint32  masked CRC of those 8 bytes      mask(c) = (c >> 15 | c << 17) + 0xa282ead8
 *     n bytes data, an Event
 *     uint32  masked CRC of data               CRC-32C (Castagnoli)
 *
 * An Event is a message of protocol buffers: 1 wall_time (double, seconds since 1970), 2 step
 * (int64), and 3 file_version ("brain.Event:2", the first record of a file alone) or 5 summary. A
 * Summary has values (1, repeated): 1 tag (text), 2 simple_value (float).
 *
 * A name must contain "tfevents" for TensorBoard to see it. */
#ifndef QVL_IO_EVENT_FILE_H
#define QVL_IO_EVENT_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/files.h"
#include "src/base/status.h"
#include "src/base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

/* CRC-32C of bytes. */
uint32_t qvl_crc32c(const void *bytes, size_t n_bytes);

typedef struct qvl_event_scalar {
    const char *tag; /* "train/loss"; borrowed */
    double value;    /* kept as float */
} qvl_event_scalar;

/* A file that is written, and what of it is not on the disk yet. */
typedef struct qvl_event_file {
    char path[QVL_PATH_BYTES];
    qvl_text pending;  /* the record of the version, then those that wait */
    size_t head_bytes; /* of the version's */
    size_t sent_bytes; /* of pending, that the file has already */
    int64_t n_pending; /* records of scalars that wait */
} qvl_event_file;

/* Touches no disk. QVL_EINTERNAL: out of memory. */
qvl_status qvl_event_file_init(qvl_event_file *file, const char *path, double wall_time_s,
                               qvl_err *err);
void qvl_event_file_fini(qvl_event_file *file); /* what waits is dropped; {0} is fine */

/* Scalars of a step become one record, which waits. QVL_EINTERNAL: out of memory, and none waits
 * that did not before. */
qvl_status qvl_event_file_add(qvl_event_file *file, double wall_time_s, int64_t step,
                              const qvl_event_scalar *scalars, size_t n, qvl_err *err);

/* Appends all records that wait in one write; a file that is not there, or is empty, gets the
 * version first. QVL_EIO: all wait on, and the file is cut back to what it was, so that readers who
 * follow it find whole records or none. Nothing is flushed. */
qvl_status qvl_event_file_write(qvl_event_file *file, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
