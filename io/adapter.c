#include "io/adapter.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json_file.h"
#include "src/base/files.h"
#include "src/base/memory.h"

qvl_adapter_layout qvl_adapter_layout_named(const char *name)
{
    return strcmp(name, "hf4.51") == 0 ? QVL_LAYOUT_HF_4_51 : QVL_LAYOUT_HF_4_52;
}

/* ---- writing ---- */

/* The members that every PEFT since 0.14 knows, sorted; newer members have defaults. */
static qvl_status format_config(qvl_text *out, const qvl_adapter_config *config,
                                const char *base_model, const qvl_adapter_matrix *matrices,
                                size_t count, qvl_err *err)
{
    char alpha[40], dropout[40];
    bool is_first = true;
    qvl_status rc = QVL_OK;
    if (config->alpha == (double)(int64_t)config->alpha)
        snprintf(alpha, sizeof alpha, "%" PRId64, (int64_t)config->alpha);
    else
        qvl_format_double(alpha, config->alpha);
    QVL_TRY(qvl_text_puts(out,
                          "{\n  \"alpha_pattern\": {},\n  \"auto_mapping\": null,\n"
                          "  \"base_model_name_or_path\": ",
                          err));
    QVL_TRY(qvl_json_add_string(out, base_model, strlen(base_model), err));
    QVL_TRY(qvl_text_printf(
        out, err,
        ",\n  \"bias\": \"none\",\n  \"fan_in_fan_out\": false,\n  \"inference_mode\": true,\n"
        "  \"init_lora_weights\": true,\n  \"layers_pattern\": null,\n"
        "  \"layers_to_transform\": null,\n  \"lora_alpha\": %s,\n  \"lora_dropout\": %s,\n"
        "  \"modules_to_save\": null,\n  \"peft_type\": \"LORA\",\n  \"r\": %" PRId64
        ",\n  \"rank_pattern\": {},\n  \"revision\": null,\n  \"target_modules\": [\n",
        alpha, qvl_format_double(dropout, config->dropout), config->rank));
    for (size_t i = 0; i < count; i++) {
        if (matrices[i].is_b)
            continue;
        QVL_TRY(
            qvl_text_printf(out, err, "%s    \"%s\"", is_first ? "" : ",\n", matrices[i].module));
        is_first = false;
    }
    QVL_TRY(qvl_text_printf(out, err,
                            "\n  ],\n  \"task_type\": \"CAUSAL_LM\",\n  \"use_dora\": false,\n"
                            "  \"use_rslora\": %s\n}\n",
                            config->use_rslora ? "true" : "false"));
out:
    return rc;
}

static qvl_status format_tensors(qvl_text *out, qvl_adapter_layout layout,
                                 const qvl_adapter_matrix *matrices, size_t count, qvl_err *err)
{
    enum { NAME_BYTES = 192 };
    qvl_tensor *tensors = NULL;
    char *names = NULL;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_alloc(&tensors, count, sizeof *tensors, "adapter", err));
    QVL_TRY(qvl_alloc(&names, count, NAME_BYTES, "adapter", err));
    for (size_t i = 0; i < count; i++) {
        char *name = names + i * NAME_BYTES;
        snprintf(name, NAME_BYTES, "base_model.model.model.%s%s.lora_%c.weight",
                 layout == QVL_LAYOUT_HF_4_52 ? "language_model." : "", matrices[i].module,
                 matrices[i].is_b ? 'B' : 'A');
        tensors[i] = (qvl_tensor){.name = name,
                                  .type = QVL_TENSOR_F32,
                                  .n_dims = 2,
                                  .shape = {matrices[i].rows, matrices[i].cols},
                                  .data = matrices[i].data};
    }
    rc = qvl_safetensors_format(out, tensors, count, err);
out:
    free(tensors);
    free(names);
    return rc;
}

qvl_status qvl_adapter_format(qvl_text *out_config, qvl_text *out_tensors,
                              const qvl_adapter_config *config, qvl_adapter_layout layout,
                              const char *base_model, const qvl_adapter_matrix *matrices,
                              size_t count, qvl_err *err)
{
    qvl_text_clear(out_config);
    const qvl_status rc = format_config(out_config, config, base_model, matrices, count, err);
    return rc == QVL_OK ? format_tensors(out_tensors, layout, matrices, count, err) : rc;
}

qvl_status qvl_adapter_write(const char *directory, const qvl_adapter_config *config,
                             qvl_adapter_layout layout, const char *base_model,
                             const qvl_adapter_matrix *matrices, size_t count, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    qvl_text text = {0}, tensors = {0};
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_adapter_format(&text, &tensors, config, layout, base_model, matrices, count, err));
    QVL_TRY(qvl_path_join(path, directory, QVL_ADAPTER_TENSORS, err));
    QVL_TRY(qvl_file_replace(path, tensors.data, tensors.len, err));
    QVL_TRY(qvl_path_join(path, directory, QVL_ADAPTER_CONFIG, err));
    QVL_TRY(qvl_file_replace(path, text.data, text.len, err));
