/* Damaged pre-tokenized files: truncated at every length, and with bytes turned over. Opening and
 * reading one must end with a status and a text. */
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
#include "library_sanitizers.h"
#include "src/base/rng.h"

enum { PIXELS = 7056 };

static void mix(uint64_t *sum, const void *bytes, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++) {
        uint64_t state = *sum ^ ((const unsigned char *)bytes)[i];
        *sum = qvl_splitmix64(&state);
    }
}

/* Everything that a run reads of a file; *sum is of the values. */
static qvl_status read_all(const char *path, uint64_t *sum, qvl_err *err)
{
    qvl_dataset *data = NULL;
    int32_t supervised[DATASET_MAX];
    uint8_t rgb[PIXELS];
    char text[512];
    qvl_status rc = qvl_dataset_open(&data, path, err);
    if (rc == QVL_OK && qvl_dataset_samples(data) <= DATASET_MAX)
        rc = qvl_dataset_check_samples(data, &DATASET_RULES, 0, qvl_dataset_samples(data),
                                       supervised, err);
    for (int64_t i = 0; rc == QVL_OK && i < qvl_dataset_samples(data) && i < DATASET_MAX; i++) {
        int32_t ids[DATASET_MAX], labels[DATASET_MAX];
        const size_t n = (size_t)qvl_dataset_length(data, i);
        if (n > DATASET_MAX)
            continue;
        rc = qvl_dataset_read_sample(data, i, ids, labels, err);
        mix(sum, ids, n * sizeof *ids);
        mix(sum, labels, n * sizeof *labels);
    }
    for (int64_t i = 0; rc == QVL_OK && i < qvl_dataset_images(data); i++) {
        const int32_t *grid = qvl_dataset_grid(data, i);
        const size_t n_bytes = (size_t)grid[1] * (size_t)grid[2] * 588;
        mix(sum, grid, 3 * sizeof *grid);
        if (n_bytes > PIXELS)
            continue;
        rc = qvl_dataset_read_rgb(data, i, rgb, err);
        mix(sum, rgb, n_bytes);
    }
    if (rc == QVL_OK && qvl_dataset_samples(data) > 0)
        assert_true(strlen(qvl_dataset_describe(data, 0, text)) > 0);
    qvl_dataset_close(data);
    return rc;
}

/* The status is one that the header names, and says which file. */
static bool survives(const char *path, uint64_t *out_sum)
{
    uint64_t sum = 0;
    qvl_err err = {0};
    const qvl_status rc = read_all(path, &sum, &err);
    if (out_sum)
        *out_sum = sum;
    if (rc != QVL_OK) {
        assert_true(rc == QVL_EDATA || rc == QVL_EMISSING);
        assert_non_null(strstr(err.text, "data.h5"));
    }
    return rc == QVL_OK;
}

/* The good file of dataset_file.h as the writer writes it. */
static void write_with_writer(const char *path)
{
    const dataset_file f = good_dataset();
    const dataset_column *c = f.columns;
    qvl_dataset_writer *writer = NULL;
    uint64_t rng = 5;
    uint8_t rgb[PIXELS];
    int32_t ids[8], labels[8], images[2], grids[6];
    qvl_err err = {0};
    for (int i = 0; i < 8; i++) {
        ids[i] = (int32_t)c[INPUT_IDS].values[i];
        labels[i] = (int32_t)c[LABELS].values[i];
        images[i % 2] = (int32_t)c[SAMPLE_IMAGES].values[i % 2];
        grids[i % 6] = (int32_t)c[GRID_THW].values[i % 6];
    }
    for (int i = 0; i < PIXELS; i++)
        rgb[i] = (uint8_t)qvl_splitmix64(&rng);
    const qvl_dataset_attributes attributes = {
        .digest = "d", .created_by = "test", .cutoff_len = 100, .sources = "a.json\nb.json"};
    const qvl_dataset_sample samples[] = {
        {.ids = ids, .labels = labels, .images = images, .n = 5, .n_images = 1, .record = 3},
        {.ids = ids + 5, .labels = labels + 5, .images = images + 1, .n = 3, .n_images = 1}};
    expect_ok(qvl_dataset_writer_create(&writer, path, &attributes, &err), &err);
    for (int i = 0; i < 2; i++) {
        expect_ok(qvl_dataset_writer_add_sample(writer, &samples[i], &err), &err);
        expect_ok(qvl_dataset_writer_add_image(writer, grids + 3 * i, rgb + 2352 * i, &err), &err);
    }
    expect_ok(qvl_dataset_writer_finish(writer, &err), &err);
    assert_true(survives(path, NULL));
}

static void truncated_files_are_refused(void **state)
{
    const dataset_file f = good_dataset();
    char path[QVL_PATH_BYTES];
    (void)state;
    scratch_path(path, "data.h5");
    for (int is_ours = 0; is_ours < 2; is_ours++) {
        if (is_ours)
            write_with_writer(path);
        else
            write_dataset(path, &f);
        qvl_text good = read_file(path);
        for (size_t n = 0; n < good.len; n += 1 + good.len / 150) {
            write_file(path, good.data, n);
            assert_false(survives(path, NULL));
        }
        qvl_text_fini(&good);
    }
}

/* What is damaged is found: HDF5 has checksums over its structures in the layout that the writer
 * chooses, and every chunk of values has one. (Files in older layouts are read, but there HDF5
 * itself falls over some of these bytes.) */
static void garbled_files_are_refused(void **state)
{
    enum { ROUNDS = 2500 };
    uint64_t rng = 11, good_sum = 0, sum = 0;
    int accepted = 0;
    char path[QVL_PATH_BYTES];
    (void)state;
    write_with_writer(scratch_path(path, "data.h5"));
    assert_true(survives(path, &good_sum));
    qvl_text good = read_file(path);
    char *bytes = malloc(good.len);
    assert_non_null(bytes);
    for (int round = 0; round < ROUNDS; round++) {
        memcpy(bytes, good.data, good.len);
        for (uint64_t k = qvl_splitmix64(&rng) % 4; k < 4; k++) {
            const size_t at = qvl_splitmix64(&rng) % good.len;
            const uint64_t value = qvl_splitmix64(&rng);
            bytes[at] = (char)(value % 3 == 0   ? bytes[at] ^ (1 << (value >> 8 & 7))
                               : value % 3 == 1 ? (int)(value >> 8)
                                                : 0xff);
        }
        write_file(path, bytes, good.len);
        if (survives(path, &sum)) {
            assert_int_equal(sum, good_sum); /* the hits were of no meaning */
            accepted++;
        }
    }
    free(bytes);
    qvl_text_fini(&good);
    assert_true(accepted < ROUNDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(truncated_files_are_refused),
        cmocka_unit_test(garbled_files_are_refused),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
