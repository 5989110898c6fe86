/* Writing pre-tokenized files: what was added is read back, in the format's own types, and a writer
 * that gives up or runs out of disk leaves nothing. */
#include "io/dataset_h5.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "scratch_files.h"

#include "dataset_file.h"
#include "library_sanitizers.h"
#include "src/base/rng.h"

static char directory[QVL_PATH_BYTES], path[QVL_PATH_BYTES];

static const qvl_dataset_attributes ATTRIBUTES = {.digest = "digest of it",
                                                  .template_name = "qwen2_vl",
                                                  .tokenizer_sha256 = "0123",
                                                  .created_by = "test 1",
                                                  .cutoff_len = 2048,
                                                  .sources = "a.json\nb.json"};

static void start(void)
{
    scratch_directory(directory, "written");
    assert_int_equal(qvl_path_join(path, directory, "data.h5", NULL), QVL_OK);
}

static qvl_dataset_writer *create(void)
{
    qvl_dataset_writer *writer = NULL;
    qvl_err err = {0};
    expect_ok(qvl_dataset_writer_create(&writer, path, &ATTRIBUTES, &err), &err);
    return writer;
}

/* Sample and image number i, always the same. */
enum { LONGEST = 3000, MOST_PIXELS = 40 * 40 * 588 };

static int64_t draw_sample(int32_t *ids, int32_t *labels, int64_t i)
{
    uint64_t rng = (uint64_t)i + 1;
    const int64_t n = 1 + (int64_t)(qvl_splitmix64(&rng) % LONGEST);
    for (int64_t k = 0; k < n; k++) {
        ids[k] = (int32_t)(qvl_splitmix64(&rng) % 80);
        labels[k] = k % 3 ? ids[k] : -100;
    }
    return n;
}

static int64_t draw_image(int32_t grid[3], uint8_t *rgb, int64_t i)
{
    uint64_t rng = (uint64_t)i + 1000;
    grid[0] = 1;
    grid[1] = 2 + 2 * (int32_t)(qvl_splitmix64(&rng) % 20);
    grid[2] = 2 + 2 * (int32_t)(qvl_splitmix64(&rng) % 20);
    const int64_t n_bytes = (int64_t)grid[1] * grid[2] * 588;
    for (int64_t k = 0; k < n_bytes; k++)
        rgb[k] = (uint8_t)qvl_splitmix64(&rng);
    return n_bytes;
}

/* Samples until about n_tokens, and an image for every tenth, each used by two. */
static qvl_status fill(qvl_dataset_writer *writer, int64_t n_samples, int64_t n_images,
                       qvl_err *err)
{
    int32_t *ids = malloc(LONGEST * sizeof *ids), *labels = malloc(LONGEST * sizeof *labels);
    uint8_t *rgb = malloc(MOST_PIXELS);
    qvl_status rc = QVL_OK;
    assert_true(ids && labels && rgb);
    for (int64_t i = 0; i < n_samples && rc == QVL_OK; i++) {
        const int32_t images[] = {(int32_t)(i % n_images), (int32_t)((i + 1) % n_images)};
        const int64_t n = draw_sample(ids, labels, i);
        rc = qvl_dataset_writer_add_sample(writer,
                                           &(qvl_dataset_sample){.ids = ids,
                                                                 .labels = labels,
                                                                 .images = images,
                                                                 .n = n,
                                                                 .n_images = i % 3,
                                                                 .source = i % 2,
                                                                 .record = i * 7},
                                           err);
    }
    for (int64_t i = 0; i < n_images && rc == QVL_OK; i++) {
        int32_t grid[3];
        draw_image(grid, rgb, i);
        rc = qvl_dataset_writer_add_image(writer, grid, rgb, err);
    }
    free(ids);
    free(labels);
    free(rgb);
    return rc;
}