out:
    qvl_text_fini(&text);
    qvl_text_fini(&tensors);
    return rc;
}

/* ---- reading ---- */

typedef struct entry {
    char *module;
    bool is_b;
    const qvl_tensor *tensor;
} entry;

struct qvl_adapter_files {
    qvl_safetensors *tensors;
    qvl_adapter_targets *targets;
    entry *entries;
    size_t count;
};

void qvl_adapter_close(qvl_adapter_files *files)
{
    if (!files)
        return;
    for (size_t i = 0; files->entries && i < files->count; i++)
        free(files->entries[i].module);
    free(files->entries);
    qvl_adapter_targets_destroy(files->targets);
    qvl_safetensors_close(files->tensors);
    free(files);
}

size_t qvl_adapter_count(const qvl_adapter_files *files)
{
    return files->count;
}

const qvl_tensor *qvl_adapter_at(const qvl_adapter_files *files, size_t i, const char **out_module,
                                 bool *out_is_b)
{
    *out_module = files->entries[i].module;
    *out_is_b = files->entries[i].is_b;
    return files->entries[i].tensor;
}

qvl_target qvl_adapter_is_target(const qvl_adapter_files *files, const char *module)
{
    static const char BASE[] = "base_model.model.";
    char name[256];
    const char *first = files->entries[0].tensor->name;
    if (strncmp(first, BASE, sizeof BASE - 1) == 0)
        first += sizeof BASE - 1;
    const char *rest = strstr(first, files->entries[0].module);
    const int n = snprintf(name, sizeof name, "%.*s%s", (int)(rest - first), first, module);
    return n < (int)sizeof name ? qvl_adapter_targets_take(files->targets, name)
                                : QVL_TARGET_UNKNOWN;
}

/* A member that must be absent, null, false, empty, or the expected word. */
static qvl_status check_member(const json_t *root, const char *key, const char *expected,
                               const char *path, qvl_err *err)
{
    const json_t *value = json_object_get(root, key);
    const char *word = json_string_value(value);
    const bool is_empty = !value || json_is_null(value) || json_is_false(value) ||
                          (json_is_object(value) && json_object_size(value) == 0) ||
                          (json_is_array(value) && json_array_size(value) == 0);
    if (is_empty || (word && expected && strcmp(word, expected) == 0))
        return QVL_OK;
    return qvl_fail(err, QVL_EDATA, "%s: %s is %s, expected %s", path, key, word ? word : "set",
                    expected ? expected : "none; it is not supported");
}

/* Some ways to start an adapter take its first value out of the base weights (PiSSA, OLoRA, CorDA,
 * LoftQ, LoRA-GA); on the model's own weights such an adapter computes something else. */
static qvl_status check_start(const json_t *root, const char *path, qvl_err *err)
{
    static const char *const PLAIN[] = {"gaussian", "eva", "orthogonal"};
    const json_t *value = json_object_get(root, "init_lora_weights");
    const char *word = json_string_value(value);
    if (!value || json_is_null(value) || json_is_boolean(value))
        return QVL_OK;
    for (size_t i = 0; word && i < sizeof PLAIN / sizeof *PLAIN; i++)
        if (strcmp(word, PLAIN[i]) == 0)
            return QVL_OK;
    return qvl_fail(err, QVL_EDATA,
                    "%s: init_lora_weights is %s: an adapter to changed base weights is not "
                    "supported",
                    path, word ? word : "not a word");
}

enum { ALPHA_LIMIT = 1000000 }; /* the configuration's */

