/* SHA-256 of bytes and files, as 64 lower-case hexadecimal digits. */
#ifndef QVL_SRC_BASE_SHA256_H
#define QVL_SRC_BASE_SHA256_H

#include <stddef.h>

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define QVL_SHA256_TEXT_BYTES 65

typedef struct qvl_sha256 qvl_sha256;

/* *out belongs to the caller; finish or destroy releases it. */
qvl_status qvl_sha256_create(qvl_sha256 **out, qvl_err *err);
qvl_status qvl_sha256_add(qvl_sha256 *hash, const void *bytes, size_t n_bytes, qvl_err *err);
qvl_status qvl_sha256_finish(qvl_sha256 *hash, char out[QVL_SHA256_TEXT_BYTES], qvl_err *err);
void qvl_sha256_destroy(qvl_sha256 *hash);

qvl_status qvl_sha256_bytes(char out[QVL_SHA256_TEXT_BYTES], const void *bytes, size_t n_bytes,
                            qvl_err *err);
qvl_status qvl_sha256_file(char out[QVL_SHA256_TEXT_BYTES], const char *path, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
