/* The manifest of a checkpoint: manifest.json with the size and SHA-256 of every file. It is
 * written last, so a directory whose manifest agrees is whole. */
#ifndef QVL_IO_MANIFEST_H
#define QVL_IO_MANIFEST_H

#include <stdint.h>

#include "src/base/status.h"
#include "src/base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

#define QVL_MANIFEST_FILE "manifest.json"

/* A file that is going to be written. */
typedef struct qvl_manifest_item {
    const char *name;
    const void *bytes;
    size_t n_bytes;
} qvl_manifest_item;

/* The manifest of these files, from what they shall contain: what goes wrong between memory and
 * disk is then seen by qvl_manifest_check. out is cleared first. */
qvl_status qvl_manifest_format(qvl_text *out, const qvl_manifest_item *items, size_t count,
                               int64_t step, qvl_err *err);

/* Lists every regular file of directory (but the manifest) and flushes all of them. */
qvl_status qvl_manifest_write(const char *directory, int64_t step, qvl_err *err);

/* Checks that every listed file is there with its size and SHA-256. QVL_EDATA or QVL_EMISSING names
 * the file. *out_step is what the manifest says. */
qvl_status qvl_manifest_check(const char *directory, int64_t *out_step, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
