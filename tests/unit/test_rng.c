/* Sequences of torch and numpy. The vectors were drawn with numpy 2.4 (RandomState, default_rng,
 * MT19937) and agree with torch's published ones: torch.manual_seed(42); torch.rand(4) is 0.8823,
 * 0.9150, 0.3829, 0.9593. */
#include "src/base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define EXPECT(values, ...)                                                                        \
    do {                                                                                           \
        const int64_t expected_[] = {__VA_ARGS__};                                                 \
        for (size_t i_ = 0; i_ < sizeof expected_ / sizeof *expected_; i_++)                       \
            assert_int_equal((values)[i_], expected_[i_]);                                         \
    } while (0)

static void mt19937_is_the_published_one(void **state)
{
    (void)state;
    qvl_mt19937 rng;
    uint32_t last = 0;
    qvl_mt19937_init(&rng, 5489);
    assert_int_equal(qvl_mt19937_next(&rng), 3499211612u);
    for (int i = 1; i < 10000; i++)
        last = qvl_mt19937_next(&rng);
    assert_int_equal(last, 4123659995u);
    qvl_mt19937_init(&rng, 42);
    assert_int_equal(qvl_mt19937_next(&rng), 1608637542u);
    assert_int_equal(qvl_mt19937_next(&rng), 3421126067u);
    for (int i = 2; i < 622; i++)
        qvl_mt19937_next(&rng);
    /* across the refill */
    assert_int_equal(qvl_mt19937_next(&rng), 336967606u);
    assert_int_equal(qvl_mt19937_next(&rng), 1077437785u);
    assert_int_equal(qvl_mt19937_next(&rng), 108880612u);
    assert_int_equal(qvl_mt19937_next(&rng), 791707097u);
}

static void torch_randperm(void **state)
{
    (void)state;
    int64_t order[1097];
    qvl_torch_randperm(order, 10, 42);
    EXPECT(order, 2, 6, 1, 8, 4, 5, 0, 9, 3, 7);
    qvl_torch_randperm(order, 1097, 42);
    EXPECT(order, 33, 428, 123, 129, 132, 484, 12, 831);
    qvl_torch_randperm(order, 1097, 43);
    EXPECT(order, 968, 41, 937, 156, 783, 43, 281, 338);
    qvl_torch_randperm(order, 1097, 44);
    EXPECT(order, 636, 700, 489, 698, 1087, 572, 830, 893);
    qvl_torch_randperm(order, 1, 42);
    EXPECT(order, 0);
    order[0] = 77;
    qvl_torch_randperm(order, 0, 42);
    EXPECT(order, 77);
}

static void torch_uniform(void **state)
{
    (void)state;
    qvl_mt19937 rng;
    float values[4];
    qvl_mt19937_init(&rng, 42);
    qvl_torch_uniform(values, 4, 0.0f, 1.0f, &rng);
    assert_true(values[0] == 0x1.c3b8ccp-1f && values[1] == 0x1.d47b66p-1f &&
                values[2] == 0x1.880d7p-2f && values[3] == 0x1.eb2a1cp-1f);
    qvl_mt19937_init(&rng, 42);
    qvl_torch_uniform(values, 4, -0x1.6a09e6p-5f, 0x1.6a09e6p-5f, &rng);
    assert_true(values[0] == 0x1.14cae2p-5f && values[1] == 0x1.2c7eb6p-5f &&
                values[2] == -0x1.534348p-7f && values[3] == 0x1.4c92a2p-5f);
}

/* One stream of numpy.random.RandomState(seed): permutation(10), choice(7, 8), permutation(5),
 * choice(1, 3), permutation(1), permutation(2). */
static const struct {
    uint32_t seed;
    int64_t permutation[10], choice[8], next[5], last[2];
} LEGACY[] = {
    {0, {2, 8, 4, 9, 1, 6, 7, 3, 0, 5}, {4, 6, 0, 0, 4, 2, 1, 6}, {4, 2, 3, 1, 0}, {0, 1}},
    {42, {8, 1, 5, 0, 7, 2, 9, 4, 3, 6}, {2, 6, 2, 2, 4, 3, 2, 5}, {0, 2, 3, 1, 4}, {0, 1}},
    {4294967295u,
     {6, 9, 5, 1, 8, 0, 7, 4, 2, 3},
     {3, 2, 3, 3, 2, 3, 5, 6},
     {2, 0, 3, 4, 1},
     {1, 0}},
};