/* Several chunks of every kind: 262144 bytes each. */
static void what_is_written_is_read(void **state)
{
    enum { N_SAMPLES = 300, N_IMAGES = 12 };
    int32_t ids[2][LONGEST], labels[2][LONGEST], grid[3];
    uint8_t *rgb[2] = {malloc(MOST_PIXELS), malloc(MOST_PIXELS)};
    const int32_t *images = NULL;
    qvl_dataset *data = NULL;
    char text[512], want[64];
    qvl_err err = {0};
    (void)state;
    assert_true(rgb[0] && rgb[1]);
    start();
    qvl_dataset_writer *writer = create();
    expect_ok(fill(writer, N_SAMPLES, N_IMAGES, &err), &err);
    assert_false(qvl_file_exists(path));
    expect_ok(qvl_dataset_writer_finish(writer, &err), &err);
    assert_int_equal(count_in(directory, ""), 1);
    expect_ok(qvl_dataset_open(&data, path, &err), &err);
    assert_string_equal(qvl_dataset_digest(data), "digest of it");
    assert_string_equal(qvl_dataset_template(data), "qwen2_vl");
    assert_string_equal(qvl_dataset_tokenizer_sha256(data), "0123");
    assert_int_equal(qvl_dataset_samples(data), N_SAMPLES);
    assert_int_equal(qvl_dataset_images(data), N_IMAGES);
    assert_true(qvl_dataset_tokens(data) > 4 * 65536);
    for (int64_t i = 0; i < N_SAMPLES; i++) {
        const size_t n = (size_t)draw_sample(ids[0], labels[0], i);
        assert_int_equal(qvl_dataset_length(data, i), n);
        expect_ok(qvl_dataset_read_sample(data, i, ids[1], labels[1], &err), &err);
        assert_memory_equal(ids[0], ids[1], n * sizeof **ids);
        assert_memory_equal(labels[0], labels[1], n * sizeof **labels);
        assert_int_equal(qvl_dataset_sample_images(data, i, &images), i % 3);
        for (int64_t k = 0; k < i % 3; k++)
            assert_int_equal(images[k], (i + k) % N_IMAGES);
        snprintf(want, sizeof want, "%c.json: sample %d", i % 2 ? 'b' : 'a', (int)i * 7);
        assert_string_equal(qvl_dataset_describe(data, i, text), want);
    }
    for (int64_t i = N_IMAGES - 1; i >= 0; i--) {
        const size_t n = (size_t)draw_image(grid, rgb[0], i);
        assert_memory_equal(grid, qvl_dataset_grid(data, i), sizeof grid);
        expect_ok(qvl_dataset_read_rgb(data, i, rgb[1], &err), &err);
        assert_memory_equal(rgb[0], rgb[1], n);
    }
    qvl_dataset_close(data);
    free(rgb[0]);
    free(rgb[1]);
}

/* Noise does not shrink, but has its checksums as everything has. */
static void damaged_pixels_are_noticed(void **state)
{
    const int32_t grid[3] = {1, 40, 40};
    uint8_t *rgb = malloc(MOST_PIXELS);
    uint64_t rng = 9;
    (void)state;
    assert_non_null(rgb);
    for (int i = 0; i < MOST_PIXELS; i++)
        rgb[i] = (uint8_t)qvl_splitmix64(&rng);
    for (long offset = 150000; offset < MOST_PIXELS; offset += 200000) {
        qvl_dataset *data = NULL;
        qvl_err err = {0};
        start();
        qvl_dataset_writer *writer = create();
        expect_ok(qvl_dataset_writer_add_image(writer, grid, rgb, &err), &err);
        expect_ok(qvl_dataset_writer_finish(writer, &err), &err);
        flip_byte(path, offset);
        expect_ok(qvl_dataset_open(&data, path, &err), &err);
        expect_failure(qvl_dataset_read_rgb(data, 0, rgb, &err), QVL_EDATA, &err, "/images/rgb");
        qvl_dataset_close(data);
        for (int i = 0; i < MOST_PIXELS; i++)
            rgb[i] = (uint8_t)qvl_splitmix64(&rng);
    }
    free(rgb);
}

static void empty_files_are_whole(void **state)
{
    qvl_dataset *data = NULL;
    qvl_err err = {0};
    (void)state;
    start();
    expect_ok(qvl_dataset_writer_finish(create(), &err), &err);
    expect_ok(qvl_dataset_open(&data, path, &err), &err);
    assert_int_equal(qvl_dataset_samples(data) + qvl_dataset_images(data), 0);
    qvl_dataset_close(data);
}

/* Types and attributes as the format says, so that others can read and write it. */
static void types_are_the_formats(void **state)
{
    static const struct {
        const char *name;
        int n_dims;
        size_t bytes;
        H5T_sign_t sign;
    } SETS[] = {{"input_ids", 1, 4, H5T_SGN_2},          {"labels", 1, 4, H5T_SGN_2},
                {"sample_offsets", 1, 8, H5T_SGN_2},     {"sample_image_offsets", 1, 8, H5T_SGN_2},
                {"sample_images", 1, 4, H5T_SGN_2},      {"images/grid_thw", 2, 4, H5T_SGN_2},
                {"images/rgb_offsets", 1, 8, H5T_SGN_2}, {"images/rgb", 1, 1, H5T_SGN_NONE}};
    static const struct {
        const char *name;
        H5T_class_t class;
        size_t bytes;
    } TEXTS[] = {{"format", H5T_STRING, 8},      {"version", H5T_INTEGER, 4},
                 {"digest", H5T_STRING, 13},     {"template", H5T_STRING, 9},
                 {"cutoff_len", H5T_INTEGER, 4}, {"tokenizer_sha256", H5T_STRING, 5},
                 {"created_by", H5T_STRING, 7}};
    qvl_err err = {0};
    (void)state;
    start();
    qvl_dataset_writer *writer = create();
    expect_ok(fill(writer, 3, 2, &err), &err);
    expect_ok(qvl_dataset_writer_finish(writer, &err), &err);
    const hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    assert_true(file >= 0);
    for (size_t i = 0; i < sizeof SETS / sizeof *SETS; i++) {
        const hid_t set = H5Dopen2(file, SETS[i].name, H5P_DEFAULT);
        const hid_t type = H5Dget_type(set), space = H5Dget_space(set);
        assert_int_equal(H5Tget_class(type), H5T_INTEGER);
        assert_int_equal(H5Tget_size(type), SETS[i].bytes);
        assert_int_equal(H5Tget_sign(type), SETS[i].sign);
        assert_int_equal(H5Sget_simple_extent_ndims(space), SETS[i].n_dims);
        H5Sclose(space);
        H5Tclose(type);
        H5Dclose(set);
    }
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++) {
        const hid_t attribute = H5Aopen(file, TEXTS[i].name, H5P_DEFAULT);
        const hid_t type = H5Aget_type(attribute);
        assert_int_equal(H5Tget_class(type), TEXTS[i].class);
        assert_int_equal(H5Tget_size(type), TEXTS[i].bytes);
        H5Tclose(type);
        H5Aclose(attribute);
    }
    H5Fclose(file);
}

