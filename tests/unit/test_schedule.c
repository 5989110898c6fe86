/* The learning rate of every step: REFERENCE 8.7's table, and the shapes as transformers
 * computes them. */
#include "src/train/schedule.h"

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

#include "run_fixtures.h"

static const double PI = 3.14159265358979323846;

static qvl_schedule make(const char *lines, int64_t steps)
{
    qvl_config *config = config_of("out", lines);
    const qvl_schedule schedule = qvl_schedule_make(config, steps);
    qvl_config_destroy(config);
    return schedule;
}

static void expect_rate(const qvl_schedule *schedule, int64_t k, double want)
{
    const double got = qvl_schedule_rate(schedule, k);
    if (!(fabs(got - want) <= 1e-10 * fabs(want)))
        print_error("step %d: %.12g, expected %.12g\n", (int)k, got, want);
    assert_true(fabs(got - want) <= 1e-10 * fabs(want));
}

static void table_of_the_reference(void **state)
{
    static const struct {
        int64_t k;
        double rate_204, rate_207;
    } TABLE[] = {{0, 0, 0},
                 {1, 4.7619047619e-06, 4.7619047619e-06},
                 {9, 4.2857142857e-05, 4.2857142857e-05},
                 {10, 4.7619047619e-05, 4.7619047619e-05},
                 {21, 1e-4, 1e-4},
                 {22, 9.9992632385e-05, 9.9992868128e-05}, /* 1e-4 less the last step's rate */
                 {100, 6.0647325997e-05, 6.1713323034e-05},
                 {199, 1.8408182762e-07, 4.5575659209e-07},
                 {200, 1.1783841570e-07, 3.4906312870e-07}};
    static const char LINES[] = "learning_rate: 1e-4\nlr_scheduler_type: cosine\n"
                                "warmup_ratio: 0.1\n";
    (void)state;
    const qvl_schedule a = make(LINES, 204), b = make(LINES, 207);
    assert_int_equal(a.warmup, 21);
    assert_int_equal(b.warmup, 21);
    for (size_t i = 0; i < sizeof TABLE / sizeof *TABLE; i++) {
        /* the table has 11 digits */
        assert_true(fabs(qvl_schedule_rate(&a, TABLE[i].k) - TABLE[i].rate_204) <=
                    1e-10 * TABLE[i].rate_204);
        assert_true(fabs(qvl_schedule_rate(&b, TABLE[i].k) - TABLE[i].rate_207) <=
                    1e-10 * TABLE[i].rate_207);
    }
    assert_true(fabs(qvl_schedule_rate(&a, 203) - 7.3676147487e-09) <= 1e-10 * 7.3676147487e-09);
    assert_true(fabs(qvl_schedule_rate(&b, 206) - 7.1318720145e-09) <= 1e-10 * 7.1318720145e-09);
}

/* warmup_steps wins over the ratio, below 1 it is one; ratios round up. */
static void warm_up_is_counted(void **state)
{
    static const struct {
        const char *lines;
        int64_t steps, warmup;
    } CASES[] = {{"", 100, 0},
                 {"warmup_ratio: 0.1\n", 100, 10},
                 {"warmup_ratio: 0.1\n", 101, 11},
                 {"warmup_ratio: 0.001\n", 100, 1},
                 {"warmup_ratio: 1.0\n", 100, 100},
                 {"warmup_steps: 7\nwarmup_ratio: 0.5\n", 100, 7},
                 {"warmup_steps: 0\nwarmup_ratio: 0.5\n", 100, 50},
                 {"warmup_steps: 0.25\nwarmup_ratio: 0.5\n", 102, 26},
                 {"warmup_steps: 1\n", 100, 1},
                 {"warmup_steps: 1000\n", 100, 1000},
                 {"lr_scheduler_type: constant_with_warmup\nwarmup_ratio: 0.5\n", 100, 50},
                 {"lr_scheduler_type: constant\nwarmup_ratio: 0.5\n", 100, 0},
                 {"lr_scheduler_type: constant\nwarmup_steps: 3\n", 100, 0}};
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        assert_int_equal(make(CASES[i].lines, CASES[i].steps).warmup, CASES[i].warmup);
}

