/* Weights and rows of Pillow, and the fast loops against slow ones. */
#include "io/image_mode.h"
#include "io/image_resize.h"
#include "src/base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void check_weights(int32_t n_in, int32_t n_out, int32_t i_out, const int32_t *expected,
                          int32_t n_expected)
{
    double weights[64];
    int32_t first = -1;
    assert_in_range(qvl_bicubic_max_taps(n_in, n_out), n_expected, 64);
    assert_int_equal(qvl_bicubic_weights(weights, &first, n_in, n_out, i_out), n_expected);
    assert_int_equal(first, 0);
    for (int32_t t = 0; t < n_expected; t++)
        assert_int_equal(qvl_bicubic_fixed(weights[t]), expected[t]);
}

static void test_weights_are_those_of_pillow(void **state)
{
    static const int32_t HALVE_0[] = {1923834, 1923834, 502623, -155987};
    static const int32_t HALVE_1[] = {-155987, 502623, 1923834, 1923834};
    static const int32_t MIDDLE[] = {-156067, 1033945, 2438549, 1033945, -156067};
    (void)state;
    check_weights(4, 2, 0, HALVE_0, 4);
    check_weights(4, 2, 1, HALVE_1, 4);
    check_weights(5, 3, 1, MIDDLE, 5);
}

static void test_rows_are_those_of_pillow(void **state)
{
    static const uint8_t ROW[4] = {0, 10, 200, 255};
    static const uint8_t TWO[2] = {19, 210}, SEVEN[7] = {0, 0, 4, 102, 208, 246, 255};
    uint8_t out[7];
    (void)state;
    /* as a row and as a column */
    for (int turned = 0; turned < 2; turned++) {
        const qvl_image_size in = turned ? (qvl_image_size){1, 4} : (qvl_image_size){4, 1};
        const qvl_image_size two = turned ? (qvl_image_size){1, 2} : (qvl_image_size){2, 1};
        const qvl_image_size seven = turned ? (qvl_image_size){1, 7} : (qvl_image_size){7, 1};
        assert_int_equal(qvl_resize_bicubic(out, two, ROW, in, 1, QVL_PILLOW_13, NULL), QVL_OK);
        assert_memory_equal(out, TWO, 2);
        assert_int_equal(qvl_resize_bicubic(out, seven, ROW, in, 1, QVL_PILLOW_13, NULL), QVL_OK);
        assert_memory_equal(out, SEVEN, 7);
    }
}

static double ref_cubic(double u)
{
    u = fabs(u);
    return u < 1 ? (1.5 * u - 2.5) * u * u + 1 : u < 2 ? (((u - 5) * u + 8) * u - 4) * -0.5 : 0;
}

/* One output sample of a line whose samples are `step` apart, in 8 bits or (is_wide) in 16. */
static int ref_sample(const uint16_t *line, size_t step, int n_in, int n_out, int o, bool is_wide)
{
    const double scale = (double)n_in / n_out, stretch = scale > 1 ? scale : 1;
    const double centre = (o + 0.5) * scale;
    int begin = (int)(centre - 2 * stretch + 0.5), end = (int)(centre + 2 * stretch + 0.5);
    double sum = 0, total = 0;
    int64_t fixed = 1 << 21;
    begin = begin < 0 ? 0 : begin;
    end = end > n_in ? n_in : end;
    for (int x = begin; x < end; x++)
        total += ref_cubic((x - centre + 0.5) * (1 / stretch));
    for (int x = begin; x < end; x++) {
        const double weight = ref_cubic((x - centre + 0.5) * (1 / stretch)) / total;
        sum += weight * line[(size_t)x * step];
        fixed += (int64_t)(weight * 4194304 + (weight < 0 ? -0.5 : 0.5)) * line[(size_t)x * step];
    }
    const int64_t value = is_wide ? (int64_t)(sum + (sum < 0 ? -0.5 : 0.5)) : fixed >> 22;
    const int64_t most = is_wide ? 65535 : 255;
    return (int)(value < 0 ? 0 : value > most ? most : value);
}

