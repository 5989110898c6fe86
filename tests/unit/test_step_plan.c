/* Who computes which samples of a step, and what their tokens weigh. */
#include "src/train/step_plan.h"

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
#include "src/base/rng.h"

enum {
    MAX_RANKS = 8,
    MAX_PLACES = 8,
    MAX_BATCH = 4,
    MAX_STEP = MAX_RANKS * MAX_PLACES * MAX_BATCH
};
enum { N_SAMPLES = 50 };

/* A step of random sizes. */
typedef struct fixture {
    int64_t samples[MAX_STEP];
    qvl_micro_batch batches[MAX_RANKS * MAX_PLACES];
    int32_t length[N_SAMPLES], supervised[N_SAMPLES];
    qvl_step step;
    qvl_sample_sizes sizes;
    int n_ranks;
} fixture;

static void fill(fixture *f, uint64_t *rng, bool has_empty)
{
    f->n_ranks = 1 + (int)(qvl_splitmix64(rng) % MAX_RANKS);
    const int places = 1 + (int)(qvl_splitmix64(rng) % MAX_PLACES);
    f->sizes = (qvl_sample_sizes){f->length, f->supervised};
    f->step = (qvl_step){.samples = f->samples, .batches = f->batches};
    for (int i = 0; i < N_SAMPLES; i++) {
        f->length[i] = 1 + (int32_t)(qvl_splitmix64(rng) % 700);
        f->supervised[i] = (int32_t)(qvl_splitmix64(rng) % (uint64_t)f->length[i]);
        if (has_empty && qvl_splitmix64(rng) % 3 == 0)
            f->supervised[i] = 0;
        else if (!has_empty)
            f->supervised[i]++;
    }
    for (int b = 0; b < places * f->n_ranks; b++) {
        qvl_micro_batch *batch = &f->batches[f->step.n_batches++];
        *batch = (qvl_micro_batch){.rank = b % f->n_ranks,
                                   .first = f->step.n_samples,
                                   .n = 1 + (int64_t)(qvl_splitmix64(rng) % MAX_BATCH)};
        for (int64_t i = 0; i < batch->n; i++)
            f->samples[f->step.n_samples++] = (int64_t)(qvl_splitmix64(rng) % N_SAMPLES);
    }
}

static qvl_step_plan *make_plan(const fixture *f)
{
    qvl_step_plan *plan = NULL;
    assert_int_equal(qvl_step_plan_create(&plan, MAX_STEP, f->n_ranks, NULL), QVL_OK);
    return plan;
}

/* Sum over all supervised tokens of their weights. */
static double total_weight(const fixture *f, const qvl_step_plan *plan)
{
    double sum = 0.0;
    for (int64_t i = 0; i < f->step.n_samples; i++)
        sum += (double)plan->weight[i] * f->supervised[f->samples[i]];
    return sum;
}

static void weights_sum_to_their_rule(void **state)
{
    uint64_t rng = 1;
    (void)state;
    for (int round = 0; round < 500; round++) {
        fixture f;
        int64_t n_full = 0, total = 0;
        fill(&f, &rng, round % 2 == 1);
        qvl_step_plan *plan = make_plan(&f);
        qvl_step_plan_weigh(plan, &f.step, &f.sizes, QVL_MICRO_BATCH_MEAN);
        for (int64_t b = 0; b < f.step.n_batches; b++) {
            const qvl_micro_batch *batch = &f.batches[b];
            int64_t supervised = 0;
            for (int64_t i = batch->first; i < batch->first + batch->n; i++)
                supervised += f.supervised[f.samples[i]];
            const double want =
                supervised ? 1.0 / ((double)f.step.n_batches * (double)supervised) : 0.0;
            for (int64_t i = batch->first; i < batch->first + batch->n; i++)
                assert_true(plan->weight[i] == (float)want);
            n_full += supervised > 0;
            total += supervised;
        }
        assert_true(fabs(total_weight(&f, plan) - (double)n_full / (double)f.step.n_batches) <
                    1e-6);
        qvl_step_plan_weigh(plan, &f.step, &f.sizes, QVL_TOKEN_MEAN);
        for (int64_t i = 0; i < f.step.n_samples; i++)
            assert_true(plan->weight[i] == (total ? (float)(1.0 / (double)total) : 0.0f));
        assert_true(fabs(total_weight(&f, plan) - (total ? 1.0 : 0.0)) < 1e-6);
        qvl_step_plan_destroy(plan);
    }
    qvl_step_plan_destroy(NULL);
}

