/* Which samples each step sees, against accelerate's way of dealing batches (REFERENCE 8.1 to 8.3).
 */
#include "src/train/sampler.h"

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

static qvl_sampler *make(qvl_sampler_options options)
{
    qvl_sampler *sampler = NULL;
    qvl_err err = {0};
    expect_ok(qvl_sampler_create(&sampler, &options, &err), &err);
    return sampler;
}

static qvl_step step_of(qvl_sampler *sampler, int64_t k)
{
    qvl_step step = {0};
    qvl_err err = {0};
    expect_ok(qvl_sampler_step(sampler, k, &step, &err), &err);
    return step;
}

/* The published job: 1097 (or 1096) samples, batch 1, accumulation 8, 3 epochs. */
static qvl_sampler_options job(int64_t n_samples, int64_t n_ranks, bool is_floor)
{
    return (qvl_sampler_options){.n_samples = n_samples,
                                 .batch = 1,
                                 .n_ranks = n_ranks,
                                 .accumulation = 8,
                                 .epochs = 3.0,
                                 .max_steps = -1,
                                 .seed = 42,
                                 .is_shuffled = true,
                                 .is_floor = is_floor};
}

static void steps_are_counted_as_transformers_does(void **state)
{
    static const struct {
        int64_t n_samples, n_ranks;
        bool is_floor;
        int64_t per_rank, per_epoch, steps;
        double last_epoch;
    } CASES[] = {
        {1097, 2, true, 549, 68, 204, 1632.0 / 549.0},    {1097, 2, false, 549, 69, 207, 3.0},
        {1096, 2, true, 548, 68, 204, 1632.0 / 548.0},    {1096, 2, false, 548, 69, 207, 3.0},
        {1097, 1, true, 1097, 137, 411, 3288.0 / 1097.0}, {1097, 1, false, 1097, 138, 414, 3.0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        qvl_sampler *s = make(job(CASES[i].n_samples, CASES[i].n_ranks, CASES[i].is_floor));
        assert_int_equal(qvl_sampler_batches_per_rank(s), CASES[i].per_rank);
        assert_int_equal(qvl_sampler_steps_per_epoch(s), CASES[i].per_epoch);
        assert_int_equal(qvl_sampler_steps(s), CASES[i].steps);
        assert_true(fabs(step_of(s, CASES[i].steps - 1).epoch - CASES[i].last_epoch) < 1e-12);
        qvl_sampler_destroy(s);
    }
    qvl_sampler_destroy(NULL);
}

static void fractions_and_limits_of_epochs(void **state)
{
    (void)state;
    qvl_sampler_options options = job(1097, 2, true);
    options.epochs = 0.5;
    qvl_sampler *s = make(options);
    assert_int_equal(qvl_sampler_steps(s), 34);
    qvl_sampler_destroy(s);
    options.epochs = 1.01; /* ceil(68.68) */
    s = make(options);
    assert_int_equal(qvl_sampler_steps(s), 69);
    qvl_sampler_destroy(s);
    options.max_steps = 500; /* wins, and runs on into more epochs */
    s = make(options);
    assert_int_equal(qvl_sampler_steps(s), 500);
    assert_true(fabs(step_of(s, 499).epoch - 4000.0 / 549.0) < 1e-12);
    qvl_sampler_destroy(s);
}

/* Heads of the permutations of REFERENCE 8.2, dealt to two ranks; and the tail's completion. */
static void published_job_sees_the_published_order(void **state)
{
    static const int64_t HEAD[] = {33, 428, 123, 129, 132, 484, 12, 831};
    static const int64_t SECOND_EPOCH[] = {968, 41, 937, 156, 783, 43, 281, 338};
    (void)state;
    qvl_sampler *s = make(job(1097, 2, false));
    qvl_step step = step_of(s, 0);
    assert_int_equal(step.n_batches, 16);
    assert_int_equal(step.n_samples, 16);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(step.samples[step.batches[i].first], HEAD[i]);
        assert_int_equal(step.batches[i].rank, i % 2);
        assert_int_equal(step.batches[i].n, 1);
    }
    step = step_of(s, 68); /* 5 places; the last one's second batch is the first sample again */
    assert_int_equal(step.n_batches, 10);
    assert_int_equal(step.samples[9], HEAD[0]);
    assert_int_equal(step.batches[9].rank, 1);
    step = step_of(s, 69);
    assert_memory_equal(step.samples, SECOND_EPOCH, sizeof SECOND_EPOCH);
    qvl_sampler_destroy(s);

    /* floor: the group of step 68 begins with the 5 places that are left of the first epoch */
    s = make(job(1097, 2, true));
    step = step_of(s, 68);
    assert_int_equal(step.n_batches, 16);
    assert_int_equal(step.samples[9], HEAD[0]);
    assert_memory_equal(step.samples + 10, SECOND_EPOCH, 6 * sizeof *SECOND_EPOCH);
    assert_true(fabs(step.epoch - (1.0 + 3.0 / 549.0)) < 1e-12);
    qvl_sampler_destroy(s);
}

