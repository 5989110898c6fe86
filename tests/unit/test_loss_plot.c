/* The loss plot: smoothing and ticks against numpy's and matplotlib's numbers, and the file. */
#include "io/loss_plot.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/image.h"
#include "io/plot_axis.h"
#include "src/base/files.h"
#include "tests/unit/library_sanitizers.h"

static char directory[] = "loss_plot_XXXXXX";

static int make_directory(void **state)
{
    (void)state;
    return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state)
{
    (void)state;
    return qvl_tree_remove(directory, NULL) == QVL_OK ? 0 : -1;
}

static void path_in(char out[QVL_PATH_BYTES], const char *name)
{
    assert_int_equal(qvl_path_join(out, directory, name, NULL), QVL_OK);
}

/* Values from numpy 2.4, double precision. */
static void smoothing_matches_numpy(void **state)
{
    (void)state;
    const double values[4] = {2.0, 1.0, 1.5, 0.25};
    const double want[4] = {2.0, 1.0897011951624602, 1.4631957068323436, 0.358825104868827};
    double out[4];
    qvl_smooth(out, values, 4);
    for (int i = 0; i < 4; i++)
        assert_true(fabs(out[i] - want[i]) <= 1e-15 * 4);
    memcpy(out, values, sizeof out);
    qvl_smooth(out, out, 4); /* in place */
    assert_true(fabs(out[3] - want[3]) <= 1e-15 * 4);
    out[0] = 7.0;
    qvl_smooth(out, values, 0);
    assert_true(out[0] == 7.0);
}

/* Limits and labels from matplotlib's default axes. */
static void ticks_match_matplotlib(void **state)
{
    static const struct {
        double from, to, low, high;
        const char *labels;
        int exponent;
    } CASES[] = {
        {0.8176, 2.7534, 0.72081, 2.85019, "0.75 1.00 1.25 1.50 1.75 2.00 2.25 2.50 2.75", 0},
        {10, 200, 0.5, 209.5, "25 50 75 100 125 150 175 200", 0},
        {1, 3, 0.9, 3.1, "1.00 1.25 1.50 1.75 2.00 2.25 2.50 2.75 3.00", 0},
        {0, 1, -0.05, 1.05, "0.0 0.2 0.4 0.6 0.8 1.0", 0},
        {-4, 10.1, -4.705, 10.805, "-4 -2 0 2 4 6 8 10", 0},
        {1e-7, 3e-7, 9e-8, 3.1e-7, "1.00 1.25 1.50 1.75 2.00 2.25 2.50 2.75 3.00", -7},
        {1e6, 3e6, 9e5, 3.1e6, "1.00 1.25 1.50 1.75 2.00 2.25 2.50 2.75 3.00", 6},
        {5, 5, 4.725, 5.275, "4.8 4.9 5.0 5.1 5.2", 0},
        {0, 0, -0.055, 0.055, "-0.04 -0.02 0.00 0.02 0.04", 0},
        {2.5, 2.5, 2.3625, 2.6375, "2.40 2.45 2.50 2.55 2.60", 0},
        {1, 204, -9.15, 214.15, "0 25 50 75 100 125 150 175 200", 0},
        {0.011, 0.0987, 0.006615, 0.103085, "0.02 0.04 0.06 0.08 0.10", 0},
        {0, 1499, -74.95, 1573.95, "0 200 400 600 800 1000 1200 1400", 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        const double values[2] = {CASES[i].to, CASES[i].from};
        char labels[256] = "", label[QVL_AXIS_LABEL_BYTES];
        qvl_plot_axis axis;
        qvl_plot_axis_init(&axis, values, 2);
        const double tolerance = 1e-12 * (axis.high - axis.low);
        assert_true(fabs(axis.low - CASES[i].low) <= tolerance);
        assert_true(fabs(axis.high - CASES[i].high) <= tolerance);
        for (int k = 0; k < axis.n_ticks; k++) {
            strcat(labels, k ? " " : "");
            strcat(labels, qvl_plot_axis_label(label, &axis, k));
        }
        assert_string_equal(labels, CASES[i].labels);
        assert_int_equal(axis.exponent, CASES[i].exponent);
    }
}

/* Whatever the numbers, there are ticks inside the limits. */
static void ticks_hold_for_extreme_values(void **state)
{
    static const double CASES[][2] = {
        {-1e300, 1e300},  {1e300, 1e300},      {1e-320, 1e-310},        {1e-289, 2e-289},
        {1e15, 1e15 + 1}, {-3.0, -3.0 + 1e-9}, {0.1, 0.1 * (1 + 2e-6)}, {1e-300, 1e300}};
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        char label[QVL_AXIS_LABEL_BYTES];
        qvl_plot_axis axis;
        qvl_plot_axis_init(&axis, CASES[i], 2);
        assert_true(isfinite(axis.low) && isfinite(axis.high) && axis.low < axis.high);
        assert_in_range(axis.n_ticks, 2, QVL_AXIS_MAX_TICKS);
        for (int k = 0; k < axis.n_ticks; k++) {
            const double at = qvl_plot_axis_at(&axis, axis.ticks[k]);
            assert_true(at >= -1e-9 && at <= 1 + 1e-9);
            assert_in_range(strlen(qvl_plot_axis_label(label, &axis, k)), 1, 24);
        }
    }
}

static void plot(const char *name, const char *title, const double *steps, const double *values,
                 size_t n)
{
    char path[QVL_PATH_BYTES];
    qvl_err err = {0};
    path_in(path, name);
    assert_int_equal(qvl_loss_plot(path, title, "loss", steps, values, n, &err), QVL_OK);
}

