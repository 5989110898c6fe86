/* Reading pre-tokenized files: what is accepted in which form, and every fault of structure and of
 * content. */
#include "io/dataset_h5.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scratch_files.h"

#include "dataset_file.h"

static char path[QVL_PATH_BYTES];

static void check_contents(qvl_dataset *data)
{
    const int32_t *images = NULL;
    int32_t ids[5], labels[5], supervised[2] = {-1, -1};
    uint8_t rgb[4704];
    qvl_err err = {0};
    assert_int_equal(qvl_dataset_samples(data), 2);
    assert_int_equal(qvl_dataset_images(data), 2);
    assert_int_equal(qvl_dataset_tokens(data), 8);
    assert_int_equal(qvl_dataset_length(data, 0), 5);
    assert_int_equal(qvl_dataset_length(data, 1), 3);
    assert_string_equal(qvl_dataset_path(data), path);
    assert_string_equal(qvl_dataset_digest(data), "d1");
    assert_string_equal(qvl_dataset_tokenizer_sha256(data), "t1");
    assert_int_equal(qvl_dataset_sample_images(data, 0, &images), 1);
    assert_int_equal(images[0], 1);
    assert_int_equal(qvl_dataset_sample_images(data, 1, &images), 1);
    assert_int_equal(images[0], 0);
    assert_memory_equal(qvl_dataset_grid(data, 1), ((int32_t[]){1, 2, 4}), 3 * sizeof(int32_t));
    expect_ok(qvl_dataset_read_sample(data, 1, ids, labels, &err), &err);
    assert_memory_equal(ids, ((int32_t[]){1, 90, 2}), 3 * sizeof(int32_t));
    assert_memory_equal(labels, ((int32_t[]){1, -100, 2}), 3 * sizeof(int32_t));
    expect_ok(qvl_dataset_read_rgb(data, 1, rgb, &err), &err);
    for (int i = 0; i < 4704; i++)
        assert_int_equal(rgb[i], (2352 + i) % 251);
    expect_ok(qvl_dataset_check_samples(data, &DATASET_RULES, 0, 2, supervised, &err), &err);
    assert_int_equal(supervised[0], 2);
    assert_int_equal(supervised[1], 1);
    expect_ok(qvl_dataset_check_samples(data, &DATASET_RULES, 1, 2, NULL, &err), &err);
    expect_ok(qvl_dataset_check_samples(data, &DATASET_RULES, 2, 2, NULL, &err), &err);
}

static void accept(const dataset_file *f)
{
    qvl_dataset *data = NULL;
    qvl_err err = {0};
    write_dataset(scratch_path(path, "data.h5"), f);
    expect_ok(qvl_dataset_open(&data, path, &err), &err);
    check_contents(data);
    qvl_dataset_close(data);
}

/* Other integer types, byte orders and storage, and both kinds of text. */
static void all_forms_are_read(void **state)
{
    dataset_file f = good_dataset();
    (void)state;
    accept(&f);
    f.is_variable_text = true;
    accept(&f);
    f.is_chunked = true;
    accept(&f);
    f = good_dataset();
    f.columns[INPUT_IDS].type = H5T_STD_I64BE;
    f.columns[LABELS].type = H5T_STD_I16BE;
    f.columns[SAMPLE_OFFSETS].type = H5T_STD_U32LE;
    f.columns[SAMPLE_IMAGE_OFFSETS].type = H5T_STD_I8LE;
    f.columns[SAMPLE_IMAGES].type = H5T_STD_U64BE;
    f.columns[GRID_THW].type = H5T_STD_I64LE;
    f.columns[RGB_OFFSETS].type = H5T_STD_U16LE;
    accept(&f);
    qvl_dataset_close(NULL);
}

