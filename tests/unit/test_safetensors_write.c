/* Writing safetensors: byte for byte what the reference writer makes (REFERENCE 10.4). */
#include "io/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scratch_files.h"

/* What safetensors 0.8.0 (Python, serialize with metadata format=pt) makes of the tensors below. */
static const char EXPECTED_HEADER[] =
    "{\"__metadata__\":{\"format\":\"pt\"},"
    "\"a\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]},"
    "\"c\":{\"dtype\":\"C64\",\"shape\":[1],\"data_offsets\":[8,16]},"
    "\"model.layers.10.w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[16,24]},"
    "\"model.layers.2.w\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[24,32]},"
    "\"none\":{\"dtype\":\"F32\",\"shape\":[0,4],\"data_offsets\":[32,32]},"
    "\"scalar\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[32,36]},"
    "\"b\\\"q\\\\\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[36,42]},"
    "\"half\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[42,44]},"
    "\"z\xc3\xa9\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[44,46]},"
    "\"flag\":{\"dtype\":\"BOOL\",\"shape\":[3],\"data_offsets\":[46,49]}}     ";
static const unsigned char EXPECTED_DATA[] = {
    0xf9, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x41, 0x42, 0x43, 0x44, 0x45,
    0x46, 0x47, 0x48, 0x00, 0x00, 0x40, 0x40, 0x00, 0x00, 0x80, 0x40, 0x00, 0x00,
    0xc0, 0x3f, 0x00, 0x00, 0x00, 0xc0, 0x00, 0x00, 0x10, 0x41, 0x01, 0x02, 0x03,
    0x04, 0x05, 0x06, 0x00, 0x3c, 0x09, 0x08, 0x01, 0x00, 0x01};

static const float TWO[] = {1.5f, -2.0f}, TEN[] = {3.0f, 4.0f}, NINE[] = {9.0f};
static const int64_t MINUS_SEVEN[] = {-7};
static const qvl_tensor TENSORS[] = {
    {.name = "model.layers.2.w", .type = QVL_TENSOR_F32, .n_dims = 2, .shape = {1, 2}, .data = TWO},
    {.name = "model.layers.10.w", .type = QVL_TENSOR_F32, .n_dims = 1, .shape = {2}, .data = TEN},
    {.name = "b\"q\\",
     .type = QVL_TENSOR_BF16,
     .n_dims = 1,
     .shape = {3},
     .data = "\x01\x02\x03\x04\x05\x06"},
    {.name = "a", .type = QVL_TENSOR_I64, .n_dims = 1, .shape = {1}, .data = MINUS_SEVEN},
    {.name = "flag", .type = QVL_TENSOR_BOOL, .n_dims = 1, .shape = {3}, .data = "\x01\x00\x01"},
    {.name = "none", .type = QVL_TENSOR_F32, .n_dims = 2, .shape = {0, 4}, .data = ""},
    {.name = "half", .type = QVL_TENSOR_F16, .n_dims = 1, .shape = {1}, .data = "\x00\x3c"},
    {.name = "z\xc3\xa9", .type = QVL_TENSOR_U8, .n_dims = 1, .shape = {2}, .data = "\x09\x08"},
    {.name = "c", .type = QVL_TENSOR_C64, .n_dims = 1, .shape = {1}, .data = "ABCDEFGH"},
    {.name = "scalar", .type = QVL_TENSOR_F32, .n_dims = 0, .data = NINE},
};
enum { N_TENSORS = sizeof TENSORS / sizeof *TENSORS };

static void bytes_are_the_reference_writers(void **state)
{
    const size_t n_header = sizeof EXPECTED_HEADER - 1;
    char path[QVL_PATH_BYTES];
    qvl_err err = {0};
    (void)state;
    scratch_path(path, "out.safetensors");
    expect_ok(qvl_safetensors_write(path, TENSORS, N_TENSORS, &err), &err);
    qvl_text got = read_file(path);
    assert_int_equal(n_header, 640);
    assert_int_equal(got.len, 8 + n_header + sizeof EXPECTED_DATA);
    assert_memory_equal(got.data, "\x80\x02\0\0\0\0\0\0", 8);
    assert_memory_equal(got.data + 8, EXPECTED_HEADER, n_header);
    assert_memory_equal(got.data + 8 + n_header, EXPECTED_DATA, sizeof EXPECTED_DATA);
    qvl_text_fini(&got);
    assert_int_equal(count_in(scratch, ".tmp"), 0);
}

static void no_tensors_are_a_file_too(void **state)
{
    char path[QVL_PATH_BYTES];
    qvl_safetensors *file = NULL;
    (void)state;
    scratch_path(path, "empty.safetensors");
    assert_int_equal(qvl_safetensors_write(path, NULL, 0, NULL), QVL_OK);
    qvl_text got = read_file(path);
    assert_int_equal(got.len, 40);
    assert_memory_equal(got.data, " \0\0\0\0\0\0\0{\"__metadata__\":{\"format\":\"pt\"}}", 40);
    qvl_text_fini(&got);
    assert_int_equal(qvl_safetensors_open(&file, path, NULL), QVL_OK);
    assert_int_equal(qvl_safetensors_count(file), 0);
    qvl_safetensors_close(file);
}

