#include "tests/fuzz/h5_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/dataset_h5.h"
#include "io/hdf5_tools.h"

enum { MOST_TOKENS = 1 << 16, MOST_PIXEL_BYTES = 1 << 20 };

h5_layout h5_good_dataset(void)
{
    const hid_t narrow = H5T_STD_I32LE, wide = H5T_STD_I64LE;
    h5_layout f = {.attributes = {{"format", "qvl-sft", 0},
                                  {"version", NULL, 1},
                                  {"digest", "d1", 0},
                                  {"tokenizer_sha256", "t1", 0},
                                  {"sources", "a.json\nb.json", 0}},
                   .n_attributes = 5,
                   .n_members = 9};
    const h5_member members[] = {
        {"input_ids", narrow, 1, {8}, {5, 90, 90, 6, 7, 1, 90, 2}},
        {"labels", narrow, 1, {8}, {-100, -100, -100, 6, 7, 1, -100, 2}},
        {"sample_offsets", wide, 1, {3}, {0, 5, 8}},
        {"sample_image_offsets", wide, 1, {3}, {0, 1, 2}},
        {"sample_images", narrow, 1, {2}, {1, 0}},
        {"images/grid_thw", narrow, 2, {2, 3}, {1, 2, 2, 1, 2, 4}},
        {"images/rgb_offsets", wide, 1, {3}, {0, 2352, 7056}},
        {"images/rgb", H5T_STD_U8LE, 1, {7056}, {1, 2, 3}},
        {"source", wide, 2, {2, 2}, {0, 3, 1, 4}},
    };
    memcpy(f.members, members, sizeof members);
    return f;
}

/* ---- writing ---- */

typedef enum change {
    AS_IT_IS,
    MISSING,
    OTHER_TYPE,
    OTHER_RANK,
    OTHER_ROWS,
    OTHER_COLUMNS,
    OTHER_VALUE,
    CHUNKED,
    COMPACT,
    EXTERNAL_FILE,
    VIRTUAL,
    SOFT_LINK,
    EXTERNAL_LINK,
    UNKNOWN_FILTER,
    A_GROUP,
    UNWRITTEN,
    N_CHANGES
} change;

static hid_t some_type(uint8_t number)
{
    const hid_t types[] = {H5T_STD_I32LE,   H5T_STD_I64BE,  H5T_STD_U64LE, H5T_STD_I8LE,
                           H5T_IEEE_F32LE,  H5T_IEEE_F64LE, H5T_C_S1,      H5T_STD_B64LE,
                           H5T_STD_REF_OBJ, H5T_STD_U16BE};
    return types[number % (sizeof types / sizeof *types)];
}

