/* Event files: the bytes that TensorBoard's own writer makes, and disks that are full. */
#include "io/event_file.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scratch_files.h"

static const double BEGIN_S = 1700000000.25;
static const qvl_event_scalar SCALARS[] = {{"train/loss", 1.25}, {"eval/loss", 0.0}};
/* RecordWriter of tensorboard 2.21 and its protocol buffers: the version at BEGIN_S, and SCALARS at
 * step 300, 1.25 s later. */
static const unsigned char WANT[] = {
    0x18, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xa3, 0x7f, 0x4b, 0x22, 0x09, 0x00, 0x00, 0x10,
    0x40, 0xfc, 0x54, 0xd9, 0x41, 0x1a, 0x0d, 0x62, 0x72, 0x61, 0x69, 0x6e, 0x2e, 0x45, 0x76, 0x65,
    0x6e, 0x74, 0x3a, 0x32, 0x33, 0x8d, 0x2f, 0xe9, 0x33, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x0c, 0xa7, 0x20, 0x56, 0x09, 0x00, 0x00, 0x60, 0x40, 0xfc, 0x54, 0xd9, 0x41, 0x10, 0xac, 0x02,
    0x2a, 0x25, 0x0a, 0x11, 0x0a, 0x0a, 0x74, 0x72, 0x61, 0x69, 0x6e, 0x2f, 0x6c, 0x6f, 0x73, 0x73,
    0x15, 0x00, 0x00, 0xa0, 0x3f, 0x0a, 0x10, 0x0a, 0x09, 0x65, 0x76, 0x61, 0x6c, 0x2f, 0x6c, 0x6f,
    0x73, 0x73, 0x15, 0x00, 0x00, 0x00, 0x00, 0x34, 0xf3, 0x29, 0xc0};
enum { HEAD = 40, RECORD = sizeof WANT - HEAD };

static char directory[QVL_PATH_BYTES], path[QVL_PATH_BYTES];
static qvl_event_file file;

static int start(void **state)
{
    (void)state;
    if (qvl_path_join(path, scratch_directory(directory, "events"), "tfevents", NULL) != QVL_OK)
        return -1;
    return qvl_event_file_init(&file, path, BEGIN_S, NULL) != QVL_OK;
}

static int stop(void **state)
{
    (void)state;
    limit_files(0);
    qvl_event_file_fini(&file);
    return 0;
}

static void add(void)
{
    qvl_err err = {0};
    expect_ok(qvl_event_file_add(&file, 1700000001.5, 300, SCALARS, 2, &err), &err);
}

static void write_now(void)
{
    qvl_err err = {0};
    expect_ok(qvl_event_file_write(&file, &err), &err);
    assert_int_equal(file.n_pending, 0);
}

/* The version, and the record n times. */
static void expect_records(size_t n)
{
    qvl_text got = read_file(path);
    assert_int_equal(got.len, HEAD + n * RECORD);
    assert_memory_equal(got.data, WANT, HEAD);
    for (size_t i = 0; i < n; i++)
        assert_memory_equal(got.data + HEAD + i * RECORD, WANT + HEAD, RECORD);
    qvl_text_fini(&got);
}

/* RFC 3720, B.4, and the usual check. */
static void crc_has_known_values(void **state)
{
    unsigned char zeros[32] = {0}, ones[32], rising[32], falling[32];
    (void)state;
    for (int i = 0; i < 32; i++) {
        ones[i] = 0xff;
        rising[i] = (unsigned char)i;
        falling[i] = (unsigned char)(31 - i);
    }
    assert_int_equal(qvl_crc32c("123456789", 9), 0xe3069283);
    assert_int_equal(qvl_crc32c(zeros, 32), 0x8a9136aa);
    assert_int_equal(qvl_crc32c(ones, 32), 0x62a8ab43);
    assert_int_equal(qvl_crc32c(rising, 32), 0x46dd794e);
    assert_int_equal(qvl_crc32c(falling, 32), 0x113fdb5c);
    assert_int_equal(qvl_crc32c("", 0), 0);
}

static void bytes_are_tensorboards(void **state)
{
    (void)state;
    write_now();
    assert_false(qvl_file_exists(path)); /* nothing waits, nothing is made */
    add();
    write_now();
    expect_records(1);
    add();
    add();
    write_now();
    write_now();
    expect_records(3);
}

