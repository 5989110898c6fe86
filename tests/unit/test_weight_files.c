/* Finding a model's tensors: one file or shards, both generations of names (REFERENCE 1.3, 1.4). */
#include "src/model/weight_files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scratch_files.h"

static char directory[QVL_PATH_BYTES];

/* A file with one F32 [1] tensor for each name, whose value is value, value + 1, ... */
static void write_shard(const char *file, const char *const *names, size_t count, float value)
{
    char path[QVL_PATH_BYTES];
    qvl_tensor tensors[8];
    float values[8];
    assert_true(count <= 8);
    for (size_t i = 0; i < count; i++) {
        values[i] = value + (float)i;
        tensors[i] = (qvl_tensor){.name = names[i],
                                  .type = QVL_TENSOR_F32,
                                  .n_dims = 1,
                                  .shape = {1},
                                  .data = &values[i]};
    }
    assert_int_equal(qvl_path_join(path, directory, file, NULL), QVL_OK);
    assert_int_equal(qvl_safetensors_write(path, tensors, count, NULL), QVL_OK);
}

static void write_index(const char *weight_map)
{
    static char json[1 << 18];
    snprintf(json, sizeof json, "{\"metadata\":{\"total_size\":1},\"weight_map\":%s}", weight_map);
    write_text_in(directory, "model.safetensors.index.json", json);
}

static void refuse(qvl_status status, const char *words)
{
    qvl_weight_files *files = NULL;
    qvl_err err = {0};
    expect_failure(qvl_weight_files_open(&files, directory, &err), status, &err, words);
    assert_null(files);
}

static float value_of(const qvl_weight_files *files, const char *name)
{
    const qvl_tensor *tensor = qvl_weight_files_find(files, name, NULL);
    float value = 0.0f;
    assert_non_null(tensor);
    memcpy(&value, tensor->data, sizeof value);
    return value;
}

static const char *const OLD[] = {"visual.blocks.0.norm1.weight", "model.layers.0.x",
                                  "model.norm.weight", "lm_head.weight"};
static const char *const NEW[] = {"model.visual.blocks.0.norm1.weight",
                                  "model.language_model.layers.0.x",
                                  "model.language_model.norm.weight", "lm_head.weight"};

/* Old and new names are found under the hub's. */
static void both_generations_are_found(void **state)
{
    (void)state;
    for (int generation = 0; generation < 2; generation++) {
        qvl_weight_files *files = NULL;
        const qvl_safetensors *file = NULL;
        qvl_err err = {0};
        scratch_directory(directory, "model");
        write_shard("model.safetensors", generation ? NEW : OLD, 4, 1.0f);
        expect_ok(qvl_weight_files_open(&files, directory, &err), &err);
        assert_int_equal(qvl_weight_files_count(files), 4);
        for (int i = 0; i < 4; i++)
            assert_true(value_of(files, OLD[i]) == (float)(i + 1));
        assert_string_equal(qvl_weight_files_name(files, 0), "lm_head.weight");
        assert_string_equal(qvl_weight_files_name(files, 3), "visual.blocks.0.norm1.weight");
        assert_ptr_equal(qvl_weight_files_at(files, 3, &file),
                         qvl_weight_files_find(files, OLD[0], NULL));
        assert_string_equal(qvl_path_name(qvl_safetensors_path(file)), "model.safetensors");
        assert_null(qvl_weight_files_find(files, NEW[1], NULL));
        assert_string_equal(qvl_weight_files_directory(files), directory);
        assert_int_equal(strlen(qvl_weight_files_sha256(files)), 64);
        qvl_weight_files_close(files);
    }
    qvl_weight_files_close(NULL);
}

