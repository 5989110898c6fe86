/* Decoded pixels against those of Pillow, and what is refused. */
#include "io/image.h"
#include "io/image_mode.h"
#include "src/base/files.h"
#include "src/base/sha256.h"
#include "tests/unit/image_fixtures.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static void assert_sha(const qvl_image *image, const char *expected, const char *what)
{
    char found[QVL_SHA256_TEXT_BYTES];
    const size_t n =
        (size_t)image->width * (size_t)image->height * (size_t)qvl_image_mode_bytes(image->mode);
    assert_int_equal(qvl_sha256_bytes(found, image->pixels, n, NULL), QVL_OK);
    if (strcmp(found, expected) != 0)
        fail_msg("%s: sha256 %s, expected %s", what, found, expected);
}

static void check_image(const fixture *f)
{
    qvl_err err = {0};
    qvl_image image;
    qvl_image_info info;
    if (qvl_image_load(&image, f->path, &err) != QVL_OK ||
        qvl_image_probe(&info, f->path, &err) != QVL_OK)
        fail_msg("%s", err.text);
    assert_string_equal(qvl_image_format_name(info.format), f->word[0]);
    assert_string_equal(qvl_image_mode_name(info.mode), f->word[1]);
    assert_int_equal(info.mode, image.mode);
    assert_int_equal(image.width, atoi(f->word[2]));
    assert_int_equal(image.height, atoi(f->word[3]));
    assert_int_equal(info.width, image.width);
    assert_int_equal(info.height, image.height);
    assert_sha(&image, f->word[4], f->name);
    assert_int_equal(qvl_image_to_rgb(&image, &err), QVL_OK);
    assert_int_equal(image.mode, QVL_MODE_RGB);
    assert_sha(&image, f->word[5], f->name);
    qvl_image_fini(&image);
    assert_null(image.pixels);
}

static void test_pixels_are_those_of_pillow(void **state)
{
    (void)state;
    assert_in_range(fixtures_each("image", check_image), 50, 1000);
}

static void check_refused(const fixture *f)
{
    qvl_err err = {0};
    qvl_image image = {.width = 1};
    const qvl_status rc = qvl_image_load(&image, f->path, &err);
    if (rc != QVL_EDATA)
        fail_msg("%s: status %s, expected QVL_EDATA", f->name, qvl_status_name(rc));
    assert_null(image.pixels);
    assert_int_equal(image.width, 0);
    if (!strstr(err.text, f->line) || !strstr(err.text, f->name) || strchr(err.text, '\n'))
        fail_msg("message '%s', expected one line with '%s' and '%s'", err.text, f->name, f->line);
    assert_int_equal(qvl_image_load(&image, f->path, NULL), QVL_EDATA);
}

static void test_hostile_files_are_refused(void **state)
{
    (void)state;
    assert_in_range(fixtures_each("refuse", check_refused), 20, 1000);
}

/* Headers alone decide on size: these files have no pixels to decode. */
static void test_header_limits_the_size(void **state)
{
    static const char *const NAMES[] = {"bad_huge.jpg", "bad_huge.png", "bad_huge.webp"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        char path[1024];
        qvl_err err = {0};
        qvl_image_info info;
        snprintf(path, sizeof path, "%s%s", FIXTURE_DIRECTORY, NAMES[i]);
        assert_int_equal(qvl_image_probe(&info, path, &err), QVL_EDATA);
        assert_non_null(strstr(err.text, "60000 x 60000"));
        assert_non_null(strstr(err.text, "178956970"));
    }
}

/* A PNG header of this size, followed by nothing; the checksum is of the caller's IHDR. */
static qvl_status probe_png(uint32_t width, uint32_t height, uint32_t checksum, qvl_err *err)
{
    uint8_t file[] = "\x89PNG\r\n\x1a\n\0\0\0\x0dIHDRwwwwhhhh\x08\0\0\0\0cccc\0\0\0\1IDAT";
    qvl_image_info info;
    for (int i = 0; i < 4; i++) {
        file[16 + i] = (uint8_t)(width >> (24 - 8 * i));
        file[20 + i] = (uint8_t)(height >> (24 - 8 * i));
        file[29 + i] = (uint8_t)(checksum >> (24 - 8 * i));
    }
    return qvl_image_probe_memory(&info, file, sizeof file - 1, "drawn.png", err);
}

static void test_largest_size_is_that_of_pillow(void **state)
{
    qvl_err err = {0};
    (void)state;
    assert_int_equal(probe_png(178956970, 1, 0xd08ab2e0u, &err), QVL_OK);
    assert_int_equal(probe_png(178956971, 1, 0x3f48d9deu, &err), QVL_EDATA);
    assert_non_null(strstr(err.text, "178956971"));
}

