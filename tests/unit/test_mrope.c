/* Rotary positions against the worked examples of REFERENCE 3.3, and the table's constants. */
#include "src/model/mrope.h"

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

enum { IMAGE = 99, MAX_TOKENS = 64 };
static const qvl_model_dims DIMS = {.image_token = IMAGE, .video_token = 98};

/* Token ids from a picture of them: 't' text, 'i' image. */
static int64_t draw_ids(int32_t *ids, const char *picture)
{
    const int64_t n = (int64_t)strlen(picture);
    assert_true(n <= MAX_TOKENS);
    for (int64_t i = 0; i < n; i++)
        ids[i] = picture[i] == 'i' ? IMAGE : (int32_t)(i % 7);
    return n;
}

/* Positions of the three axes as lists. A stride above n leaves what lies between alone. */
static void expect_positions(const char *picture, const int32_t *grids, int64_t n_images,
                             const int32_t *t, const int32_t *h, const int32_t *w, int64_t delta)
{
    int32_t ids[MAX_TOKENS], out[3 * (MAX_TOKENS + 5)];
    int64_t got_delta = -1000;
    const int64_t n = draw_ids(ids, picture);
    qvl_err err = {0};
    const int32_t *const want[] = {t, h, w};
    for (int64_t stride = n; stride <= n + 5; stride += 5) {
        for (size_t i = 0; i < sizeof out / sizeof *out; i++)
            out[i] = -7;
        expect_ok(
            qvl_mrope_positions(out, stride, &got_delta, ids, n, grids, n_images, &DIMS, &err),
            &err);
        assert_int_equal(got_delta, delta);
        for (int a = 0; a < 3; a++) {
            assert_memory_equal(out + a * stride, want[a], (size_t)n * sizeof *out);
            for (int64_t i = n; i < stride; i++)
                assert_int_equal(out[a * stride + i], -7);
        }
    }
}

#define LIST(...) ((const int32_t[]){__VA_ARGS__})

static void worked_examples_hold(void **state)
{
    (void)state;
    expect_positions("tttttiiiiiittt", LIST(1, 4, 6), 1,
                     LIST(0, 1, 2, 3, 4, 5, 5, 5, 5, 5, 5, 8, 9, 10),
                     LIST(0, 1, 2, 3, 4, 5, 5, 5, 6, 6, 6, 8, 9, 10),
                     LIST(0, 1, 2, 3, 4, 5, 6, 7, 5, 6, 7, 8, 9, 10), -3);
    expect_positions("tttiiiittiiiiiiiitt", LIST(1, 4, 4, 1, 8, 4), 2,
                     LIST(0, 1, 2, 3, 3, 3, 3, 5, 6, 7, 7, 7, 7, 7, 7, 7, 7, 11, 12),
                     LIST(0, 1, 2, 3, 3, 4, 4, 5, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 12),
                     LIST(0, 1, 2, 3, 4, 3, 4, 5, 6, 7, 8, 7, 8, 7, 8, 7, 8, 11, 12), -6);
}

static void images_stand_anywhere(void **state)
{
    (void)state;
    /* first */
    expect_positions("iiiit", LIST(1, 4, 4), 1, LIST(0, 0, 0, 0, 2), LIST(0, 0, 1, 1, 2),
                     LIST(0, 1, 0, 1, 2), -2);
    /* last: the largest position is inside the image */
    expect_positions("tiiiiii", LIST(1, 6, 4), 1, LIST(0, 1, 1, 1, 1, 1, 1),
                     LIST(0, 1, 1, 2, 2, 3, 3), LIST(0, 1, 2, 1, 2, 1, 2), -3);
    /* alone, the smallest there is */
    expect_positions("i", LIST(1, 2, 2), 1, LIST(0), LIST(0), LIST(0), 0);
    /* next to each other */
    expect_positions("tiiiiit", LIST(1, 4, 4, 1, 2, 2), 2, LIST(0, 1, 1, 1, 1, 3, 4),
                     LIST(0, 1, 1, 2, 2, 3, 4), LIST(0, 1, 2, 1, 2, 3, 4), -2);
    /* text only, and nothing */
    expect_positions("ttt", NULL, 0, LIST(0, 1, 2), LIST(0, 1, 2), LIST(0, 1, 2), 0);
    expect_positions("", NULL, 0, LIST(0), LIST(0), LIST(0), 0);
}

static void refuse(const char *picture, const int32_t *grids, int64_t n_images, const char *words)
{
    int32_t ids[MAX_TOKENS], out[3 * MAX_TOKENS];
    qvl_err err = {0};
    const int64_t n = draw_ids(ids, picture);
    expect_failure(qvl_mrope_positions(out, n, NULL, ids, n, grids, n_images, &DIMS, &err),
                   QVL_EDATA, &err, words);
}

static void runs_must_be_the_grids(void **state)
{
    (void)state;
    refuse("ttiiit", LIST(1, 4, 4), 1, "token 5 is 5 inside image 0");
    refuse("ttiii", LIST(1, 4, 4), 1, "image 0 has 4 tokens, only 3 follow");
    refuse("ttttt", LIST(1, 2, 2), 1, "image 0 has 1 tokens, only 0 follow");
    refuse("ttiiiiit", LIST(1, 4, 4), 1, "token 6 is an image token beyond the 1 images");
    refuse("ttit", NULL, 0, "token 2 is an image token beyond the 0 images");
    refuse("iiiitiiii", LIST(1, 4, 4, 1, 4, 6), 2, "image 1 has 6 tokens, only 4 follow");
    /* the right number of tokens in the wrong runs */
    refuse("tiiiiiitiiiit", LIST(1, 4, 4, 1, 4, 6), 2, "inside image 1");
}

/* Values of REFERENCE 2.4. */
static void frequencies_are_the_references(void **state)
{
    qvl_text_dims dims = {.Dh = 128, .rope_theta = 1e6, .mrope_section = {16, 24, 24}};
    float inv_freq[64];
    int32_t axis[64];
    (void)state;
    qvl_mrope_frequencies(inv_freq, axis, &dims);
    static const struct {
        int i;
        double value;
    } WANT[] = {{0, 1.0},        {1, 0.80584222},    {2, 0.64938164},
                {3, 0.52329916}, {16, 0.0316227786}, {63, 1.24093776e-06}};
    for (size_t k = 0; k < sizeof WANT / sizeof *WANT; k++)
        assert_true(fabs((double)inv_freq[WANT[k].i] / WANT[k].value - 1.0) < 1.2e-7);
    for (int i = 0; i < 64; i++)
        assert_int_equal(axis[i], i < 16 ? 0 : i < 40 ? 1 : 2);
    /* the table's test values: cos and sin of position * inv_freq */
    assert_true(fabs(cos((double)(7.0f * inv_freq[16])) - 0.97559988) < 1e-6);
    assert_true(fabs(sin((double)(100.0f * inv_freq[1])) + 0.88992840) < 1e-5);
    dims = (qvl_text_dims){.Dh = 16, .rope_theta = 1e6, .mrope_section = {2, 3, 3}};
    qvl_mrope_frequencies(inv_freq, axis, &dims);
    assert_memory_equal(axis, LIST(0, 0, 1, 1, 1, 2, 2, 2), 8 * sizeof *axis);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(worked_examples_hold),
        cmocka_unit_test(images_stand_anywhere),
        cmocka_unit_test(runs_must_be_the_grids),
        cmocka_unit_test(frequencies_are_the_references),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
