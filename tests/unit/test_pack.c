/* Samples laid end to end: positions, supervised rows, weights and images of each. */
#include "src/model/pack.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scratch_files.h"

static const qvl_model_dims DIMS = {.image_token = 99, .video_token = 98};

#define LIST(...)          ((const int32_t[]){__VA_ARGS__})
#define EXPECT(array, ...) assert_memory_equal(array, LIST(__VA_ARGS__), sizeof(LIST(__VA_ARGS__)))

static const char FEATURES[] = "features of an image";
static const void *const FEATURE_LIST[] = {FEATURES, FEATURES + 9};

/* 7 tokens, an image of 4, three supervised; and 3 tokens, two supervised, with the first labelled
 * too, which nothing predicts. */
static const qvl_sample_view FIRST = {.ids = LIST(5, 99, 99, 99, 99, 6, 7),
                                      .labels = LIST(-100, -100, -100, -100, 8, 6, 7),
                                      .n = 7,
                                      .grids = LIST(1, 4, 4),
                                      .features = FEATURE_LIST,
                                      .n_images = 1,
                                      .number = 41};
static const qvl_sample_view SECOND = {
    .ids = LIST(1, 2, 3), .labels = LIST(1, 2, 3), .n = 3, .number = 12};

static void samples_are_laid_end_to_end(void **state)
{
    enum { CAPACITY = 12 };
    qvl_pack pack;
    void *buffer = malloc(qvl_pack_bytes(CAPACITY));
    qvl_err err = {0};
    (void)state;
    assert_non_null(buffer);
    qvl_pack_init(&pack, CAPACITY, buffer);
    for (int round = 0; round < 2; round++) { /* a cleared pack is as a new one */
        qvl_pack_clear(&pack);
        expect_ok(qvl_pack_add(&pack, &FIRST, 0.25f, &DIMS, &err), &err);
        expect_ok(qvl_pack_add(&pack, &SECOND, 0.5f, &DIMS, &err), &err);
        qvl_pack_finish(&pack);
        assert_int_equal(pack.T, 10);
        assert_int_equal(pack.B, 2);
        EXPECT(pack.cu_seqlens, 0, 7, 10);
        EXPECT(pack.ids, 5, 99, 99, 99, 99, 6, 7, 1, 2, 3);
        EXPECT(pack.sample, 41, 41, 41, 41, 41, 41, 41, 12, 12, 12);
        EXPECT(pack.token, 0, 1, 2, 3, 4, 5, 6, 0, 1, 2);
        EXPECT(pack.positions, 0, 1, 1, 1, 1, 3, 4, 0, 1, 2, /* frame */
               0, 1, 1, 2, 2, 3, 4, 0, 1, 2,                 /* row */
               0, 1, 2, 1, 2, 3, 4, 0, 1, 2);                /* column */
        assert_int_equal(pack.n_rows, 5);
        EXPECT(pack.rows, 3, 4, 5, 7, 8);
        EXPECT(pack.targets, 8, 6, 7, 2, 3);
        EXPECT(pack.row_sample, 41, 41, 41, 12, 12);
        EXPECT(pack.row_token, 3, 4, 5, 0, 1);
        const float weights[] = {0.25f, 0.25f, 0.25f, 0.5f, 0.5f};
        assert_memory_equal(pack.weights, weights, sizeof weights);
        assert_int_equal(pack.n_image_tokens, 4);
        EXPECT(pack.image_rows, 1, 2, 3, 4);
        assert_int_equal(pack.n_features, 1);
        assert_ptr_equal(pack.features[0], FEATURES);
        assert_int_equal(pack.feature_tokens[0], 4);
    }
    qvl_pack_fini(&pack);
    free(buffer);
}