/* What is written reads back the same, over a file that is mapped at that moment. */
static void written_files_read_back(void **state)
{
    char path[QVL_PATH_BYTES];
    qvl_safetensors *old = NULL, *file = NULL;
    qvl_err err = {0};
    (void)state;
    scratch_path(path, "same.safetensors");
    expect_ok(qvl_safetensors_write(path, TENSORS, 2, &err), &err);
    expect_ok(qvl_safetensors_open(&old, path, &err), &err);
    expect_ok(qvl_safetensors_write(path, TENSORS, N_TENSORS, &err), &err);
    expect_ok(qvl_safetensors_open(&file, path, &err), &err);
    assert_int_equal(qvl_safetensors_count(old), 2);
    assert_memory_equal(qvl_safetensors_find(old, TENSORS[0].name)->data, TWO, sizeof TWO);
    assert_int_equal(qvl_safetensors_count(file), N_TENSORS);
    for (int i = 0; i < N_TENSORS; i++) {
        const qvl_tensor *got = qvl_safetensors_find(file, TENSORS[i].name);
        assert_non_null(got);
        assert_int_equal(got->type, TENSORS[i].type);
        assert_int_equal(got->n_dims, TENSORS[i].n_dims);
        assert_memory_equal(got->shape, TENSORS[i].shape, sizeof got->shape);
        assert_memory_equal(got->data, TENSORS[i].data, got->n_bytes);
    }
    qvl_safetensors_close(old);
    qvl_safetensors_close(file);
}

/* A tensor without data is a hole of zeros, at the end of the file too. */
static void holes_read_as_zeros(void **state)
{
    const qvl_tensor tensors[] = {
        {.name = "a", .type = QVL_TENSOR_F32, .n_dims = 1, .shape = {70000}},
        {.name = "b", .type = QVL_TENSOR_F32, .n_dims = 1, .shape = {2}, .data = TWO},
        {.name = "c", .type = QVL_TENSOR_F32, .n_dims = 1, .shape = {3}}};
    const float zeros[3] = {0};
    char path[QVL_PATH_BYTES];
    qvl_safetensors *file = NULL;
    (void)state;
    scratch_path(path, "holes.safetensors");
    assert_int_equal(qvl_safetensors_write(path, tensors, 3, NULL), QVL_OK);
    assert_int_equal(qvl_safetensors_open(&file, path, NULL), QVL_OK);
    const float *a = qvl_safetensors_find(file, "a")->data;
    for (int i = 0; i < 70000; i++)
        assert_true(a[i] == 0.0f);
    assert_memory_equal(qvl_safetensors_find(file, "b")->data, TWO, sizeof TWO);
    assert_memory_equal(qvl_safetensors_find(file, "c")->data, zeros, sizeof zeros);
    qvl_safetensors_close(file);
}

/* A write that fails leaves the old file, and nothing beside it. */
static void failed_writes_leave_the_old_file(void **state)
{
    char path[QVL_PATH_BYTES], missing[QVL_PATH_BYTES], directory[QVL_PATH_BYTES];
    qvl_err err = {0};
    (void)state;
    scratch_directory(directory, "full");
    assert_int_equal(qvl_path_join(path, directory, "x", NULL), QVL_OK);
    expect_ok(qvl_safetensors_write(path, TENSORS, 1, &err), &err);
    qvl_text before = read_file(path);
    limit_files(660);
    const qvl_status rc = qvl_safetensors_write(path, TENSORS, N_TENSORS, &err);
    limit_files(0);
    expect_failure(rc, QVL_EIO, &err, "write|/x");
    qvl_text after = read_file(path);
    assert_int_equal(before.len, after.len);
    assert_memory_equal(before.data, after.data, after.len);
    assert_int_equal(count_in(directory, ""), 1);
    qvl_text_fini(&before);
    qvl_text_fini(&after);

    expect_failure(qvl_safetensors_write(scratch_path(missing, "no/such/x"), TENSORS, 1, &err),
                   QVL_EIO, &err, "no/such/x");
    const qvl_tensor bad = {.name = "\xff", .type = QVL_TENSOR_F32, .n_dims = 0, .data = NINE};
    expect_failure(qvl_safetensors_write(path, &bad, 1, &err), QVL_EINTERNAL, &err, "UTF-8");
    assert_int_equal(count_in(directory, ""), 1);
}

/* test_invalid_header_size_serialization: no reader takes a header of more than 100,000,000. */
static void headers_too_large_are_refused(void **state)
{
    const size_t n = 100000000;
    char *name = malloc(n + 1), path[QVL_PATH_BYTES];
    qvl_err err = {0};
    (void)state;
    assert_non_null(name);
    memset(name, 'x', n);
    name[n] = '\0';
    const qvl_tensor tensor = {.name = name, .type = QVL_TENSOR_F32, .n_dims = 0, .data = NINE};
    expect_failure(qvl_safetensors_write(scratch_path(path, "large"), &tensor, 1, &err),
                   QVL_EINTERNAL, &err, "header of 1000");
    assert_false(qvl_file_exists(path));
    assert_int_equal(count_in(scratch, ".tmp"), 0);
    free(name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_the_reference_writers),
        cmocka_unit_test(no_tensors_are_a_file_too),
        cmocka_unit_test(written_files_read_back),
        cmocka_unit_test(holes_read_as_zeros),
        cmocka_unit_test(failed_writes_leave_the_old_file),
        cmocka_unit_test(headers_too_large_are_refused),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