static void ref_width(uint16_t *out, int out_w, const uint16_t *in, int w, int h, int c, bool wide)
{
    for (int y = 0; y < h; y++)
        for (int x = 0; x < out_w; x++)
            for (int k = 0; k < c; k++)
                out[(y * out_w + x) * c + k] =
                    (uint16_t)ref_sample(in + y * w * c + k, (size_t)c, w, out_w, x, wide);
}

static void ref_height(uint16_t *out, int out_h, const uint16_t *in, int w, int h, int c, bool wide)
{
    for (int y = 0; y < out_h; y++)
        for (int x = 0; x < w * c; x++)
            out[y * w * c + x] = (uint16_t)ref_sample(in + x, (size_t)(w * c), h, out_h, y, wide);
}

/* The whole resize, the axes in the order that is asked for; a size that stays is passed over. */
static uint16_t *ref_resize(const uint16_t *in, qvl_image_size from, qvl_image_size to, int c,
                            bool vertical_first, bool wide)
{
    const size_t largest = (size_t)(from.width > to.width ? from.width : to.width) *
                           (size_t)(from.height > to.height ? from.height : to.height) * (size_t)c;
    uint16_t *now = calloc(largest, sizeof *now), *next = calloc(largest, sizeof *next);
    int w = from.width, h = from.height;
    memcpy(now, in, (size_t)(w * h * c) * sizeof *now);
    for (int i = 0; i < 2; i++) {
        const bool is_vertical = (i == 0) == vertical_first;
        uint16_t *swap = now;
        if (is_vertical ? h == to.height : w == to.width)
            continue;
        if (is_vertical)
            ref_height(next, h = to.height, now, w, from.height, c, wide);
        else
            ref_width(next, to.width, now, w, h, c, wide);
        w = is_vertical ? w : to.width;
        now = next;
        next = swap;
    }
    free(next);
    return now;
}

static const struct {
    qvl_image_size from, to;
} SHAPES[] = {
    {{1, 1}, {1, 1}},     {{1, 1}, {9, 7}},     {{7, 5}, {7, 5}},     {{64, 33}, {32, 33}},
    {{33, 64}, {33, 21}}, {{31, 40}, {28, 28}}, {{40, 31}, {56, 56}}, {{97, 65}, {11, 9}},
    {{3, 130}, {28, 28}}, {{200, 3}, {7, 2}},   {{65, 97}, {66, 50}}, {{2, 250}, {1, 40}},
};

static uint16_t *drawn(size_t n, uint64_t seed, int top)
{
    uint16_t *values = calloc(n, sizeof *values);
    for (size_t i = 0; i < n; i++) {
        const uint64_t r = qvl_splitmix64(&seed);
        values[i] = (uint16_t)(r % 4 == 0 ? 0 : r % 4 == 1 ? top : (int)(r >> 8) % (top + 1));
        values[i] = values[i] > top ? (uint16_t)(values[i] % (top + 1)) : values[i];
    }
    return values;
}

static void check_shape(qvl_image_size from, qvl_image_size to, int c, qvl_pillow pillow)
{
    const size_t n_from = (size_t)(from.width * from.height * c);
    const size_t n_to = (size_t)(to.width * to.height * c);
    uint16_t *in = drawn(n_from, n_from + n_to, 255);
    uint16_t *expected =
        ref_resize(in, from, to, c, qvl_resize_is_vertical_first(to, from, pillow), false);
    uint8_t *bytes = malloc(n_from), *out = malloc(n_to);
    for (size_t i = 0; i < n_from; i++)
        bytes[i] = (uint8_t)in[i];
    assert_int_equal(qvl_resize_bicubic(out, to, bytes, from, c, pillow, NULL), QVL_OK);
    for (size_t i = 0; i < n_to; i++)
        if (out[i] != expected[i])
            fail_msg("%d x %d to %d x %d, %d channels: element %zu is %d, expected %d", from.width,
                     from.height, to.width, to.height, c, i, out[i], expected[i]);
    free(in);
    free(expected);
    free(bytes);
    free(out);
}

static void test_fast_loops_match_slow_ones(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++)
        for (int c = 1; c <= 4; c++) {
            check_shape(SHAPES[i].from, SHAPES[i].to, c, QVL_PILLOW_11);
            check_shape(SHAPES[i].from, SHAPES[i].to, c, QVL_PILLOW_12);
            check_shape(SHAPES[i].from, SHAPES[i].to, c, QVL_PILLOW_13);
        }
}

