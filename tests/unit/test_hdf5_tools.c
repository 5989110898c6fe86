/* HDF5 behind our errors: attributes of every form, arrays, and what is not what was asked for. */
#include "io/hdf5_tools.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scratch_files.h"

static hid_t file = H5I_INVALID_HID;

/* Every test has an empty file. */
static int open_file(void **state)
{
    char path[QVL_PATH_BYTES];
    (void)state;
    qvl_h5_quiet();
    file = H5Fcreate(scratch_path(path, "x.h5"), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    return file < 0;
}

static int close_file(void **state)
{
    (void)state;
    return H5Fclose(file) < 0;
}

/* A text of n_bytes in the file, padded in HDF5's way. */
static void put_text(const char *name, const char *bytes, size_t n_bytes, H5T_str_t padding)
{
    const hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, n_bytes);
    H5Tset_strpad(type, padding);
    const hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(attribute >= 0 && H5Awrite(attribute, type, bytes) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
}

static void put_attribute(const char *name, hid_t type, const void *value, hid_t space)
{
    const hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(attribute >= 0);
    if (value)
        assert_true(H5Awrite(attribute, type, value) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
}

static void expect_text(const char *name, const char *want)
{
    char *got = NULL;
    qvl_err err = {0};
    expect_ok(qvl_h5_read_text(&got, file, name, "x.h5", &err), &err);
    if (want) {
        assert_non_null(got);
        assert_string_equal(got, want);
    } else {
        assert_null(got);
    }
    free(got);
}

static void texts_of_every_form(void **state)
{
    const char *variable = "of variable length", *none = NULL;
    const hid_t type = H5Tcopy(H5T_C_S1);
    (void)state;
    put_text("terminated", "ab\0xy", 5, H5T_STR_NULLTERM);
    put_text("full", "abcde", 5, H5T_STR_NULLPAD);
    put_text("null padded", "abc\0\0", 5, H5T_STR_NULLPAD);
    put_text("blank padded", "abc  ", 5, H5T_STR_SPACEPAD);
    put_text("one", "\0", 1, H5T_STR_NULLTERM);
    H5Tset_size(type, H5T_VARIABLE);
    put_attribute("variable", type, &variable, H5Screate(H5S_SCALAR));
    put_attribute("null", type, &none, H5Screate(H5S_SCALAR));
    put_attribute("list of one", type, &variable, H5Screate_simple(1, (hsize_t[]){1}, NULL));
    H5Tset_cset(type, H5T_CSET_UTF8);
    put_attribute("utf8", type, &variable, H5Screate(H5S_SCALAR));
    H5Tclose(type);
    expect_text("terminated", "ab");
    expect_text("full", "abcde");
    expect_text("null padded", "abc");
    expect_text("blank padded", "abc");
    expect_text("one", "");
    expect_text("variable", variable);
    expect_text("null", "");
    expect_text("list of one", variable);
    expect_text("utf8", variable);
    expect_text("not there", NULL);
    assert_int_equal(qvl_h5_write_text(file, "ours",
                                       "gr\xc3\xbc\xc3\x9f"
                                       "e",
                                       "x.h5", NULL),
                     QVL_OK);
    assert_int_equal(qvl_h5_write_text(file, "nothing", "", "x.h5", NULL), QVL_OK);
    expect_text("ours", "gr\xc3\xbc\xc3\x9f"
                        "e");
    expect_text("nothing", "");
}

static void integers_of_every_form(void **state)
{
    static const int64_t VALUES[] = {0,         1,         -1,        INT32_MAX,
                                     INT32_MIN, INT64_MAX, INT64_MIN, 2147483648};
    char name[32];
    int64_t got = 0;
    bool found = false;
    qvl_err err = {0};
    (void)state;
    for (size_t i = 0; i < sizeof VALUES / sizeof *VALUES; i++) {
        snprintf(name, sizeof name, "ours %zu", i);
        expect_ok(qvl_h5_write_integer(file, name, VALUES[i], "x.h5", &err), &err);
        expect_ok(qvl_h5_read_integer(&got, &found, file, name, "x.h5", &err), &err);
        assert_true(found && got == VALUES[i]);
    }
    put_attribute("u8", H5T_NATIVE_UINT8, (uint8_t[]){200}, H5Screate(H5S_SCALAR));
    expect_ok(qvl_h5_read_integer(&got, &found, file, "u8", "x.h5", &err), &err);
    assert_true(found && got == 200);
    put_attribute("u64", H5T_NATIVE_UINT64, (uint64_t[]){UINT64_MAX}, H5Screate(H5S_SCALAR));
    expect_ok(qvl_h5_read_integer(&got, &found, file, "u64", "x.h5", &err), &err);
    assert_true(found && got == INT64_MAX); /* does not come around to -1 */
    got = 77;
    expect_ok(qvl_h5_read_integer(&got, &found, file, "none", "x.h5", &err), &err);
    assert_true(!found && got == 77);
}

static void other_attributes_are_refused(void **state)
{
    const hsize_t two = 2;
    char *text = NULL;
    int64_t number = 0;
    bool found = false;
    qvl_err err = {0};
    (void)state;
    put_attribute("double", H5T_NATIVE_DOUBLE, (double[]){1.0}, H5Screate(H5S_SCALAR));
    put_attribute("pair", H5T_NATIVE_INT, (int[]){1, 2}, H5Screate_simple(1, &two, NULL));
    put_attribute("nil", H5T_NATIVE_INT, NULL, H5Screate(H5S_NULL));
    put_text("text", "1", 1, H5T_STR_NULLPAD);
    static const char *const NOT_INTEGERS[] = {"double", "pair", "nil", "text"};
    for (int i = 0; i < 4; i++)
        expect_failure(qvl_h5_read_integer(&number, &found, file, NOT_INTEGERS[i], "x.h5", &err),
                       QVL_EDATA, &err, "x.h5: attribute|is not one integer");
    for (int i = 0; i < 3; i++)
        expect_failure(qvl_h5_read_text(&text, file, NOT_INTEGERS[i], "x.h5", &err), QVL_EDATA,
                       &err, "x.h5: attribute|is not a text");
    assert_null(text);
}

static void arrays_are_written_and_read(void **state)
{
    static const double DOUBLES[] = {1.5, -0.0, 1e300};
    double back[3] = {0};
    float floats[3] = {0};
    qvl_err err = {0};
    (void)state;
    expect_ok(qvl_h5_write_array(file, "d", H5T_NATIVE_DOUBLE, DOUBLES, 3, "x.h5", &err), &err);
    expect_ok(qvl_h5_read_array(file, "d", H5T_NATIVE_DOUBLE, back, 3, "x.h5", &err), &err);
    assert_memory_equal(back, DOUBLES, sizeof back);
    expect_ok(qvl_h5_write_array(file, "none", H5T_NATIVE_FLOAT, floats, 0, "x.h5", &err), &err);
    expect_ok(qvl_h5_read_array(file, "none", H5T_NATIVE_FLOAT, floats, 0, "x.h5", &err), &err);
    expect_failure(qvl_h5_read_array(file, "d", H5T_NATIVE_DOUBLE, back, 2, "x.h5", &err),
                   QVL_EDATA, &err, "x.h5: /d has 3 elements, expected 2");
    expect_failure(qvl_h5_read_array(file, "e", H5T_NATIVE_DOUBLE, back, 2, "x.h5", &err),
                   QVL_EDATA, &err, "x.h5: /e is missing");
    expect_failure(qvl_h5_write_array(file, "d", H5T_NATIVE_DOUBLE, back, 3, "x.h5", &err), QVL_EIO,
                   &err, "write x.h5: /d");
}

static void ranges_are_checked(void **state)
{
    static const int32_t VALUES[] = {10, 11, 12, 13};
    int64_t out[4] = {0};
    hsize_t dims[2] = {0, 0};
    hid_t set = H5I_INVALID_HID;
    qvl_err err = {0};
    (void)state;
    expect_ok(qvl_h5_write_array(file, "v", H5T_NATIVE_INT32, VALUES, 4, "x.h5", &err), &err);
    expect_ok(qvl_h5_write_array(file, "f", H5T_NATIVE_FLOAT, VALUES, 4, "x.h5", &err), &err);
    expect_ok(qvl_h5_open_integers(&set, dims, 1, file, "v", "x.h5", &err), &err);
    assert_int_equal(dims[0], 4);
    expect_ok(qvl_h5_read_range(set, H5T_NATIVE_INT64, out, 1, 2, "v", "x.h5", &err), &err);
    assert_true(out[0] == 11 && out[1] == 12);
    expect_ok(qvl_h5_read_range(set, H5T_NATIVE_INT64, NULL, 99, 0, "v", "x.h5", &err), &err);
    expect_failure(qvl_h5_read_range(set, H5T_NATIVE_INT64, out, 3, 2, "v", "x.h5", &err),
                   QVL_EDATA, &err, "x.h5: /v elements 3 to 4");
    H5Dclose(set);
    expect_failure(qvl_h5_open_integers(&set, dims, 2, file, "v", "x.h5", &err), QVL_EDATA, &err,
                   "/v has 1 dimensions, expected 2");
    assert_true(set < 0);
    expect_failure(qvl_h5_open_integers(&set, dims, 1, file, "f", "x.h5", &err), QVL_EDATA, &err,
                   "/f does not hold integers");
    expect_failure(qvl_h5_open_integers(&set, dims, 1, file, "w", "x.h5", &err), QVL_EDATA, &err,
                   "/w is missing");
}

#define HDF5_TEST(name) cmocka_unit_test_setup_teardown(name, open_file, close_file)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HDF5_TEST(texts_of_every_form),          HDF5_TEST(integers_of_every_form),
        HDF5_TEST(other_attributes_are_refused), HDF5_TEST(arrays_are_written_and_read),
        HDF5_TEST(ranges_are_checked),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
