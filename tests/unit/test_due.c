/* When log lines, evaluations and checkpoints are due, as transformers has it. */
#include "src/train/due.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* The steps of 0 .. 20 after which it is due, with a space behind each. */
static void expect_steps(const char *strategy, double steps, int64_t total, int64_t per_epoch,
                         const char *want)
{
    const qvl_due due = qvl_due_make(strategy, steps, total, per_epoch);
    char got[128] = "";
    for (int step = 0; step <= 20; step++)
        if (qvl_is_due(&due, step))
            sprintf(got + strlen(got), "%d ", step);
    assert_string_equal(got, want);
}

static void every_so_many_steps(void **state)
{
    (void)state;
    expect_steps("steps", 8, 20, 7, "8 16 ");
    expect_steps("steps", 30, 20, 7, "");
    expect_steps("steps", 1, 3, 3, "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 ");
    expect_steps("steps", 2.5, 20, 7, "2 4 6 8 10 12 14 16 18 20 ");
}

static void a_share_of_all_steps(void **state)
{
    (void)state;
    expect_steps("steps", 0.25, 30, 7, "8 16 "); /* 7.5, rounded up */
    expect_steps("steps", 0.5, 20, 7, "10 20 ");
    expect_steps("steps", 1e-9, 4, 4, "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 ");
}

/* The last epoch ends with the run, whole or not. */
static void every_epoch(void **state)
{
    (void)state;
    expect_steps("epoch", 3, 21, 7, "7 14 ");
    expect_steps("epoch", 3, 14, 7, "7 14 ");
    expect_steps("epoch", 3, 18, 7, "7 14 18 ");
    expect_steps("epoch", 3, 5, 7, "5 7 14 ");
}

static void never(void **state)
{
    (void)state;
    expect_steps("no", 1, 20, 7, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_so_many_steps),
        cmocka_unit_test(a_share_of_all_steps),
        cmocka_unit_test(every_epoch),
        cmocka_unit_test(never),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