static void test_sixteen_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++) {
        const qvl_image_size from = SHAPES[i].from, to = SHAPES[i].to;
        const size_t n_to = (size_t)(to.width * to.height);
        uint16_t *in = drawn((size_t)(from.width * from.height), i + 1, 65535);
        uint16_t *out = calloc(n_to, sizeof *out);
        uint16_t *expected = ref_resize(
            in, from, to, 1, qvl_resize_is_vertical_first(to, from, QVL_PILLOW_13), true);
        assert_int_equal(qvl_resize_bicubic_u16(out, to, in, from, QVL_PILLOW_13, NULL), QVL_OK);
        assert_memory_equal(out, expected, n_to * sizeof *out);
        free(in);
        free(out);
        free(expected);
    }
}

/* The two bytes are clamped apart: 65535 overshot by up to 255 keeps its high byte, not its low
 * one. */
static void test_sixteen_bits_of_older_pillow_wrap(void **state)
{
    static const uint16_t STEP[8] = {0, 0, 0, 0, 65000, 65000, 65000, 65000};
    uint16_t old[16], new[16];
    int n_wrapped = 0;
    (void)state;
    assert_int_equal(qvl_resize_bicubic_u16(old, (qvl_image_size){16, 1}, STEP,
                                            (qvl_image_size){8, 1}, QVL_PILLOW_12, NULL),
                     QVL_OK);
    assert_int_equal(qvl_resize_bicubic_u16(new, (qvl_image_size){16, 1}, STEP,
                                            (qvl_image_size){8, 1}, QVL_PILLOW_13, NULL),
                     QVL_OK);
    for (int i = 0; i < 16; i++) {
        n_wrapped += old[i] != new[i];
        assert_true(old[i] == new[i] || (new[i] == 65535 && old[i] >= 0xff00));
    }
    assert_in_range(n_wrapped, 1, 8);
}

