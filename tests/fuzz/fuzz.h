/* What the fuzz targets share. A target is LLVMFuzzerTestOneInput in a file of its own; a finding
 * is whatever a sanitizer says, an input that takes over 5 s or 1 GiB, or a FUZZ_CHECK that fails.
 */
#ifndef QVL_TESTS_FUZZ_FUZZ_H
#define QVL_TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_CHECK(condition) fuzz_check(condition, #condition, __FILE__, __LINE__)
void fuzz_check(bool holds, const char *condition, const char *file, int line);

/* A failed call must say what is wrong in one line of printable text, with a status that its header
 * names: a fault of the file, never of the program. */
void fuzz_expect(qvl_status status, const qvl_err *err);

/* The directory that fuzz_file puts files in; removed when the process ends. */
const char *fuzz_directory(void);

/* Gives the file of this name these bytes and returns its path. At most 16 names. */
const char *fuzz_file(const char *name, const void *bytes, size_t n_bytes);

/* The input as a stream of numbers, zero at its end. */
typedef struct fuzz_stream {
    const uint8_t *data;
    size_t n, at;
} fuzz_stream;

uint8_t fuzz_byte(fuzz_stream *in);
/* Small, near a power of two, or any: the sizes that break things. */
int64_t fuzz_number(fuzz_stream *in);

/* Splits an input of several files: two bytes of length, then the file, for all but the last, which
 * is the rest. */
void fuzz_split(const uint8_t **parts, size_t *sizes, int n, const uint8_t *data, size_t size);

#endif