/* Optional attributes may be missing. */
static void plain_files_are_read(void **state)
{
    dataset_file f = good_dataset();
    qvl_dataset *data = NULL;
    char text[512];
    qvl_err err = {0};
    (void)state;
    f.digest = f.tokenizer = NULL;
    write_dataset(scratch_path(path, "data.h5"), &f);
    expect_ok(qvl_dataset_open(&data, path, &err), &err);
    assert_string_equal(qvl_dataset_digest(data), "");
    assert_string_equal(qvl_dataset_tokenizer_sha256(data), "");
    assert_string_equal(qvl_dataset_template(data), "");
    assert_string_equal(qvl_dataset_describe(data, 1, text), "sample 1");
    qvl_dataset_close(data);
}

/* A text-only file: no images, nothing that refers to one. */
static void text_alone_is_fine(void **state)
{
    dataset_file f = good_dataset();
    qvl_dataset *data = NULL;
    const int32_t *images = NULL;
    qvl_err err = {0};
    (void)state;
    for (int i = 0; i < 8; i++)
        f.columns[INPUT_IDS].values[i] = i;
    memset(f.columns[SAMPLE_IMAGE_OFFSETS].values, 0, 3 * sizeof(int64_t));
    f.columns[SAMPLE_IMAGES].dims[0] = f.columns[GRID_THW].dims[0] = f.columns[RGB].dims[0] = 0;
    f.columns[RGB_OFFSETS].dims[0] = 1;
    write_dataset(scratch_path(path, "data.h5"), &f);
    expect_ok(qvl_dataset_open(&data, path, &err), &err);
    assert_int_equal(qvl_dataset_images(data), 0);
    assert_int_equal(qvl_dataset_sample_images(data, 1, &images), 0);
    expect_ok(qvl_dataset_check_samples(data, &DATASET_RULES, 0, 2, NULL, &err), &err);
    qvl_dataset_close(data);
}

static void refuse(const dataset_file *f, const char *words)
{
    qvl_dataset *data = NULL;
    qvl_err err = {0};
    write_dataset(scratch_path(path, "data.h5"), f);
    expect_failure(qvl_dataset_open(&data, path, &err), QVL_EDATA, &err, words);
    assert_null(data);
}

/* A change of one value, size or type of a member. */
typedef struct fault {
    dataset_member member;
    int index; /* of values; -1: dims[0] becomes value; -2: dims[1]; -3: left out */
    int64_t value;
    const char *words;
} fault;

static void apply(dataset_file *f, const fault *to)
{
    dataset_column *column = &f->columns[to->member];
    if (to->index >= 0)
        column->values[to->index] = to->value;
    else if (to->index == -3)
        column->n_dims = 0, column->dims[0] = 0;
    else
        column->dims[-1 - to->index] = (hsize_t)to->value;
}

