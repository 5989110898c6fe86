/* Safetensors files: u64 little-endian N, N bytes of JSON header, data (REFERENCE 10).
 *
 * Opening maps the file and makes every check of the reference reader, in its order, and refuses
 * duplicated names and fields as well. Tensor data is not read. All fails with QVL_EDATA (or
 * QVL_EMISSING when the file is not there) and a text that names file and tensor.
 */
#ifndef QVL_IO_SAFETENSORS_H
#define QVL_IO_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/dtype.h"
#include "src/base/status.h"
#include "src/base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    QVL_TENSOR_MAX_DIMS = 8,
    QVL_SAFETENSORS_HEADER_LIMIT = 100000000 /* bytes; the reference reader's */
};

/* In the format's own order, which the writer sorts by. */
typedef enum qvl_tensor_type {
    QVL_TENSOR_BOOL,
    QVL_TENSOR_F4,
    QVL_TENSOR_F6_E2M3,
    QVL_TENSOR_F6_E3M2,
    QVL_TENSOR_U8,
    QVL_TENSOR_I8,
    QVL_TENSOR_F8_E5M2,
    QVL_TENSOR_F8_E4M3,
    QVL_TENSOR_F8_E8M0,
    QVL_TENSOR_F8_E4M3FNUZ,
    QVL_TENSOR_F8_E5M2FNUZ,
    QVL_TENSOR_I16,
    QVL_TENSOR_U16,
    QVL_TENSOR_F16,
    QVL_TENSOR_BF16,
    QVL_TENSOR_I32,
    QVL_TENSOR_U32,
    QVL_TENSOR_F32,
    QVL_TENSOR_C64,
    QVL_TENSOR_F64,
    QVL_TENSOR_I64,
    QVL_TENSOR_U64,
    QVL_N_TENSOR_TYPES
} qvl_tensor_type;

typedef struct qvl_tensor {
    const char *name; /* borrowed from the file object; from the caller when writing */
    qvl_tensor_type type;
    int n_dims;
    int64_t shape[QVL_TENSOR_MAX_DIMS];
    const void *data; /* in the map; when writing, NULL leaves a hole that reads as zeros */
    uint64_t n_bytes;
} qvl_tensor;

typedef struct qvl_safetensors qvl_safetensors;

qvl_status qvl_safetensors_open(qvl_safetensors **out, const char *path, qvl_err *err);
void qvl_safetensors_close(qvl_safetensors *file); /* NULL is fine */

const char *qvl_safetensors_path(const qvl_safetensors *file);
size_t qvl_safetensors_count(const qvl_safetensors *file);
/* Tensor i in order of name; valid until close. */
const qvl_tensor *qvl_safetensors_at(const qvl_safetensors *file, size_t i);
/* NULL when there is none of this name. */
const qvl_tensor *qvl_safetensors_find(const qvl_safetensors *file, const char *name);
/* SHA-256 of the header bytes, 64 hexadecimal digits. */
const char *qvl_safetensors_header_sha256(const qvl_safetensors *file);
/* n_bytes at data, within a tensor, are no longer needed here: whole pages leave this process. They
 * can be read again. */
void qvl_safetensors_release(const qvl_safetensors *file, const void *data, size_t n_bytes);

const char *qvl_tensor_type_name(qvl_tensor_type type);
unsigned qvl_tensor_type_bits(qvl_tensor_type type); /* of one element */
int64_t qvl_tensor_elements(const qvl_tensor *tensor);
/* F32, BF16 and F16 as a device element type; false for the others. */
bool qvl_tensor_float_type(const qvl_tensor *tensor, qvl_dtype *out);
/* "[2, 3]" */
const char *qvl_tensor_format_shape(char buffer[160], const int64_t *shape, int n_dims);

/* Writes the file as the reference writer does: tensors by descending type, then name; compact JSON
 * with {"__metadata__":{"format":"pt"}} first, header padded with spaces to a multiple of 8.
 * n_bytes of the tensors is computed here. Written under another name, flushed, renamed. */
qvl_status qvl_safetensors_write(const char *path, const qvl_tensor *tensors, size_t count,
                                 qvl_err *err);

/* The same bytes in memory; every tensor must have data. out is cleared first. */
qvl_status qvl_safetensors_format(qvl_text *out, const qvl_tensor *tensors, size_t count,
                                  qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
