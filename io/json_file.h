/* JSON files and typed access to their members, with messages that name file and member. */
#ifndef QVL_IO_JSON_FILE_H
#define QVL_IO_JSON_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "src/base/status.h"
#include "src/base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Reads and parses a file of at most limit_bytes; syntax errors name line and column (QVL_EDATA).
 * *out is the caller's, released with json_decref. */
qvl_status qvl_json_read(json_t **out, const char *path, size_t limit_bytes, qvl_err *err);

/* Members of an object. A member that is missing (or null) leaves *out as it is and is fine; one of
 * another type or out of range is QVL_EDATA. where is the file, for the message. */
qvl_status qvl_json_get_i64(int64_t *out, const json_t *object, const char *key, int64_t min,
                            int64_t max, const char *where, qvl_err *err);
qvl_status qvl_json_get_double(double *out, const json_t *object, const char *key,
                               const char *where, qvl_err *err);
qvl_status qvl_json_get_bool(bool *out, const json_t *object, const char *key, const char *where,
                             qvl_err *err);
/* Borrowed from object. */
qvl_status qvl_json_get_text(const char **out, const json_t *object, const char *key,
                             const char *where, qvl_err *err);

/* Appends value as Python's json.dumps(value, ensure_ascii=False) prints it: ", " and ": " between,
 * members in their order, floats in their shortest form. */
qvl_status qvl_json_dump_python(qvl_text *out, const json_t *value, qvl_err *err);

/* Appends value as json.dumps(value, indent=indent, sort_keys=True) prints it, which is how
 * transformers writes its state files. */
qvl_status qvl_json_dump_indented(qvl_text *out, const json_t *value, int indent, qvl_err *err);

/* A real; jansson refuses those that are not finite (JSON has none), and so they become the texts
 * "NaN", "Infinity" and "-Infinity". */
json_t *qvl_json_real(double value);

/* Appends a JSON string literal of text (control characters and quotes escaped). */
qvl_status qvl_json_add_string(qvl_text *out, const char *text, size_t n_bytes, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
