/* Adapters between the flat buffer and PEFT's files. */
#include "src/model/lora_files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "io/json_file.h"
#include "scratch_files.h"

#include "adapter_config.h"

static const struct {
    const char *model, *adapter;
} FIXTURES[] = {{QVL_TEST_FIXTURES "/tiny/model", QVL_TEST_FIXTURES "/tiny/adapter_final"},
                {QVL_TEST_FIXTURES "/tied/model", QVL_TEST_FIXTURES "/tied/adapter_final"},
                {QVL_TEST_FIXTURES "/wide/model", QVL_TEST_FIXTURES "/wide/adapter_init"}};

static char directory[QVL_PATH_BYTES];

/* Adapters of an adapter's kind on a model, and room for their values. */
static qvl_lora *make(const char *model, const char *adapter, float **out_values)
{
    qvl_model_dims dims;
    qvl_lora_options options;
    qvl_lora *lora = NULL;
    qvl_err err = {0};
    expect_ok(qvl_model_dims_read(&dims, model, &err), &err);
    expect_ok(qvl_lora_read_options(&options, adapter, &err), &err);
    expect_ok(qvl_lora_create(&lora, &dims, &options, &err), &err);
    *out_values = calloc((size_t)qvl_lora_parameters(lora), sizeof **out_values);
    assert_non_null(*out_values);
    return lora;
}

/* The value at every matrix's place is the tensor that PEFT wrote for it. */
static void pefts_adapters_are_loaded(void **state)
{
    char path[QVL_PATH_BYTES], module[64], name[160];
    (void)state;
    for (size_t f = 0; f < sizeof FIXTURES / sizeof *FIXTURES; f++) {
        qvl_safetensors *file = NULL;
        float *values = NULL;
        qvl_err err = {0};
        qvl_lora *lora = make(FIXTURES[f].model, FIXTURES[f].adapter, &values);
        const qvl_lora_options *options = qvl_lora_get_options(lora);
        assert_true(options->rank == 8 && options->alpha == 16.0 && options->dropout == 0.0);
        for (int s = 0; s < QVL_N_SITES; s++)
            assert_true(options->targets[s]);
        expect_ok(qvl_lora_check(lora, FIXTURES[f].adapter, &err), &err);
        expect_ok(qvl_lora_load(lora, values, FIXTURES[f].adapter, &err), &err);
        assert_int_equal(
            qvl_path_join(path, FIXTURES[f].adapter, "adapter_model.safetensors", NULL), QVL_OK);
        assert_int_equal(qvl_safetensors_open(&file, path, NULL), QVL_OK);
        assert_int_equal(qvl_safetensors_count(file), 2 * qvl_lora_modules(lora));
        for (int64_t i = 0; i < 2 * qvl_lora_modules(lora); i++) {
            const qvl_lora_matrix m = qvl_lora_matrix_at(lora, i);
            snprintf(name, sizeof name, "base_model.model.model.language_model.%s.lora_%c.weight",
                     qvl_lora_module_name(module, m.layer, m.site), m.is_b ? 'B' : 'A');
            const qvl_tensor *tensor = qvl_safetensors_find(file, name);
            assert_non_null(tensor);
            assert_int_equal(tensor->n_bytes, (size_t)(m.rows * m.cols) * sizeof(float));
            assert_memory_equal(values + m.offset, tensor->data, tensor->n_bytes);
        }
        qvl_safetensors_close(file);
        qvl_lora_destroy(lora);
        free(values);
    }
}

/* Saved in either layout and loaded again: the same bits, and the same options. */
static void saved_adapters_are_the_same(void **state)
{
    (void)state;
    for (size_t f = 0; f < sizeof FIXTURES / sizeof *FIXTURES; f++)
        for (int layout = 0; layout < 2; layout++) {
            float *values = NULL, *again = NULL;
            qvl_err err = {0};
            qvl_lora *lora = make(FIXTURES[f].model, FIXTURES[f].adapter, &values);
            const size_t n_bytes = (size_t)qvl_lora_parameters(lora) * sizeof *values;
            expect_ok(qvl_lora_load(lora, values, FIXTURES[f].adapter, &err), &err);
            values[0] = -0.0f;
            values[1] = 1e-42f; /* subnormal */
            scratch_directory(directory, "saved");
            expect_ok(qvl_lora_save(lora, values, directory, (qvl_adapter_layout)layout,
                                    FIXTURES[f].model, &err),
                      &err);
            qvl_lora *same = make(FIXTURES[f].model, directory, &again);
            assert_memory_equal(qvl_lora_get_options(same), qvl_lora_get_options(lora),
                                sizeof(qvl_lora_options));
            expect_ok(qvl_lora_load(same, again, directory, &err), &err);
            assert_memory_equal(values, again, n_bytes);
            qvl_lora_destroy(lora);
            qvl_lora_destroy(same);
            free(values);
            free(again);
        }
}