/* ---- accelerate's BatchSamplerShard, step by step ------------------------------------------- */

enum { MAX_SAMPLES = 48, MAX_BATCH = 8, MAX_LISTS = 128 };

typedef struct list {
    int64_t n, at[2 * MAX_SAMPLES + 2 * MAX_BATCH * MAX_BATCH];
} list;

/* A rank's batches of an epoch. */
typedef struct dealt {
    int64_t n;
    list batches[MAX_LISTS];
} dealt;

static void yield_batch(dealt *to, const list *batch)
{
    assert_true(to->n < MAX_LISTS);
    to->batches[to->n++] = *batch;
}

static void append(list *to, const int64_t *from, int64_t n)
{
    memcpy(to->at + to->n, from, (size_t)n * sizeof *from);
    to->n += n;
}

/* even_batches, no split, no drop_last; one process alone is given the batches as they are. */
static void deal(dealt *to, const int64_t *order, int64_t n, int64_t b, int64_t n_ranks, int64_t r)
{
    list initial = {0}, kept = {0}, batch = {0};
    int64_t idx = 0;
    to->n = 0;
    for (int64_t first = 0; first < n; first += b, idx++) {
        batch.n = 0;
        append(&batch, order + first, n - first < b ? n - first : b);
        if (n_ranks == 1)
            yield_batch(to, &batch);
        if (idx < n_ranks)
            append(&initial, batch.at, batch.n);
        if (idx % n_ranks == r)
            kept = batch;
        if (idx % n_ranks == n_ranks - 1 && batch.n == b && n_ranks > 1) {
            yield_batch(to, &kept);
            kept.n = 0;
        }
    }
    if (n_ranks == 1)
        return;
    if (kept.n == b)
        yield_batch(to, &kept);
    while (initial.n < n_ranks * b)
        append(&initial, initial.at, initial.n);
    idx--; /* of the last batch */
    if (batch.n == b) {
        batch.n = 0;
        idx++;
    }
    for (int64_t cycle = 0; idx % n_ranks != 0 || batch.n > 0; idx++) {
        const int64_t end = cycle + b - batch.n;
        append(&batch, initial.at + cycle, end - cycle);
        if (idx % n_ranks == r)
            yield_batch(to, &batch);
        cycle = end;
        batch.n = 0;
    }
}

static void order_of(int64_t *order, const qvl_sampler_options *o, int64_t epoch)
{
    if (o->is_shuffled)
        qvl_torch_randperm(order, o->n_samples, o->seed + (uint64_t)epoch);
    for (int64_t i = 0; !o->is_shuffled && i < o->n_samples; i++)
        order[i] = i;
}

