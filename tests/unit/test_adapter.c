/* PEFT adapter files: what is written (REFERENCE 9.5, 9.6) and which ones are read. */
#include "io/adapter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "io/json_file.h"
#include "scratch_files.h"

#define PEFT_FINAL QVL_TEST_FIXTURES "/tiny/adapter_final"

static char directory[QVL_PATH_BYTES];

static const float VALUES[] = {1, 2, 3, 4, 5, 6, 7, 8};
static const qvl_adapter_matrix MATRICES[] = {
    {.module = "layers.0.self_attn.q_proj", .rows = 2, .cols = 3, .data = VALUES},
    {.module = "layers.0.self_attn.q_proj", .is_b = true, .rows = 4, .cols = 2, .data = VALUES},
    {.module = "layers.10.mlp.up_proj", .rows = 2, .cols = 1, .data = VALUES + 1},
    {.module = "layers.10.mlp.up_proj", .is_b = true, .rows = 1, .cols = 2, .data = VALUES + 2}};

static void write_adapter(qvl_adapter_config config, qvl_adapter_layout layout, const char *model)
{
    qvl_err err = {0};
    scratch_directory(directory, "adapter");
    expect_ok(qvl_adapter_write(directory, &config, layout, model, MATRICES, 4, &err), &err);
    assert_int_equal(count_in(directory, ""), 2);
}

static qvl_text read_config_text(void)
{
    char path[QVL_PATH_BYTES];
    assert_int_equal(qvl_path_join(path, directory, "adapter_config.json", NULL), QVL_OK);
    return read_file(path);
}

/* Byte for byte: members sorted, indented by 2, and no more of them than PEFT 0.14 knows. */
static void config_is_the_smallest_that_peft_reads(void **state)
{
    static const char WANT[] =
        "{\n  \"alpha_pattern\": {},\n  \"auto_mapping\": null,\n"
        "  \"base_model_name_or_path\": \"a \\\"model\\\"\\\\x\",\n  \"bias\": \"none\",\n"
        "  \"fan_in_fan_out\": false,\n  \"inference_mode\": true,\n"
        "  \"init_lora_weights\": true,\n  \"layers_pattern\": null,\n"
        "  \"layers_to_transform\": null,\n  \"lora_alpha\": 16,\n  \"lora_dropout\": 0.1,\n"
        "  \"modules_to_save\": null,\n  \"peft_type\": \"LORA\",\n  \"r\": 2,\n"
        "  \"rank_pattern\": {},\n  \"revision\": null,\n  \"target_modules\": [\n"
        "    \"layers.0.self_attn.q_proj\",\n    \"layers.10.mlp.up_proj\"\n  ],\n"
        "  \"task_type\": \"CAUSAL_LM\",\n  \"use_dora\": false,\n  \"use_rslora\": false\n}\n";
    (void)state;
    write_adapter((qvl_adapter_config){.rank = 2, .alpha = 16.0, .dropout = 0.1},
                  QVL_LAYOUT_HF_4_52, "a \"model\"\\x");
    qvl_text got = read_config_text();
    assert_string_equal(got.data, WANT);
    qvl_text_fini(&got);
    write_adapter((qvl_adapter_config){.rank = 2, .alpha = 5.5, .use_rslora = true},
                  QVL_LAYOUT_HF_4_51, "m");
    got = read_config_text();
    assert_non_null(strstr(got.data, "\"lora_alpha\": 5.5,\n"));
    assert_non_null(strstr(got.data, "\"lora_dropout\": 0.0,\n"));
    assert_non_null(strstr(got.data, "\"use_rslora\": true\n"));
    qvl_text_fini(&got);
}

static void tensors_have_the_generations_names(void **state)
{
    static const char *const PREFIX[] = {"base_model.model.model.language_model.",
                                         "base_model.model.model."};
    char path[QVL_PATH_BYTES], name[160];
    (void)state;
    for (int layout = 0; layout < 2; layout++) {
        qvl_safetensors *file = NULL;
        write_adapter((qvl_adapter_config){.rank = 2, .alpha = 4.0}, (qvl_adapter_layout)layout,
                      "m");
        assert_int_equal(qvl_path_join(path, directory, "adapter_model.safetensors", NULL), QVL_OK);
        assert_int_equal(qvl_safetensors_open(&file, path, NULL), QVL_OK);
        assert_int_equal(qvl_safetensors_count(file), 4);
        for (int i = 0; i < 4; i++) {
            snprintf(name, sizeof name, "%s%s.lora_%c.weight", PREFIX[layout], MATRICES[i].module,
                     MATRICES[i].is_b ? 'B' : 'A');
            const qvl_tensor *tensor = qvl_safetensors_find(file, name);
            assert_non_null(tensor);
            assert_int_equal(tensor->type, QVL_TENSOR_F32);
            assert_int_equal(tensor->n_dims, 2);
            assert_int_equal(tensor->shape[0], MATRICES[i].rows);
            assert_int_equal(tensor->shape[1], MATRICES[i].cols);
            assert_memory_equal(tensor->data, MATRICES[i].data, tensor->n_bytes);
        }
        qvl_safetensors_close(file);
    }
}

