/* What steps ask of memory at most: exact where all can be looked at, else a bound that no step
 * exceeds. */
#include "src/train/step_scan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "scratch_files.h"
#include "src/base/rng.h"
#include "src/base/stop.h"

enum { N_SAMPLES = 40 };

static int32_t lengths[N_SAMPLES], supervised[N_SAMPLES];
static const qvl_sample_sizes SIZES = {lengths, supervised};

static qvl_step_scan scan_of(const qvl_sampler_options *options, bool is_balanced, int64_t limit)
{
    qvl_sampler *sampler = NULL;
    qvl_step_plan *plan = NULL;
    qvl_step_scan scan;
    qvl_err err = {0};
    expect_ok(qvl_sampler_create(&sampler, options, &err), &err);
    expect_ok(
        qvl_step_plan_create(&plan, qvl_sampler_most_samples(sampler), (int)options->n_ranks, &err),
        &err);
    expect_ok(qvl_step_scan_run(&scan, sampler, plan, &SIZES, options->n_samples, is_balanced,
                                limit, &err),
              &err);
    qvl_step_plan_destroy(plan);
    qvl_sampler_destroy(sampler);
    return scan;
}

static void draw_lengths(uint64_t *rng)
{
    for (int i = 0; i < N_SAMPLES; i++)
        lengths[i] = 1 + (int32_t)(qvl_splitmix64(rng) % (qvl_splitmix64(rng) % 4 ? 50 : 5000));
}

static qvl_sampler_options draw_options(uint64_t *rng)
{
    return (qvl_sampler_options){.n_samples = 1 + (int64_t)(qvl_splitmix64(rng) % N_SAMPLES),
                                 .batch = 1 + (int64_t)(qvl_splitmix64(rng) % 9),
                                 .n_ranks = 1 + (int64_t)(qvl_splitmix64(rng) % 5),
                                 .accumulation = 1 + (int64_t)(qvl_splitmix64(rng) % 12),
                                 .epochs = 30.0,
                                 .max_steps = -1,
                                 .seed = qvl_splitmix64(rng),
                                 .is_shuffled = qvl_splitmix64(rng) % 4 != 0,
                                 .is_floor = qvl_splitmix64(rng) % 2};
}

static void no_step_exceeds_the_bound(void **state)
{
    uint64_t rng = 7;
    int n_tight = 0;
    (void)state;
    for (int i = 0; i < 3000; i++) {
        draw_lengths(&rng);
        const qvl_sampler_options options = draw_options(&rng);
        const bool is_balanced = qvl_splitmix64(&rng) % 2;
        const qvl_step_scan exact = scan_of(&options, is_balanced, QVL_SCAN_SAMPLES);
        const qvl_step_scan bound = scan_of(&options, is_balanced, 0);
        assert_false(exact.is_bound);
        assert_true(bound.is_bound);
        assert_true(bound.most_in_step >= exact.most_in_step);
        assert_true(bound.most_in_batch >= exact.most_in_batch);
        n_tight += bound.most_in_step == exact.most_in_step;
    }
    assert_true(n_tight > 100); /* it is no more than it has to be */
}

static void a_small_case_by_hand(void **state)
{
    qvl_sampler_options options = {.n_samples = 5,
                                   .batch = 1,
                                   .n_ranks = 1,
                                   .accumulation = 2,
                                   .epochs = 1.0,
                                   .max_steps = -1,
                                   .is_floor = false};
    const int32_t five[] = {10, 40, 30, 20, 50};
    (void)state;
    memcpy(lengths, five, sizeof five);
    qvl_step_scan scan = scan_of(&options, false, QVL_SCAN_SAMPLES);
    assert_int_equal(scan.most_in_step, 50);
    assert_int_equal(scan.most_in_batch, 50);
    scan = scan_of(&options, false, 5); /* 3 steps of up to 2 */
    assert_true(scan.is_bound);
    assert_int_equal(scan.most_in_step, 90);
    assert_int_equal(scan.most_in_batch, 50);
    scan = scan_of(&options, false, 6);
    assert_false(scan.is_bound);
    options.is_floor = true; /* a step may have the longest twice, at an epoch's end */
    assert_int_equal(scan_of(&options, false, 0).most_in_step, 100);
}

/* 10^9 steps are planned at once. */
static void long_runs_are_planned_at_once(void **state)
{
    const qvl_sampler_options options = {.n_samples = N_SAMPLES,
                                         .batch = 2,
                                         .n_ranks = 2,
                                         .accumulation = 4,
                                         .epochs = 1.0,
                                         .max_steps = 1000000000,
                                         .is_shuffled = true,
                                         .is_floor = true};
    uint64_t rng = 1;
    const clock_t start = clock();
    (void)state;
    draw_lengths(&rng);
    assert_true(scan_of(&options, true, QVL_SCAN_SAMPLES).is_bound);
    assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 1.0);
}

static void a_stop_ends_it(void **state)
{
    const qvl_sampler_options options = {.n_samples = N_SAMPLES,
                                         .batch = 1,
                                         .n_ranks = 1,
                                         .accumulation = 1,
                                         .epochs = 1.0,
                                         .max_steps = QVL_SCAN_SAMPLES,
                                         .is_shuffled = true,
                                         .is_floor = true};
    uint64_t rng = 1;
    const clock_t start = clock();
    (void)state;
    draw_lengths(&rng);
    qvl_stop_request(QVL_STOP_MAX_HOURS); /* the last test: it is not taken back */
    assert_int_equal(scan_of(&options, true, QVL_SCAN_SAMPLES).most_in_step, 1);
    assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 0.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_step_exceeds_the_bound),
        cmocka_unit_test(a_small_case_by_hand),
        cmocka_unit_test(long_runs_are_planned_at_once),
        cmocka_unit_test(a_stop_ends_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
