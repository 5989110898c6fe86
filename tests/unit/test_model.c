/* Opening a model directory: everything is checked before anything is loaded. */
#include "src/model/model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scratch_files.h"

#define TINY QVL_TEST_FIXTURES "/tiny/model"

static char directory[QVL_PATH_BYTES];
static qvl_device *dev;

static qvl_status open_model(qvl_model *model, const char *name, qvl_err *err)
{
    qvl_log log;
    qvl_log_init(&log, "test");
    *model = (qvl_model){0};
    return qvl_model_open(model, name, NULL, NULL, dev, &(qvl_lora_options){.rank = 8}, &log, err);
}

/* The tiny model as one file in directory, with the tensors of extra and without that named left.
 */
static void write_model(const qvl_tensor *extra, size_t n_extra, const char *left_out)
{
    qvl_weight_files *files = NULL;
    qvl_tensor tensors[128];
    char path[QVL_PATH_BYTES];
    size_t count = 0;
    assert_int_equal(qvl_weight_files_open(&files, TINY, NULL), QVL_OK);
    for (size_t i = 0; i < qvl_weight_files_count(files); i++)
        if (!left_out || strcmp(qvl_weight_files_name(files, i), left_out) != 0)
            tensors[count++] = *qvl_weight_files_at(files, i, NULL);
    for (size_t i = 0; i < n_extra; i++)
        tensors[count++] = extra[i];
    scratch_directory(directory, "model");
    assert_int_equal(qvl_path_join(path, directory, "model.safetensors", NULL), QVL_OK);
    assert_int_equal(qvl_safetensors_write(path, tensors, count, NULL), QVL_OK);
    assert_int_equal(qvl_path_join(path, directory, "config.json", NULL), QVL_OK);
    assert_int_equal(qvl_file_copy(path, TINY "/config.json", NULL), QVL_OK);
    qvl_weight_files_close(files);
}

static void fixtures_are_opened(void **state)
{
    static const char *const PATHS[] = {TINY, QVL_TEST_FIXTURES "/tied/model",
                                        QVL_TEST_FIXTURES "/wide/model"};
    qvl_err err = {0};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        qvl_model model;
        expect_ok(open_model(&model, PATHS[i], &err), &err);
        assert_string_equal(model.directory, PATHS[i]);
        assert_non_null(model.text);
        assert_non_null(model.vision);
        assert_int_equal(model.dims.text.is_tied, i == 1);
        qvl_model_close(&model);
        assert_null(model.text);
    }
}

/* More layers than config.json says is a mix-up; other names are only noted. */
static void tensors_without_a_place(void **state)
{
    static const float values[4] = {0};
    const qvl_tensor extra[] = {
        {.name = "a.note", .type = QVL_TENSOR_F32, .n_dims = 1, .shape = {4}, .data = values},
        {.name = "zz", .type = QVL_TENSOR_I64, .n_dims = 1, .shape = {2}, .data = values},
        {.name = "model.language_model.layers.3.mlp.up_proj.weight",
         .type = QVL_TENSOR_F32,
         .n_dims = 1,
         .shape = {4},
         .data = values},
        {.name = "visual.blocks.4.norm1.weight",
         .type = QVL_TENSOR_F32,
         .n_dims = 1,
         .shape = {4},
         .data = values}};
    qvl_model model;
    qvl_err err = {0};
    (void)state;
    write_model(extra, 2, NULL);
    expect_ok(open_model(&model, directory, &err), &err);
    qvl_model_close(&model);
    write_model(extra, 3, NULL); /* "a.note" comes before it */
    expect_failure(open_model(&model, directory, &err), QVL_EDATA, &err,
                   "tensor model.layers.3.mlp.up_proj.weight (and 2 more) has no place");
    assert_null(model.text);
    write_model(extra + 3, 1, NULL);
    expect_failure(open_model(&model, directory, &err), QVL_EDATA, &err,
                   "tensor visual.blocks.4.norm1.weight (and 0 more)");
}

/* Without lm_head.weight the head is the embedding, whatever config.json says; with both, a tied
 * model does not look at it. */
static void head_may_be_the_embedding(void **state)
{
    qvl_model model;
    char path[QVL_PATH_BYTES];
    qvl_err err = {0};
    (void)state;
    write_model(NULL, 0, "lm_head.weight");
    expect_ok(open_model(&model, directory, &err), &err);
    assert_true(model.dims.text.is_tied);
    qvl_model_close(&model);
    write_model(NULL, 0, NULL);
    assert_int_equal(qvl_path_join(path, directory, "config.json", NULL), QVL_OK);
    edit_file(path, "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
    expect_ok(open_model(&model, directory, &err), &err);
    assert_true(model.dims.text.is_tied);
    qvl_model_close(&model);
}

static void faults_are_passed_on(void **state)
{
    qvl_model model;
    char path[QVL_PATH_BYTES];
    qvl_err err = {0};
    (void)state;
    expect_failure(open_model(&model, "no/such/model", &err), QVL_EMISSING, &err, "no/such/model");
    write_model(NULL, 0, "visual.merger.mlp.2.bias");
    expect_failure(open_model(&model, directory, &err), QVL_EDATA, &err,
                   "tensor visual.merger.mlp.2.bias is missing");
    write_model(NULL, 0, NULL);
    assert_int_equal(qvl_path_join(path, directory, "config.json", NULL), QVL_OK);
    edit_file(path, "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 2");
    expect_failure(open_model(&model, directory, &err), QVL_EDATA, &err,
                   "tensor model.layers.2.|has no place");
    edit_file(path, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 4");
    expect_failure(open_model(&model, directory, &err), QVL_EDATA, &err,
                   "tensor model.layers.3.|is missing");
    copy_directory(scratch_directory(directory, "shards"), TINY);
    assert_int_equal(qvl_path_join(path, directory, "model-00002-of-00002.safetensors", NULL),
                     QVL_OK);
    assert_int_equal(unlink(path), 0);
    expect_failure(open_model(&model, directory, &err), QVL_EMISSING, &err,
                   "1 of 2 shards missing: model-00002-of-00002.safetensors");
}

static int set_up(void **state)
{
    return scratch_make(state) || qvl_device_open_cpu(&dev, 1, NULL) != QVL_OK;
}

static int tear_down(void **state)
{
    qvl_device_close(dev);
    return scratch_remove(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fixtures_are_opened),
        cmocka_unit_test(tensors_without_a_place),
        cmocka_unit_test(head_may_be_the_embedding),
        cmocka_unit_test(faults_are_passed_on),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
