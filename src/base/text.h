/* A growing byte string, and small text helpers. */
#ifndef QVL_SRC_BASE_TEXT_H
#define QVL_SRC_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Start with {0}; data is NUL-terminated once something was added; qvl_text_fini frees it. */
typedef struct qvl_text {
    char *data;
    size_t len;
    size_t capacity;
} qvl_text;

void qvl_text_fini(qvl_text *text);
void qvl_text_clear(qvl_text *text); /* length 0, memory kept */
qvl_status qvl_text_add(qvl_text *text, const char *bytes, size_t n_bytes, qvl_err *err);
qvl_status qvl_text_puts(qvl_text *text, const char *string, qvl_err *err);
qvl_status qvl_text_printf(qvl_text *text, qvl_err *err, const char *format, ...) QVL_PRINTF(3, 4);

/* Levenshtein distance of two short names; 99 when one is longer than 64 bytes. */
int qvl_edit_distance(const char *a, const char *b);

/* Strict UTF-8 (no overlong forms, surrogates or code points past U+10FFFF). On false *bad_offset,
 * if given, is where the first bad byte stands. */
bool qvl_utf8_is_valid(const char *bytes, size_t n_bytes, size_t *bad_offset);

/* Replaces, byte by byte, what may steer a terminal or is not UTF-8 by '?': control characters (a
 * newline too, and those of two bytes), and bytes that are no character. */
void qvl_text_keep_one_line(char *text);

/* Whole text as a number. False when anything is left over, out of range, or (double) not finite.
 */
bool qvl_parse_i64(const char *text, int64_t *out);
bool qvl_parse_double(const char *text, double *out);

/* The shortest decimal that reads back as value, as Python's repr prints it: 1e-05, 0.1, 3.0. */
const char *qvl_format_double(char buffer[40], double value);

#ifdef __cplusplus
}
#endif
#endif