static void wrong_structure_is_refused(void **state)
{
    static const fault FAULTS[] = {
        {INPUT_IDS, -3, 0, "/input_ids is missing"},
        {LABELS, -3, 0, "/labels is missing"},
        {SAMPLE_OFFSETS, -3, 0, "/sample_offsets is missing"},
        {SAMPLE_IMAGE_OFFSETS, -3, 0, "/sample_image_offsets is missing"},
        {SAMPLE_IMAGES, -3, 0, "/sample_images is missing"},
        {GRID_THW, -3, 0, "/images/grid_thw is missing"},
        {RGB_OFFSETS, -3, 0, "/images/rgb_offsets is missing"},
        {RGB, -3, 0, "/images/rgb is missing"},
        {LABELS, -1, 7, "8 input_ids and 7 labels"},
        {SAMPLE_OFFSETS, -1, 0, "/sample_offsets has 0 entries"},
        {SAMPLE_OFFSETS, 0, 1, "/sample_offsets begins with 1"},
        {SAMPLE_OFFSETS, 1, -5, "/sample_offsets falls from 0 to -5 at entry 1"},
        {SAMPLE_OFFSETS, 1, 9, "/sample_offsets falls from 9 to 8 at entry 2"},
        {SAMPLE_OFFSETS, 2, 7, "/sample_offsets ends with 7, the data have 8"},
        {SAMPLE_OFFSETS, 2, INT64_MAX, "/sample_offsets ends with 9223372036854775807"},
        {SAMPLE_OFFSETS, 1, 0, "sample 0 has 0 tokens"},
        {SAMPLE_OFFSETS, 1, 8, "sample 1 has 0 tokens"},
        {SAMPLE_IMAGE_OFFSETS, -1, 2, "/sample_image_offsets has 2 entries, expected 3"},
        {SAMPLE_IMAGE_OFFSETS, 0, -1, "/sample_image_offsets begins with -1"},
        {SAMPLE_IMAGE_OFFSETS, 1, 3, "/sample_image_offsets falls from 3 to 2"},
        {SAMPLE_IMAGE_OFFSETS, 2, 1, "/sample_image_offsets ends with 1, the data have 2"},
        {SAMPLE_IMAGES, 0, 2, "/sample_images entry 0 is image 2 of 2"},
        {SAMPLE_IMAGES, 1, -1, "/sample_images entry 1 is image -1 of 2"},
        {GRID_THW, -2, 2, "/images/grid_thw has the shape [2, 2]"},
        {GRID_THW, -1, 1, "/images/rgb_offsets has 3 entries, expected 2"},
        {GRID_THW, 0, 2, "image 0 has 2 frames, expected 1; videos are not supported"},
        {GRID_THW, 3, 0, "image 1 has 0 frames"},
        {GRID_THW, 1, 3, "image 0 has the grid 3 x 2 patches, expected even"},
        {GRID_THW, 5, 0, "image 1 has the grid 2 x 0"},
        {GRID_THW, 4, -2,
         "image 1 has the grid -2 x 4 patches, expected even numbers from 2 to 100000"},
        {GRID_THW, 4, 100002,
         "image 1 has the grid 100002 x 4 patches, expected even numbers from 2 to 100000"},
        {GRID_THW, 4, 4, "image 1 has 4704 bytes of pixels, its grid 4 x 4 needs 9408"},
        {RGB_OFFSETS, 1, 2351, "image 0 has 2351 bytes of pixels, its grid 2 x 2 needs 2352"},
        {RGB_OFFSETS, 1, 8000, "/images/rgb_offsets falls from 8000 to 7056"},
        {RGB, -1, 7057, "/images/rgb_offsets ends with 7056, the data have 7057"}};
    (void)state;
    for (size_t i = 0; i < sizeof FAULTS / sizeof *FAULTS; i++) {
        dataset_file f = good_dataset();
        apply(&f, &FAULTS[i]);
        refuse(&f, FAULTS[i].words);
    }
}

static void wrong_types_are_refused(void **state)
{
    static const char *const NAMES[] = {
        "input_ids",     "labels",          "sample_offsets",     "sample_image_offsets",
        "sample_images", "images/grid_thw", "images/rgb_offsets", "images/rgb"};
    char words[128];
    (void)state;
    for (int i = 0; i < SOURCE; i++) {
        dataset_file f = good_dataset();
        f.columns[i].type = H5T_IEEE_F32LE;
        snprintf(words, sizeof words, "/%s does not hold integers", NAMES[i]);
        refuse(&f, words);
        f = good_dataset();
        f.columns[i].type = H5T_C_S1;
        refuse(&f, words);
        f = good_dataset();
        f.columns[i].n_dims = i == GRID_THW ? 1 : 2;
        f.columns[i].dims[1] = 1;
        snprintf(words, sizeof words, "/%s has %d dimensions, expected %d", NAMES[i],
                 f.columns[i].n_dims, 3 - f.columns[i].n_dims);
        refuse(&f, words);
        f.columns[i].n_dims = 0;
        f.columns[i].dims[0] = 1;
        snprintf(words, sizeof words, "/%s has 0 dimensions", NAMES[i]);
        refuse(&f, words);
    }
}