/* PEFT's rule: a module is a target when its name is an entry, or ends with a dot and an entry. */
static bool is_target(const char *name, const json_t *entries)
{
    size_t i;
    json_t *entry;
    json_array_foreach(entries, i, entry)
    {
        const char *word = json_string_value(entry);
        const size_t n = strlen(name), m = strlen(word);
        if (strcmp(name, word) == 0 ||
            (n > m && name[n - m - 1] == '.' && strcmp(name + n - m, word) == 0))
            return true;
    }
    return false;
}

static json_t *saved_targets(const char *targets, json_t **out_root)
{
    const qvl_model_dims dims = {.text = {.D = 8, .F = 8, .L = 36, .H = 2, .KV = 1, .Dh = 4}};
    qvl_lora_options options = {.rank = 1, .alpha = 1.0};
    qvl_lora *lora = NULL;
    char path[QVL_PATH_BYTES];
    assert_int_equal(qvl_lora_parse_targets(options.targets, targets, NULL), QVL_OK);
    assert_int_equal(qvl_lora_create(&lora, &dims, &options, NULL), QVL_OK);
    float *values = calloc((size_t)qvl_lora_parameters(lora), sizeof *values);
    assert_non_null(values);
    scratch_directory(directory, "targets");
    assert_int_equal(qvl_lora_save(lora, values, directory, QVL_LAYOUT_HF_4_52, "m", NULL), QVL_OK);
    free(values);
    qvl_lora_destroy(lora);
    assert_int_equal(qvl_path_join(path, directory, "adapter_config.json", NULL), QVL_OK);
    assert_int_equal(qvl_json_read(out_root, path, 1 << 20, NULL), QVL_OK);
    return json_object_get(*out_root, "target_modules");
}

/* Every linear of the language model in both namings, and none of the tower's 32 blocks or the
 * merger or the head. */
static void targets_are_the_language_models_linears(void **state)
{
    static const char *const TEXT[] = {"model.layers.%d.", "model.language_model.layers.%d."};
    static const char *const SITES[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                        "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                        "mlp.down_proj"};
    static const char *const VISION[] = {"visual.blocks.%d.", "model.visual.blocks.%d."};
    static const char *const PARTS[] = {"attn.qkv", "attn.proj", "mlp.gate_proj", "mlp.up_proj",
                                        "mlp.down_proj"};
    static const char *const OTHERS[] = {"lm_head",
                                         "visual.merger.mlp.0",
                                         "model.visual.merger.mlp.2",
                                         "model.visual.patch_embed.proj",
                                         "model.embed_tokens",
                                         "model.layers.0.mlp",
                                         "model.layers.36.mlp.up_proj"};
    json_t *root = NULL, *all = saved_targets("all", &root);
    char name[128];
    (void)state;
    assert_int_equal(json_array_size(all), 252);
    for (int naming = 0; naming < 2; naming++)
        for (int layer = 0; layer < 36; layer++) {
            int used = snprintf(name, sizeof name, TEXT[naming], layer);
            for (int s = 0; s < 7; s++) {
                snprintf(name + used, sizeof name - (size_t)used, "%s", SITES[s]);
                assert_true(is_target(name, all));
            }
            used = snprintf(name, sizeof name, VISION[naming], layer);
            for (int s = 0; s < 5; s++) {
                snprintf(name + used, sizeof name - (size_t)used, "%s", PARTS[s]);
                assert_false(is_target(name, all));
            }
        }
    for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++)
        assert_false(is_target(OTHERS[i], all));
    json_decref(root);
    json_t *some = saved_targets("up_proj", &root);
    assert_int_equal(json_array_size(some), 36);
    assert_true(is_target("model.layers.13.mlp.up_proj", some));
    assert_false(is_target("model.layers.13.mlp.gate_proj", some));
    assert_false(is_target("visual.blocks.3.mlp.up_proj", some));
    json_decref(root);
}

/* ---- adapters that do not fit --------------------------------------------------------------- */