static void numpy_legacy(void **state)
{
    (void)state;
    int64_t drawn[1000];
    qvl_mt19937 rng;
    for (size_t i = 0; i < sizeof LEGACY / sizeof *LEGACY; i++) {
        qvl_mt19937_init(&rng, LEGACY[i].seed);
        qvl_numpy_legacy_permutation(drawn, 10, &rng);
        assert_memory_equal(drawn, LEGACY[i].permutation, sizeof LEGACY[i].permutation);
        qvl_numpy_legacy_choice(drawn, 8, 7, &rng);
        assert_memory_equal(drawn, LEGACY[i].choice, sizeof LEGACY[i].choice);
        qvl_numpy_legacy_permutation(drawn, 5, &rng);
        assert_memory_equal(drawn, LEGACY[i].next, sizeof LEGACY[i].next);
        qvl_numpy_legacy_choice(drawn, 3, 1, &rng);
        EXPECT(drawn, 0, 0, 0);
        qvl_numpy_legacy_permutation(drawn, 1, &rng);
        EXPECT(drawn, 0);
        qvl_numpy_legacy_permutation(drawn, 2, &rng);
        assert_memory_equal(drawn, LEGACY[i].last, sizeof LEGACY[i].last);
    }
    qvl_mt19937_init(&rng, 42);
    qvl_numpy_legacy_permutation(drawn, 1000, &rng);
    EXPECT(drawn, 521, 737, 740, 660, 411, 678, 626, 513);
    EXPECT(drawn + 996, 270, 860, 435, 102);
    qvl_numpy_legacy_choice(drawn, 8, 1000, &rng);
    EXPECT(drawn, 171, 897, 12, 167, 641, 595, 320, 318);
    qvl_numpy_legacy_choice(drawn, 4, 65536, &rng);
    EXPECT(drawn, 63076, 43336, 19216, 51976);
    qvl_numpy_legacy_choice(drawn, 4, 256, &rng);
    EXPECT(drawn, 202, 142, 151, 37);
}

static void numpy_generator(void **state)
{
    (void)state;
    int64_t *order = calloc(70000, sizeof *order);
    assert_non_null(order);
    qvl_numpy_permutation(order, 10, 0);
    EXPECT(order, 4, 6, 2, 7, 3, 5, 9, 0, 8, 1);
    qvl_numpy_permutation(order, 10, 1);
    EXPECT(order, 8, 4, 7, 0, 1, 2, 5, 9, 6, 3);
    qvl_numpy_permutation(order, 10, 42);
    EXPECT(order, 5, 6, 0, 7, 3, 2, 4, 9, 1, 8);
    qvl_numpy_permutation(order, 10, 4294967295u);
    EXPECT(order, 0, 1, 4, 8, 3, 7, 5, 6, 2, 9);
    qvl_numpy_permutation(order, 10, (UINT64_C(1) << 40) + 3);
    EXPECT(order, 2, 4, 6, 5, 7, 9, 0, 3, 8, 1);
    qvl_numpy_permutation(order, 1097, 42);
    EXPECT(order, 553, 514, 238, 243, 66, 232, 381, 304);
    EXPECT(order + 110, 734, 471, 1061, 135, 152, 558, 180, 222);
    EXPECT(order + 1093, 491, 141, 706, 973);
    qvl_numpy_permutation(order, 70000, 7); /* past 16 bits */
    EXPECT(order, 15808, 48179, 11705, 6440, 12002, 28192);
    EXPECT(order + 69996, 10050, 63842, 27285, 16809);
    int64_t sum = 0;
    for (int64_t i = 0; i < 70000; i++)
        sum += order[i] * i % 1000003;
    assert_int_equal(sum, 34945625292);
    qvl_numpy_permutation(order, 1, 42);
    EXPECT(order, 0);
    free(order);
}

/* The generator's author publishes these for seed 1234567. */
static void splitmix64(void **state)
{
    (void)state;
    uint64_t counter = 1234567;
    assert_true(qvl_splitmix64(&counter) == UINT64_C(6457827717110365317));
    assert_true(qvl_splitmix64(&counter) == UINT64_C(3203168211198807973));
    assert_true(qvl_splitmix64(&counter) == UINT64_C(9817491932198370423));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mt19937_is_the_published_one),
        cmocka_unit_test(torch_randperm),
        cmocka_unit_test(torch_uniform),
        cmocka_unit_test(numpy_legacy),
        cmocka_unit_test(numpy_generator),
        cmocka_unit_test(splitmix64),
    };
    return cmocka_run_group_tests_name("rng", tests, NULL, NULL);
}