static void wrong_attributes_are_refused(void **state)
{
    dataset_file f = good_dataset();
    (void)state;
    f.format = NULL;
    refuse(&f, "attribute format is \"\", expected \"qvl-sft\"");
    f.format = "qvl-sft2";
    refuse(&f, "attribute format is \"qvl-sft2\"");
    f.format = "0123456789012345678901234567890123456789012345678901234567890123456789";
    refuse(&f, "format is \"0123456789012345678901234567890123456789012345678901234567890123\", e");
    f = good_dataset();
    f.has_version = false;
    refuse(&f, "version 0, this program reads version 1");
    f.has_version = true;
    f.version = 2;
    refuse(&f, "version 2, this program reads version 1");
    f.version = ((int64_t)1 << 32) + 1;
    refuse(&f, "version 4294967297");
}

/* A small file may declare an index of any size: no memory is taken for what is not there. */
static void declared_but_absent_data_are_refused(void **state)
{
    static const struct {
        dataset_member member;
        hsize_t n;
        const char *words;
    } CASES[] = {{SAMPLE_OFFSETS, (hsize_t)1 << 33, "declares 8589934592 elements, "},
                 {SAMPLE_OFFSETS, (hsize_t)1 << 35, "has the shape [34359738368, 1]"},
                 {SAMPLE_IMAGES, (hsize_t)1 << 30, "declares 1073741824 elements, "},
                 {GRID_THW, (hsize_t)1 << 32, "declares 12884901888 elements, "}};
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        dataset_file f = good_dataset();
        f.is_chunked = true; /* chunks come into being when they are written */
        f.columns[CASES[i].member].dims[0] = CASES[i].n;
        refuse(&f, CASES[i].words);
    }
}

static void wrong_contents_are_refused(void **state)
{
    static const fault FAULTS[] = {
        {INPUT_IDS, 0, -1, "sample 0: id -1 at token 0 is outside the vocabulary of 100"},
        {INPUT_IDS, 7, 100, "sample 1: id 100 at token 2 is outside the vocabulary"},
        {LABELS, 3, 100, "sample 0: label 100 at token 3 is neither -100 nor in"},
        {LABELS, 5, -1, "sample 1: label -1 at token 0 is neither -100 nor in"},
        {INPUT_IDS, 4, 91, "sample 0: token 4 belongs to a video"},
        {INPUT_IDS, 2, 6, "sample 0: image 0 (grid 2 x 4) needs a run of 2 image tokens, only 1"},
        {INPUT_IDS, 3, 90, "sample 0: 3 image tokens, its 1 images need 2"},
        {INPUT_IDS, 6, 3, "sample 1: 0 image tokens, its 1 images need 1"},
        {SAMPLE_IMAGE_OFFSETS, 1, 2, "sample 0: 2 image tokens, its 2 images need 3"},
        {SAMPLE_IMAGE_OFFSETS, 1, 0, "sample 0: 2 image tokens, its 0 images need 0"},
        {SAMPLE_IMAGES, 0, 0, "sample 0: 2 image tokens, its 1 images need 1"}};
    (void)state;
    for (size_t i = 0; i < sizeof FAULTS / sizeof *FAULTS; i++) {
        dataset_file f = good_dataset();
        qvl_dataset *data = NULL;
        qvl_err err = {0};
        apply(&f, &FAULTS[i]);
        write_dataset(scratch_path(path, "data.h5"), &f);
        expect_ok(qvl_dataset_open(&data, path, &err), &err);
        expect_failure(qvl_dataset_check_samples(data, &DATASET_RULES, 0, 2, NULL, &err), QVL_EDATA,
                       &err, FAULTS[i].words);
        qvl_dataset_close(data);
    }
}

/* Values that do not fit are told as they are: they neither come around to something that does, nor
 * become the largest that does. */