static void test_order_of_axes_by_version(void **state)
{
    static const struct {
        qvl_image_size in, out;
        bool first[3];
    } CASES[] = {
        {{300, 199}, {308, 196}, {false, false, true}},
        {{50, 80}, {40, 59}, {false, false, true}}, /* 21 > 2 * 10 */
        {{50, 80}, {40, 60}, {false, false, false}},
        {{3, 301}, {2, 300}, {false, true, false}},
        {{3, 300}, {2, 299}, {false, false, false}},
        {{10, 2000}, {20, 500}, {false, true, true}},
        {{10, 2000}, {5, 2100}, {false, false, false}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        for (int version = 0; version < 3; version++)
            assert_int_equal(
                qvl_resize_is_vertical_first(CASES[i].out, CASES[i].in, (qvl_pillow)version),
                CASES[i].first[version]);
}

static void test_nearest(void **state)
{
    static const uint8_t IN[6] = {1, 2, 3, 4, 5, 6}; /* 3 x 2 */
    static const uint8_t UP[5 * 3] = {1, 1, 2, 3, 3, 4, 4, 5, 6, 6, 4, 4, 5, 6, 6};
    uint8_t out[15];
    (void)state;
    assert_int_equal(
        qvl_resize_nearest(out, (qvl_image_size){5, 3}, IN, (qvl_image_size){3, 2}, NULL), QVL_OK);
    assert_memory_equal(out, UP, sizeof UP);
    assert_int_equal(
        qvl_resize_nearest(out, (qvl_image_size){1, 1}, IN, (qvl_image_size){3, 2}, NULL), QVL_OK);
    assert_int_equal(out[0], 5);
}

static void test_too_many_weights_are_refused(void **state)
{
    qvl_err err = {0};
    uint8_t pixel = 0;
    (void)state;
    /* 4 * 100,000,000 weights of 8 bytes: refused before the pixels are looked at */
    assert_int_equal(qvl_resize_bicubic(&pixel, (qvl_image_size){1, 1}, &pixel,
                                        (qvl_image_size){100000000, 1}, 1, QVL_PILLOW_13, &err),
                     QVL_EDATA);
    assert_non_null(strstr(err.text, "100000000"));
}

static qvl_image image_of(qvl_image_mode mode, const void *pixels, int32_t width, int32_t height)
{
    const size_t n = (size_t)(width * height * qvl_image_mode_bytes(mode));
    qvl_image image = {.mode = mode, .width = width, .height = height, .pixels = malloc(n)};
    memcpy(image.pixels, pixels, n);
    return image;
}

static void check_rgb(qvl_image_mode mode, const void *pixel, const uint8_t rgb[3])
{
    qvl_image image = image_of(mode, pixel, 1, 1);
    memcpy(image.palette[9], "\x0a\x14\x1e", 3);
    assert_int_equal(qvl_image_to_rgb(&image, NULL), QVL_OK);
    assert_memory_equal(image.pixels, rgb, 3);
    qvl_image_fini(&image);
}

static void test_conversion_to_rgb(void **state)
{
    static const uint16_t DARK = 200, LIGHT = 256;
    (void)state;
    check_rgb(QVL_MODE_1, "\xff", (const uint8_t[3]){255, 255, 255});
    check_rgb(QVL_MODE_L, "\x21", (const uint8_t[3]){33, 33, 33});
    check_rgb(QVL_MODE_LA, "\x21\x05", (const uint8_t[3]){33, 33, 33});
    check_rgb(QVL_MODE_P, "\x09", (const uint8_t[3]){10, 20, 30});
    check_rgb(QVL_MODE_RGB, "\x01\x02\x03", (const uint8_t[3]){1, 2, 3});
    check_rgb(QVL_MODE_RGBA, "\x01\x02\x03\x00", (const uint8_t[3]){1, 2, 3});
    check_rgb(QVL_MODE_CMYK, "\x00\x80\xff\x40", (const uint8_t[3]){191, 95, 0});
    check_rgb(QVL_MODE_I16, &DARK, (const uint8_t[3]){200, 200, 200});
    check_rgb(QVL_MODE_I16, &LIGHT, (const uint8_t[3]){255, 255, 255});
}

/* A transparent neighbour must not bleed its colour into the result. */
static void test_alpha_weighs_the_colours(void **state)
{
    static const uint8_t IN[2 * 4] = {200, 100, 50, 255, 0, 0, 0, 0};
    qvl_image image = image_of(QVL_MODE_RGBA, IN, 2, 1);
    (void)state;
    assert_int_equal(qvl_image_resize(&image, (qvl_image_size){1, 1}, QVL_PILLOW_13, NULL), QVL_OK);
    assert_int_equal(image.pixels[3], 128);
    assert_in_range(image.pixels[0], 198, 201);
    assert_in_range(image.pixels[1], 98, 101);
    assert_in_range(image.pixels[2], 48, 51);
    qvl_image_fini(&image);
}

static void test_impossible_sizes_are_refused(void **state)
{
    qvl_image image = image_of(QVL_MODE_L, "\1\2", 2, 1);
    const uint8_t *pixels = image.pixels;
    (void)state;
    assert_int_equal(qvl_image_resize(&image, (qvl_image_size){0, 5}, QVL_PILLOW_13, NULL),
                     QVL_EDATA);
    assert_int_equal(qvl_image_resize(&image, (qvl_image_size){60000, 60000}, QVL_PILLOW_13, NULL),
                     QVL_EDATA);
    assert_ptr_equal(image.pixels, pixels);
    qvl_image_fini(&image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights_are_those_of_pillow),
        cmocka_unit_test(test_rows_are_those_of_pillow),
        cmocka_unit_test(test_fast_loops_match_slow_ones),
        cmocka_unit_test(test_sixteen_bits),
        cmocka_unit_test(test_sixteen_bits_of_older_pillow_wrap),
        cmocka_unit_test(test_order_of_axes_by_version),
        cmocka_unit_test(test_nearest),
        cmocka_unit_test(test_too_many_weights_are_refused),
        cmocka_unit_test(test_conversion_to_rgb),
        cmocka_unit_test(test_alpha_weighs_the_colours),
        cmocka_unit_test(test_impossible_sizes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
