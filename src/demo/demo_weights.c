#include "src/demo/demo_model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "io/safetensors.h"
#include "src/base/dtype.h"
#include "src/base/files.h"
#include "src/base/memory.h"
#include "src/base/text.h"
#include "src/demo/demo_rng.h"
#include "src/demo/demo_tensors.h"

enum { BF16_BYTES = 2 };

static int64_t elements(const qvl_demo_tensor *tensor)
{
    int64_t count = 1;
    for (int i = 0; i < tensor->n_dims; i++)
        count *= tensor->shape[i];
    return count;
}

/* Each tensor has its own stream, so its values depend on nothing but its name and the seed. */
static qvl_status draw_values(void **out, const qvl_demo_tensor *tensor, uint64_t seed,
                              qvl_err *err)
{
    const int64_t count = elements(tensor);
    uint64_t random = qvl_demo_stream(seed, tensor->name);
    uint16_t *values = NULL;
    const qvl_status rc = qvl_alloc(&values, (size_t)count, sizeof *values, tensor->name, err);
    for (int64_t i = 0; rc == QVL_OK && i < count; i++)
        values[i] = qvl_bf16_from_float((float)tensor->mean +
                                        (float)tensor->std * qvl_demo_normal(&random));
    *out = values;
    return rc;
}

static qvl_status write_shard(const char *directory, const char *name,
                              const qvl_demo_tensor *tensors, size_t count, bool is_sparse,
                              uint64_t seed, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    qvl_tensor *list = NULL;
    void **values = NULL;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_alloc(&list, count, sizeof *list, "tensor list", err));
    QVL_TRY(qvl_alloc(&values, count, sizeof *values, "tensor list", err));
    for (size_t i = 0; i < count; i++) {
        if (!is_sparse)
            QVL_TRY(draw_values(&values[i], &tensors[i], seed, err));
        list[i] = (qvl_tensor){.name = tensors[i].name,
                               .type = QVL_TENSOR_BF16,
                               .n_dims = tensors[i].n_dims,
                               .data = values[i]};
        for (int k = 0; k < tensors[i].n_dims; k++)
            list[i].shape[k] = tensors[i].shape[k];
    }
    QVL_TRY(qvl_path_join(path, directory, name, err));
    QVL_TRY(qvl_safetensors_write(path, list, count, err));
out:
    for (size_t i = 0; values && i < count; i++)
        free(values[i]);
    free(values);
    free(list);
    return rc;
}

/* A tensor goes to the shard in whose share of the bytes it begins. */
static int shard_of(uint64_t offset_bytes, uint64_t total_bytes, int n_shards)
{
    const uint64_t share = (total_bytes + (uint64_t)n_shards - 1) / (uint64_t)n_shards;
    return (int)(offset_bytes / share);
}

qvl_status qvl_demo_write_weights(qvl_demo_weights *out, const char *directory,
                                  const qvl_model_dims *dims, int n_shards, bool is_sparse,
                                  uint64_t seed, qvl_err *err)
{
    char name[48], path[QVL_PATH_BYTES];
    qvl_demo_tensor *tensors = NULL;
    size_t count = 0;
    uint64_t offset = 0;
    qvl_text index = {0};
    qvl_status rc = QVL_OK;
    *out = (qvl_demo_weights){.n_shards = n_shards};
    QVL_TRY(qvl_demo_tensors(&tensors, &count, dims, err));
    for (size_t i = 0; i < count; i++)
        out->n_parameters += elements(&tensors[i]);
    out->n_tensors = (int64_t)count;
    out->total_bytes = (uint64_t)out->n_parameters * BF16_BYTES;
    QVL_TRY(qvl_text_printf(&index, err,
                            "{\n  \"metadata\": {\n    \"total_size\": %" PRIu64
                            "\n  },\n  \"weight_map\": {",
                            out->total_bytes));
    for (size_t first = 0, end = 0; first < count; first = end) {
        const int shard = shard_of(offset, out->total_bytes, out->n_shards);
        snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", shard + 1, out->n_shards);
        for (; end < count && shard_of(offset, out->total_bytes, out->n_shards) == shard; end++) {
            QVL_TRY(qvl_text_printf(&index, err, "%s\n    \"%s\": \"%s\"", end ? "," : "",
                                    tensors[end].name, name));
            offset += (uint64_t)elements(&tensors[end]) * BF16_BYTES;
        }
        QVL_TRY(write_shard(directory, name, tensors + first, end - first, is_sparse, seed, err));
    }
    QVL_TRY(qvl_text_puts(&index, "\n  }\n}\n", err));
    QVL_TRY(qvl_path_join(path, directory, "model.safetensors.index.json", err));
    QVL_TRY(qvl_file_replace(path, index.data, index.len, err));
out:
    free(tensors);
    qvl_text_fini(&index);
    return rc;
}