/* Lengths of two bytes, numbers that no float has. */
static void long_tags_and_large_values(void **state)
{
    char tag[301];
    qvl_err err = {0};
    (void)state;
    memset(tag, 'x', 300);
    tag[300] = '\0';
    const qvl_event_scalar scalars[] = {{tag, NAN}, {tag, 1e300}, {tag, -1e-300}};
    expect_ok(qvl_event_file_add(&file, 0.0, INT64_MAX, scalars, 3, &err), &err);
    write_now();
    qvl_text got = read_file(path);
    /* a value: key and length of the tag (3), tag, key and float (5); its own key and length (3) */
    const size_t summary = 3 * (3 + 3 + 300 + 5), event = 9 + 10 + 3 + summary;
    assert_int_equal(got.len, HEAD + 12 + event + 4);
    assert_memory_equal(got.data + HEAD, ((unsigned char[]){event & 0xff, event >> 8}), 2);
    assert_memory_equal(got.data + got.len - 4 - 311 - 4, "\x00\x00\x80\x7f", 4); /* infinity */
    assert_memory_equal(got.data + got.len - 4 - 4, "\x00\x00\x00\x80", 4);       /* -0 */
    qvl_text_fini(&got);
}

static void a_full_disk_leaves_whole_records(void **state)
{
    qvl_err err = {0};
    (void)state;
    add();
    write_now();
    for (size_t room = 0; room < RECORD; room += 11) {
        limit_files(HEAD + RECORD + room);
        add();
        expect_failure(qvl_event_file_write(&file, &err), QVL_EIO, &err, "tfevents|too large");
        expect_records(1);
    }
    limit_files(0);
    const size_t n = (size_t)file.n_pending;
    assert_int_equal(n, (RECORD + 10) / 11);
    write_now();
    expect_records(1 + n);
}

static void a_disk_that_is_full_from_the_start(void **state)
{
    qvl_err err = {0};
    (void)state;
    limit_files(HEAD + 7);
    for (int i = 0; i < 3; i++) {
        add();
        expect_failure(qvl_event_file_write(&file, &err), QVL_EIO, &err, "tfevents|too large");
        assert_int_equal(count_in(scratch, ""), 1);
        qvl_text got = read_file(path);
        assert_int_equal(got.len, 0);
        qvl_text_fini(&got);
    }
    limit_files(0);
    write_now();
    expect_records(3);
}

/* What cannot be cut back is gone on from. */
static void a_file_that_cannot_be_cut_back(void **state)
{
    qvl_event_file full = {.n_pending = 0};
    qvl_err err = {0};
    (void)state;
    expect_ok(qvl_event_file_init(&full, "/dev/full", BEGIN_S, &err), &err);
    expect_ok(qvl_event_file_add(&full, 1.0, 1, SCALARS, 2, &err), &err);
    expect_failure(qvl_event_file_write(&full, &err), QVL_EIO, &err, "/dev/full|No space left");
    assert_int_equal(full.n_pending, 1);
    assert_int_equal(full.sent_bytes, 0);
    qvl_event_file_fini(&full);

    add();
    write_file(path, WANT, HEAD + 20); /* as a write leaves it that stopped there */
    file.sent_bytes = HEAD + 20;
    write_now();
    expect_records(1);
}

static void a_file_that_is_gone_begins_again(void **state)
{
    char moved[QVL_PATH_BYTES];
    qvl_err err = {0};
    (void)state;
    add();
    write_now();
    assert_int_equal(unlink(path), 0);
    add();
    write_now();
    expect_records(1);
    scratch_path(moved, "moved");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rename(directory, moved), 0);
    add();
    expect_failure(qvl_event_file_write(&file, &err), QVL_EIO, &err, "tfevents|No such file");
    assert_int_equal(rename(moved, directory), 0);
    write_now();
    expect_records(1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc_has_known_values),
        cmocka_unit_test_setup_teardown(bytes_are_tensorboards, start, stop),
        cmocka_unit_test_setup_teardown(long_tags_and_large_values, start, stop),
        cmocka_unit_test_setup_teardown(a_full_disk_leaves_whole_records, start, stop),
        cmocka_unit_test_setup_teardown(a_disk_that_is_full_from_the_start, start, stop),
        cmocka_unit_test_setup_teardown(a_file_that_cannot_be_cut_back, start, stop),
        cmocka_unit_test_setup_teardown(a_file_that_is_gone_begins_again, start, stop),
    };
    return cmocka_run_group_tests_name("event_file", tests, scratch_make, scratch_remove);
}
