/* Where the records of a JSON data file are: a JSON array of objects, or objects one after the
 * other (JSON lines). Once a line has held a whole record, each line is taken to hold its own: one
 * that is torn is a record that qvl_record_read refuses, and the next line is the next record.
 *
 * Finding them is one pass over the file in blocks; nothing of their content is kept, so memory is
 * 24 bytes a record. A record is then read and parsed by itself, by whoever needs it.
 */
#ifndef QVL_IO_RECORD_FILE_H
#define QVL_IO_RECORD_FILE_H

#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "src/base/sha256.h"
#include "src/base/status.h"
#include "src/base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { QVL_RECORD_LIMIT_BYTES = 64 << 20 };

typedef struct qvl_record_span {
    int64_t offset, length; /* bytes in the file */
    int64_t line;           /* where it begins, from 1 */
} qvl_record_span;

typedef struct qvl_record_list {
    qvl_record_span *spans;
    size_t count, capacity;
    char sha256[QVL_SHA256_TEXT_BYTES]; /* of the whole file */
} qvl_record_list;

/* Start with {0}. QVL_EDATA with file:line when the records do not follow one another as JSON asks,
 * or one is longer than QVL_RECORD_LIMIT_BYTES. */
qvl_status qvl_record_list_scan(qvl_record_list *out, const char *path, qvl_err *err);
void qvl_record_list_fini(qvl_record_list *list);

/* Reads one record through fd (path names it) and parses it. scratch is reused between calls.
 * Syntax errors are QVL_EDATA with the line in the file. *out is released with json_decref. */
qvl_status qvl_record_read(json_t **out, int fd, const char *path, const qvl_record_span *span,
                           qvl_text *scratch, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