static void wide_values_do_not_wrap(void **state)
{
    static const struct {
        dataset_member member;
        const char *words;
    } CASES[] = {{INPUT_IDS, "/input_ids element 3 is 4294967302, out of the range -2147483648 to"},
                 {LABELS, "/labels element 3 is 4294967302, out of the range"}};
    (void)state;
    for (int i = 0; i < 2; i++) {
        dataset_file f = good_dataset();
        qvl_dataset *data = NULL;
        qvl_err err = {0};
        f.columns[CASES[i].member].type = H5T_STD_I64LE;
        f.columns[CASES[i].member].values[3] = ((int64_t)1 << 32) + 6;
        write_dataset(scratch_path(path, "data.h5"), &f);
        expect_ok(qvl_dataset_open(&data, path, &err), &err);
        expect_failure(qvl_dataset_check_samples(data, &DATASET_RULES, 0, 2, NULL, &err), QVL_EDATA,
                       &err, CASES[i].words);
        qvl_err_clear(&err);
        int32_t ids[5], labels[5];
        expect_failure(qvl_dataset_read_sample(data, 0, ids, labels, &err), QVL_EDATA, &err,
                       CASES[i].words);
        qvl_dataset_close(data);
    }
    dataset_file f = good_dataset();
    f.columns[SAMPLE_IMAGES].type = H5T_STD_I64LE;
    f.columns[SAMPLE_IMAGES].values[0] = ((int64_t)1 << 32) + 1;
    refuse(&f, "/sample_images element 0 is 4294967297, out of the range");
    f = good_dataset();
    f.columns[GRID_THW].type = H5T_STD_I64BE;
    f.columns[GRID_THW].values[4] = -((int64_t)1 << 40);
    refuse(&f, "/images/grid_thw element 4 is -1099511627776, out of the range");
}

/* One pixel of a file, as 64 bits of the stored type's sign. */
static void set_pixel(hid_t type, hsize_t index, const void *value)
{
    const hsize_t one = 1;
    const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    const hid_t set = H5Dopen2(file, "images/rgb", H5P_DEFAULT), space = H5Dget_space(set);
    const hid_t memory = H5Screate_simple(1, &one, NULL);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, &index, NULL, &one, NULL);
    assert_true(H5Dwrite(set, type, memory, space, H5P_DEFAULT, value) >= 0);
    H5Sclose(memory);
    H5Sclose(space);
    H5Dclose(set);
    assert_true(H5Fclose(file) >= 0);
}

static void pixels_are_bytes_however_they_are_stored(void **state)
{
    const struct {
        hid_t type;
        uint64_t value;
        const char *words; /* NULL: fine */
    } CASES[] = {
        {H5T_STD_U8LE, 255, NULL},
        {H5T_STD_I16LE, 255, NULL},
        {H5T_STD_I16BE, 256, "element 2357 is 256, out of the range 0 to 255 (image 1, which"},
        {H5T_STD_I8LE, (uint64_t)-1, "element 2357 is -1, out of the range 0 to 255"},
        {H5T_STD_I32LE, (uint64_t)-300, "/images/rgb element 2357 is -300, out"},
        {H5T_STD_U64BE, UINT64_MAX, "/images/rgb element 2357 is 18446744073709551615, out"},
        {H5T_STD_I64LE, (uint64_t)1 << 40, "/images/rgb element 2357 is 1099511627776, out"},
    };
    uint8_t pixels[4704];
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        const hid_t wide = CASES[i].type == H5T_STD_U64BE ? H5T_NATIVE_UINT64 : H5T_NATIVE_INT64;
        dataset_file f = good_dataset();
        qvl_dataset *data = NULL;
        qvl_err err = {0};
        f.columns[RGB].type = CASES[i].type;
        write_dataset(scratch_path(path, "data.h5"), &f);
        for (hsize_t k = 0; CASES[i].type == H5T_STD_I8LE && k < 7056; k++)
            set_pixel(wide, k, &(int64_t){1}); /* those of the file are up to 250 */
        set_pixel(wide, 2357, &CASES[i].value);
        expect_ok(qvl_dataset_open(&data, path, &err), &err);
        expect_ok(qvl_dataset_check_pixels(data, 0, 1, &err), &err);
        if (CASES[i].words) {
            expect_failure(qvl_dataset_read_rgb(data, 1, pixels, &err), QVL_EDATA, &err,
                           CASES[i].words);
            qvl_err_clear(&err);
            expect_failure(qvl_dataset_check_pixels(data, 0, 2, &err), QVL_EDATA, &err,
                           CASES[i].words);
        } else {
            expect_ok(qvl_dataset_read_rgb(data, 1, pixels, &err), &err);
            assert_int_equal(pixels[5], 255);
            expect_ok(qvl_dataset_check_pixels(data, 0, 2, &err), &err);
        }
        qvl_dataset_close(data);
    }
}

