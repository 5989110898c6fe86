/* A pre-tokenized file that is there already. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "io/dataset_h5.h"
#include "src/base/files.h"
#include "src/data/prepare_internal.h"

static bool has(const char *bytes, size_t n, const char *word)
{
    const size_t length = strlen(word);
    for (size_t i = 0; i + length <= n; i++)
        if (memcmp(bytes + i, word, length) == 0)
            return true;
    return false;
}

/* overwrite_cache: what qvl wrote is written again, also where it is damaged; nothing else is. What
 * it writes begins with its format and the digest. */
static qvl_status check_replaceable(const char *path, qvl_err *err)
{
    static const char HDF5[4] = {'\x89', 'H', 'D', 'F'};
    char first[4096];
    int fd = -1;
    qvl_status rc = qvl_file_open(&fd, path, err);
    if (rc != QVL_OK)
        return rc;
    const ssize_t got = pread(fd, first, sizeof first, 0);
    const size_t n = got > 0 ? (size_t)got : 0;
    close(fd);
    if (n > sizeof HDF5 && memcmp(first, HDF5, sizeof HDF5) == 0 && has(first, n, "qvl-sft") &&
        has(first, n, "digest"))
        return QVL_OK;
    return qvl_fail(err, QVL_EDATA,
                    "overwrite_cache: %s was not written by qvl and is left as it is; give another "
                    "tokenized_path, or leave `dataset` out to train on this file",
                    path);
}

qvl_status qvl_prepare_check_existing(bool *out_fits, const char *path, const char *digest,
                                      const qvl_config *config, qvl_log *log, qvl_err *err)
{
    const bool is_given = config->tokenized_path && config->tokenized_path[0];
    qvl_dataset *data = NULL;
    qvl_err why = {QVL_OK, ""};
    *out_fits = false;
    if (!qvl_file_exists(path))
        return QVL_OK;
    if (config->overwrite_cache)
        return is_given ? check_replaceable(path, err) : QVL_OK;
    qvl_status rc = qvl_dataset_open(&data, path, &why);
    if (rc == QVL_OK && !qvl_dataset_digest(data)[0])
        rc = qvl_fail(&why, QVL_EDATA,
                      "%s: has no digest, so it was not made from the data that `dataset` names; "
                      "leave `dataset` out to train on this file, or give another tokenized_path",
                      path);
    else if (rc == QVL_OK && strcmp(qvl_dataset_digest(data), digest) != 0)
        rc =
            qvl_fail(&why, QVL_EDATA,
                     "%s: was made from other data, tokenizer or settings (its digest is %.12s..., "
                     "expected %.12s...); remove it, or set overwrite_cache: true",
                     path, qvl_dataset_digest(data), digest);
    qvl_dataset_close(data);
    *out_fits = rc == QVL_OK;
    if (rc == QVL_OK)
        return QVL_OK;
    if (is_given)
        return qvl_fail(err, rc, "%s", why.text);
    qvl_log_line(log, "data or settings changed since %s was written: encoding again", path);
    return QVL_OK;
}