static void test_paths_that_are_no_images(void **state)
{
    qvl_err err = {0};
    qvl_image image;
    qvl_image_info info;
    (void)state;
    assert_int_equal(qvl_image_load(&image, FIXTURE_DIRECTORY "not_there.png", &err), QVL_EMISSING);
    assert_non_null(strstr(err.text, "not_there.png"));
    qvl_err_clear(&err);
    assert_int_equal(qvl_image_load(&image, FIXTURE_DIRECTORY, &err), QVL_EMISSING);
    assert_int_equal(qvl_image_probe(&info, FIXTURE_DIRECTORY, NULL), QVL_EMISSING);
    assert_int_equal(qvl_image_probe(&info, FIXTURE_DIRECTORY "not_there.png", NULL), QVL_EMISSING);
    assert_null(image.pixels);
}

/* A directory of its own for files that a test writes. */
typedef struct scratch {
    char directory[64], path[128];
} scratch;

static void scratch_init(scratch *s, const char *name)
{
    snprintf(s->directory, sizeof s->directory, "/tmp/qvl_image_XXXXXX");
    assert_non_null(mkdtemp(s->directory));
    snprintf(s->path, sizeof s->path, "%s/%s", s->directory, name);
}

static void scratch_fini(scratch *s)
{
    assert_int_equal(qvl_tree_remove(s->directory, NULL), QVL_OK);
}

static void test_file_size_is_limited(void **state)
{
    scratch s;
    qvl_err err = {0};
    qvl_image image;
    (void)state;
    scratch_init(&s, "large.jpg");
    const int fd = open(s.path, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(ftruncate(fd, (off_t)QVL_IMAGE_MAX_FILE_BYTES + 1),
                     0); /* a hole, not blocks */
    close(fd);
    assert_int_equal(qvl_image_load(&image, s.path, &err), QVL_EDATA);
    assert_non_null(strstr(err.text, "536870913"));
    scratch_fini(&s);
}

/* The size of a JPEG file can stand behind megabytes of comments and profiles. */
static void test_probe_reads_on_for_a_long_header(void **state)
{
    enum { SEGMENT = 60000, N_SEGMENTS = 3 };
    scratch s;
    qvl_text original = {0}, grown = {0};
    qvl_image_info info = {0};
    char *filling = calloc(SEGMENT, 1);
    (void)state;
    scratch_init(&s, "long.jpg");
    assert_int_equal(qvl_file_read(&original, FIXTURE_DIRECTORY "jpeg_photo.jpg", 1 << 20, NULL),
                     QVL_OK);
    assert_int_equal(qvl_text_add(&grown, original.data, 2, NULL), QVL_OK);
    memcpy(filling, "\xff\xfe", 2); /* a comment of all but the first two bytes */
    filling[2] = (char)((SEGMENT - 2) >> 8);
    filling[3] = (char)((SEGMENT - 2) & 0xff);
    for (int i = 0; i < N_SEGMENTS; i++)
        assert_int_equal(qvl_text_add(&grown, filling, SEGMENT, NULL), QVL_OK);
    assert_int_equal(qvl_text_add(&grown, original.data + 2, original.len - 2, NULL), QVL_OK);
    assert_int_equal(qvl_file_replace(s.path, grown.data, grown.len, NULL), QVL_OK);
    assert_int_equal(qvl_image_probe(&info, s.path, NULL), QVL_OK);
    assert_int_equal(info.width, 200);
    assert_int_equal(info.height, 133);
    assert_int_equal(qvl_image_probe_memory(&info, grown.data, 65536, "part", NULL), QVL_EDATA);
    free(filling);
    qvl_text_fini(&original);
    qvl_text_fini(&grown);
    scratch_fini(&s);
}

/* No prefix of a file decodes, save for PNG files that lack only their last chunk. */
static void check_prefixes(const fixture *f)
{
    qvl_text file = {0};
    assert_int_equal(qvl_file_read(&file, f->path, 1 << 20, NULL), QVL_OK);
    const bool is_png = strcmp(f->word[0], "PNG") == 0;
    const size_t whole = file.len - (is_png ? 12 : 2), step = whole / 40 + 1;
    for (size_t n = 0; n < whole; n += n < 64 ? 1 : step) {
        /* a copy of exactly n bytes, so that reading past its end is seen */
        uint8_t *part = malloc(n ? n : 1);
        qvl_image image;
        memcpy(part, file.data, n);
        const qvl_status rc = qvl_image_decode(&image, part, n, "part", NULL);
        if (rc != QVL_EDATA)
            fail_msg("%s cut to %zu of %zu bytes: %s", f->name, n, file.len, qvl_status_name(rc));
        free(part);
    }
    qvl_text_fini(&file);
}

static void test_truncated_files_are_errors(void **state)
{
    (void)state;
    assert_in_range(fixtures_each("image", check_prefixes), 50, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pixels_are_those_of_pillow),
        cmocka_unit_test(test_hostile_files_are_refused),
        cmocka_unit_test(test_header_limits_the_size),
        cmocka_unit_test(test_largest_size_is_that_of_pillow),
        cmocka_unit_test(test_paths_that_are_no_images),
        cmocka_unit_test(test_file_size_is_limited),
        cmocka_unit_test(test_probe_reads_on_for_a_long_header),
        cmocka_unit_test(test_truncated_files_are_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
