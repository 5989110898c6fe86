#include "src/base/sha256.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "src/base/files.h"

struct qvl_sha256 {
    EVP_MD_CTX *context;
};

void qvl_sha256_destroy(qvl_sha256 *hash)
{
    if (!hash)
        return;
    EVP_MD_CTX_free(hash->context);
    free(hash);
}

qvl_status qvl_sha256_create(qvl_sha256 **out, qvl_err *err)
{
    qvl_sha256 *hash = calloc(1, sizeof *hash);
    if (hash)
        hash->context = EVP_MD_CTX_new();
    if (!hash || !hash->context || EVP_DigestInit_ex(hash->context, EVP_sha256(), NULL) != 1) {
        qvl_sha256_destroy(hash);
        return qvl_fail(err, QVL_EINTERNAL, "SHA-256 is not available from libcrypto");
    }
    *out = hash;
    return QVL_OK;
}

qvl_status qvl_sha256_add(qvl_sha256 *hash, const void *bytes, size_t n_bytes, qvl_err *err)
{
    if (EVP_DigestUpdate(hash->context, bytes, n_bytes) != 1)
        return qvl_fail(err, QVL_EINTERNAL, "SHA-256 of %zu bytes", n_bytes);
    return QVL_OK;
}

qvl_status qvl_sha256_finish(qvl_sha256 *hash, char out[QVL_SHA256_TEXT_BYTES], qvl_err *err)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    const int ok = EVP_DigestFinal_ex(hash->context, digest, &n) == 1 && n == 32;
    qvl_sha256_destroy(hash);
    if (!ok)
        return qvl_fail(err, QVL_EINTERNAL, "SHA-256 could not be finished");
    for (unsigned i = 0; i < n; i++)
        snprintf(out + 2 * (size_t)i, 3, "%02x", digest[i]);
    return QVL_OK;
}

qvl_status qvl_sha256_bytes(char out[QVL_SHA256_TEXT_BYTES], const void *bytes, size_t n_bytes,
                            qvl_err *err)
{
    qvl_sha256 *hash = NULL;
    qvl_status rc = qvl_sha256_create(&hash, err);
    if (rc != QVL_OK)
        return rc;
    rc = qvl_sha256_add(hash, bytes, n_bytes, err);
    if (rc == QVL_OK)
        return qvl_sha256_finish(hash, out, err);
    qvl_sha256_destroy(hash);
    return rc;
}

qvl_status qvl_sha256_file(char out[QVL_SHA256_TEXT_BYTES], const char *path, qvl_err *err)
{
    enum { BLOCK = 1 << 20 };
    qvl_sha256 *hash = NULL;
    unsigned char *block = malloc(BLOCK);
    int fd = -1;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_file_open(&fd, path, err));
    if (!block) {
        rc = qvl_fail_memory(err, BLOCK, "SHA-256");
        goto out;
    }
    QVL_TRY(qvl_sha256_create(&hash, err));
    for (;;) {
        const ssize_t n = read(fd, block, BLOCK);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            rc = qvl_fail_errno(err, errno, 0, "%s", path);
            goto out;
        }
        if (n == 0)
            break;
        QVL_TRY(qvl_sha256_add(hash, block, (size_t)n, err));
    }
    rc = qvl_sha256_finish(hash, out, err);
    hash = NULL;
out:
    qvl_sha256_destroy(hash);
    if (fd >= 0)
        close(fd);
    free(block);
    return rc;
}