static void discarded_writers_leave_nothing(void **state)
{
    qvl_err err = {0};
    (void)state;
    start();
    qvl_dataset_writer_discard(create());
    assert_int_equal(count_in(directory, ""), 0);
    write_text(path, "what was there");
    qvl_dataset_writer *writer = create();
    expect_ok(fill(writer, 100, 3, &err), &err);
    qvl_dataset_writer_discard(writer);
    qvl_dataset_writer_discard(NULL);
    assert_int_equal(count_in(directory, ""), 1);
    qvl_text old = read_file(path);
    assert_string_equal(old.data, "what was there");
    qvl_text_fini(&old);
}

/* A disk that is full at any point: QVL_EIO, nothing half-written, the old file as it was. */
static void full_disks_leave_nothing(void **state)
{
    (void)state;
    for (rlim_t limit = 1; limit < 3000000; limit = limit * 2 + 77) {
        qvl_dataset_writer *writer = NULL;
        qvl_err err = {0};
        start();
        write_text(path, "what was there");
        limit_files(limit);
        qvl_status rc = qvl_dataset_writer_create(&writer, path, &ATTRIBUTES, &err);
        if (rc == QVL_OK) {
            rc = fill(writer, 300, 12, &err);
            if (rc == QVL_OK)
                rc = qvl_dataset_writer_finish(writer, &err);
            else
                qvl_dataset_writer_discard(writer);
        }
        limit_files(0);
        expect_failure(rc, QVL_EIO, &err, "data.h5");
        assert_int_equal(count_in(directory, ""), 1);
        qvl_text old = read_file(path);
        assert_string_equal(old.data, "what was there");
        qvl_text_fini(&old);
    }
    what_is_written_is_read(state); /* and the library is as good as new */
}

static void places_that_cannot_be_written(void **state)
{
    qvl_dataset_writer *writer = NULL;
    qvl_err err = {0};
    (void)state;
    expect_failure(
        qvl_dataset_writer_create(&writer, scratch_path(path, "no/such/x.h5"), &ATTRIBUTES, &err),
        QVL_EIO, &err, "no/such/x.h5|No such file");
    assert_null(writer);
    start();
    writer = create();
    assert_int_equal(qvl_directory_create(path, NULL), QVL_OK); /* a directory in its place */
    write_text_in(path, "x", "");
    expect_failure(qvl_dataset_writer_finish(writer, &err), QVL_EIO, &err, "rename|data.h5");
    assert_int_equal(count_in(directory, ".tmp"), 0);
}

/* Another host's process may have our number, and write to the same path. */
static void the_files_of_others_stay(void **state)
{
    char name[64], other[QVL_PATH_BYTES];
    qvl_err err = {0};
    (void)state;
    start();
    snprintf(name, sizeof name, "data.h5.%ld00.tmp", (long)getpid());
    write_text_in(directory, name, "half of another's");
    qvl_dataset_writer *writer = create();
    assert_int_equal(count_in(directory, ".tmp"), 2);
    assert_int_equal(qvl_dataset_writer_finish(writer, &err), QVL_OK);
    assert_int_equal(qvl_path_join(other, directory, name, NULL), QVL_OK);
    qvl_text theirs = read_file(other);
    assert_string_equal(theirs.data, "half of another's");
    qvl_text_fini(&theirs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(damaged_pixels_are_noticed),
        cmocka_unit_test(empty_files_are_whole),
        cmocka_unit_test(types_are_the_formats),
        cmocka_unit_test(discarded_writers_leave_nothing),
        cmocka_unit_test(full_disks_leave_nothing),
        cmocka_unit_test(places_that_cannot_be_written),
        cmocka_unit_test(the_files_of_others_stay),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
