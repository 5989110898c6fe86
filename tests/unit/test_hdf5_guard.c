/* Data sets that lead out of their file, or take more than they seem to, are refused before they
 * are read. */
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

#include "library_sanitizers.h"

enum { N = 100 };

/* A file with /whole, 0 to 99, and /group. */
static hid_t new_file(char path[QVL_PATH_BYTES])
{
    int64_t values[N];
    for (int i = 0; i < N; i++)
        values[i] = i;
    qvl_h5_quiet();
    scratch_path(path, "guard.h5");
    const hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(file >= 0);
    assert_int_equal(qvl_h5_write_array(file, "whole", H5T_NATIVE_INT64, values, N, path, NULL),
                     QVL_OK);
    H5Gclose(H5Gcreate2(file, "group", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    return file;
}

static void make(hid_t file, const char *name, hid_t type, hid_t list)
{
    const hsize_t n = N;
    const hid_t space = H5Screate_simple(1, &n, NULL);
    const hid_t set = H5Dcreate2(file, name, type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(set >= 0);
    H5Dclose(set);
    H5Sclose(space);
    H5Pclose(list);
}

/* Opening and reading it fail with these words; closes the file. */
static void refuse(hid_t file, const char *name, const char *words)
{
    hid_t set = 0;
    hsize_t dims = 0;
    int64_t values[N];
    qvl_err err = {0};
    expect_failure(qvl_h5_open_integers(&set, &dims, 1, file, name, "guard.h5", &err), QVL_EDATA,
                   &err, words);
    assert_true(set < 0);
    expect_failure(qvl_h5_read_array(file, name, H5T_NATIVE_INT64, values, N, "guard.h5", &err),
                   QVL_EDATA, &err, words);
    assert_true(H5Fclose(file) >= 0);
}

static void what_is_there_is_read(void **state)
{
    char path[QVL_PATH_BYTES];
    const hid_t file = new_file(path);
    int64_t values[N] = {0};
    hid_t set = 0;
    hsize_t dims = 0;
    (void)state;
    assert_int_equal(qvl_h5_read_array(file, "whole", H5T_NATIVE_INT64, values, N, path, NULL),
                     QVL_OK);
    assert_int_equal(values[99], 99);
    assert_int_equal(qvl_h5_open_integers(&set, &dims, 1, file, "whole", path, NULL), QVL_OK);
    assert_int_equal(dims, N);
    H5Dclose(set);
    refuse(file, "nothing", "guard.h5: /nothing is missing");
}

static void links_are_refused(void **state)
{
    char path[QVL_PATH_BYTES];
    hid_t file = new_file(path);
    (void)state;
    H5Lcreate_soft("/whole", file, "soft", H5P_DEFAULT, H5P_DEFAULT);
    refuse(file, "soft", "/soft is a link");
    file = new_file(path);
    H5Lcreate_external(path, "/whole", file, "group/out", H5P_DEFAULT, H5P_DEFAULT);
    refuse(file, "group/out", "/group/out is a link");
    file = new_file(path);
    H5Lcreate_external(path, "/", file, "round", H5P_DEFAULT, H5P_DEFAULT);
    refuse(file, "round/whole", "/round is a link");
    file = new_file(path);
    H5Lcreate_soft("/circle", file, "circle", H5P_DEFAULT, H5P_DEFAULT);
    refuse(file, "circle", "/circle is a link");
}

static void other_files_are_refused(void **state)
{
    char path[QVL_PATH_BYTES];
    hid_t file = new_file(path);
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    (void)state;
    assert_true(H5Pset_external(list, "/etc/hostname", 0, H5F_UNLIMITED) >= 0);
    make(file, "outside", H5T_STD_I64LE, list);
    refuse(file, "outside", "/outside keeps its values in other files");
}

/* libhdf5 1.10.8 recurses until its stack ends when it reads this one. */
static void a_virtual_set_of_itself_is_refused(void **state)
{
    char path[QVL_PATH_BYTES];
    hid_t file = new_file(path);
    const hsize_t n = N;
    const hid_t space = H5Screate_simple(1, &n, NULL);
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    (void)state;
    assert_true(H5Pset_virtual(list, space, ".", "endless", space) >= 0);
    make(file, "endless", H5T_STD_I64LE, list);
    H5Sclose(space);
    refuse(file, "endless", "/endless is a virtual data set");
}

static void plug_ins_and_large_chunks_are_refused(void **state)
{
    char path[QVL_PATH_BYTES];
    hid_t file = new_file(path);
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    const hsize_t some = 10, many = (hsize_t)1 << 26;
    (void)state;
    H5Pset_chunk(list, 1, &some);
    assert_true(H5Pset_filter(list, 32000, H5Z_FLAG_OPTIONAL, 0, NULL) >= 0);
    make(file, "packed", H5T_STD_I64LE, list);
    refuse(file, "packed", "/packed is packed with filter 32000");
    file = new_file(path);
    list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(list, 1, &many);
    const hsize_t n = N, unlimited = H5S_UNLIMITED;
    const hid_t space = H5Screate_simple(1, &n, &unlimited);
    const hid_t set =
        H5Dcreate2(file, "chunk", H5T_STD_I64LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(set >= 0);
    H5Dclose(set);
    H5Sclose(space);
    H5Pclose(list);
    refuse(file, "chunk", "/chunk has chunks of over 256 MiB");
}

/* A data set of 0 to 99 that this filter has packed. */
static hid_t file_with_filter(H5Z_filter_t filter)
{
    static const unsigned PARAMETERS[2] = {4, 0};
    char path[QVL_PATH_BYTES];
    int64_t values[N];
    const hsize_t n = N;
    const hid_t file = new_file(path), list = H5Pcreate(H5P_DATASET_CREATE);
    for (int i = 0; i < N; i++)
        values[i] = i;
    H5Pset_chunk(list, 1, &n);
    if (filter == H5Z_FILTER_NBIT)
        assert_true(H5Pset_nbit(list) >= 0);
    else if (filter == H5Z_FILTER_SCALEOFFSET)
        assert_true(H5Pset_scaleoffset(list, H5Z_SO_INT, 0) >= 0);
    else
        assert_true(H5Pset_filter(list, filter, H5Z_FLAG_OPTIONAL,
                                  filter == H5Z_FILTER_DEFLATE ? 1 : 0, PARAMETERS) >= 0);
    make(file, "packed", H5T_STD_I64LE, list);
    const hid_t set = H5Dopen2(file, "packed", H5P_DEFAULT);
    H5Dwrite(set, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
    H5Dclose(set);
    return file;
}

/* Ids that libhdf5 does not know are plug-ins', whatever their number. */
static void only_known_filters_are_read(void **state)
{
    static const H5Z_filter_t GOOD[] = {H5Z_FILTER_DEFLATE, H5Z_FILTER_SHUFFLE,
                                        H5Z_FILTER_FLETCHER32};
    static const H5Z_filter_t BAD[] = {
        H5Z_FILTER_NBIT, H5Z_FILTER_SCALEOFFSET, 7, 66, 255, 256, 32000, 65535};
    char words[64];
    (void)state;
    for (size_t i = 0; i < sizeof GOOD / sizeof *GOOD; i++) {
        int64_t values[N] = {0};
        const hid_t file = file_with_filter(GOOD[i]);
        assert_int_equal(
            qvl_h5_read_array(file, "packed", H5T_NATIVE_INT64, values, N, "guard.h5", NULL),
            QVL_OK);
        assert_int_equal(values[99], 99);
        H5Fclose(file);
    }
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        snprintf(words, sizeof words, "/packed is packed with filter %d, expected deflate", BAD[i]);
        refuse(file_with_filter(BAD[i]), "packed", words);
    }
}

static void plug_ins_are_not_loaded(void **state)
{
    unsigned kinds = ~0U;
    (void)state;
    H5PLset_loading_state(H5PL_ALL_PLUGIN);
    qvl_h5_quiet();
    assert_true(H5PLget_loading_state(&kinds) >= 0);
    assert_int_equal(kinds, 0);
}

static void wide_elements_are_refused(void **state)
{
    char path[QVL_PATH_BYTES];
    hid_t file = new_file(path);
    const hid_t type = H5Tcopy(H5T_STD_I64LE);
    (void)state;
    assert_true(H5Tset_size(type, 1000) >= 0);
    make(file, "wide", type, H5Pcreate(H5P_DATASET_CREATE));
    H5Tclose(type);
    refuse(file, "wide", "/wide has elements of 1000 bytes, expected numbers of at most 8");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_there_is_read),
        cmocka_unit_test(links_are_refused),
        cmocka_unit_test(other_files_are_refused),
        cmocka_unit_test(a_virtual_set_of_itself_is_refused),
        cmocka_unit_test(plug_ins_and_large_chunks_are_refused),
        cmocka_unit_test(only_known_filters_are_read),
        cmocka_unit_test(plug_ins_are_not_loaded),
        cmocka_unit_test(wide_elements_are_refused),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