/* Nothing supervised at all: zero weights, not infinite ones. */
static void nothing_supervised_weighs_nothing(void **state)
{
    uint64_t rng = 2;
    fixture f;
    (void)state;
    fill(&f, &rng, true);
    memset(f.supervised, 0, sizeof f.supervised);
    qvl_step_plan *plan = make_plan(&f);
    for (int reduction = 0; reduction < 2; reduction++) {
        qvl_step_plan_weigh(plan, &f.step, &f.sizes, (qvl_loss_reduction)reduction);
        for (int64_t i = 0; i < f.step.n_samples; i++)
            assert_true(plan->weight[i] == 0.0f);
    }
    qvl_step_plan_destroy(plan);
}

static void unbalanced_samples_stay_with_their_rank(void **state)
{
    uint64_t rng = 3;
    (void)state;
    for (int round = 0; round < 200; round++) {
        fixture f;
        int64_t load[MAX_RANKS] = {0};
        fill(&f, &rng, true);
        qvl_step_plan *plan = make_plan(&f);
        qvl_step_plan_assign(plan, &f.step, &f.sizes, false);
        for (int64_t b = 0; b < f.step.n_batches; b++)
            for (int64_t i = 0; i < f.batches[b].n; i++) {
                const int64_t at = f.batches[b].first + i;
                assert_int_equal(plan->rank[at], f.batches[b].rank);
                assert_int_equal(plan->batch[at], b);
                load[plan->rank[at]] += f.length[f.samples[at]];
            }
        for (int r = 0; r < f.n_ranks; r++)
            assert_int_equal(plan->load[r], load[r]);
        qvl_step_plan_destroy(plan);
    }
}

/* Every sample stays in the step once; loads differ by at most the longest sample; the same inputs
 * give the same plan, whatever the plan held before. */
static void balancing_keeps_all_and_is_even(void **state)
{
    uint64_t rng = 4;
    (void)state;
    for (int round = 0; round < 300; round++) {
        fixture f, other;
        int64_t load[MAX_RANKS] = {0}, least = INT64_MAX, most = 0, longest = 0;
        fill(&f, &rng, true);
        qvl_step_plan *plan = make_plan(&f), *again = make_plan(&f);
        qvl_step_plan_assign(plan, &f.step, &f.sizes, true);
        for (int64_t i = 0; i < f.step.n_samples; i++) {
            assert_in_range(plan->rank[i], 0, f.n_ranks - 1);
            load[plan->rank[i]] += f.length[f.samples[i]];
            longest = f.length[f.samples[i]] > longest ? f.length[f.samples[i]] : longest;
        }
        for (int r = 0; r < f.n_ranks; r++) {
            assert_int_equal(plan->load[r], load[r]);
            least = load[r] < least ? load[r] : least;
            most = load[r] > most ? load[r] : most;
        }
        assert_true(most - least <= longest);
        do
            fill(&other, &rng, true);
        while (other.n_ranks != f.n_ranks);
        qvl_step_plan_assign(again, &other.step, &other.sizes, true);
        qvl_step_plan_assign(again, &f.step, &f.sizes, true);
        assert_memory_equal(plan->rank, again->rank, (size_t)f.step.n_samples * sizeof(int));
        assert_memory_equal(plan->batch, again->batch,
                            (size_t)f.step.n_samples * sizeof *plan->batch);
        qvl_step_plan_destroy(plan);
        qvl_step_plan_destroy(again);
    }
}

/* Longest first, each to the rank with the fewest tokens; ties go to the lower place and rank. */
static void balancing_by_hand(void **state)
{
    const int64_t samples[] = {0, 1, 2, 3, 4, 5};
    const qvl_micro_batch batches[] = {{0, 0, 1}, {1, 1, 1}, {0, 2, 1},
                                       {1, 3, 1}, {0, 4, 1}, {1, 5, 1}};
    const int32_t length[] = {10, 50, 10, 40, 30, 30}, supervised[6] = {0};
    const qvl_step step = {.samples = samples, .batches = batches, .n_samples = 6, .n_batches = 6};
    const qvl_sample_sizes sizes = {length, supervised};
    qvl_step_plan *plan = NULL;
    (void)state;
    assert_int_equal(qvl_step_plan_create(&plan, 6, 2, NULL), QVL_OK);
    qvl_step_plan_assign(plan, &step, &sizes, true);
    /* 50 -> 0, 40 -> 1, 30 -> 1 (70), 30 -> 0 (80), 10 -> 1 (80), 10 -> 0 (90) */
    assert_memory_equal(plan->rank, ((int[]){1, 0, 0, 1, 1, 0}), 6 * sizeof(int));
    assert_int_equal(plan->load[0], 90);
    assert_int_equal(plan->load[1], 80);
    qvl_step_plan_destroy(plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_sum_to_their_rule),
        cmocka_unit_test(nothing_supervised_weighs_nothing),
        cmocka_unit_test(unbalanced_samples_stay_with_their_rank),
        cmocka_unit_test(balancing_keeps_all_and_is_even),
        cmocka_unit_test(balancing_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
