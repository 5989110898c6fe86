/* Reading safetensors: the reference's own cases (REFERENCE 10.5), every check of its reader
 * (10.3) in its order, and what we refuse beyond it. */
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
#include "src/base/sha256.h"

static char path[QVL_PATH_BYTES];

/* A file of the length field n, the header and n_data bytes 0, 1, 2, ... */
static void write_parts(uint64_t n, const char *header, size_t n_header, size_t n_data)
{
    unsigned char *bytes = malloc(8 + n_header + n_data);
    assert_non_null(bytes);
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)(n >> (8 * i));
    memcpy(bytes + 8, header, n_header);
    for (size_t i = 0; i < n_data; i++)
        bytes[8 + n_header + i] = (unsigned char)i;
    write_file(scratch_path(path, "x.safetensors"), bytes, 8 + n_header + n_data);
    free(bytes);
}

static qvl_status open_header(qvl_safetensors **out, const char *header, size_t n_data,
                              qvl_err *err)
{
    write_parts(strlen(header), header, strlen(header), n_data);
    *out = NULL;
    return qvl_safetensors_open(out, path, err);
}

static void accept(qvl_safetensors **out, const char *header, size_t n_data, size_t n_tensors)
{
    qvl_err err = {0};
    expect_ok(open_header(out, header, n_data, &err), &err);
    assert_int_equal(qvl_safetensors_count(*out), n_tensors);
}

static void refuse(const char *header, size_t n_data, const char *words)
{
    qvl_safetensors *file = NULL;
    qvl_err err = {0};
    expect_failure(open_header(&file, header, n_data, &err), QVL_EDATA, &err, words);
    assert_null(file);
}

#define TEST_ENTRY "\"test\":{\"dtype\":\"I32\",\"shape\":[2,2],\"data_offsets\":[0,16]}"

/* The reference byte string of 10.5: N = 60. */
static void reference_string_is_read(void **state)
{
    qvl_safetensors *file = NULL;
    qvl_dtype type;
    char shape[160];
    (void)state;
    assert_int_equal(strlen("{" TEST_ENTRY "}"), 60);
    accept(&file, "{" TEST_ENTRY "}", 16, 1);
    const qvl_tensor *test = qvl_safetensors_find(file, "test");
    assert_ptr_equal(test, qvl_safetensors_at(file, 0));
    assert_string_equal(test->name, "test");
    assert_int_equal(test->type, QVL_TENSOR_I32);
    assert_int_equal(test->n_dims, 2);
    assert_int_equal(test->n_bytes, 16);
    assert_int_equal(qvl_tensor_elements(test), 4);
    assert_string_equal(qvl_tensor_format_shape(shape, test->shape, 2), "[2, 2]");
    assert_string_equal(qvl_tensor_type_name(test->type), "I32");
    assert_false(qvl_tensor_float_type(test, &type));
    for (int i = 0; i < 16; i++)
        assert_int_equal(((const unsigned char *)test->data)[i], i);
    assert_string_equal(qvl_safetensors_path(file), path);
    assert_null(qvl_safetensors_find(file, "other"));
    assert_null(qvl_safetensors_find(file, ""));
    qvl_safetensors_close(file);
    qvl_safetensors_close(NULL);
}

/* test_empty, test_whitespace_padded_header, test_whitespace_leading_padded_header,
 * test_serialization_forced_alignement, test_empty_shapes_allowed, test_zero_sized_tensor. */
