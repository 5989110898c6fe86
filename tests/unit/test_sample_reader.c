/* Samples come out the same whether they were read ahead or not, in and out of order. */
#include "src/train/sample_reader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scratch_files.h"

#include "io/dataset_h5.h"
#include "library_sanitizers.h"

enum { SAMPLES = 40, LONG = 39 }; /* sample LONG is longer than all that is read ahead */

static qvl_dataset *data;
static qvl_sample_reader *reader;

static int64_t length_of(int64_t sample)
{
    return sample == LONG ? QVL_READ_AHEAD_TOKENS + 1 : 3 + sample * 7 % 11;
}

static int32_t id_of(int64_t sample, int64_t i)
{
    return (int32_t)(sample * 1000 + i % 997);
}

static int open_data(void **state)
{
    static const qvl_dataset_attributes ATTRIBUTES = {.digest = "d",
                                                      .template_name = "qwen2_vl",
                                                      .tokenizer_sha256 = "t",
                                                      .created_by = "test",
                                                      .cutoff_len = 1 << 20,
                                                      .sources = "a.json"};
    const size_t longest = (size_t)length_of(LONG);
    int32_t *ids = malloc(longest * sizeof *ids), *labels = malloc(longest * sizeof *labels);
    qvl_dataset_writer *writer = NULL;
    char path[QVL_PATH_BYTES];
    qvl_err err = {0};
    if (scratch_make(state) != 0 || !ids || !labels)
        return -1;
    scratch_path(path, "data.h5");
    expect_ok(qvl_dataset_writer_create(&writer, path, &ATTRIBUTES, &err), &err);
    for (int64_t s = 0; s < SAMPLES; s++) {
        const int64_t n = length_of(s);
        for (int64_t i = 0; i < n; i++) {
            ids[i] = id_of(s, i);
            labels[i] = i % 2 ? ids[i] : -100;
        }
        const qvl_dataset_sample sample = {.ids = ids, .labels = labels, .n = n, .record = s};
        expect_ok(qvl_dataset_writer_add_sample(writer, &sample, &err), &err);
    }
    expect_ok(qvl_dataset_writer_finish(writer, &err), &err);
    expect_ok(qvl_dataset_open(&data, path, &err), &err);
    expect_ok(qvl_sample_reader_create(&reader, data, &err), &err);
    free(ids);
    free(labels);
    return 0;
}

static int close_data(void **state)
{
    qvl_sample_reader_destroy(reader);
    qvl_dataset_close(data);
    return scratch_remove(state);
}

static const int32_t *expect_sample(int64_t sample)
{
    const int32_t *ids = NULL, *labels = NULL;
    qvl_err err = {0};
    expect_ok(qvl_sample_reader_get(reader, sample, &ids, &labels, &err), &err);
    for (int64_t i = 0; i < length_of(sample); i++) {
        assert_int_equal(ids[i], id_of(sample, i));
        assert_int_equal(labels[i], i % 2 ? id_of(sample, i) : -100);
    }
    return ids;
}

static void nothing_ahead(void **state)
{
    (void)state;
    for (int64_t s = SAMPLES - 1; s >= 0; s--)
        expect_sample(s);
}

static void as_announced_and_not(void **state)
{
    static const int64_t NUMBERS[] = {5, 17, 3, 3, 30};
    (void)state;
    qvl_sample_reader_ahead(reader, NUMBERS, 5);
    const int32_t *first = expect_sample(5);
    const int32_t *second = expect_sample(17);
    assert_ptr_equal(second, first + 2 * length_of(5)); /* it was there already */
    expect_sample(3);
    expect_sample(3);
    expect_sample(30);
    expect_sample(8); /* never announced */
    assert_ptr_equal(expect_sample(17), second);
    qvl_sample_reader_ahead(reader, NUMBERS + 3, 2);
    expect_sample(5); /* no longer there */
    expect_sample(3);
    qvl_sample_reader_ahead(reader, NULL, 0);
    expect_sample(30);
}

static void more_than_there_is_room_for(void **state)
{
    static const int64_t NUMBERS[] = {1, LONG, 2};
    (void)state;
    qvl_sample_reader_ahead(reader, NUMBERS, 3);
    expect_sample(1);
    expect_sample(LONG);
    expect_sample(2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_ahead),
        cmocka_unit_test(as_announced_and_not),
        cmocka_unit_test(more_than_there_is_room_for),
    };
    return cmocka_run_group_tests_name("unit.sample_reader", tests, open_data, close_data);
}