static void read_back(qvl_text *out, const char *name)
{
    char path[QVL_PATH_BYTES];
    path_in(path, name);
    assert_int_equal(qvl_file_read(out, path, (size_t)1 << 24, NULL), QVL_OK);
}

/* Signature, and width and height in the header chunk. */
static void assert_is_plot(const char *name)
{
    static const unsigned char HEAD[24] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n',
                                           0,    0,   0,   13,  'I',  'H',  'D',  'R',
                                           0,    0,   2,   128, 0,    0,    1,    224};
    qvl_text png = {0};
    read_back(&png, name);
    assert_true(png.len > 1000);
    assert_memory_equal(png.data, HEAD, sizeof HEAD);
    assert_memory_equal(png.data + png.len - 8, "IEND", 4);
    qvl_text_fini(&png);
}

static void picture_is_a_png_and_deterministic(void **state)
{
    double steps[40], values[40];
    qvl_text first = {0}, second = {0}, other = {0};
    (void)state;
    for (int i = 0; i < 40; i++) {
        steps[i] = 5.0 * (i + 1);
        values[i] = 3.0 * exp(-0.1 * i) + 0.3 * sin(1.7 * i) + 1.0;
    }
    plot("a.png", "training loss of out", steps, values, 40);
    plot("b.png", "training loss of out", steps, values, 40);
    assert_is_plot("a.png");
    read_back(&first, "a.png");
    read_back(&second, "b.png");
    assert_int_equal(first.len, second.len);
    assert_memory_equal(first.data, second.data, first.len);
    values[20] += 0.5;
    plot("c.png", "training loss of out", steps, values, 40);
    read_back(&other, "c.png");
    assert_true(other.len != first.len || memcmp(other.data, first.data, first.len) != 0);
    qvl_text_fini(&first);
    qvl_text_fini(&second);
    qvl_text_fini(&other);
}

static void curve_has_its_colour_where_it_should(void **state)
{
    const double steps[2] = {0, 100}, values[2] = {1, 1};
    char path[QVL_PATH_BYTES];
    qvl_image image = {0};
    (void)state;
    plot("level.png", "", steps, values, 2);
    path_in(path, "level.png");
    assert_int_equal(qvl_image_load(&image, path, NULL), QVL_OK);
    /* A constant lies in the middle of the box: row (57.6 + 427.2) / 2. */
    const uint8_t *pixel = image.pixels + ((size_t)242 * 640 + 300) * 3;
    assert_int_equal(pixel[0], 0x1f);
    assert_int_equal(pixel[1], 0x77);
    assert_int_equal(pixel[2], 0xb4);
    qvl_image_fini(&image);
}

static void odd_inputs_are_drawn(void **state)
{
    const double steps[4] = {1, 2, 3, INFINITY}, one = 1.0;
    const double with_nan[4] = {2.0, NAN, 1.0, 4.0}, huge[4] = {1e308, -1e308, INFINITY, 0};
    const double kept_steps[2] = {1, 3}, kept[2] = {2.0, 1.0};
    char title[3000];
    qvl_text first = {0}, second = {0};
    (void)state;
    plot("one.png", "t", &one, &one, 1);
    assert_is_plot("one.png");
    plot("huge.png", "t", steps, huge, 4);
    assert_is_plot("huge.png");
    memset(title, 'w', sizeof title);
    title[5] = (char)0xff;
    title[sizeof title - 1] = '\0';
    plot("title.png", title, steps, kept, 2);
    assert_is_plot("title.png");
    /* Points that are not finite leave no trace. */
    plot("nan.png", "t", steps, with_nan, 4);
    plot("kept.png", "t", kept_steps, kept, 2);
    read_back(&first, "nan.png");
    read_back(&second, "kept.png");
    assert_int_equal(first.len, second.len);
    assert_memory_equal(first.data, second.data, first.len);
    qvl_text_fini(&first);
    qvl_text_fini(&second);
}

static void long_runs_are_thinned(void **state)
{
    enum { N = 100000 };
    double *points = malloc(2 * N * sizeof *points);
    (void)state;
    assert_non_null(points);
    for (int i = 0; i < N; i++) {
        points[i] = i;
        points[N + i] = 2.0 + sin(0.7 * i);
    }
    plot("long.png", "t", points, points + N, N);
    assert_is_plot("long.png");
    free(points);
}

static void nothing_to_draw_writes_nothing(void **state)
{
    const double steps[2] = {1, 2}, values[2] = {NAN, INFINITY};
    char path[QVL_PATH_BYTES];
    (void)state;
    plot("none.png", "t", NULL, NULL, 0);
    plot("none.png", "t", steps, values, 2);
    path_in(path, "none.png");
    assert_false(qvl_file_exists(path));
}

static void unwritable_path_is_an_error(void **state)
{
    const double one = 1.0;
    char path[QVL_PATH_BYTES];
    qvl_err err = {0};
    (void)state;
    path_in(path, "missing/loss.png");
    assert_int_equal(qvl_loss_plot(path, "t", "loss", &one, &one, 1, &err), QVL_EIO);
    assert_non_null(strstr(err.text, "missing/loss.png"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(smoothing_matches_numpy),
        cmocka_unit_test(ticks_match_matplotlib),
        cmocka_unit_test(ticks_hold_for_extreme_values),
        cmocka_unit_test(picture_is_a_png_and_deterministic),
        cmocka_unit_test(curve_has_its_colour_where_it_should),
        cmocka_unit_test(odd_inputs_are_drawn),
        cmocka_unit_test(long_runs_are_thinned),
        cmocka_unit_test(nothing_to_draw_writes_nothing),
        cmocka_unit_test(unwritable_path_is_an_error),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