static void reference_cases_are_read(void **state)
{
    qvl_safetensors *file = NULL;
    (void)state;
    accept(&file, "{}", 0, 0);
    assert_null(qvl_safetensors_find(file, "x"));
    qvl_safetensors_close(file);
    accept(&file, "{\"__metadata__\":{\"framework\":\"pt\",\"n\":\"\"}}", 0, 0);
    qvl_safetensors_close(file);
    accept(&file, "{}\r \t\n", 0, 0);
    qvl_safetensors_close(file);
    accept(&file, "\t\n{}\r ", 0, 0);
    qvl_safetensors_close(file);
    accept(&file, "{" TEST_ENTRY "}      ", 16, 1);
    qvl_safetensors_close(file);
    accept(&file, "{\"s\":{\"dtype\":\"I32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, 1);
    assert_int_equal(qvl_safetensors_at(file, 0)->n_dims, 0);
    assert_int_equal(qvl_tensor_elements(qvl_safetensors_at(file, 0)), 1);
    qvl_safetensors_close(file);
    accept(&file, "{\"z\":{\"dtype\":\"I32\",\"shape\":[2,0],\"data_offsets\":[0,0]}}", 0, 1);
    assert_int_equal(qvl_tensor_elements(qvl_safetensors_at(file, 0)), 0);
    const qvl_tensor *first = qvl_safetensors_at(file, 0);
    qvl_safetensors_release(file, first->data, (size_t)first->n_bytes);
    qvl_safetensors_close(file);
}

/* Members may come in any order, with members that nobody knows; the N need not be aligned. */
static void tensors_come_by_name(void **state)
{
    qvl_safetensors *file = NULL;
    qvl_dtype type = QVL_F32;
    (void)state;
    accept(&file,
           "{\"b\":{\"data_offsets\":[4,8],\"extra\":{\"x\":[1.5,null]},\"shape\":[2],"
           "\"dtype\":\"BF16\"},"
           "\"__metadata__\":{\"format\":\"pt\"},"
           "\"a.10\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1],\"data_offsets\":[8,12]},"
           "\"a.2\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]},"
           "\"empty\":{\"dtype\":\"F64\",\"shape\":[0],\"data_offsets\":[4,4]}}",
           12, 4);
    static const char *const NAMES[] = {"a.10", "a.2", "b", "empty"};
    static const unsigned char FIRST[] = {8, 0, 4};
    for (size_t i = 0; i < 4; i++) {
        const qvl_tensor *tensor = qvl_safetensors_at(file, i);
        assert_string_equal(tensor->name, NAMES[i]);
        assert_ptr_equal(qvl_safetensors_find(file, NAMES[i]), tensor);
        if (i < 3)
            assert_int_equal(*(const unsigned char *)tensor->data, FIRST[i]);
    }
    assert_true(qvl_tensor_float_type(qvl_safetensors_at(file, 0), &type) && type == QVL_F32);
    assert_true(qvl_tensor_float_type(qvl_safetensors_at(file, 1), &type) && type == QVL_F16);
    assert_true(qvl_tensor_float_type(qvl_safetensors_at(file, 2), &type) && type == QVL_BF16);
    assert_false(qvl_tensor_float_type(qvl_safetensors_at(file, 3), &type));
    qvl_safetensors_close(file);
}

/* The header's digest tells files with other tensors apart, and not their values. */
static void header_digest_is_of_the_header(void **state)
{
    qvl_safetensors *file = NULL;
    char digest[QVL_SHA256_TEXT_BYTES];
    (void)state;
    accept(&file, "{" TEST_ENTRY "}", 16, 1);
    assert_int_equal(qvl_sha256_bytes(digest, "{" TEST_ENTRY "}", 60, NULL), QVL_OK);
    assert_string_equal(qvl_safetensors_header_sha256(file), digest);
    qvl_safetensors_close(file);
}

/* All 22 types with their sizes. */
static void every_type_has_its_bits(void **state)
{
    static const struct {
        const char *name;
        size_t bits;
    } TYPES[] = {{"BOOL", 8},        {"F4", 4},         {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
                 {"I8", 8},          {"F8_E5M2", 8},    {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"I16", 16},
                 {"U16", 16},        {"F16", 16},       {"BF16", 16},   {"I32", 32},    {"U32", 32},
                 {"F32", 32},        {"C64", 64},       {"F64", 64},    {"I64", 64},    {"U64", 64},
                 {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}};
    char header[256];
    qvl_safetensors *file = NULL;
    (void)state;
    assert_int_equal(sizeof TYPES / sizeof *TYPES, QVL_N_TENSOR_TYPES);
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++) {
        snprintf(header, sizeof header,
                 "{\"t\":{\"dtype\":\"%s\",\"shape\":[4],\"data_offsets\":[0,%zu]}}", TYPES[i].name,
                 TYPES[i].bits / 2);
        accept(&file, header, TYPES[i].bits / 2, 1);
        assert_int_equal(qvl_tensor_type_bits(qvl_safetensors_at(file, 0)->type), TYPES[i].bits);
        assert_string_equal(qvl_tensor_type_name(qvl_safetensors_at(file, 0)->type), TYPES[i].name);
        qvl_safetensors_close(file);
    }
}

/* Rows 1 to 4: test_header_too_small, test_header_too_large, test_invalid_header_length,
 * test_invalid_header_non_utf8; each comes before those below it. */
static void bad_lengths_are_refused(void **state)
{
    qvl_safetensors *file = NULL;
    qvl_err err = {0};
    (void)state;
    write_file(scratch_path(path, "x.safetensors"), "", 0);
    expect_failure(qvl_safetensors_open(&file, path, &err), QVL_EDATA, &err, "0 bytes|too short");
    write_file(path, "\x3c\0\0\0\0\0\0", 7);
    expect_failure(qvl_safetensors_open(&file, path, &err), QVL_EDATA, &err, "7 bytes|too short");
    write_file(path, "\x3c\0\0\0\0\xff\xff\xff", 8);
    expect_failure(qvl_safetensors_open(&file, path, &err), QVL_EDATA, &err, "over the limit");
    write_file(path, "\x01\xe1\xf5\x05\0\0\0\0", 8); /* 100,000,001 */
    expect_failure(qvl_safetensors_open(&file, path, &err), QVL_EDATA, &err,
                   "100000001 bytes is over the limit of 100000000");
    write_file(path, "\x00\xe1\xf5\x05\0\0\0\0", 8); /* 100,000,000 */
    expect_failure(qvl_safetensors_open(&file, path, &err), QVL_EDATA, &err, "does not fit");
    write_file(path, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
    expect_failure(qvl_safetensors_open(&file, path, &err), QVL_EDATA, &err, "over the limit");
    write_file(path, "\x3c\0\0\0\0\0\0\0", 8);
    expect_failure(qvl_safetensors_open(&file, path, &err), QVL_EDATA, &err,
                   "header of 60 bytes does not fit in a file of 8 bytes");
    write_file(path, "\x02\0\0\0\0\0\0\0{", 9);
    expect_failure(qvl_safetensors_open(&file, path, &err), QVL_EDATA, &err, "does not fit");
    write_file(path, "\x01\0\0\0\0\0\0\0\xff", 9);
    expect_failure(qvl_safetensors_open(&file, path, &err), QVL_EDATA, &err, "not UTF-8 at byte 0");
    assert_null(file);
}

/* Row 5: what is not JSON of this structure. */
static void bad_structure_is_refused(void **state)
{
    static const struct {
        const char *header, *words;
    } CASES[] = {
        {"{", "header"}, /* test_invalid_header_not_json */
        {"", "header"},
        {"[]", "not a JSON object"},
        {"{}x", "header"},
        {"{} {}", "header"},
        {"\xef\xbb\xbf{}", "header"},
        {"{\"a\":}", "header"},
        {"{\"a\":1}", "tensor a|not an object"},
        {"{\"a\":null}", "tensor a|not an object"},
        {"{\"a\":{}}", "tensor a"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", "tensor a|data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", "tensor a|shape"},
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", "tensor a: dtype is missing"},
        {"{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", "a: dtype is not a text"},
        {"{\"a\":{\"dtype\":null,\"shape\":[1],\"data_offsets\":[0,4]}}", "dtype is not a text"},
        {"{\"a\":{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}}", "tensor a|F33"},
        {"{\"a\":{\"dtype\":\"f32\",\"shape\":[1],\"data_offsets\":[0,4]}}", "tensor a|f32"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", "tensor a|shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[\"1\"],\"data_offsets\":[0,4]}}", "a|shape[0]"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,-1],\"data_offsets\":[0,4]}}", "a|shape[1]"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", "a|shape[0]"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1e0],\"data_offsets\":[0,4]}}", "a|shape[0]"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}",
         "tensor a|at most 8"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", "a|data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,4]}}", "a|data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":{\"0\":4}}}", "a|data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4.0]}}", "a|data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,4]}}", "a|data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[null,4]}}", "a|data_offsets"},
        {"{\"__metadata__\":[]}", "__metadata__"},
        {"{\"__metadata__\":{\"n\":1}}", "__metadata__.n"},
        {"{\"__metadata__\":{\"n\":null}}", "__metadata__.n"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", "duplicate"},
        {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
         "duplicate"},
        /* beyond the reference: the last one of these would win there */
        {"{" TEST_ENTRY "," TEST_ENTRY "}", "duplicate"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        refuse(CASES[i].header, 16, CASES[i].words);
}

#define U8_ENTRY(name, shape, begin, end)                                                          \
    "\"" name "\":{\"dtype\":\"U8\",\"shape\":[" shape "],\"data_offsets\":[" begin "," end "]}"

/* Rows 6 to 10, each alone. test_json_attack, test_validation_overflow, test_invalid_info,
 * test_metadata_incomplete_buffer, test_serialization_fp4_misaligned. */
static void bad_layouts_are_refused(void **state)
{
    (void)state;
    refuse("{" U8_ENTRY("a", "4", "1", "5") "}", 5, "tensor a|leave a hole|begin at 0");
    refuse("{" U8_ENTRY("a", "2", "0", "2") "," U8_ENTRY("b", "2", "3", "5") "}", 5,
           "tensor b|hole|begin at 2");
    refuse("{" U8_ENTRY("a", "3", "0", "3") "," U8_ENTRY("b", "3", "2", "5") "}", 5,
           "tensor b|overlap|begin at 3");
    refuse("{" U8_ENTRY("a", "2", "2", "0") "}", 2, "tensor a|begin at 0");
    refuse("{" U8_ENTRY("a", "2", "0", "2") "," U8_ENTRY("b", "1", "2", "1") "}", 2,
           "tensor b|end before they begin");
    char attack[1024] = "{";
    for (int i = 0; i < 10; i++)
        sprintf(attack + strlen(attack),
                "%s\"weight_%d\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}",
                i ? "," : "", i);
    refuse(strcat(attack, "}"), 16, "tensor weight_|overlap");

    refuse("{" U8_ENTRY("a", "2,18446744073709551614", "0", "16") "}", 16, "x.safetensors");
    refuse("{" U8_ENTRY("a", "4,4611686018427387904", "0", "16") "}", 16, "tensor a|overflows");
    refuse("{\"a\":{\"dtype\":\"I32\",\"shape\":[2,9223372036854775807],\"data_offsets\":[0,16]}}",
           16, "tensor a|[2, 9223372036854775807] overflows");
    refuse("{\"a\":{\"dtype\":\"F4\",\"shape\":[1,3],\"data_offsets\":[0,1]}}", 1,
           "tensor a|12 bits");
    refuse("{\"a\":{\"dtype\":\"I32\",\"shape\":[2,2],\"data_offsets\":[0,4]}}", 4,
           "tensor a|hold 4 bytes|I32 [2, 2] needs 16");
    refuse("{\"a\":{\"dtype\":\"I32\",\"shape\":[2,0],\"data_offsets\":[0,4]}}", 4, "needs 0");
    refuse("{" TEST_ENTRY "}", 17, "17 bytes of data, the header describes 16|extra");
    refuse("{" TEST_ENTRY "}", 15, "15 bytes of data, the header describes 16|truncated");
    refuse("{" TEST_ENTRY "}", 0, "truncated");
    refuse("{}", 1, "extra");
}

/* Tensors are checked one by one in the order of their offsets, then the end. */
static void faults_come_in_order(void **state)
{
    (void)state;
    /* size of the 1st before the hole at the 2nd; the hole at the 2nd before the size of the 3rd */
    refuse("{" U8_ENTRY("c", "9", "6", "8") "," U8_ENTRY("b", "2", "3",
                                                         "5") "," U8_ENTRY("a", "9", "0", "2") "}",
           8, "tensor a|needs 9");
    refuse("{" U8_ENTRY("c", "9", "5", "8") "," U8_ENTRY("b", "2", "3",
                                                         "5") "," U8_ENTRY("a", "2", "0", "2") "}",
           8, "tensor b|hole");
    /* 7 before 8 before 9 of one tensor; 9 before 10 */
    refuse("{\"a\":{\"dtype\":\"F4\",\"shape\":[3,9223372036854775807],\"data_offsets\":[0,1]}}", 9,
           "overflows");
    refuse("{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,7]}}", 9, "12 bits");
    refuse("{" U8_ENTRY("a", "3", "0", "2") "}", 9, "needs 3");
    /* row 5 before all of them, wherever it is */
    refuse("{" U8_ENTRY("a", "3", "1", "2") ",\"b\":{\"dtype\":\"X\",\"shape\":[],"
                                            "\"data_offsets\":[0,1]}}",
           9, "tensor b|X");
}

static void files_that_are_not_there(void **state)
{
    static const char POINTER[] = "version https://git-lfs.github.com/spec/v1\n"
                                  "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2"
                                  "ca24d17e2393\nsize 3864726320\n";
    qvl_safetensors *file = NULL;
    qvl_err err = {0};
    (void)state;
    expect_failure(qvl_safetensors_open(&file, scratch_path(path, "nothing"), &err), QVL_EMISSING,
                   &err, "nothing|No such file");
    expect_failure(qvl_safetensors_open(&file, scratch, &err), QVL_EMISSING, &err,
                   "not a regular file");
    write_text(scratch_path(path, "pointer"), POINTER);
    expect_failure(qvl_safetensors_open(&file, path, &err), QVL_EDATA, &err, "git lfs pull");
    assert_null(file);
}

/* After release the pages are read from the file again. */
static void released_tensors_can_be_read_again(void **state)
{
    enum { N = 40000 };
    char header[128];
    qvl_safetensors *file = NULL;
    (void)state;
    snprintf(header, sizeof header,
             "{\"a\":{\"dtype\":\"U8\",\"shape\":[%d],\"data_offsets\":[0,%d]}}", N, N);
    accept(&file, header, N, 1);
    const qvl_tensor *tensor = qvl_safetensors_at(file, 0);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < N; i++)
            assert_int_equal(((const unsigned char *)tensor->data)[i], i & 255);
        qvl_safetensors_release(file, tensor->data, (size_t)tensor->n_bytes);
    }
    qvl_safetensors_close(file);
}

/* Names and shapes from the file reach the message on one line, and a long shape is cut. */
static void messages_stay_on_one_line(void **state)
{
    const int64_t large[8] = {INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX,
                              INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX};
    char shape[160];
    (void)state;
    refuse("{\"a\\nb\\u001b[31m\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2,
           "a?b?[31m");
    qvl_tensor_format_shape(shape, large, 8);
    assert_true(strlen(shape) < sizeof shape && shape[strlen(shape) - 1] == ']');
    assert_string_equal(qvl_tensor_format_shape(shape, large, 0), "[]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_string_is_read),
        cmocka_unit_test(reference_cases_are_read),
        cmocka_unit_test(tensors_come_by_name),
        cmocka_unit_test(header_digest_is_of_the_header),
        cmocka_unit_test(every_type_has_its_bits),
        cmocka_unit_test(bad_lengths_are_refused),
        cmocka_unit_test(bad_structure_is_refused),
        cmocka_unit_test(bad_layouts_are_refused),
        cmocka_unit_test(faults_come_in_order),
        cmocka_unit_test(files_that_are_not_there),
        cmocka_unit_test(released_tensors_can_be_read_again),
        cmocka_unit_test(messages_stay_on_one_line),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