enum { MAX_TENSORS = 64 };

/* The tiny fixture's adapter with its tensors changed by the caller. */
typedef struct edited {
    qvl_safetensors *source;
    qvl_tensor tensors[MAX_TENSORS];
    size_t count;
} edited;

static void start_edit(edited *e)
{
    scratch_directory(directory, "edited");
    copy_directory(directory, FIXTURES[0].adapter);
    assert_int_equal(
        qvl_safetensors_open(
            &e->source, QVL_TEST_FIXTURES "/tiny/adapter_final/adapter_model.safetensors", NULL),
        QVL_OK);
    e->count = qvl_safetensors_count(e->source);
    for (size_t i = 0; i < e->count; i++)
        e->tensors[i] = *qvl_safetensors_at(e->source, i);
}

static void expect_refusal(edited *e, const char *words)
{
    char path[QVL_PATH_BYTES];
    float *values = NULL;
    qvl_err err = {0};
    qvl_lora *lora = make(FIXTURES[0].model, FIXTURES[0].adapter, &values);
    assert_int_equal(qvl_path_join(path, directory, "adapter_model.safetensors", NULL), QVL_OK);
    assert_int_equal(qvl_safetensors_write(path, e->tensors, e->count, NULL), QVL_OK);
    expect_failure(qvl_lora_load(lora, values, directory, &err), QVL_EDATA, &err, words);
    expect_failure(qvl_lora_check(lora, directory, &err), QVL_EDATA, &err, words);
    qvl_safetensors_close(e->source);
    qvl_lora_destroy(lora);
    free(values);
}

static void misfits_are_refused(void **state)
{
    static const float some[8] = {0};
    edited e;
    (void)state;
    start_edit(&e);
    e.tensors[5] = e.tensors[--e.count];
    expect_refusal(&e, "is missing");
    start_edit(&e);
    e.tensors[0].shape[0] = 4; /* another rank */
    e.tensors[0].shape[1] *= 2;
    expect_refusal(&e, "has shape [4, |expected [8, ");
    start_edit(&e);
    e.tensors[0].n_dims = 1;
    e.tensors[0].shape[0] *= e.tensors[0].shape[1];
    expect_refusal(&e, "has shape [");
    start_edit(&e);
    float *none = malloc((size_t)e.tensors[0].n_bytes);
    assert_non_null(none);
    memcpy(none, e.tensors[0].data, (size_t)e.tensors[0].n_bytes);
    none[3] = (float)NAN;
    e.tensors[0].data = none;
    expect_refusal(&e, "element 3 is ");
    free(none);
    start_edit(&e);
    e.tensors[0].type = QVL_TENSOR_I32;
    expect_refusal(&e, "is I32, expected F32, BF16 or F16");
    static const char *const MORE[] = {
        "base_model.model.model.language_model.layers.3.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.language_model.layers.00.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.language_model.layers.-1.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.language_model.layers.99999999999.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.language_model.layers.0.self_attn.qkv_proj.lora_A.weight",
        "base_model.model.model.visual.blocks.0.mlp.up_proj.lora_A.weight",
        "base_model.model.lm_head.lora_A.weight"};
    for (size_t i = 0; i < sizeof MORE / sizeof *MORE; i++) {
        start_edit(&e);
        e.tensors[e.count++] = (qvl_tensor){
            .name = MORE[i], .type = QVL_TENSOR_F32, .n_dims = 2, .shape = {8, 1}, .data = some};
        expect_refusal(&e, "has no place in this model");
    }
    start_edit(&e); /* the same module under its old name, too */
    e.tensors[e.count] = e.tensors[0];
    char *old = strdup(e.tensors[0].name);
    assert_non_null(old);
    char *part = strstr(old, "language_model.");
    memmove(part, part + 15, strlen(part + 15) + 1);
    e.tensors[e.count++].name = old;
    expect_refusal(&e, "is there twice");
    free(old);
}

