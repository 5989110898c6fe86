/* Sizes, grids, resized pixels and patches. */
#include "io/image_pipeline.h"
#include "src/base/files.h"
#include "src/base/sha256.h"
#include "tests/unit/image_fixtures.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_sizes_and_grids(void **state)
{
    static const struct {
        qvl_image_size in;
        int64_t image_max_pixels;
        qvl_image_size between, out;
        int32_t rows, columns, tokens;
    } CASES[] = {
        {{640, 480}, 262144, {591, 443}, {588, 448}, 32, 42, 336},
        {{640, 480}, 589824, {640, 480}, {644, 476}, 34, 46, 391},
        {{1920, 1080}, 262144, {682, 384}, {672, 392}, 28, 48, 336},
        {{1920, 1080}, 589824, {1024, 576}, {1036, 588}, 42, 74, 777},
        {{500, 375}, 262144, {500, 375}, {504, 364}, 26, 36, 234},
        {{98, 154}, 589824, {98, 154}, {112, 168}, 12, 8, 24},
        {{42, 70}, 589824, {42, 70}, {56, 56}, 4, 4, 4},
        {{20, 20}, 589824, {32, 32}, {56, 56}, 4, 4, 4},
        {{30, 3000}, 589824, {30, 3000}, {28, 2996}, 214, 2, 107},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        qvl_image_limits limits = qvl_image_limits_default;
        qvl_image_plan plan;
        limits.image_max_pixels = CASES[i].image_max_pixels;
        assert_int_equal(qvl_image_plan_sizes(&plan, CASES[i].in, &limits, "case", NULL), QVL_OK);
        const qvl_image_size between = plan.n_native ? plan.native[plan.n_native - 1] : CASES[i].in;
        assert_int_equal(between.width, CASES[i].between.width);
        assert_int_equal(between.height, CASES[i].between.height);
        assert_int_equal(plan.size.width, CASES[i].out.width);
        assert_int_equal(plan.size.height, CASES[i].out.height);
        assert_int_equal(plan.grid_thw[0], 1);
        assert_int_equal(plan.grid_thw[1], CASES[i].rows);
        assert_int_equal(plan.grid_thw[2], CASES[i].columns);
        assert_int_equal(plan.grid_thw[1] * plan.grid_thw[2] / 4, CASES[i].tokens);
    }
}

static void check_plan(qvl_image_size in, int n_native, const qvl_image_size *rgb, int n_rgb)
{
    qvl_image_plan plan;
    assert_int_equal(qvl_image_plan_sizes(&plan, in, &qvl_image_limits_default, "case", NULL),
                     QVL_OK);
    assert_int_equal(plan.n_native, n_native);
    assert_int_equal(plan.n_rgb, n_rgb);
    for (int i = 0; i < n_rgb; i++) {
        assert_int_equal(plan.rgb[i].width, rgb[i].width);
        assert_int_equal(plan.rgb[i].height, rgb[i].height);
    }
}

static void test_steps_for_odd_shapes(void **state)
{
    (void)state;
    check_plan((qvl_image_size){10, 300}, 0, (const qvl_image_size[]){{28, 300}, {28, 308}}, 2);
    check_plan((qvl_image_size){1, 20000}, 0,
               (const qvl_image_size[]){{28, 20000}, {28, 5040}, {28, 5040}}, 3);
    check_plan((qvl_image_size){20000, 1}, 0,
               (const qvl_image_size[]){{20000, 28}, {5040, 28}, {5040, 28}}, 3);
    check_plan((qvl_image_size){10, 10}, 1, (const qvl_image_size[]){{56, 56}}, 1);
    /* 28 x 5601 is just over the ratio of 200, 28 x 5600 just is not: rounding up to 200 * 28 */
    check_plan((qvl_image_size){28, 5600}, 0, (const qvl_image_size[]){{28, 5600}}, 1);
    check_plan((qvl_image_size){28, 5601}, 0, (const qvl_image_size[]){{28, 5040}, {28, 5040}}, 2);
}

