#include "src/model/lora_files.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/files.h"
#include "src/base/memory.h"

qvl_status qvl_lora_format(const qvl_lora *lora, const float *host, qvl_text *out_config,
                           qvl_text *out_tensors, qvl_adapter_layout layout, const char *base_model,
                           qvl_err *err)
{
    const qvl_lora_options *options = qvl_lora_get_options(lora);
    const size_t count = 2 * (size_t)qvl_lora_modules(lora);
    qvl_adapter_matrix *matrices = NULL;
    char(*names)[64] = NULL;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_alloc(&matrices, count, sizeof *matrices, "adapter", err));
    QVL_TRY(qvl_alloc(&names, count, sizeof *names, "adapter", err));
    for (size_t i = 0; i < count; i++) {
        const qvl_lora_matrix m = qvl_lora_matrix_at(lora, (int64_t)i);
        matrices[i] =
            (qvl_adapter_matrix){.module = qvl_lora_module_name(names[i], m.layer, m.site),
                                 .is_b = m.is_b,
                                 .rows = m.rows,
                                 .cols = m.cols,
                                 .data = host + m.offset};
    }
    const qvl_adapter_config config = {.rank = options->rank,
                                       .alpha = options->alpha,
                                       .dropout = options->dropout,
                                       .use_rslora = options->use_rslora};
    rc = qvl_adapter_format(out_config, out_tensors, &config, layout, base_model, matrices, count,
                            err);
out:
    free(matrices);
    free(names);
    return rc;
}

qvl_status qvl_lora_save(const qvl_lora *lora, const float *host, const char *directory,
                         qvl_adapter_layout layout, const char *base_model, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    qvl_text config = {0}, tensors = {0};
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_lora_format(lora, host, &config, &tensors, layout, base_model, err));
    QVL_TRY(qvl_path_join(path, directory, QVL_ADAPTER_TENSORS, err));
    QVL_TRY(qvl_file_replace(path, tensors.data, tensors.len, err));
    QVL_TRY(qvl_path_join(path, directory, QVL_ADAPTER_CONFIG, err));
    QVL_TRY(qvl_file_replace(path, config.data, config.len, err));
out:
    qvl_text_fini(&config);
    qvl_text_fini(&tensors);
    return rc;
}

/* "layers.3.mlp.gate_proj" -> 3, QVL_SITE_GATE. False for any other name. */
static bool parse_module(const char *module, int *layer, qvl_site *site)
{
    char name[64];
    int number = 0, used = 0;
    if (sscanf(module, "layers.%d.%n", &number, &used) != 1 || used == 0 || number < 0)
        return false;
    for (int s = 0; s < QVL_N_SITES; s++)
        if (strcmp(qvl_lora_module_name(name, number, (qvl_site)s), module) == 0) {
            *layer = number;
            *site = (qvl_site)s;
            return true;
        }
    return false;
}

/* PEFT builds what target_modules says, whatever the tensors are: the others would be lost there.
 * Looks at each linear of a layer, whose tensors begin with the first: they are in order of name.
 */
static qvl_status check_targets(const qvl_adapter_files *files, size_t first, int layer,
                                const char *directory, qvl_err *err)
{
    bool has_tensors[QVL_N_SITES] = {false};
    char name[64];
    for (size_t i = first; i < qvl_adapter_count(files); i++) {
        const char *module = NULL;
        bool is_b = false;
        int other = 0;
        qvl_site site = QVL_SITE_Q;
        qvl_adapter_at(files, i, &module, &is_b);
        if (!parse_module(module, &other, &site) || other != layer)
            break;
        has_tensors[site] = true;
    }
    for (int s = 0; s < QVL_N_SITES; s++) {
        const char *module = qvl_lora_module_name(name, layer, (qvl_site)s);
        const qvl_target target = qvl_adapter_is_target(files, module);
        if (target == (has_tensors[s] ? QVL_TARGET_NO : QVL_TARGET_YES))
            return qvl_fail(err, QVL_EDATA,
                            "%s/%s: target_modules %s %s, which has %s in %s; expected the modules "
                            "that have tensors",
                            directory, QVL_ADAPTER_CONFIG, has_tensors[s] ? "leaves out" : "takes",
                            module, has_tensors[s] ? "tensors" : "no tensors", QVL_ADAPTER_TENSORS);
    }
    return QVL_OK;
}

/* n_layers: of the model; a tensor of a layer that it does not have is named before its targets are
 * looked at, which would blame the linears that this layer lacks. */
static qvl_status read_options(qvl_lora_options *out, int64_t n_layers, const char *directory,
                               qvl_err *err)
{
    qvl_adapter_files *files = NULL;
    qvl_adapter_config config;
    int last = -1;
    qvl_status rc = qvl_adapter_open(&files, &config, directory, err);
    if (rc != QVL_OK)
        return rc;
    *out = (qvl_lora_options){.rank = config.rank,
                              .alpha = config.alpha,
                              .dropout = config.dropout,
                              .use_rslora = config.use_rslora};
    for (size_t i = 0; i < qvl_adapter_count(files); i++) {
        const char *module = NULL;
        bool is_b = false;
        int layer = 0;
        qvl_site site = QVL_SITE_Q;
        const qvl_tensor *tensor = qvl_adapter_at(files, i, &module, &is_b);
        if (!parse_module(module, &layer, &site)) {
            rc = qvl_fail(err, QVL_EDATA,
                          "%s: module %s is not a linear of the language model; adapters of others "
                          "are not supported",
                          directory, module);
            goto out;
        }
        if (layer >= n_layers) {
            rc = qvl_fail(err, QVL_EDATA,
                          "%s: tensor %s has no place in this model, which has %" PRId64 " layers",
                          directory, tensor->name, n_layers);
            goto out;
        }
        out->targets[site] = true;
        if (layer != last)
            QVL_TRY(check_targets(files, i, layer, directory, err));
        last = layer;
    }
out:
    qvl_adapter_close(files);
    return rc;
}