/* Both layouts read back to the same modules. */
static void written_adapters_are_read(void **state)
{
    (void)state;
    for (int layout = 0; layout < 2; layout++) {
        qvl_adapter_files *files = NULL;
        qvl_adapter_config config;
        qvl_err err = {0};
        write_adapter(
            (qvl_adapter_config){.rank = 2, .alpha = 4.5, .dropout = 0.05, .use_rslora = true},
            (qvl_adapter_layout)layout, "m");
        expect_ok(qvl_adapter_open(&files, &config, directory, &err), &err);
        assert_int_equal(config.rank, 2);
        assert_true(config.alpha == 4.5 && config.dropout == 0.05 && config.use_rslora);
        assert_int_equal(qvl_adapter_count(files), 4);
        int found = 0;
        for (size_t i = 0; i < 4; i++) {
            const char *module = NULL;
            bool is_b = false;
            const qvl_tensor *tensor = qvl_adapter_at(files, i, &module, &is_b);
            for (int k = 0; k < 4; k++)
                if (strcmp(module, MATRICES[k].module) == 0 && is_b == MATRICES[k].is_b) {
                    assert_memory_equal(tensor->data, MATRICES[k].data, tensor->n_bytes);
                    found |= 1 << k;
                }
        }
        assert_int_equal(found, 15);
        qvl_adapter_close(files);
    }
    qvl_adapter_close(NULL);
}

/* ---- refusals: PEFT's own adapter, changed -------------------------------------------------- */

static void copy_peft(void)
{
    scratch_directory(directory, "peft");
    copy_directory(directory, PEFT_FINAL);
}

static void change_config(const char *old, const char *text)
{
    char path[QVL_PATH_BYTES];
    assert_int_equal(qvl_path_join(path, directory, "adapter_config.json", NULL), QVL_OK);
    edit_file(path, old, text);
}

static qvl_status open_adapter(qvl_err *err)
{
    qvl_adapter_files *files = NULL;
    qvl_adapter_config config;
    const qvl_status rc = qvl_adapter_open(&files, &config, directory, err);
    assert_int_equal(files != NULL, rc == QVL_OK);
    qvl_adapter_close(files);
    return rc;
}

static void other_kinds_are_refused(void **state)
{
    static const struct {
        const char *old, *text, *words;
    } CASES[] = {
        {"\"peft_type\": \"LORA\"", "\"peft_type\": \"LOHA\"", "peft_type is LOHA, expected LORA"},
        {"\"peft_type\": \"LORA\",", "", "peft_type is missing"},
        {"\"bias\": \"none\"", "\"bias\": \"lora_only\"", "bias is lora_only, expected none"},
        {"\"use_dora\": false", "\"use_dora\": true", "use_dora"},
        {"\"use_qalora\": false", "\"use_qalora\": true", "use_qalora"},
        {"\"use_bdlora\": null", "\"use_bdlora\": {\"x\": 1}", "use_bdlora"},
        {"\"rank_pattern\": {}", "\"rank_pattern\": {\"q_proj\": 4}", "rank_pattern"},
        {"\"alpha_pattern\": {}", "\"alpha_pattern\": {\"q_proj\": 4}", "alpha_pattern"},
        {"\"modules_to_save\": null", "\"modules_to_save\": [\"lm_head\"]", "modules_to_save"},
        {"\"fan_in_fan_out\": false", "\"fan_in_fan_out\": true", "fan_in_fan_out"},
        {"\"lora_bias\": false", "\"lora_bias\": true", "lora_bias"},
        {"\"layer_replication\": null", "\"layer_replication\": [[0, 1]]", "layer_replication"},
        {"\"layers_to_transform\": null", "\"layers_to_transform\": 0", "layers_to_transform"},
        {"\"target_parameters\": null", "\"target_parameters\": [\"x\"]", "target_parameters"},
        {"\"trainable_token_indices\": null", "\"trainable_token_indices\": [7]",
         "trainable_token_indices"},
        {"\"alora_invocation_tokens\": null", "\"alora_invocation_tokens\": [7]",
         "alora_invocation_tokens"},
        {"\"arrow_config\": null", "\"arrow_config\": {\"top_k\": 3}", "arrow_config"},
        {"\"kasa_config\": null", "\"kasa_config\": {\"x\": 3}", "kasa_config"},
        {"\"init_lora_weights\": true", "\"init_lora_weights\": \"pissa_niter_16\"",
         "init_lora_weights is pissa_niter_16"},
        {"\"init_lora_weights\": true", "\"init_lora_weights\": \"olora\"", "olora"},
        {"\"init_lora_weights\": true", "\"init_lora_weights\": \"loftq\"", "loftq"},
        {"\"init_lora_weights\": true", "\"init_lora_weights\": 7", "init_lora_weights"},
        {"\"r\": 8", "\"r\": 0", "r is 0"},
        {"\"r\": 8", "\"r\": 1025", "r is 1025"},
        {"\"r\": 8", "\"r\": \"8\"", "r is a text"},
        {"\"r\": 8,", "", "r, lora_alpha or lora_dropout"},
        {"\"lora_alpha\": 16", "\"lora_alpha\": 0", "lora_alpha"},
        {"\"lora_alpha\": 16", "\"lora_alpha\": -1", "lora_alpha"},
        {"\"lora_alpha\": 16", "\"lora_alpha\": \"16\"", "lora_alpha is a text"},
        {"\"lora_dropout\": 0.0", "\"lora_dropout\": 1.0", "lora_dropout"},
        {"\"lora_dropout\": 0.0", "\"lora_dropout\": -0.1", "lora_dropout"},
        {"\"use_rslora\": false", "\"use_rslora\": \"no\"", "use_rslora is a text"},
    };
    qvl_err err = {0};
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        copy_peft();
        change_config(CASES[i].old, CASES[i].text);
        expect_failure(open_adapter(&err), QVL_EDATA, &err, CASES[i].words);
    }
}

