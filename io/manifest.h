/* The manifest of a checkpoint: manifest.json with the size and SHA-256 of every file. It is
 * written last, so a directory whose manifest agrees is whole. */
#ifndef QVL_IO_MANIFEST_H
#define QVL_IO_MANIFEST_H

#include <stdint.h>

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Lists every regular file of directory (but the manifest) and flushes all of them. */
qvl_status qvl_manifest_write(const char *directory, int64_t step, qvl_err *err);

/* Checks that every listed file is there with its size and SHA-256. QVL_EDATA or QVL_EMISSING names
 * the file. *out_step is what the manifest says. */
qvl_status qvl_manifest_check(const char *directory, int64_t *out_step, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