qvl_status qvl_lora_read_options(qvl_lora_options *out, const char *directory, qvl_err *err)
{
    return read_options(out, INT64_MAX, directory, err);
}

qvl_status qvl_lora_read_options_for(qvl_lora_options *out, const qvl_model_dims *dims,
                                     const char *directory, qvl_err *err)
{
    return read_options(out, dims->text.L, directory, err);
}

/* An element of a tensor of any float type. */
static float float_at(const qvl_tensor *tensor, qvl_dtype type, int64_t i)
{
    const char *from = (const char *)tensor->data + (size_t)i * qvl_dtype_bytes(type);
    uint16_t half = 0;
    float value = 0.0f;
    if (type == QVL_F32) {
        memcpy(&value, from, sizeof value);
        return value;
    }
    memcpy(&half, from, sizeof half);
    return type == QVL_BF16 ? qvl_float_from_bf16(half) : qvl_float_from_f16(half);
}

/* Copies a tensor into float32, or only looks at it (to NULL). */
static qvl_status copy_floats(float *to, const qvl_tensor *tensor, qvl_dtype type,
                              const char *directory, qvl_err *err)
{
    const int64_t n = qvl_tensor_elements(tensor);
    for (int64_t i = 0; i < n; i++) {
        const float value = float_at(tensor, type, i);
        if (!isfinite(value))
            return qvl_fail(err, QVL_EDATA,
                            "%s: tensor %s: element %" PRId64 " is %g; an adapter that is "
                            "continued must be finite",
                            directory, tensor->name, i, (double)value);
        if (to)
            to[i] = value;
    }
    return QVL_OK;
}

static qvl_status load_matrix(const qvl_lora *lora, float *host, char *is_loaded,
                              const qvl_tensor *tensor, const char *module, bool is_b,
                              const char *directory, qvl_err *err)
{
    char got[160], expected[160];
    int layer = 0;
    qvl_site site = QVL_SITE_Q;
    qvl_dtype type = QVL_F32;
    const int64_t count = 2 * qvl_lora_modules(lora);
    if (!qvl_tensor_float_type(tensor, &type))
        return qvl_fail(err, QVL_EDATA, "%s: tensor %s is %s, expected F32, BF16 or F16", directory,
                        tensor->name, qvl_tensor_type_name(tensor->type));
    const bool is_known = parse_module(module, &layer, &site);
    for (int64_t i = 0; is_known && i < count; i++) {
        const qvl_lora_matrix m = qvl_lora_matrix_at(lora, i);
        if (m.layer != layer || m.site != site || m.is_b != is_b)
            continue;
        const int64_t shape[2] = {m.rows, m.cols};
        if (tensor->n_dims != 2 || tensor->shape[0] != m.rows || tensor->shape[1] != m.cols)
            return qvl_fail(err, QVL_EDATA, "%s: tensor %s has shape %s, expected %s", directory,
                            tensor->name,
                            qvl_tensor_format_shape(got, tensor->shape, tensor->n_dims),
                            qvl_tensor_format_shape(expected, shape, 2));
        if (is_loaded[i])
            return qvl_fail(err, QVL_EDATA, "%s: tensor %s is there twice", directory,
                            tensor->name);
        is_loaded[i] = 1;
        return copy_floats(host ? host + m.offset : NULL, tensor, type, directory, err);
    }
    return qvl_fail(err, QVL_EDATA, "%s: tensor %s has no place in this model", directory,
                    tensor->name);
}

qvl_status qvl_lora_load(const qvl_lora *lora, float *host, const char *directory, qvl_err *err)
{
    const int64_t count = 2 * qvl_lora_modules(lora);
    qvl_adapter_files *files = NULL;
    qvl_adapter_config config;
    char *is_loaded = NULL, name[64];
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_adapter_open(&files, &config, directory, err));
    QVL_TRY(qvl_alloc(&is_loaded, (size_t)count, 1, "adapter", err));
    for (size_t i = 0; i < qvl_adapter_count(files); i++) {
        const char *module = NULL;
        bool is_b = false;
        const qvl_tensor *tensor = qvl_adapter_at(files, i, &module, &is_b);
        QVL_TRY(load_matrix(lora, host, is_loaded, tensor, module, is_b, directory, err));
    }
    for (int64_t i = 0; i < count; i++) {
        const qvl_lora_matrix m = qvl_lora_matrix_at(lora, i);
        if (!is_loaded[i]) {
            rc = qvl_fail(err, QVL_EDATA, "%s: lora_%c of %s is missing", directory,
                          m.is_b ? 'B' : 'A', qvl_lora_module_name(name, m.layer, m.site));
            goto out;
        }
    }
out:
    free(is_loaded);
    qvl_adapter_close(files);
    return rc;
}

qvl_status qvl_lora_check(const qvl_lora *lora, const char *directory, qvl_err *err)
{
    return qvl_lora_load(lora, NULL, directory, err);
}
