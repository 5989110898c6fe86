#include "io/safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "src/base/files.h"
#include "src/base/memory.h"
#include "src/base/sha256.h"
#include "src/base/text.h"

static const struct {
    const char *name;
    unsigned bits;
} TYPES[QVL_N_TENSOR_TYPES] = {
    {"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
    {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
    {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
    {"I64", 64},        {"U64", 64}};

struct qvl_safetensors {
    char *path;
    unsigned char *map;
    size_t map_bytes;
    size_t data_start;
    json_t *header;      /* owns the tensors' names */
    qvl_tensor *tensors; /* by name */
    size_t count;
    char header_sha256[QVL_SHA256_TEXT_BYTES];
};

const char *qvl_tensor_type_name(qvl_tensor_type type)
{
    return TYPES[type].name;
}

unsigned qvl_tensor_type_bits(qvl_tensor_type type)
{
    return TYPES[type].bits;
}

const char *qvl_safetensors_path(const qvl_safetensors *file)
{
    return file->path;
}

size_t qvl_safetensors_count(const qvl_safetensors *file)
{
    return file->count;
}

const qvl_tensor *qvl_safetensors_at(const qvl_safetensors *file, size_t i)
{
    return &file->tensors[i];
}

const char *qvl_safetensors_header_sha256(const qvl_safetensors *file)
{
    return file->header_sha256;
}

int64_t qvl_tensor_elements(const qvl_tensor *tensor)
{
    int64_t n = 1;
    for (int i = 0; i < tensor->n_dims; i++)
        n *= tensor->shape[i];
    return n;
}

bool qvl_tensor_float_type(const qvl_tensor *tensor, qvl_dtype *out)
{
    switch (tensor->type) {
    case QVL_TENSOR_F32:
        *out = QVL_F32;
        return true;
    case QVL_TENSOR_BF16:
        *out = QVL_BF16;
        return true;
    case QVL_TENSOR_F16:
        *out = QVL_F16;
        return true;
    default:
        return false;
    }
}

const char *qvl_tensor_format_shape(char buffer[160], const int64_t *shape, int n_dims)
{
    int used = snprintf(buffer, 160, "[");
    for (int i = 0; i < n_dims && used < 136; i++)
        used += snprintf(buffer + used, 160 - (size_t)used, "%s%" PRId64, i ? ", " : "", shape[i]);
    snprintf(buffer + used, 160 - (size_t)used, "]");
    return buffer;
}

void qvl_safetensors_close(qvl_safetensors *file)
{
    if (!file)
        return;
    if (file->map)
        munmap(file->map, file->map_bytes);
    if (file->header)
        json_decref(file->header);
    free(file->tensors);
    free(file->path);
    free(file);
}

void qvl_safetensors_release(const qvl_safetensors *file, const void *data, size_t n_bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t begin = (size_t)((const unsigned char *)data - file->map);
    const size_t first = (begin + page - 1) / page * page;
    const size_t last = (begin + n_bytes) / page * page;
    if (last > first)
        madvise(file->map + first, last - first, MADV_DONTNEED);
}

static int compare_by_name(const void *a, const void *b)
{
    return strcmp(((const qvl_tensor *)a)->name, ((const qvl_tensor *)b)->name);
}

static int compare_by_offset(const void *a, const void *b)
{
    const qvl_tensor *x = a, *y = b;
    if (x->data != y->data)
        return (const char *)x->data < (const char *)y->data ? -1 : 1;
    return x->n_bytes < y->n_bytes ? -1 : x->n_bytes > y->n_bytes;
}

const qvl_tensor *qvl_safetensors_find(const qvl_safetensors *file, const char *name)
{
    const qvl_tensor key = {.name = name};
    return file->count
               ? bsearch(&key, file->tensors, file->count, sizeof *file->tensors, compare_by_name)
               : NULL;
}

static qvl_status map_file(qvl_safetensors *file, qvl_err *err)
{
    struct stat st;
    int fd = -1;
    qvl_status rc = qvl_file_open(&fd, file->path, err);
    if (rc != QVL_OK)
        return rc;
    if (fstat(fd, &st) != 0)
        rc = qvl_fail_errno(err, errno, 0, "%s", file->path);
    else if (st.st_size < 8)
        rc = qvl_fail(err, QVL_EDATA,
                      "%s: %lld bytes, too short for a safetensors header (empty or truncated)",
                      file->path, (long long)st.st_size);
    if (rc == QVL_OK) {
        file->map_bytes = (size_t)st.st_size;
        file->map = mmap(NULL, file->map_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        if (file->map == MAP_FAILED) {
            file->map = NULL;
            rc = qvl_fail_errno(err, errno, 0, "map %s", file->path);
        }
    }
    close(fd);
    return rc;
}

static qvl_status parse_header(qvl_safetensors *file, qvl_err *err)
{
    static const char POINTER[] = "version https://git-lfs";
    uint64_t n = 0;
    size_t bad = 0;
    if (file->map_bytes > sizeof POINTER && memcmp(file->map, POINTER, sizeof POINTER - 1) == 0)
        return qvl_fail(err, QVL_EDATA,
                        "%s: is a git-lfs pointer, not the weights; run \"git lfs pull\" in the "
                        "model directory",
                        file->path);
    for (int i = 7; i >= 0; i--)
        n = n << 8 | file->map[i];
    if (n > QVL_SAFETENSORS_HEADER_LIMIT)
        return qvl_fail(err, QVL_EDATA,
                        "%s: header of %" PRIu64 " bytes is over the limit of %d; not a "
                        "safetensors file?",
                        file->path, n, QVL_SAFETENSORS_HEADER_LIMIT);
    if (n + 8 > file->map_bytes)
        return qvl_fail(err, QVL_EDATA,
                        "%s: header of %" PRIu64 " bytes does not fit in a file of %zu bytes "
                        "(truncated)",
                        file->path, n, file->map_bytes);
    const char *text = (const char *)file->map + 8;
    if (!qvl_utf8_is_valid(text, (size_t)n, &bad))
        return qvl_fail(err, QVL_EDATA, "%s: header is not UTF-8 at byte %zu", file->path, bad);
    json_error_t why;
    file->header = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, &why);
    if (!file->header || !json_is_object(file->header))
        return qvl_fail(err, QVL_EDATA, "%s: header: %s at byte %d", file->path,
                        file->header ? "is not a JSON object" : why.text, why.position);
    file->data_start = (size_t)n + 8;
    return qvl_sha256_bytes(file->header_sha256, text, (size_t)n, err);
}

static qvl_status check_metadata(const qvl_safetensors *file, const json_t *metadata, qvl_err *err)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata))
        return qvl_fail(err, QVL_EDATA, "%s: __metadata__ is not an object", file->path);
    json_object_foreach((json_t *)metadata, key, value)
    {
        if (!json_is_string(value))
            return qvl_fail(err, QVL_EDATA, "%s: __metadata__.%s is not a string", file->path, key);
    }
    return QVL_OK;
}

