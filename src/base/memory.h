/* Host memory with checked sizes.
 *
 * Sizes come from files, so every product is checked by the compiler's overflow builtins. Memory
 * from these functions is released with free().
 */
#ifndef QVL_SRC_BASE_MEMORY_H
#define QVL_SRC_BASE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* True when the result does not fit; *out is then unspecified. */
bool qvl_mul_overflows(size_t *out, size_t a, size_t b);
bool qvl_mul3_overflows(size_t *out, size_t a, size_t b, size_t c);
bool qvl_add_overflows(size_t *out, size_t a, size_t b);
bool qvl_mul_i64_overflows(int64_t *out, int64_t a, int64_t b);

/* Zeroed memory for count elements of element_bytes; what names it in the error. A count of zero
 * gives a valid pointer. QVL_EINTERNAL on overflow or when there is none. */
qvl_status qvl_alloc(void *out_pointer, size_t count, size_t element_bytes, const char *what,
                     qvl_err *err);

/* Grows *pointer so that it holds at least needed elements, doubling *capacity. Old content stays,
 * new content is not initialised. */
qvl_status qvl_reserve(void *inout_pointer, size_t *capacity, size_t needed, size_t element_bytes,
                       const char *what, qvl_err *err);

/* A copy of text (NULL stays NULL). */
qvl_status qvl_copy_text(char **out, const char *text, qvl_err *err);

/* "1.50 GiB", "20 B": into buffer, which is returned. */
const char *qvl_format_bytes(char buffer[32], uint64_t bytes);

/* "20,185,088". */
const char *qvl_format_count(char buffer[32], int64_t count);

#ifdef __cplusplus
}
#endif
#endif