/* transformers' lambdas, written once more. */
static double lambda(qvl_schedule_type type, double k, double ws, double steps, double cycles)
{
    const double progress = (k - ws) / fmax(1.0, steps - ws);
    if (type == QVL_CONSTANT)
        return 1.0;
    if (k < ws)
        return k / fmax(1.0, ws);
    switch (type) {
    case QVL_LINEAR:
        return fmax(0.0, (steps - k) / fmax(1.0, steps - ws));
    case QVL_COSINE:
        return fmax(0.0, 0.5 * (1.0 + cos(PI * cycles * 2.0 * progress)));
    case QVL_COSINE_WITH_RESTARTS:
        return progress >= 1.0 ? 0.0
                               : fmax(0.0, 0.5 * (1.0 + cos(PI * fmod(cycles * progress, 1.0))));
    default:
        return 1.0;
    }
}

static void shapes_are_transformers(void **state)
{
    static const struct {
        const char *name, *kwargs;
        qvl_schedule_type type;
        double cycles;
    } SHAPES[] = {{"linear", "", QVL_LINEAR, 0},
                  {"cosine", "", QVL_COSINE, 0.5},
                  {"cosine", "lr_scheduler_kwargs: {num_cycles: 1.5}\n", QVL_COSINE, 1.5},
                  {"constant", "", QVL_CONSTANT, 0},
                  {"constant_with_warmup", "", QVL_CONSTANT_WITH_WARMUP, 0},
                  {"cosine_with_restarts", "", QVL_COSINE_WITH_RESTARTS, 1},
                  {"cosine_with_restarts", "lr_scheduler_kwargs: {num_cycles: 3}\n",
                   QVL_COSINE_WITH_RESTARTS, 3}};
    static const int WARMUPS[] = {0, 1, 17, 99, 100, 150};
    char lines[256];
    (void)state;
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++)
        for (size_t w = 0; w < sizeof WARMUPS / sizeof *WARMUPS; w++) {
            snprintf(lines, sizeof lines,
                     "learning_rate: 0.003\nlr_scheduler_type: %s\nwarmup_steps: %d\n%s",
                     SHAPES[i].name, WARMUPS[w], SHAPES[i].kwargs);
            const qvl_schedule s = make(lines, 100);
            assert_int_equal(s.type, SHAPES[i].type);
            for (int64_t k = 0; k <= 100; k++) {
                const double want =
                    0.003 * lambda(SHAPES[i].type, (double)k, WARMUPS[w], 100.0, SHAPES[i].cycles);
                const double got = qvl_schedule_rate(&s, k);
                assert_true(fabs(got - want) <= 1e-10 * 0.003);
                assert_true(got >= 0.0 && got <= 0.003);
            }
        }
}

/* Restarts come back to the full rate at each cycle's begin. */
static void restarts_restart(void **state)
{
    const qvl_schedule s = make("learning_rate: 1.0\nlr_scheduler_type: cosine_with_restarts\n"
                                "lr_scheduler_kwargs: {num_cycles: 4}\nwarmup_steps: 20\n",
                                100);
    (void)state;
    for (int64_t k = 20; k < 100; k += 20)
        expect_rate(&s, k, 1.0);
    expect_rate(&s, 30, 0.5);
    expect_rate(&s, 99, 0.5 * (1.0 + cos(PI * 0.95)));
    assert_true(qvl_schedule_rate(&s, 100) == 0.0);
}

