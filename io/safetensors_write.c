#include "io/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "src/base/files.h"
#include "src/base/memory.h"

static int compare_for_writing(const void *a, const void *b)
{
    const qvl_tensor *x = a, *y = b;
    if (x->type != y->type)
        return x->type > y->type ? -1 : 1;
    return strcmp(x->name, y->name);
}

static qvl_status add_json_string(qvl_text *text, const char *string, qvl_err *err)
{
    json_t *value = json_string(string);
    char *encoded = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
    const qvl_status rc = encoded
                              ? qvl_text_puts(text, encoded, err)
                              : qvl_fail(err, QVL_EINTERNAL, "tensor name %s is not UTF-8", string);
    free(encoded);
    json_decref(value);
    return rc;
}

static qvl_status format_header(qvl_text *header, qvl_tensor *sorted, size_t count, qvl_err *err)
{
    uint64_t offset = 0;
    char shape[160];
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_text_puts(header, "{\"__metadata__\":{\"format\":\"pt\"}", err));
    for (size_t i = 0; i < count; i++) {
        qvl_tensor *tensor = &sorted[i];
        tensor->n_bytes =
            (uint64_t)qvl_tensor_elements(tensor) * qvl_tensor_type_bits(tensor->type) / 8;
        qvl_tensor_format_shape(shape, tensor->shape, tensor->n_dims);
        size_t kept = 0;
        for (const char *c = shape; *c; c++) /* compact: no spaces */
            if (*c != ' ')
                shape[kept++] = *c;
        shape[kept] = '\0';
        QVL_TRY(qvl_text_puts(header, ",", err));
        QVL_TRY(add_json_string(header, tensor->name, err));
        QVL_TRY(qvl_text_printf(
            header, err,
            ":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}",
            qvl_tensor_type_name(tensor->type), shape, offset, offset + tensor->n_bytes));
        offset += tensor->n_bytes;
    }
    QVL_TRY(qvl_text_puts(header, "}", err));
    while (header->len % 8)
        QVL_TRY(qvl_text_puts(header, " ", err));
    if (header->len > QVL_SAFETENSORS_HEADER_LIMIT)
        rc = qvl_fail(err, QVL_EINTERNAL, "safetensors header of %zu bytes, no reader takes it",
                      header->len);
out:
    return rc;
}

static qvl_status write_all(int fd, const qvl_text *header, const qvl_tensor *sorted, size_t count,
                            const char *path, qvl_err *err)
{
    unsigned char length[8];
    uint64_t end = 8 + header->len;
    qvl_status rc = QVL_OK;
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)header->len >> (8 * i));
    QVL_TRY(qvl_file_write_fd(fd, length, 8, path, err));
    QVL_TRY(qvl_file_write_fd(fd, header->data, header->len, path, err));
    for (size_t i = 0; i < count; i++) {
        end += sorted[i].n_bytes;
        if (sorted[i].data)
            QVL_TRY(qvl_file_write_fd(fd, sorted[i].data, (size_t)sorted[i].n_bytes, path, err));
        else if (lseek(fd, (off_t)end, SEEK_SET) < 0)
            return qvl_fail_errno(err, errno, 1, "write %s", path);
    }
    if (ftruncate(fd, (off_t)end) != 0 || fsync(fd) != 0)
        return qvl_fail_errno(err, errno, 1, "write %s", path);
out:
    return rc;
}

static qvl_status sort_tensors(qvl_tensor **out, qvl_text *header, const qvl_tensor *tensors,
                               size_t count, qvl_err *err)
{
    const qvl_status rc = qvl_alloc(out, count, sizeof **out, "tensor list", err);
    if (rc != QVL_OK)
        return rc;
    if (count) {
        memcpy(*out, tensors, count * sizeof **out);
        qsort(*out, count, sizeof **out, compare_for_writing);
    }
    return format_header(header, *out, count, err);
}

qvl_status qvl_safetensors_format(qvl_text *out, const qvl_tensor *tensors, size_t count,
                                  qvl_err *err)
{
    qvl_text header = {0};
    qvl_tensor *sorted = NULL;
    char length[8];
    size_t total = 8;
    qvl_status rc = QVL_OK;
    qvl_text_clear(out);
    QVL_TRY(sort_tensors(&sorted, &header, tensors, count, err));
    total += header.len;
    for (size_t i = 0; i < count; i++)
        total += (size_t)sorted[i].n_bytes;
    QVL_TRY(qvl_reserve(&out->data, &out->capacity, total + 1, 1, "safetensors", err));
    for (int i = 0; i < 8; i++)
        length[i] = (char)((uint64_t)header.len >> (8 * i));
    QVL_TRY(qvl_text_add(out, length, sizeof length, err));
    QVL_TRY(qvl_text_add(out, header.data, header.len, err));
    for (size_t i = 0; i < count; i++)
        QVL_TRY(qvl_text_add(out, sorted[i].data, (size_t)sorted[i].n_bytes, err));
out:
    qvl_text_fini(&header);
    free(sorted);
    return rc;
}

qvl_status qvl_safetensors_write(const char *path, const qvl_tensor *tensors, size_t count,
                                 qvl_err *err)
{
    qvl_text header = {0};
    qvl_tensor *sorted = NULL;
    char temporary[QVL_PATH_BYTES];
    int fd = -1;
    qvl_status rc = QVL_OK;
    temporary[0] = '\0';
    QVL_TRY(sort_tensors(&sorted, &header, tensors, count, err));
    if (snprintf(temporary, sizeof temporary, "%s.%ld.tmp", path, (long)getpid()) >=
        (int)sizeof temporary) {
        temporary[0] = '\0';
        rc = qvl_fail(err, QVL_EDATA, "path longer than %d bytes", QVL_PATH_BYTES - 1);
        goto out;
    }
    fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        rc = qvl_fail_errno(err, errno, 1, "create %s", path);
        goto out;
    }
    QVL_TRY(write_all(fd, &header, sorted, count, path, err));
out:
    if (fd >= 0 && close(fd) != 0 && rc == QVL_OK)
        rc = qvl_fail_errno(err, errno, 1, "close %s", path);
    if (rc == QVL_OK && rename(temporary, path) != 0)
        rc = qvl_fail_errno(err, errno, 1, "rename to %s", path);
    if (rc != QVL_OK && temporary[0])
        unlink(temporary);
    if (rc == QVL_OK)
        rc = qvl_file_flush_parent(path, err);
    qvl_text_fini(&header);
    free(sorted);
    return rc;
}