static void write_attribute(hid_t file, const h5_attribute *a, fuzz_stream *in)
{
    const uint8_t what = fuzz_byte(in) % 8;
    const int64_t number = what == 1 ? fuzz_number(in) : a->number;
    const hsize_t length = what == 2 ? (hsize_t)(fuzz_byte(in) % 4) : 1;
    if (what == 3)
        return;
    const hid_t type = what == 4 ? H5Tcopy(some_type(fuzz_byte(in)))
                       : a->text ? H5Tcopy(H5T_C_S1)
                                 : H5Tcopy(H5T_STD_I64LE);
    const bool is_text = H5Tget_class(type) == H5T_STRING;
    const char *text = a->text ? a->text : "1";
    if (is_text)
        H5Tset_size(type, what == 5 ? H5T_VARIABLE : strlen(text) + (what != 6));
    const hid_t space = what == 2 ? H5Screate_simple(1, &length, NULL) : H5Screate(H5S_SCALAR);
    const hid_t attribute = H5Acreate2(file, a->name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    char *copies = calloc(4, 64);
    FUZZ_CHECK(copies != NULL);
    snprintf(copies, 64, "%.60s", text);
    if (attribute >= 0 && is_text && what != 2)
        H5Awrite(attribute, type, what == 5 ? (const void *)&text : copies);
    else if (attribute >= 0 && !is_text && length == 1)
        H5Awrite(attribute, H5T_NATIVE_INT64, &number);
    free(copies);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
}

static hid_t list_of(const h5_member *m, change layout, fuzz_stream *in)
{
    const hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    const hsize_t chunk[2] = {64, 3}; /* small ones by the thousand only take HDF5's time */
    const unsigned options[2] = {1, fuzz_byte(in)};
    if (layout == CHUNKED || layout == UNKNOWN_FILTER)
        H5Pset_chunk(list, m->n_dims, chunk);
    if (layout == CHUNKED && options[1] % 2)
        H5Pset_deflate(list, options[1] % 10);
    if (layout == CHUNKED && options[1] % 3 == 0)
        H5Pset_fletcher32(list);
    if (layout == UNKNOWN_FILTER)
        H5Pset_filter(list, 7 + options[1], H5Z_FLAG_OPTIONAL, 2, options);
    if (layout == COMPACT)
        H5Pset_layout(list, H5D_COMPACT);
    if (layout == EXTERNAL_FILE)
        H5Pset_external(list, options[1] % 2 ? "/proc/self/environ" : "no_such_file", 0,
                        H5F_UNLIMITED);
    if (layout == VIRTUAL) {
        const hid_t space = H5Screate_simple(m->n_dims, m->dims, NULL);
        H5Pset_virtual(list, space, options[1] % 2 ? "." : "/proc/self/exe", "labels", space);
        H5Sclose(space);
    }
    return list;
}

static void write_values(hid_t set, hid_t space, const h5_member *m)
{
    const hssize_t n = H5Sget_simple_extent_npoints(space);
    if (n < 1 || n > 10000)
        return;
    int64_t *values = calloc((size_t)n, sizeof *values);
    FUZZ_CHECK(values != NULL);
    for (hssize_t i = 0; i < n && i < H5_VALUES; i++)
        values[i] = m->values[i];
    H5Dwrite(set, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
    free(values);
}

static void write_member(hid_t file, h5_member *m, fuzz_stream *in)
{
    change layout = AS_IT_IS;
    for (int n = fuzz_byte(in) % 4; n > 0; n--) {
        const change what = (change)(fuzz_byte(in) % N_CHANGES);
        if (what == OTHER_TYPE)
            m->type = some_type(fuzz_byte(in));
        else if (what == OTHER_RANK)
            m->n_dims = fuzz_byte(in) % 3;
        else if (what == OTHER_ROWS || what == OTHER_COLUMNS)
            m->dims[what == OTHER_COLUMNS] = (hsize_t)fuzz_number(in);
        else if (what == OTHER_VALUE)
            m->values[fuzz_byte(in) % H5_VALUES] = fuzz_number(in);
        else
            layout = what;
    }
    if (layout == MISSING)
        return;
    if (layout == SOFT_LINK || layout == EXTERNAL_LINK) {
        if (layout == SOFT_LINK)
            H5Lcreate_soft("/labels", file, m->name, H5P_DEFAULT, H5P_DEFAULT);
        else
            H5Lcreate_external("/proc/self/exe", "/x", file, m->name, H5P_DEFAULT, H5P_DEFAULT);
        return;
    }
    if (layout == A_GROUP) {
        H5Gclose(H5Gcreate2(file, m->name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
        return;
    }
    const hid_t space =
        m->n_dims ? H5Screate_simple(m->n_dims, m->dims, NULL) : H5Screate(H5S_SCALAR);
    const hid_t list = list_of(m, layout, in);
    const hid_t set = H5Dcreate2(file, m->name, m->type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    if (set >= 0 && layout != UNWRITTEN && layout != EXTERNAL_FILE && layout != VIRTUAL)
        write_values(set, space, m);
    H5Dclose(set);
    H5Pclose(list);
    H5Sclose(space);
}

const char *h5_write(const char *name, h5_layout *layout, fuzz_stream *in)
{
    const char *path = fuzz_file(name, "", 0);
    const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    qvl_h5_quiet();
    if (fuzz_byte(in) % 2)
        H5Pset_libver_bounds(access, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
    const hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    FUZZ_CHECK(file >= 0);
    for (int i = 0; i < layout->n_attributes; i++)
        write_attribute(file, &layout->attributes[i], in);
    for (int i = 0; i < layout->n_members; i++)
        if (strncmp(layout->members[i].name, "images/", 7) == 0 &&
            H5Lexists(file, "images", H5P_DEFAULT) <= 0)
            H5Gclose(H5Gcreate2(file, "images", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    for (int i = 0; i < layout->n_members; i++)
        write_member(file, &layout->members[i], in);
    H5Fclose(file);
    H5Pclose(access);
    H5Eclear2(H5E_DEFAULT);
    return path;
}

/* ---- reading ---- */

static void read_sample(qvl_dataset *data, int64_t sample)
{
    const size_t n = (size_t)qvl_dataset_length(data, sample);
    int32_t *ids = malloc(2 * n * sizeof *ids);
    char text[512];
    qvl_err err = {0};
    FUZZ_CHECK(ids != NULL && n > 0);
    fuzz_expect(qvl_dataset_read_sample(data, sample, ids, ids + n, &err), &err);
    FUZZ_CHECK(qvl_dataset_describe(data, sample, text)[0]);
    free(ids);
}

static void read_image(qvl_dataset *data, int64_t image)
{
    const int32_t *grid = qvl_dataset_grid(data, image);
    const int64_t n = (int64_t)grid[1] * grid[2] * 588;
    qvl_err err = {0};
    if (n > MOST_PIXEL_BYTES)
        return;
    uint8_t *rgb = malloc((size_t)n);
    FUZZ_CHECK(rgb != NULL && n > 0);
    fuzz_expect(qvl_dataset_read_rgb(data, image, rgb, &err), &err);
    free(rgb);
}

void h5_read_dataset(const char *path)
{
    const qvl_dataset_rules rules = {.vocab = 100, .image_token = 90, .video_token = 91};
    qvl_dataset *data = NULL;
    qvl_err err = {0};
    const qvl_status rc = qvl_dataset_open(&data, path, &err);
    fuzz_expect(rc, &err);
    if (rc == QVL_OK && qvl_dataset_tokens(data) <= MOST_TOKENS) {
        const int64_t n = qvl_dataset_samples(data);
        int32_t *supervised = calloc((size_t)n + 1, sizeof *supervised);
        FUZZ_CHECK(supervised != NULL);
        fuzz_expect(qvl_dataset_check_samples(data, &rules, 0, n, supervised, &err), &err);
        for (int64_t i = 0; i < n && i < 64; i++)
            read_sample(data, i);
        for (int64_t i = 0; i < qvl_dataset_images(data) && i < 64; i++)
            read_image(data, i);
        free(supervised);
    }
    qvl_dataset_close(data);
}