static void polynomial_ends_at_lr_end(void **state)
{
    qvl_schedule s = make("learning_rate: 0.01\nlr_scheduler_type: polynomial\nwarmup_steps: 10\n"
                          "lr_scheduler_kwargs: {lr_end: 0.001, power: 2}\n",
                          110);
    (void)state;
    assert_true(qvl_schedule_rate(&s, 0) == 0.0);
    expect_rate(&s, 5, 0.005);
    expect_rate(&s, 10, 0.01);
    expect_rate(&s, 60, 0.001 + 0.009 * 0.25);
    expect_rate(&s, 109, 0.001 + 0.009 * 0.0001);
    expect_rate(&s, 110, 0.001);
    expect_rate(&s, 500, 0.001);
    s = make("learning_rate: 0.01\nlr_scheduler_type: polynomial\n", 100); /* 1e-7, power 1 */
    for (int64_t k = 0; k <= 100; k++)
        expect_rate(&s, k, 1e-7 + (0.01 - 1e-7) * (1.0 - (double)k / 100.0));
    s = make("learning_rate: 0.01\nlr_scheduler_type: polynomial\nwarmup_steps: 100\n", 100);
    for (int64_t k = 0; k < 100; k++) /* all warm-up: no division by nothing */
        expect_rate(&s, k, 0.01 * (double)k / 100.0);
}

/* Values that the functions of transformers 5.24 give for a rate of 2e-4, with the warm-up and the
 * number of steps of each row; of warmup_stable_decay with what LLaMA-Factory 0.9.5 fills in. */
static const struct {
    const char *type, *kwargs;
    int warmup, steps;
    struct {
        int64_t k;
        double rate;
    } at[6];
} TRANSFORMERS[] = {
    {"cosine_with_min_lr",
     "{min_lr: 1e-5}",
     10,
     100,
     {{0, 0.0},
      {3, 6e-05},
      {10, 0.0002},
      {50, 0.0001214965768783584},
      {99, 1.0057871433185903e-05}}},
    {"cosine_with_min_lr",
     "{min_lr_rate: 0.1, num_cycles: 1.5}",
     0,
     100,
     {{0, 0.0002},
      {3, 0.00019642643171092488},
      {10, 0.0001629006727063226},
      {50, 0.00010999999999999999},
      {99, 2.03994231857228e-05}}},
    {"cosine_warmup_with_min_lr",
     "{min_lr_rate: 0.1, min_lr: null}",
     10,
     100,
     {{0, 2e-05},
      {3, 8e-05},
      {10, 0.00019994517443171862},
      {50, 0.0001225255790864059},
      {99, 2e-05}}},
    {"cosine_warmup_with_min_lr",
     "{min_lr: 3e-5, warmup_lr_rate: 0.25}",
     10,
     100,
     {{0, 5e-05},
      {3, 0.0001},
      {10, 0.00019994822029662318},
      {50, 0.00012682971358160555},
      {99, 3e-05}}},
    {"inverse_sqrt",
     "null",
     10,
     100,
     {{0, 0.0},
      {3, 6e-05},
      {10, 0.0002},
      {50, 8.944271909999159e-05},
      {99, 6.356417261637282e-05}}},
    {"inverse_sqrt",
     "null",
     0,
     100,
     {{0, 0.0002},
      {3, 0.00019997000674831295},
      {10, 0.00019990007493755465},
      {50, 0.0001995018672215266},
      {99, 0.00019901729062699988}}},
    {"inverse_sqrt",
     "{timescale: 7}",
     10,
     100,
     {{0, 0.0},
      {3, 6e-05},
      {10, 0.0002},
      {50, 7.718449849879599e-05},
      {99, 5.400617248673218e-05}}},
    {"warmup_stable_decay",
     "null",
     10,
     101,
     {{0, 0.0},
      {3, 6e-05},
      {39, 0.0002},
      {40, 0.0002},
      {70, 0.00010257479136549889},
      {99, 5.300124385410943e-07}}},
    {"warmup_stable_decay",
     "{num_decay_steps: 20}",
     10,
     101,
     {{3, 6e-05}, {39, 0.0002}, {40, 0.0002}, {59, 1.231165940486234e-06}, {60, 0.0}, {99, 0.0}}},
    {"warmup_stable_decay",
     "{num_stable_steps: 40, min_lr_ratio: 0.1, decay_type: linear, warmup_type: cosine}",
     10,
     101,
     {{0, 2e-05},
      {3, 5.709932729367742e-05},
      {39, 0.0002},
      {40, 0.0002},
      {70, 0.00014098360655737707},
      {99, 5.540983606557377e-05}}},
    {"warmup_stable_decay",
     "{min_lr_ratio: 0.05, decay_type: 1-sqrt, warmup_type: 1-sqrt}",
     10,
     101,
     {{0, 1e-05},
      {3, 4.103459495852564e-05},
      {39, 0.0002},
      {40, 0.0002},
      {70, 6.675549406952743e-05},
      {99, 1.3140712185283787e-05}}},
    {"warmup_stable_decay",
     "{num_cycles: 1.25}",
     0,
     101,
     {{0, 0.0002},
      {3, 0.0002},
      {39, 0.00017693339709828792},
      {40, 0.00016905854550141716},
      {70, 5.750569483165773e-05},
      {99, 0.0001228950549950134}}},
};