/* Walks through the epochs as the training loop does and compares every step on the way. */
static void compare_run(const qvl_sampler_options *o)
{
    static dealt ranks[MAX_BATCH];
    int64_t order[MAX_SAMPLES], k = 0, batch = 0, counter = 0;
    qvl_sampler *s = make(*o);
    qvl_step step = step_of(s, 0);
    for (int64_t epoch = 0; k < qvl_sampler_steps(s); epoch++) {
        order_of(order, o, epoch);
        for (int64_t r = 0; r < o->n_ranks; r++)
            deal(&ranks[r], order, o->n_samples, o->batch, o->n_ranks, r);
        const int64_t n = ranks[0].n;
        assert_int_equal(qvl_sampler_batches_per_rank(s), n);
        for (int64_t j = 0; j < n && k < qvl_sampler_steps(s); j++) {
            for (int64_t r = 0; r < o->n_ranks; r++, batch++) {
                const qvl_micro_batch *got = &step.batches[batch];
                const list *want = &ranks[r].batches[j];
                assert_int_equal(ranks[r].n, n);
                assert_true(batch < step.n_batches);
                assert_int_equal(got->rank, r);
                assert_int_equal(got->n, want->n);
                assert_memory_equal(step.samples + got->first, want->at,
                                    (size_t)want->n * sizeof *want->at);
            }
            counter++;
            const bool is_end = j + 1 == n;
            const bool is_update =
                o->is_floor ? counter % o->accumulation == 0 || (n <= o->accumulation && is_end)
                            : (j + 1) % o->accumulation == 0 || is_end;
            if (!is_update)
                continue;
            assert_int_equal(batch, step.n_batches);
            assert_true(fabs(step.epoch - ((double)epoch + (double)(j + 1) / (double)n)) < 1e-9);
            counter = batch = 0;
            if (++k < qvl_sampler_steps(s))
                step = step_of(s, k);
        }
    }
    qvl_sampler_destroy(s);
}

static void thousands_of_runs_are_dealt_as_accelerate_does(void **state)
{
    static const double EPOCHS[] = {1.0, 2.0, 3.0, 0.3, 2.5, 1.01};
    uint64_t rng = 7;
    (void)state;
    for (int round = 0; round < 5000; round++) {
        const uint64_t bits = qvl_splitmix64(&rng);
        const qvl_sampler_options o = {.n_samples = 1 + (int64_t)(bits % 40),
                                       .batch = 1 + (int64_t)(bits >> 8 & 255) % 6,
                                       .n_ranks = 1 + (int64_t)(bits >> 16 & 255) % 6,
                                       .accumulation = 1 + (int64_t)(bits >> 24 & 255) % 7,
                                       .epochs = EPOCHS[(bits >> 32 & 255) % 6],
                                       .max_steps =
                                           bits >> 40 & 3 ? -1 : 1 + (int64_t)(bits >> 42 & 15),
                                       .seed = bits >> 50,
                                       .is_shuffled = bits >> 48 & 1,
                                       .is_floor = bits >> 49 & 1};
        compare_run(&o);
    }
}

/* Cases with a name: one rank and a short last batch, fewer samples than ranks * batch, a group
 * longer than an epoch. Vectors from a Python transcription of accelerate's code. */
static void small_cases_by_hand(void **state)
{
    (void)state;
    qvl_sampler *s = make((qvl_sampler_options){
        .n_samples = 5, .batch = 2, .n_ranks = 1, .accumulation = 2, .epochs = 1, .max_steps = -1});
    assert_int_equal(qvl_sampler_steps(s), 2);
    qvl_step step = step_of(s, 1);
    assert_int_equal(step.n_batches, 1);
    assert_int_equal(step.batches[0].n, 1); /* short, and not completed */
    assert_int_equal(step.samples[0], 4);
    qvl_sampler_destroy(s);

    s = make((qvl_sampler_options){.n_samples = 5,
                                   .batch = 2,
                                   .n_ranks = 2,
                                   .accumulation = 9,
                                   .epochs = 2,
                                   .max_steps = -1,
                                   .is_floor = true});
    assert_int_equal(qvl_sampler_steps(s), 2); /* an epoch is a group */
    step = step_of(s, 1);
    assert_int_equal(step.n_samples, 8);
    assert_memory_equal(step.samples, ((int64_t[]){0, 1, 2, 3, 4, 0, 1, 2}), 8 * sizeof(int64_t));
    assert_true(step.epoch == 2.0);
    qvl_sampler_destroy(s);

    s = make((qvl_sampler_options){
        .n_samples = 3, .batch = 2, .n_ranks = 4, .accumulation = 1, .epochs = 1, .max_steps = -1});
    step = step_of(s, 0);
    assert_memory_equal(step.samples, ((int64_t[]){0, 1, 2, 0, 1, 2, 0, 1}), 8 * sizeof(int64_t));
    assert_int_equal(step.n_batches, 4);
    qvl_sampler_destroy(s);

    s = make((qvl_sampler_options){
        .n_samples = 1, .batch = 3, .n_ranks = 2, .accumulation = 1, .epochs = 1, .max_steps = -1});
    step = step_of(s, 0);
    assert_memory_equal(step.samples, ((int64_t[6]){0}), 6 * sizeof(int64_t));
    qvl_sampler_destroy(s);
}