/* Members that change nothing here, and missing ones, are fine. */
static void harmless_members_are_fine(void **state)
{
    static const struct {
        const char *old, *text;
    } CASES[] = {{"\"bias\": \"none\",", ""},
                 {"\"rank_pattern\": {},", "\"something_new\": {\"x\": [1, 2]},"},
                 {"\"init_lora_weights\": true", "\"init_lora_weights\": \"gaussian\""},
                 {"\"init_lora_weights\": true", "\"init_lora_weights\": false"},
                 {"\"use_dora\": false", "\"use_dora\": null"},
                 {"\"modules_to_save\": null", "\"modules_to_save\": []"},
                 {"\"lora_dropout\": 0.0,", ""},
                 {"\"use_rslora\": false,", ""}};
    qvl_err err = {0};
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        copy_peft();
        change_config(CASES[i].old, CASES[i].text);
        expect_ok(open_adapter(&err), &err);
    }
}

static void missing_and_damaged_files(void **state)
{
    char path[QVL_PATH_BYTES];
    qvl_err err = {0};
    (void)state;
    copy_peft();
    assert_int_equal(qvl_path_join(path, directory, "adapter_config.json", NULL), QVL_OK);
    write_text(path, "{\"peft_type\": \"LORA\"");
    expect_failure(open_adapter(&err), QVL_EDATA, &err, "adapter_config.json:1");
    write_text(path, "[]");
    expect_failure(open_adapter(&err), QVL_EDATA, &err, "peft_type is missing");
    assert_int_equal(unlink(path), 0);
    expect_failure(open_adapter(&err), QVL_EMISSING, &err, "adapter_config.json");
    copy_peft();
    assert_int_equal(qvl_path_join(path, directory, "adapter_model.safetensors", NULL), QVL_OK);
    assert_int_equal(truncate(path, 1000), 0);
    expect_failure(open_adapter(&err), QVL_EDATA, &err, "adapter_model.safetensors");
    assert_int_equal(qvl_safetensors_write(path, NULL, 0, NULL), QVL_OK);
    expect_failure(open_adapter(&err), QVL_EDATA, &err, "holds no tensors");
    const qvl_tensor other = {.name = "base_model.model.lm_head.weight",
                              .type = QVL_TENSOR_F32,
                              .n_dims = 0,
                              .data = VALUES};
    assert_int_equal(qvl_safetensors_write(path, &other, 1, NULL), QVL_OK);
    expect_failure(open_adapter(&err), QVL_EDATA, &err,
                   "tensor base_model.model.lm_head.weight is not a LoRA matrix");
    assert_int_equal(unlink(path), 0);
    expect_failure(open_adapter(&err), QVL_EMISSING, &err, "adapter_model.safetensors");
    assert_null(strstr(err.text, "adapter_model.bin"));
    write_text_in(directory, "adapter_model.bin", "PK");
    expect_failure(open_adapter(&err), QVL_EMISSING, &err,
                   "adapter_model.safetensors is not there, only adapter_model.bin|convert it");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config_is_the_smallest_that_peft_reads),
        cmocka_unit_test(tensors_have_the_generations_names),
        cmocka_unit_test(written_adapters_are_read),
        cmocka_unit_test(other_kinds_are_refused),
        cmocka_unit_test(harmless_members_are_fine),
        cmocka_unit_test(missing_and_damaged_files),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