static qvl_status read_config(qvl_adapter_config *out, qvl_adapter_targets **out_targets,
                              const char *path, qvl_err *err)
{
    static const char *const ABSENT[] = {
        "alpha_pattern", "rank_pattern",      "modules_to_save",         "use_dora",
        "use_qalora",    "use_bdlora",        "fan_in_fan_out",          "lora_bias",
        "kasa_config",   "layer_replication", "layers_to_transform",     "target_parameters",
        "arrow_config",  "monteclora_config", "trainable_token_indices", "alora_invocation_tokens"};
    json_t *root = NULL;
    qvl_status rc = qvl_json_read(&root, path, 16 << 20, err);
    QVL_TRY(rc);
    const char *type = NULL;
    QVL_TRY(qvl_json_get_text(&type, root, "peft_type", path, err));
    if (!type || strcmp(type, "LORA") != 0) {
        rc = qvl_fail(err, QVL_EDATA, "%s: peft_type is %s, expected LORA", path,
                      type ? type : "missing");
        goto out;
    }
    QVL_TRY(check_member(root, "bias", "none", path, err));
    for (size_t i = 0; i < sizeof ABSENT / sizeof *ABSENT; i++)
        QVL_TRY(check_member(root, ABSENT[i], NULL, path, err));
    QVL_TRY(check_start(root, path, err));
    out->rank = 0;
    QVL_TRY(qvl_json_get_i64(&out->rank, root, "r", 1, 1024, path, err));
    out->alpha = 0.0;
    QVL_TRY(qvl_json_get_double(&out->alpha, root, "lora_alpha", path, err));
    QVL_TRY(qvl_json_get_double(&out->dropout, root, "lora_dropout", path, err));
    QVL_TRY(qvl_json_get_bool(&out->use_rslora, root, "use_rslora", path, err));
    if (out->rank < 1 || !(out->alpha > 0.0 && out->alpha <= ALPHA_LIMIT) ||
        !(out->dropout >= 0.0 && out->dropout < 1.0))
        rc = qvl_fail(err, QVL_EDATA,
                      "%s: r, lora_alpha or lora_dropout is missing or out of range", path);
    else
        rc = qvl_adapter_targets_read(out_targets, root, path, err);
out:
    json_decref(root);
    return rc;
}

/* "base_model.model." + "model."? + "language_model."? + module + ".lora_A.weight" */
static qvl_status parse_name(entry *out, const char *name, const char *path, qvl_err *err)
{
    static const char *const PREFIXES[] = {"base_model.model.", "model.", "language_model."};
    static const char *const SUFFIXES[] = {".lora_A.weight", ".lora_B.weight"};
    const char *at = name;
    for (size_t i = 0; i < sizeof PREFIXES / sizeof *PREFIXES; i++)
        if (strncmp(at, PREFIXES[i], strlen(PREFIXES[i])) == 0)
            at += strlen(PREFIXES[i]);
        else if (i == 0)
            break;
    for (int b = 0; b < 2; b++) {
        const size_t n = strlen(at), m = strlen(SUFFIXES[b]);
        if (n <= m || strcmp(at + n - m, SUFFIXES[b]) != 0)
            continue;
        const qvl_status rc = qvl_copy_text(&out->module, at, err);
        if (rc == QVL_OK)
            out->module[n - m] = '\0';
        out->is_b = b == 1;
        return rc;
    }
    return qvl_fail(err, QVL_EDATA, "%s: tensor %s is not a LoRA matrix", path, name);
}

/* PEFT's older format is a pickle, which is a program and not read here. */
static qvl_status check_format(const char *directory, const char *path, qvl_err *err)
{
    static const char PICKLE[] = "adapter_model.bin";
    char pickle[QVL_PATH_BYTES];
    const qvl_status rc = qvl_path_join(pickle, directory, PICKLE, err);
    if (rc != QVL_OK || qvl_file_exists(path) || !qvl_file_exists(pickle))
        return rc;
    return qvl_fail(err, QVL_EMISSING,
                    "%s is not there, only %s, which is not read; convert it: load it with PEFT "
                    "and save_pretrained(..., safe_serialization=True)",
                    path, PICKLE);
}

qvl_status qvl_adapter_open(qvl_adapter_files **out, qvl_adapter_config *out_config,
                            const char *directory, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    qvl_adapter_files *files = NULL;
    qvl_status rc = QVL_OK;
    *out_config = (qvl_adapter_config){0};
    QVL_TRY(qvl_alloc(&files, 1, sizeof *files, "adapter", err));
    QVL_TRY(qvl_path_join(path, directory, "adapter_config.json", err));
    QVL_TRY(read_config(out_config, &files->targets, path, err));
    QVL_TRY(qvl_path_join(path, directory, "adapter_model.safetensors", err));
    QVL_TRY(check_format(directory, path, err));
    QVL_TRY(qvl_safetensors_open(&files->tensors, path, err));
    const size_t count = qvl_safetensors_count(files->tensors);
    if (count == 0) {
        rc = qvl_fail(err, QVL_EDATA, "%s: holds no tensors", path);
        goto out;
    }
    QVL_TRY(qvl_alloc(&files->entries, count, sizeof *files->entries, "adapter", err));
    for (size_t i = 0; i < count; i++) {
        files->entries[i].tensor = qvl_safetensors_at(files->tensors, i);
        files->count++;
        QVL_TRY(parse_name(&files->entries[i], files->entries[i].tensor->name, path, err));
    }
    *out = files;
    files = NULL;
out:
    qvl_adapter_close(files);
    return rc;
}