static void rates_are_transformers_to_the_last_digits(void **state)
{
    char lines[256];
    (void)state;
    for (size_t i = 0; i < sizeof TRANSFORMERS / sizeof *TRANSFORMERS; i++) {
        snprintf(lines, sizeof lines,
                 "learning_rate: 2e-4\nlr_scheduler_type: %s\nwarmup_steps: %d\n"
                 "lr_scheduler_kwargs: %s\n",
                 TRANSFORMERS[i].type, TRANSFORMERS[i].warmup, TRANSFORMERS[i].kwargs);
        const qvl_schedule s = make(lines, TRANSFORMERS[i].steps);
        for (int j = 0; j < 6; j++) {
            const int64_t k = TRANSFORMERS[i].at[j].k;
            const double got = qvl_schedule_rate(&s, k), want = TRANSFORMERS[i].at[j].rate;
            if (j > 0 && k == 0) /* fewer values */
                break;
            if (!(fabs(got - want) <= 1e-15 * fabs(want)))
                fail_msg("%s %s step %d: %.17g, expected %.17g", TRANSFORMERS[i].type,
                         TRANSFORMERS[i].kwargs, (int)k, got, want);
        }
    }
}

/* Whatever is asked for, rates are numbers. */
static void ends_of_schedules_are_numbers(void **state)
{
    static const char *const TYPES[] = {
        "cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr: 0}",
        "cosine_warmup_with_min_lr\nlr_scheduler_kwargs: {min_lr: 0, warmup_lr_rate: 0}",
        "inverse_sqrt\nlr_scheduler_kwargs: {timescale: 1}", "warmup_stable_decay",
        "warmup_stable_decay\nlr_scheduler_kwargs: {num_decay_steps: 0, num_stable_steps: 0}"};
    static const int WARMUPS[] = {0, 1, 4, 5, 6};
    char lines[256];
    (void)state;
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++)
        for (size_t w = 0; w < sizeof WARMUPS / sizeof *WARMUPS; w++) {
            snprintf(lines, sizeof lines,
                     "learning_rate: 1.0\nlr_scheduler_type: %s\n"
                     "warmup_steps: %d\n",
                     TYPES[i], WARMUPS[w]);
            const qvl_schedule s = make(lines, 5);
            for (int64_t k = 0; k <= 5; k++) {
                const double got = qvl_schedule_rate(&s, k);
                if (!(got >= 0.0 && got <= 1.0))
                    fail_msg("%s step %d: %g", lines, (int)k, got);
            }
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_of_the_reference),
        cmocka_unit_test(warm_up_is_counted),
        cmocka_unit_test(shapes_are_transformers),
        cmocka_unit_test(restarts_restart),
        cmocka_unit_test(polynomial_ends_at_lr_end),
        cmocka_unit_test(rates_are_transformers_to_the_last_digits),
        cmocka_unit_test(ends_of_schedules_are_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