/* Steps may be asked for in any order, as a resumed run does. */
static void a_step_is_a_fixed_set(void **state)
{
    enum { MOST = 2 * 8 };
    int64_t samples[204][MOST];
    double epochs[204];
    qvl_sampler *s = make(job(1097, 2, true));
    (void)state;
    for (int64_t k = 0; k < 204; k++) {
        const qvl_step step = step_of(s, k);
        assert_int_equal(step.n_samples, MOST);
        memcpy(samples[k], step.samples, sizeof samples[k]);
        epochs[k] = step.epoch;
        assert_true(k == 0 || epochs[k] > epochs[k - 1]);
    }
    qvl_sampler_destroy(s);
    s = make(job(1097, 2, true));
    for (int64_t i = 0; i < 204; i++) {
        const int64_t k = i * 97 % 204;
        const qvl_step step = step_of(s, k);
        assert_memory_equal(step.samples, samples[k], sizeof samples[k]);
        assert_true(step.epoch == epochs[k]);
    }
    qvl_sampler_destroy(s);
}

static void faults(void **state)
{
    qvl_sampler_options options = job(0, 2, true);
    qvl_sampler *s = NULL;
    qvl_step step;
    qvl_err err = {0};
    (void)state;
    expect_failure(qvl_sampler_create(&s, &options, &err), QVL_EDATA, &err, "no samples");
    assert_null(s);
    s = make(job(1097, 2, true));
    expect_failure(qvl_sampler_step(s, 204, &step, &err), QVL_EINTERNAL, &err, "step 204 of 204");
    expect_failure(qvl_sampler_step(s, -1, &step, &err), QVL_EINTERNAL, &err, "step -1");
    qvl_sampler_destroy(s);
}

/* A step of more than 2^24 samples is a mistake, and what is accumulated beyond an epoch takes no
 * memory. */
static void steps_have_bounds(void **state)
{
    qvl_sampler_options options = job(5, 1, true);
    qvl_sampler *s = NULL;
    qvl_err err = {0};
    (void)state;
    options.batch = options.accumulation = 4096;
    s = make(options);
    assert_int_equal(qvl_sampler_most_samples(s), 5);
    assert_int_equal(qvl_sampler_most_in_batch(s), 5);
    assert_int_equal(step_of(s, 0).n_samples, 5);
    qvl_sampler_destroy(s);
    options.n_ranks = 2; /* whose batches are completed */
    options.accumulation = 2048;
    s = make(options);
    assert_int_equal(qvl_sampler_most_samples(s), 8192);
    assert_int_equal(step_of(s, 0).n_samples, 8192);
    qvl_sampler_destroy(s);
    options.accumulation = 2049;
    expect_failure(qvl_sampler_create(&s, &options, &err), QVL_ECONFIG, &err,
                   "per_device_train_batch_size 4096 x gradient_accumulation_steps 2049 x 2 ranks "
                   "is more than the 16777216 samples");
    qvl_err_clear(&err);
    options.batch = 1;
    options.accumulation = 65536; /* more than the data have: as many steps as epochs */
    s = make(options);
    assert_int_equal(qvl_sampler_steps(s), 3);
    assert_int_equal(step_of(s, 2).n_samples, 6);
    qvl_sampler_destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_are_counted_as_transformers_does),
        cmocka_unit_test(fractions_and_limits_of_epochs),
        cmocka_unit_test(published_job_sees_the_published_order),
        cmocka_unit_test(thousands_of_runs_are_dealt_as_accelerate_does),
        cmocka_unit_test(small_cases_by_hand),
        cmocka_unit_test(a_step_is_a_fixed_set),
        cmocka_unit_test(steps_have_bounds),
        cmocka_unit_test(faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