/* Shards are those of the index; other files in the directory do no harm. */
static void shards_come_from_the_index(void **state)
{
    qvl_weight_files *files = NULL;
    const qvl_safetensors *file = NULL;
    qvl_err err = {0};
    (void)state;
    scratch_directory(directory, "model");
    write_shard("a.safetensors", OLD, 2, 1.0f);
    write_shard("b.safetensors", OLD + 2, 2, 3.0f);
    write_shard("model.safetensors", OLD, 4, 50.0f);
    write_text_in(directory, "stray.safetensors", "not safetensors");
    write_text_in(directory, "consolidated.safetensors", "");
    write_index("{\"visual.blocks.0.norm1.weight\":\"a.safetensors\","
                "\"model.layers.0.x\":\"a.safetensors\",\"model.norm.weight\":\"b.safetensors\","
                "\"lm_head.weight\":\"b.safetensors\"}");
    expect_ok(qvl_weight_files_open(&files, directory, &err), &err);
    assert_int_equal(qvl_weight_files_count(files), 4);
    for (int i = 0; i < 4; i++)
        assert_true(value_of(files, OLD[i]) == (float)(i + 1));
    qvl_weight_files_find(files, "model.norm.weight", &file);
    assert_string_equal(qvl_path_name(qvl_safetensors_path(file)), "b.safetensors");
    qvl_weight_files_close(files);
}

static void missing_shards_are_all_named(void **state)
{
    (void)state;
    scratch_directory(directory, "model");
    refuse(QVL_EMISSING, "no model.safetensors and no model.safetensors.index.json");
    write_shard("b.safetensors", OLD, 1, 1.0f);
    write_index("{\"t1\":\"a.safetensors\",\"visual.blocks.0.norm1.weight\":\"b.safetensors\","
                "\"t2\":\"c.safetensors\",\"t3\":\"d.safetensors\",\"t4\":\"c.safetensors\"}");
    refuse(QVL_EMISSING, "3 of 4 shards missing|a.safetensors|c.safetensors|d.safetensors");
    /* a directory in a shard's place is no shard, and names do not lead out */
    char path[QVL_PATH_BYTES];
    assert_int_equal(qvl_path_join(path, directory, "a.safetensors", NULL), QVL_OK);
    assert_int_equal(qvl_directory_create(path, NULL), QVL_OK);
    write_index("{\"t1\":\"a.safetensors\"}");
    refuse(QVL_EMISSING, "model/a.safetensors: not a regular file");
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    refuse(QVL_EMISSING, "model/a.safetensors: not a regular file");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("a.safetensors", path), 0);
    refuse(QVL_EMISSING, "model/a.safetensors: Too many levels of symbolic links");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("nowhere", path), 0); /* a hub cache whose blob is gone */
    refuse(QVL_EMISSING, "1 of 1 shards missing: a.safetensors");
    write_index("{\"t1\":\"../x.safetensors\"}");
    refuse(QVL_EDATA, "'../x.safetensors' is not a file of the directory");
    write_index("{\"t1\":\"/etc/passwd\"}");
    refuse(QVL_EDATA, "'/etc/passwd'");
    write_index("{\"t1\":\"..\"}");
    refuse(QVL_EMISSING, "..: not a regular file");
    write_index("{\"t1\":\"\"}");
    refuse(QVL_EDATA, "shard name '' is not a file of the directory");
}

static void shards_are_limited(void **state)
{
    (void)state;
    qvl_text map = {0};
    scratch_directory(directory, "model");
    for (int i = 0; i < 4097; i++)
        assert_int_equal(qvl_text_printf(&map, NULL, "%s\"t%d\":\"s%d\"", i ? "," : "{", i, i),
                         QVL_OK);
    assert_int_equal(qvl_text_puts(&map, "}", NULL), QVL_OK);
    write_index(map.data);
    refuse(QVL_EDATA, "model.safetensors.index.json names over 4096 shards");
    qvl_text_fini(&map);
}

static void contradictions_are_refused(void **state)
{
    (void)state;
    scratch_directory(directory, "model");
    write_shard("a.safetensors", OLD, 2, 1.0f);
    write_shard("b.safetensors", OLD + 1, 2, 3.0f);
    write_index("{\"visual.blocks.0.norm1.weight\":\"a.safetensors\","
                "\"model.norm.weight\":\"b.safetensors\",\"model.layers.0.x\":\"b.safetensors\"}");
    refuse(QVL_EDATA, "tensor model.layers.0.x is there twice|a.safetensors|b.safetensors");
    write_index("{\"visual.blocks.0.norm1.weight\":\"a.safetensors\","
                "\"model.norm.weight\":\"a.safetensors\"}");
    refuse(QVL_EDATA, "index.json: tensor model.norm.weight is not in a.safetensors");
    /* one tensor under both names is there twice, too */
    scratch_directory(directory, "model");
    const char *const both[] = {"model.norm.weight", "model.language_model.norm.weight"};
    write_shard("model.safetensors", both, 2, 1.0f);
    refuse(QVL_EDATA, "norm.weight is there twice");
}