/* What comes after the last token that predicts a supervised one is left out, labels are not. */
static void only_needed_tokens_are_added(void **state)
{
    enum { CAPACITY = 12 };
    const struct {
        int64_t needed;
        const int32_t *ids, *labels;
    } CASES[] = {{4, LIST(1, 2, 3, 4, 5), LIST(-100, -100, 3, 4, 5)},
                 {2, LIST(1, 2, 3, 4, 5), LIST(-100, 2, 3, -100, -100)},
                 {1, LIST(1, 2, 3, 4, 5), LIST(-100, 2, -100, -100, -100)},
                 {5, LIST(1, 2, 3, 4, 5), LIST(-100, -100, -100, -100, -100)},
                 {5, LIST(1, 2, 3, 4, 5), LIST(1, -100, -100, -100, -100)}, /* predicted by none */
                 {5, LIST(1, 2, 3, 99, 5), LIST(-100, 2, -100, -100, -100)},
                 {5, LIST(1, 2, 3, 98, 5), LIST(-100, 2, -100, -100, -100)},
                 {4, LIST(1, 99, 3, 4, 5), LIST(-100, -100, -100, -100, 5)}};
    qvl_pack pack;
    void *buffer = malloc(qvl_pack_bytes(CAPACITY));
    qvl_err err = {0};
    (void)state;
    assert_non_null(buffer);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        const qvl_sample_view sample = {.ids = CASES[i].ids, .labels = CASES[i].labels, .n = 5};
        assert_int_equal(qvl_needed_tokens(&sample, &DIMS), CASES[i].needed);
    }
    qvl_sample_view sample = {.ids = CASES[1].ids, .labels = CASES[1].labels, .n = 5};
    sample.n_needed = qvl_needed_tokens(&sample, &DIMS);
    qvl_pack_init(&pack, CAPACITY, buffer);
    expect_ok(qvl_pack_add(&pack, &sample, 1.0f, &DIMS, &err), &err);
    expect_ok(qvl_pack_add(&pack, &SECOND, 1.0f, &DIMS, &err), &err);
    EXPECT(pack.cu_seqlens, 0, 2, 5);
    EXPECT(pack.ids, 1, 2, 1, 2, 3);
    assert_int_equal(pack.n_rows, 4);
    EXPECT(pack.rows, 0, 1, 2, 3);
    EXPECT(pack.targets, 2, 3, 2, 3);
    qvl_pack_fini(&pack);
    free(buffer);
}

/* The views cover the buffer without meeting: a pack filled to the brim overwrites nothing. */
static void a_full_pack_fits(void **state)
{
    enum { CAPACITY = 8 };
    const int32_t ids[CAPACITY] = {1, 2, 3, 4, 5, 6, 7, 8};
    qvl_pack pack;
    char *buffer = malloc(qvl_pack_bytes(CAPACITY) + 16);
    qvl_err err = {0};
    (void)state;
    assert_non_null(buffer);
    memset(buffer, 0x5a, qvl_pack_bytes(CAPACITY) + 16);
    qvl_pack_init(&pack, CAPACITY, buffer);
    for (int i = 0; i < CAPACITY; i++) { /* one token each: nothing is supervised */
        const qvl_sample_view one = {.ids = ids + i, .labels = ids + i, .n = 1, .number = i};
        expect_ok(qvl_pack_add(&pack, &one, 1.0f, &DIMS, &err), &err);
    }
    assert_int_equal(pack.n_rows, 0);
    assert_int_equal(pack.B, CAPACITY);
    EXPECT(pack.cu_seqlens, 0, 1, 2, 3, 4, 5, 6, 7, 8);
    EXPECT(pack.ids, 1, 2, 3, 4, 5, 6, 7, 8);
    const qvl_sample_view more = {.ids = ids, .labels = ids, .n = 1};
    expect_failure(qvl_pack_add(&pack, &more, 1.0f, &DIMS, &err), QVL_EINTERNAL, &err,
                   "sample of 1 does not fit after 8");
    assert_int_equal(pack.T, CAPACITY);
    for (int i = 0; i < 16; i++)
        assert_int_equal(buffer[qvl_pack_bytes(CAPACITY) + (size_t)i], 0x5a);
    qvl_pack_fini(&pack);
    free(buffer);
}

/* A sample whose image tokens are not its grids' leaves the pack as it was. */
static void wrong_samples_are_not_added(void **state)
{
    enum { CAPACITY = 12 };
    qvl_pack pack;
    void *buffer = malloc(qvl_pack_bytes(CAPACITY));
    qvl_err err = {0};
    (void)state;
    assert_non_null(buffer);
    qvl_pack_init(&pack, CAPACITY, buffer);
    qvl_sample_view wrong = FIRST;
    wrong.grids = LIST(1, 4, 6);
    expect_failure(qvl_pack_add(&pack, &wrong, 1.0f, &DIMS, &err), QVL_EDATA, &err, "image 0");
    assert_int_equal(pack.T + pack.B + pack.n_rows + pack.n_features + pack.n_image_tokens, 0);
    expect_ok(qvl_pack_add(&pack, &SECOND, 1.0f, &DIMS, &err), &err);
    assert_int_equal(pack.T, 3);
    qvl_pack_fini(&pack);
    free(buffer);
}

static void supervised_tokens_have_a_prediction(void **state)
{
    (void)state;
    assert_int_equal(qvl_supervised_tokens(LIST(1, 2, 3), 3), 2);
    assert_int_equal(qvl_supervised_tokens(LIST(1, -100, -100), 3), 0);
    assert_int_equal(qvl_supervised_tokens(LIST(-100, -100, 0), 3), 1);
    assert_int_equal(qvl_supervised_tokens(LIST(4), 1), 0);
    assert_int_equal(qvl_supervised_tokens(LIST(4), 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_are_laid_end_to_end),
        cmocka_unit_test(only_needed_tokens_are_added),
        cmocka_unit_test(a_full_pack_fits),
        cmocka_unit_test(wrong_samples_are_not_added),
        cmocka_unit_test(supervised_tokens_have_a_prediction),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
