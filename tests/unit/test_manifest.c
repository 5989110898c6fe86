/* The manifest: a directory whose files are not what it says is not whole. */
#include "io/manifest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scratch_files.h"

static char directory[QVL_PATH_BYTES], manifest[QVL_PATH_BYTES];

static void start(void)
{
    qvl_err err = {0};
    scratch_directory(directory, "checkpoint");
    write_text_in(directory, "a.bin", "some bytes");
    write_text_in(directory, "empty", "");
    assert_int_equal(qvl_path_join(manifest, directory, "manifest.json", NULL), QVL_OK);
    expect_ok(qvl_manifest_write(directory, 17, &err), &err);
    assert_int_equal(count_in(directory, ""), 3);
}

static void whole_directories_pass(void **state)
{
    int64_t step = 0;
    qvl_err err = {0};
    (void)state;
    start();
    expect_ok(qvl_manifest_check(directory, &step, &err), &err);
    assert_int_equal(step, 17);
    qvl_text text = read_file(manifest); /* sizes and SHA-256 as sha256sum gives them */
    assert_string_equal(
        text.data,
        "{\n  \"files\": {\n    \"a.bin\": {\n      \"sha256\": "
        "\"0d22cdcc10e6d049dbe1af5123d50873fdfc1a4f58306e58cb6241be9472014d\",\n"
        "      \"size\": 10\n    },\n    \"empty\": {\n      \"sha256\": "
        "\"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\",\n"
        "      \"size\": 0\n    }\n  },\n  \"format\": \"qvl-checkpoint\",\n  \"step\": 17,\n"
        "  \"version\": 1\n}\n");
    qvl_text_fini(&text);
    write_text_in(directory, "later", "not in it"); /* somebody's file more */
    expect_ok(qvl_manifest_check(directory, &step, &err), &err);
    expect_ok(qvl_manifest_write(directory, 18, &err), &err); /* written again: it lists it */
    expect_ok(qvl_manifest_check(directory, &step, &err), &err);
    assert_int_equal(step, 18);
}

static void damage_is_named(void **state)
{
    char path[QVL_PATH_BYTES];
    int64_t step = 0;
    qvl_err err = {0};
    (void)state;
    start();
    assert_int_equal(qvl_path_join(path, directory, "a.bin", NULL), QVL_OK);
    flip_byte(path, 4);
    expect_failure(qvl_manifest_check(directory, &step, &err), QVL_EDATA, &err,
                   "a.bin: its SHA-256 is not the manifest's");
    assert_int_equal(truncate(path, 9), 0);
    expect_failure(qvl_manifest_check(directory, &step, &err), QVL_EDATA, &err,
                   "a.bin: 9 bytes, the manifest says 10");
    assert_int_equal(unlink(path), 0);
    expect_failure(qvl_manifest_check(directory, &step, &err), QVL_EMISSING, &err, "a.bin");
    assert_int_equal(qvl_directory_create(path, NULL), QVL_OK);
    expect_failure(qvl_manifest_check(directory, &step, &err), QVL_EMISSING, &err,
                   "a.bin: not a regular file");
    assert_int_equal(unlink(manifest), 0);
    expect_failure(qvl_manifest_check(directory, &step, &err), QVL_EMISSING, &err, "manifest.json");
}

static void bad_manifests_are_refused(void **state)
{
    static const struct {
        const char *json, *words;
    } CASES[] = {
        {"", "manifest.json:1"},
        {"[]", "not a checkpoint manifest"},
        {"{}", "not a checkpoint manifest"},
        {"{\"format\":\"x\",\"version\":1,\"step\":1,\"files\":{}}", "not a checkpoint manifest"},
        {"{\"format\":\"qvl-checkpoint\",\"version\":2,\"step\":1,\"files\":{}}", "version is 2"},
        {"{\"format\":\"qvl-checkpoint\",\"version\":1,\"step\":-1,\"files\":{}}", "step is -1"},
        {"{\"format\":\"qvl-checkpoint\",\"version\":1,\"files\":{}}", "not a checkpoint manifest"},
        {"{\"format\":\"qvl-checkpoint\",\"version\":1,\"step\":1}", "not a checkpoint manifest"},
        {"{\"format\":\"qvl-checkpoint\",\"version\":1,\"step\":1,\"files\":[]}",
         "not a checkpoint"},
        {"{\"format\":\"qvl-checkpoint\",\"version\":1,\"step\":1,\"files\":{}}", "lists no files"},
        {"{\"format\":\"qvl-checkpoint\",\"version\":1,\"step\":1,\"files\":{\"a.bin\":{}}}",
         "the entry of a.bin is wrong"},
        {"{\"format\":\"qvl-checkpoint\",\"version\":1,\"step\":1,\"files\":{\"a.bin\":"
         "{\"size\":\"10\",\"sha256\":\"x\"}}}",
         "the entry of a.bin is wrong"},
        {"{\"format\":\"qvl-checkpoint\",\"version\":1,\"step\":1,\"files\":{\"../a\":"
         "{\"size\":10,\"sha256\":\"x\"}}}",
         "the entry of ../a is wrong"},
        {"{\"format\":\"qvl-checkpoint\",\"version\":1,\"step\":1,\"files\":{\"a.bin\":"
         "{\"size\":10,\"sha256\":\"DC7F8D1C\"}}}",
         "its SHA-256 is not the manifest's"}};
    int64_t step = 0;
    qvl_err err = {0};
    (void)state;
    start();
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        write_text(manifest, CASES[i].json);
        expect_failure(qvl_manifest_check(directory, &step, &err), QVL_EDATA, &err, CASES[i].words);
    }
}

static void directories_are_not_listed(void **state)
{
    char path[QVL_PATH_BYTES];
    qvl_err err = {0};
    (void)state;
    expect_failure(qvl_manifest_write(scratch_path(path, "none"), 1, &err), QVL_EMISSING, &err,
                   "none");
    start();
    assert_int_equal(qvl_path_join(path, directory, "sub", NULL), QVL_OK);
    assert_int_equal(qvl_directory_create(path, NULL), QVL_OK);
    expect_failure(qvl_manifest_write(directory, 1, &err), QVL_EMISSING, &err,
                   "sub: not a regular file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_directories_pass),
        cmocka_unit_test(damage_is_named),
        cmocka_unit_test(bad_manifests_are_refused),
        cmocka_unit_test(directories_are_not_listed),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