/* The messages say where a sample came from, if the file does. */
static void sources_are_named(void **state)
{
    dataset_file f = good_dataset();
    qvl_dataset *data = NULL;
    char text[512];
    qvl_err err = {0};
    (void)state;
    f.sources = "data/a.json\ndata/b.json";
    f.columns[SOURCE] = (dataset_column){H5T_STD_I64LE, 2, {2, 2}, {1, 17, 0, 3}};
    f.columns[INPUT_IDS].values[0] = -1;
    write_dataset(scratch_path(path, "data.h5"), &f);
    expect_ok(qvl_dataset_open(&data, path, &err), &err);
    assert_string_equal(qvl_dataset_describe(data, 0, text), "data/b.json: sample 17");
    assert_string_equal(qvl_dataset_describe(data, 1, text), "data/a.json: sample 3");
    expect_failure(qvl_dataset_check_samples(data, &DATASET_RULES, 0, 2, NULL, &err), QVL_EDATA,
                   &err, "data.h5: sample 0 (data/b.json: sample 17): id -1");
    qvl_dataset_close(data);
    /* sources that make no sense cost nothing but their text */
    static const int64_t ODD[][4] = {{2, 1, -1, 1}, {INT64_MAX, 1, INT64_MIN, 1}};
    for (int i = 0; i < 2; i++) {
        memcpy(f.columns[SOURCE].values, ODD[i], sizeof ODD[i]);
        write_dataset(scratch_path(path, "data.h5"), &f);
        expect_ok(qvl_dataset_open(&data, path, &err), &err);
        assert_non_null(strstr(qvl_dataset_describe(data, 0, text), ": sample 1"));
        assert_non_null(strstr(qvl_dataset_describe(data, 1, text), ": sample 1"));
        qvl_dataset_close(data);
    }
    f.columns[SOURCE].dims[0] = 1; /* of another size: as if it were not there */
    write_dataset(scratch_path(path, "data.h5"), &f);
    expect_ok(qvl_dataset_open(&data, path, &err), &err);
    assert_string_equal(qvl_dataset_describe(data, 0, text), "sample 0");
    qvl_dataset_close(data);
}

static void files_that_are_not_hdf5(void **state)
{
    qvl_dataset *data = NULL;
    qvl_err err = {0};
    (void)state;
    expect_failure(qvl_dataset_open(&data, scratch_path(path, "none.h5"), &err), QVL_EMISSING, &err,
                   "none.h5");
    expect_failure(qvl_dataset_open(&data, scratch, &err), QVL_EDATA, &err,
                   "is a directory; tokenized_path names an HDF5 file");
    write_text(scratch_path(path, "text.h5"), "not HDF5");
    expect_failure(qvl_dataset_open(&data, path, &err), QVL_EDATA, &err, "not a whole HDF5 file");
    write_text(path, "");
    expect_failure(qvl_dataset_open(&data, path, &err), QVL_EDATA, &err, "not a whole HDF5 file");
    assert_null(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_forms_are_read),
        cmocka_unit_test(plain_files_are_read),
        cmocka_unit_test(text_alone_is_fine),
        cmocka_unit_test(wrong_structure_is_refused),
        cmocka_unit_test(wrong_types_are_refused),
        cmocka_unit_test(wrong_attributes_are_refused),
        cmocka_unit_test(declared_but_absent_data_are_refused),
        cmocka_unit_test(wrong_contents_are_refused),
        cmocka_unit_test(wide_values_do_not_wrap),
        cmocka_unit_test(pixels_are_bytes_however_they_are_stored),
        cmocka_unit_test(sources_are_named),
        cmocka_unit_test(files_that_are_not_hdf5),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