static bool find_type(qvl_tensor_type *out, const char *name)
{
    for (int i = 0; i < QVL_N_TENSOR_TYPES; i++)
        if (strcmp(TYPES[i].name, name) == 0) {
            *out = (qvl_tensor_type)i;
            return true;
        }
    return false;
}

/* One entry of the header: types and structure only; offsets are kept in data and n_bytes. */
static qvl_status read_entry(const qvl_safetensors *file, qvl_tensor *tensor, uint64_t *begin,
                             const char *name, const json_t *entry, qvl_err *err)
{
    const json_t *dtype = json_object_get(entry, "dtype"), *shape = json_object_get(entry, "shape");
    const json_t *offsets = json_object_get(entry, "data_offsets");
    tensor->name = name;
    if (!json_is_string(dtype))
        return qvl_fail(err, QVL_EDATA, "%s: tensor %s: dtype is %s", file->path, name,
                        dtype ? "not a text" : "missing");
    if (!find_type(&tensor->type, json_string_value(dtype)))
        return qvl_fail(err, QVL_EDATA, "%s: tensor %s: dtype %s is not known", file->path, name,
                        json_string_value(dtype));
    if (!json_is_array(shape) || json_array_size(shape) > QVL_TENSOR_MAX_DIMS)
        return qvl_fail(err, QVL_EDATA, "%s: tensor %s: shape is not a list of at most %d sizes",
                        file->path, name, QVL_TENSOR_MAX_DIMS);
    tensor->n_dims = (int)json_array_size(shape);
    for (int i = 0; i < tensor->n_dims; i++) {
        const json_t *size = json_array_get(shape, (size_t)i);
        if (!json_is_integer(size) || json_integer_value(size) < 0)
            return qvl_fail(err, QVL_EDATA, "%s: tensor %s: shape[%d] is not a size", file->path,
                            name, i);
        tensor->shape[i] = json_integer_value(size);
    }
    const json_t *b = json_array_get(offsets, 0), *e = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(b) || !json_is_integer(e) ||
        json_integer_value(b) < 0 || json_integer_value(e) < 0)
        return qvl_fail(err, QVL_EDATA, "%s: tensor %s: data_offsets is not [begin, end]",
                        file->path, name);
    *begin = (uint64_t)json_integer_value(b);
    tensor->n_bytes = (uint64_t)json_integer_value(e);
    return QVL_OK;
}