static void test_smart_resize(void **state)
{
    static const struct {
        qvl_image_size in, out;
        int64_t max_pixels;
    } CASES[] = {
        {{70, 98}, {56, 112}, 12845056},   /* 2.5 and 3.5 round to even */
        {{14, 1000}, {28, 476}, 12845056}, /* 0.5 rounds to 0: min_pixels */
        {{27, 40}, {56, 84}, 12845056},
        {{1000, 1000}, {224, 224}, 60000},
        {{30, 5000}, {28, 4060}, 100000},
        {{30, 5000}, {28, 1596}, 15680}, /* the short side never falls to 0 */
    };
    qvl_image_limits limits = qvl_image_limits_default;
    qvl_err err = {0};
    qvl_image_size out;
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        limits.max_pixels = CASES[i].max_pixels;
        assert_int_equal(qvl_smart_resize(&out, CASES[i].in, &limits, "case", NULL), QVL_OK);
        assert_int_equal(out.width, CASES[i].out.width);
        assert_int_equal(out.height, CASES[i].out.height);
    }
    assert_int_equal(qvl_smart_resize(&out, (qvl_image_size){28, 5600}, &limits, "x", NULL),
                     QVL_OK);
    assert_int_equal(qvl_smart_resize(&out, (qvl_image_size){28, 5601}, &limits, "tall.png", &err),
                     QVL_EDATA);
    assert_non_null(strstr(err.text, "tall.png: absolute aspect ratio of 28 x 5601"));
}

static void check_limits_message(qvl_image_limits limits, const char *key)
{
    qvl_err err = {0};
    qvl_image_plan plan;
    assert_int_equal(qvl_image_limits_check(&limits, &err), QVL_ECONFIG);
    assert_non_null(strstr(err.text, key));
    assert_int_equal(qvl_image_plan_sizes(&plan, (qvl_image_size){50, 50}, &limits, "case", NULL),
                     QVL_ECONFIG);
}

static void test_limits_are_checked(void **state)
{
    qvl_image_limits limits = qvl_image_limits_default;
    (void)state;
    assert_int_equal(qvl_image_limits_check(&limits, NULL), QVL_OK);
    limits.image_max_pixels = 0;
    check_limits_message(limits, "image_max_pixels = 0");
    limits = qvl_image_limits_default;
    limits.min_pixels = INT64_MAX;
    check_limits_message(limits, "min_pixels = 9223372036854775807");
    limits = qvl_image_limits_default;
    limits.merge = -2;
    check_limits_message(limits, "merge_size = -2");
}

static void test_sizes_that_cannot_be(void **state)
{
    qvl_err err = {0};
    qvl_image_plan plan;
    (void)state;
    /* sqrt(589824 / 100e6) = 0.077 of one pixel is none */
    assert_int_equal(qvl_image_plan_sizes(&plan, (qvl_image_size){1, 100000000},
                                          &qvl_image_limits_default, "thin.png", &err),
                     QVL_EDATA);
    assert_non_null(strstr(err.text, "thin.png: image_max_pixels turns 1 x 100000000"));
    assert_int_equal(qvl_image_plan_sizes(&plan, (qvl_image_size){0, 10}, &qvl_image_limits_default,
                                          "none", NULL),
                     QVL_EDATA);
}

/* ---- pixels ---- */

static qvl_image_limits limits_named(const char *name)
{
    qvl_image_limits limits = qvl_image_limits_default;
    if (strcmp(name, "small") == 0) {
        limits.image_max_pixels = 900;
        limits.image_min_pixels = 700;
        limits.max_pixels = 3000;
        limits.min_pixels = 1600;
    }
    return limits;
}

static void check_limits_line(const fixture *f)
{
    const qvl_image_limits limits = limits_named(f->name);
    assert_int_equal(limits.image_max_pixels, atoll(f->word[0]));
    assert_int_equal(limits.image_min_pixels, atoll(f->word[1]));
    assert_int_equal(limits.max_pixels, atoll(f->word[2]));
    assert_int_equal(limits.min_pixels, atoll(f->word[3]));
}