/* A layer too many is named by its tensor, not by the linears that this layer lacks. */
static void layers_of_a_larger_model_are_named(void **state)
{
    static const char NAME[] =
        "base_model.model.model.language_model.layers.9.self_attn.q_proj.lora_A.weight";
    char path[QVL_PATH_BYTES];
    qvl_model_dims dims;
    qvl_lora_options options;
    qvl_err err = {0};
    edited e;
    (void)state;
    start_edit(&e);
    expect_ok(qvl_model_dims_read(&dims, FIXTURES[0].model, &err), &err);
    expect_ok(qvl_lora_read_options_for(&options, &dims, directory, &err), &err);
    e.tensors[e.count] = e.tensors[0];
    e.tensors[e.count++].name = NAME;
    assert_int_equal(qvl_path_join(path, directory, "adapter_model.safetensors", NULL), QVL_OK);
    assert_int_equal(qvl_safetensors_write(path, e.tensors, e.count, NULL), QVL_OK);
    expect_failure(qvl_lora_read_options_for(&options, &dims, directory, &err), QVL_EDATA, &err,
                   "layers.9.self_attn.q_proj.lora_A.weight has no place in this model, which has "
                   "3 layers");
    qvl_safetensors_close(e.source);
}

/* bfloat16 and float16 adapters are read too. */
static void half_adapters_are_widened(void **state)
{
    char path[QVL_PATH_BYTES];
    float *values = NULL;
    uint16_t halves[8 * 256];
    edited e;
    qvl_err err = {0};
    (void)state;
    start_edit(&e);
    qvl_lora *lora = make(FIXTURES[0].model, FIXTURES[0].adapter, &values);
    for (size_t i = 0; i < sizeof halves / sizeof *halves; i++)
        halves[i] = i % 2 ? 0xc020 : 0x3c00; /* bf16 -2.5, 2^-7; f16 -2.0625, 1 */
    for (size_t i = 0; i < e.count; i++) {
        e.tensors[i].type = i % 2 ? QVL_TENSOR_BF16 : QVL_TENSOR_F16;
        e.tensors[i].data = halves;
        assert_true(qvl_tensor_elements(&e.tensors[i]) <= 8 * 256);
    }
    assert_int_equal(qvl_path_join(path, directory, "adapter_model.safetensors", NULL), QVL_OK);
    assert_int_equal(qvl_safetensors_write(path, e.tensors, e.count, NULL), QVL_OK);
    expect_ok(qvl_lora_load(lora, values, directory, &err), &err);
    for (int64_t i = 0; i < 2 * qvl_lora_modules(lora); i++) {
        const float *at = values + qvl_lora_matrix_at(lora, i).offset;
        assert_true((at[0] == 1.0f && at[1] == -2.0625f) ||
                    (at[0] == 0.0078125f && at[1] == -2.5f));
    }
    qvl_safetensors_close(e.source);
    qvl_lora_destroy(lora);
    free(values);
}

/* Options are the targets that the adapter has; adapters of other modules have none. */
static void options_are_the_adapters(void **state)
{
    qvl_lora_options options;
    edited e;
    char path[QVL_PATH_BYTES];
    qvl_err err = {0};
    (void)state;
    start_edit(&e);
    size_t kept = 0;
    for (size_t i = 0; i < e.count; i++)
        if (strstr(e.tensors[i].name, "v_proj") || strstr(e.tensors[i].name, "down_proj"))
            e.tensors[kept++] = e.tensors[i];
    assert_int_equal(qvl_path_join(path, directory, "adapter_model.safetensors", NULL), QVL_OK);
    assert_int_equal(qvl_safetensors_write(path, e.tensors, kept, NULL), QVL_OK);
    set_adapter_member(directory, "target_modules", "[\"v_proj\", \"down_proj\"]");
    expect_ok(qvl_lora_read_options(&options, directory, &err), &err);
    for (int s = 0; s < QVL_N_SITES; s++)
        assert_int_equal(options.targets[s], s == QVL_SITE_V || s == QVL_SITE_DOWN);
    e.tensors[kept] = e.tensors[0];
    e.tensors[kept++].name = "base_model.model.model.visual.blocks.0.mlp.up_proj.lora_A.weight";
    assert_int_equal(qvl_safetensors_write(path, e.tensors, kept, NULL), QVL_OK);
    expect_failure(qvl_lora_read_options(&options, directory, &err), QVL_EDATA, &err,
                   "module visual.blocks.0.mlp.up_proj is not a linear of the language model");
    qvl_safetensors_close(e.source);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pefts_adapters_are_loaded),
        cmocka_unit_test(saved_adapters_are_the_same),
        cmocka_unit_test(targets_are_the_language_models_linears),
        cmocka_unit_test(misfits_are_refused),
        cmocka_unit_test(layers_of_a_larger_model_are_named),
        cmocka_unit_test(half_adapters_are_widened),
        cmocka_unit_test(options_are_the_adapters),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