/* Rows 7 to 9 of REFERENCE 10.3. */
static qvl_status check_size(const qvl_safetensors *file, const qvl_tensor *tensor, uint64_t begin,
                             uint64_t end, qvl_err *err)
{
    uint64_t bits = TYPES[tensor->type].bits;
    char shape[160];
    for (int i = 0; i < tensor->n_dims; i++)
        if (__builtin_mul_overflow(bits, (uint64_t)tensor->shape[i], &bits))
            return qvl_fail(err, QVL_EDATA, "%s: tensor %s: shape %s overflows", file->path,
                            tensor->name,
                            qvl_tensor_format_shape(shape, tensor->shape, tensor->n_dims));
    if (bits % 8)
        return qvl_fail(err, QVL_EDATA, "%s: tensor %s: %" PRIu64 " bits are not whole bytes",
                        file->path, tensor->name, bits);
    if (end - begin != bits / 8)
        return qvl_fail(err, QVL_EDATA,
                        "%s: tensor %s: data_offsets [%" PRIu64 ", %" PRIu64 "] hold %" PRIu64
                        " bytes, %s %s needs %" PRIu64,
                        file->path, tensor->name, begin, end, end - begin, TYPES[tensor->type].name,
                        qvl_tensor_format_shape(shape, tensor->shape, tensor->n_dims), bits / 8);
    return QVL_OK;
}

/* Rows 6 to 10: tensors in offset order tile the data without hole or overlap. While this runs,
 * data holds begin and n_bytes holds end, so that sorting keeps them together. */
static qvl_status check_layout(qvl_safetensors *file, qvl_err *err)
{
    uint64_t previous_end = 0;
    const uint64_t available = file->map_bytes - file->data_start;
    if (file->count)
        qsort(file->tensors, file->count, sizeof *file->tensors, compare_by_offset);
    for (size_t i = 0; i < file->count; i++) {
        qvl_tensor *tensor = &file->tensors[i];
        const uint64_t begin = (uint64_t)(uintptr_t)tensor->data, end = tensor->n_bytes;
        if (begin != previous_end || end < begin)
            return qvl_fail(err, QVL_EDATA,
                            "%s: tensor %s: data_offsets [%" PRIu64 ", %" PRIu64
                            "] %s; expected to begin at %" PRIu64,
                            file->path, tensor->name, begin, end,
                            end < begin            ? "end before they begin"
                            : begin < previous_end ? "overlap the tensor before"
                                                   : "leave a hole",
                            previous_end);
        const qvl_status rc = check_size(file, tensor, begin, end, err);
        if (rc != QVL_OK)
            return rc;
        previous_end = end;
        tensor->n_bytes = end - begin;
        tensor->data = end <= available ? file->map + file->data_start + begin : NULL;
    }
    if (previous_end != available)
        return qvl_fail(err, QVL_EDATA,
                        "%s: %" PRIu64 " bytes of data, the header describes %" PRIu64 " (%s)",
                        file->path, available, previous_end,
                        available < previous_end ? "truncated" : "extra bytes at the end");
    return QVL_OK;
}

static qvl_status read_entries(qvl_safetensors *file, qvl_err *err)
{
    const char *name;
    json_t *entry;
    qvl_status rc = qvl_alloc(&file->tensors, json_object_size(file->header), sizeof *file->tensors,
                              "tensor list", err);
    if (rc != QVL_OK)
        return rc;
    json_object_foreach(file->header, name, entry)
    {
        uint64_t begin = 0;
        if (strcmp(name, "__metadata__") == 0) {
            rc = check_metadata(file, entry, err);
        } else {
            qvl_tensor *tensor = &file->tensors[file->count++];
            rc = json_is_object(entry)
                     ? read_entry(file, tensor, &begin, name, entry, err)
                     : qvl_fail(err, QVL_EDATA, "%s: tensor %s: entry is not an object", file->path,
                                name);
            tensor->data = (const void *)(uintptr_t)begin;
        }
        if (rc != QVL_OK)
            return rc;
    }
    return QVL_OK;
}

qvl_status qvl_safetensors_open(qvl_safetensors **out, const char *path, qvl_err *err)
{
    qvl_safetensors *file = NULL;
    qvl_status rc = qvl_alloc(&file, 1, sizeof *file, "safetensors file", err);
    if (rc != QVL_OK)
        return rc;
    QVL_TRY(qvl_copy_text(&file->path, path, err));
    QVL_TRY(map_file(file, err));
    QVL_TRY(parse_header(file, err));
    QVL_TRY(read_entries(file, err));
    QVL_TRY(check_layout(file, err));
    if (file->count)
        qsort(file->tensors, file->count, sizeof *file->tensors, compare_by_name);
    *out = file;
    return QVL_OK;
out:
    qvl_safetensors_close(file);
    return rc;
}