static void check_prepared(const qvl_prepared_image *prepared, const qvl_image_limits *limits,
                           const fixture *f, const char *expected_sha)
{
    char sha[QVL_SHA256_TEXT_BYTES];
    qvl_image_info info;
    qvl_image_plan plan;
    const size_t n = (size_t)prepared->size.width * (size_t)prepared->size.height * 3;
    assert_int_equal(prepared->size.width, atoi(f->word[1]));
    assert_int_equal(prepared->size.height, atoi(f->word[2]));
    assert_int_equal(qvl_sha256_bytes(sha, prepared->rgb, n, NULL), QVL_OK);
    if (strcmp(sha, expected_sha) != 0)
        fail_msg("%s, limits %s, Pillow rule %d: sha256 %s, expected %s", f->name, f->word[0],
                 (int)limits->pillow, sha, expected_sha);
    /* the header alone gives the same grid */
    assert_int_equal(qvl_image_probe(&info, f->path, NULL), QVL_OK);
    assert_int_equal(qvl_image_plan_sizes(&plan, (qvl_image_size){info.width, info.height}, limits,
                                          f->name, NULL),
                     QVL_OK);
    assert_memory_equal(plan.grid_thw, prepared->grid_thw, sizeof plan.grid_thw);
    assert_int_equal(prepared->grid_thw[1] * 14, prepared->size.height);
    assert_int_equal(prepared->grid_thw[2] * 14, prepared->size.width);
}

static void check_result(const fixture *f)
{
    qvl_image_limits limits = limits_named(f->word[0]);
    for (int version = 0; version < 3; version++) {
        qvl_err err = {0};
        qvl_prepared_image prepared;
        limits.pillow = (qvl_pillow)version;
        const qvl_status rc = qvl_image_prepare(&prepared, f->path, &limits, &err);
        if (strcmp(f->word[3], "-") == 0) {
            assert_int_equal(rc, QVL_EDATA);
            assert_null(prepared.rgb);
            continue;
        }
        if (rc != QVL_OK)
            fail_msg("%s", err.text);
        check_prepared(&prepared, &limits, f, f->word[3 + version]);
        qvl_prepared_image_fini(&prepared);
    }
}

static void test_prepared_pixels_are_those_of_pillow(void **state)
{
    (void)state;
    assert_int_equal(fixtures_each("limits", check_limits_line), 2);
    assert_in_range(fixtures_each("result", check_result), 100, 1000);
}

static void test_failures_leave_nothing(void **state)
{
    qvl_err err = {0};
    qvl_prepared_image prepared = {.grid_thw = {1, 2, 3}};
    (void)state;
    assert_int_equal(qvl_image_prepare(&prepared, FIXTURE_DIRECTORY "bad_truncated.jpg",
                                       &qvl_image_limits_default, &err),
                     QVL_EDATA);
    assert_null(prepared.rgb);
    assert_int_equal(prepared.grid_thw[0], 0);
    assert_int_equal(
        qvl_image_prepare(&prepared, FIXTURE_DIRECTORY "none", &qvl_image_limits_default, NULL),
        QVL_EMISSING);
}

/* ---- threads ---- */

enum { N_THREADS = 4, N_ROUNDS = 8 };

static const char *const SHARED[] = {"jpeg_photo.jpg", "png_c6_d8_i.png", "webp_alpha.webp",
                                     "jpeg_cmyk_prog.jpg", "bad_truncated.jpg"};
enum { N_SHARED = sizeof SHARED / sizeof *SHARED };

typedef struct work {
    char shas[N_SHARED][QVL_SHA256_TEXT_BYTES];
    int n_wrong;
} work;

static void *prepare_all(void *argument)
{
    work *w = argument;
    for (int round = 0; round < N_ROUNDS; round++)
        for (size_t i = 0; i < N_SHARED; i++) {
            char path[1024], sha[QVL_SHA256_TEXT_BYTES] = "refused";
            qvl_err err = {0};
            qvl_prepared_image prepared;
            snprintf(path, sizeof path, "%s%s", FIXTURE_DIRECTORY, SHARED[i]);
            if (qvl_image_prepare(&prepared, path, &qvl_image_limits_default, &err) == QVL_OK)
                qvl_sha256_bytes(sha, prepared.rgb,
                                 (size_t)prepared.size.width * (size_t)prepared.size.height * 3,
                                 NULL);
            qvl_prepared_image_fini(&prepared);
            if (round == 0)
                memcpy(w->shas[i], sha, sizeof sha);
            w->n_wrong += strcmp(w->shas[i], sha) != 0;
        }
    return NULL;
}