static void bad_index_files_are_refused(void **state)
{
    static const struct {
        const char *json, *words;
    } CASES[] = {{"", "index.json"},
                 {"[]", "weight_map is missing"},
                 {"{\"metadata\":{}}", "weight_map is missing"},
                 {"{\"weight_map\":[]}", "weight_map is missing"},
                 {"{\"weight_map\":{\"a\":1}}", "weight_map.a is not a file name"},
                 {"{\"weight_map\":{\"a\":\"x\",\"a\":\"y\"}}", "duplicate"},
                 {"{\"weight_map\":{\"a\":\"x\"}", "index.json:1"}};
    (void)state;
    scratch_directory(directory, "model");
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        write_text_in(directory, "model.safetensors.index.json", CASES[i].json);
        refuse(QVL_EDATA, CASES[i].words);
    }
    write_text_in(directory, "s", "damaged");
    write_index("{\"a\":\"s\"}");
    refuse(QVL_EDATA, "/s: 7 bytes");
}

/* The digest is of the headers: the same files in another directory have it, others do not. */
static void digest_tells_models_apart(void **state)
{
    char first[65], second[QVL_PATH_BYTES];
    qvl_weight_files *files = NULL;
    (void)state;
    scratch_directory(directory, "model");
    write_shard("model.safetensors", OLD, 3, 1.0f);
    assert_int_equal(qvl_weight_files_open(&files, directory, NULL), QVL_OK);
    snprintf(first, sizeof first, "%s", qvl_weight_files_sha256(files));
    qvl_weight_files_close(files);
    copy_directory(scratch_path(second, "copy"), directory);
    assert_int_equal(qvl_weight_files_open(&files, second, NULL), QVL_OK);
    assert_string_equal(qvl_weight_files_sha256(files), first);
    qvl_weight_files_close(files);
    write_shard("model.safetensors", OLD, 4, 1.0f);
    assert_int_equal(qvl_weight_files_open(&files, directory, NULL), QVL_OK);
    assert_string_not_equal(qvl_weight_files_sha256(files), first);
    qvl_weight_files_close(files);
}

static void fixtures_are_whole(void **state)
{
    static const struct {
        const char *path;
        size_t n_tensors;
    } CASES[] = {{QVL_TEST_FIXTURES "/tiny/model", 3 * 12 + 3 + 4 * 12 + 6},
                 {QVL_TEST_FIXTURES "/tied/model", 2 * 12 + 2 + 4 * 12 + 6},
                 {QVL_TEST_FIXTURES "/wide/model", 2 * 12 + 3 + 2 * 12 + 6}};
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        qvl_weight_files *files = NULL;
        qvl_err err = {0};
        expect_ok(qvl_weight_files_open(&files, CASES[i].path, &err), &err);
        assert_int_equal(qvl_weight_files_count(files), CASES[i].n_tensors);
        assert_non_null(qvl_weight_files_find(files, "model.layers.1.mlp.down_proj.weight", NULL));
        assert_non_null(qvl_weight_files_find(files, "visual.merger.mlp.2.bias", NULL));
        qvl_weight_files_close(files);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_generations_are_found),
        cmocka_unit_test(shards_come_from_the_index),
        cmocka_unit_test(missing_shards_are_all_named),
        cmocka_unit_test(shards_are_limited),
        cmocka_unit_test(contradictions_are_refused),
        cmocka_unit_test(bad_index_files_are_refused),
        cmocka_unit_test(digest_tells_models_apart),
        cmocka_unit_test(fixtures_are_whole),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
