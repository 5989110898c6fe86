/* Pre-tokenized files written with HDF5 itself, so that every member can be wrong. Included after
 * "scratch_files.h". */
#ifndef QVL_TESTS_UNIT_DATASET_FILE_H
#define QVL_TESTS_UNIT_DATASET_FILE_H

#include <hdf5.h>
#include <stdint.h>

#include "io/dataset_h5.h"

enum { DATASET_MAX = 16, IMAGE_TOKEN = 90, VIDEO_TOKEN = 91, VOCAB = 100 };

typedef enum dataset_member {
    INPUT_IDS,
    LABELS,
    SAMPLE_OFFSETS,
    SAMPLE_IMAGE_OFFSETS,
    SAMPLE_IMAGES,
    GRID_THW,
    RGB_OFFSETS,
    RGB,
    SOURCE,
    N_MEMBERS
} dataset_member;

/* One data set: values are converted to type; dims as given (0: left out). */
typedef struct dataset_column {
    hid_t type;
    int n_dims;
    hsize_t dims[2];
    int64_t values[DATASET_MAX];
} dataset_column;

typedef struct dataset_file {
    const char *format, *digest, *tokenizer, *template_name, *sources; /* NULL: no such attribute */
    bool is_variable_text, has_version;
    int64_t version;
    dataset_column columns[N_MEMBERS];
    bool is_chunked;
} dataset_file;

/* Two samples: "5 i i 6 7" with an image of 2x4 patches, and "1 i 2" with one of 2x2; five
 * supervised tokens with a prediction. */
static inline dataset_file good_dataset(void)
{
    dataset_file f = {
        .format = "qvl-sft", .digest = "d1", .tokenizer = "t1", .has_version = true, .version = 1};
    const hid_t narrow = H5T_STD_I32LE, wide = H5T_STD_I64LE;
    f.columns[INPUT_IDS] = (dataset_column){narrow, 1, {8}, {5, 90, 90, 6, 7, 1, 90, 2}};
    f.columns[LABELS] = (dataset_column){narrow, 1, {8}, {-100, -100, -100, 6, 7, 1, -100, 2}};
    f.columns[SAMPLE_OFFSETS] = (dataset_column){wide, 1, {3}, {0, 5, 8}};
    f.columns[SAMPLE_IMAGE_OFFSETS] = (dataset_column){wide, 1, {3}, {0, 1, 2}};
    f.columns[SAMPLE_IMAGES] = (dataset_column){narrow, 1, {2}, {1, 0}};
    f.columns[GRID_THW] = (dataset_column){narrow, 2, {2, 3}, {1, 2, 2, 1, 2, 4}};
    f.columns[RGB_OFFSETS] = (dataset_column){wide, 1, {3}, {0, 2352, 7056}};
    f.columns[RGB] = (dataset_column){H5T_STD_U8LE, 1, {7056}, {0}};
    f.columns[SOURCE] = (dataset_column){wide, 0, {0}, {0}};
    return f;
}

static inline void write_attribute_text(hid_t file, const char *name, const char *text,
                                        bool is_variable)
{
    if (!text)
        return;
    const hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, is_variable ? H5T_VARIABLE : strlen(text) + 1);
    const hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(attribute >= 0);
    assert_true(H5Awrite(attribute, type, is_variable ? (const void *)&text : text) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
}

/* Pixel k of the file is k mod 251; of the other members the values. */
static inline void write_column(hid_t file, const char *name, const dataset_column *column,
                                bool is_chunked)
{
    const hid_t space = column->n_dims ? H5Screate_simple(column->n_dims, column->dims, NULL)
                                       : H5Screate(H5S_SCALAR);
    const hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    const hsize_t chunk[2] = {column->dims[0] > 1000 ? 1000 : 2, column->dims[1]};
    if (is_chunked && column->n_dims) {
        H5Pset_chunk(list, column->n_dims, chunk);
        H5Pset_deflate(list, 1);
    }
    const hid_t set = H5Dcreate2(file, name, column->type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    const hssize_t n = H5Sget_simple_extent_npoints(space);
    assert_true(set >= 0);
    const bool is_text = H5Tget_class(column->type) == H5T_STRING;
    if (!is_text && n > DATASET_MAX && n < 100000) {
        uint8_t *pixels = malloc((size_t)n);
        assert_non_null(pixels);
        for (hssize_t i = 0; i < n; i++)
            pixels[i] = (uint8_t)(i % 251);
        assert_true(H5Dwrite(set, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, pixels) >= 0);
        free(pixels);
    } else if (!is_text && n <= DATASET_MAX) {
        assert_true(
            H5Dwrite(set, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, column->values) >= 0);
    }
    H5Dclose(set);
    H5Pclose(list);
    H5Sclose(space);
}

static inline void write_dataset(const char *path, const dataset_file *f)
{
    static const char *const NAMES[N_MEMBERS] = {
        "input_ids",     "labels",          "sample_offsets",     "sample_image_offsets",
        "sample_images", "images/grid_thw", "images/rgb_offsets", "images/rgb",
        "source"};
    const hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(file >= 0);
    write_attribute_text(file, "format", f->format, f->is_variable_text);
    write_attribute_text(file, "digest", f->digest, f->is_variable_text);
    write_attribute_text(file, "tokenizer_sha256", f->tokenizer, f->is_variable_text);
    write_attribute_text(file, "template", f->template_name, f->is_variable_text);
    write_attribute_text(file, "sources", f->sources, f->is_variable_text);
    if (f->has_version) {
        const hid_t space = H5Screate(H5S_SCALAR);
        const hid_t attribute =
            H5Acreate2(file, "version", H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
        assert_true(H5Awrite(attribute, H5T_NATIVE_INT64, &f->version) >= 0);
        H5Aclose(attribute);
        H5Sclose(space);
    }
    H5Gclose(H5Gcreate2(file, "images", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    for (int i = 0; i < N_MEMBERS; i++)
        if (f->columns[i].n_dims || f->columns[i].dims[0])
            write_column(file, NAMES[i], &f->columns[i], f->is_chunked);
    assert_true(H5Fclose(file) >= 0);
}

static const qvl_dataset_rules DATASET_RULES = {
    .vocab = VOCAB, .image_token = IMAGE_TOKEN, .video_token = VIDEO_TOKEN};

#endif