static void test_threads_do_not_disturb_one_another(void **state)
{
    pthread_t threads[N_THREADS];
    work works[N_THREADS] = {0}, alone = {0};
    (void)state;
    prepare_all(&alone);
    assert_string_equal(alone.shas[N_SHARED - 1], "refused");
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, prepare_all, &works[i]), 0);
    for (int i = 0; i < N_THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(works[i].n_wrong, 0);
        assert_memory_equal(works[i].shas, alone.shas, sizeof alone.shas);
    }
}

/* ---- patches ---- */

static void test_normalised_values(void **state)
{
    static const struct {
        int channel, byte;
        double value;
    } CASES[] = {{0, 0, -1.79226255}, {0, 128, 0.0763361}, {0, 255, 1.9303361}, {1, 0, -1.7520971},
                 {1, 255, 2.0748837}, {2, 0, -1.4802198},  {2, 255, 2.1458969}};
    uint8_t rgb[28 * 28 * 3];
    static float out[4 * 1176];
    const qvl_prepared_image prepared = {rgb, {28, 28}, {1, 2, 2}};
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        memset(rgb, CASES[i].byte, sizeof rgb);
        assert_int_equal(qvl_image_patchify(out, &prepared, &qvl_image_limits_default,
                                            &qvl_image_norm_default, NULL),
                         QVL_OK);
        assert_true(fabs((double)out[CASES[i].channel * 2 * 196] - CASES[i].value) < 2e-7);
    }
}

/* Every element, by the formula for its row and column. */
static void test_order_of_patches(void **state)
{
    enum { ROWS = 4, COLUMNS = 6, SIDE = 14, N_VALUES = 3 * 2 * SIDE * SIDE };
    static uint8_t rgb[ROWS * SIDE * COLUMNS * SIDE * 3];
    static float out[ROWS * COLUMNS * N_VALUES];
    const qvl_image_norm plain = {{0, 0, 0}, {1, 1, 1}};
    const qvl_prepared_image prepared = {rgb, {COLUMNS * SIDE, ROWS * SIDE}, {1, ROWS, COLUMNS}};
    (void)state;
    for (size_t i = 0; i < sizeof rgb; i++)
        rgb[i] = (uint8_t)(i * 7 + i / 251);
    assert_int_equal(qvl_image_patchify(out, &prepared, &qvl_image_limits_default, &plain, NULL),
                     QVL_OK);
    for (int row = 0; row < ROWS * COLUMNS; row++)
        for (int column = 0; column < N_VALUES; column++) {
            const int in_block = row % 4, block = row / 4;
            const int patch_y = block / (COLUMNS / 2) * 2 + in_block / 2;
            const int patch_x = block % (COLUMNS / 2) * 2 + in_block % 2;
            const int x = column % SIDE, y = column / SIDE % SIDE, c = column / (2 * SIDE * SIDE);
            const uint8_t byte =
                rgb[((patch_y * SIDE + y) * COLUMNS * SIDE + patch_x * SIDE + x) * 3 + c];
            assert_true(out[row * N_VALUES + column] == (float)(byte * (1.0 / 255.0)));
        }
}

static void test_grid_must_fit(void **state)
{
    uint8_t rgb[28 * 28 * 3] = {0};
    static float out[4 * 1176];
    qvl_err err = {0};
    qvl_prepared_image prepared = {rgb, {28, 28}, {1, 2, 4}};
    (void)state;
    assert_int_equal(qvl_image_patchify(out, &prepared, &qvl_image_limits_default,
                                        &qvl_image_norm_default, &err),
                     QVL_EINTERNAL);
    assert_non_null(strstr(err.text, "grid 1 x 2 x 4"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes_and_grids),
        cmocka_unit_test(test_steps_for_odd_shapes),
        cmocka_unit_test(test_smart_resize),
        cmocka_unit_test(test_limits_are_checked),
        cmocka_unit_test(test_sizes_that_cannot_be),
        cmocka_unit_test(test_prepared_pixels_are_those_of_pillow),
        cmocka_unit_test(test_failures_leave_nothing),
        cmocka_unit_test(test_threads_do_not_disturb_one_another),
        cmocka_unit_test(test_normalised_values),
        cmocka_unit_test(test_order_of_patches),
        cmocka_unit_test(test_grid_must_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
