/* Limits of time: which one counts, and how long before it a run stops. */
#include "src/train/time_limit.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "src/base/stop.h"

static qvl_log console;

/* A process that started at 100 on its clock and is at 110 now, which is 1000000 since 1970. */
static qvl_time_limit limit_of(double max_hours, const char *job_end)
{
    qvl_time_limit limit;
    console.rank = 1; /* no warnings on the screen */
    qvl_time_limit_init(&limit, max_hours, 100.0, job_end, 110.0, 1000000.0, &console);
    return limit;
}

static void the_earlier_one_counts(void **state)
{
    (void)state;
    assert_true(isinf(limit_of(-1.0, NULL).end_s));
    assert_true(isinf(limit_of(-1.0, "").end_s));
    assert_true(limit_of(1.0, NULL).end_s == 3700.0);
    assert_int_equal(limit_of(1.0, NULL).reason, QVL_STOP_MAX_HOURS);
    assert_true(limit_of(-1.0, "1000060").end_s == 170.0);
    assert_int_equal(limit_of(-1.0, "1000060").reason, QVL_STOP_JOB_END);
    assert_int_equal(limit_of(1.0, "1000060").reason, QVL_STOP_JOB_END);
    assert_int_equal(limit_of(0.001, "1000060").reason, QVL_STOP_MAX_HOURS);
}

static void what_is_no_end_is_not_followed(void **state)
{
    static const char *const TEXTS[] = {"999999", "0", "-5", "soon", "1e9", "NONE"};
    (void)state;
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++)
        assert_true(isinf(limit_of(-1.0, TEXTS[i]).end_s));
}

static void the_margin_is_measured(void **state)
{
    qvl_time_limit limit = limit_of(1.0, NULL); /* ends at 3700 */
    (void)state;
    assert_false(qvl_time_limit_is_near(&limit, 3699.0, 1.0)); /* no step is done: it gets one */
    qvl_time_limit_step(&limit, 130.0);                        /* 20 s */
    assert_false(qvl_time_limit_is_near(&limit, 3700.0 - 51.5, 3.0)); /* 2 * 20 + 2 * 3 + 5 */
    assert_true(qvl_time_limit_is_near(&limit, 3700.0 - 50.5, 3.0));
    assert_true(qvl_time_limit_is_near(&limit, 4000.0, 0.0));
    /* the longest of the last ones; older ones are forgotten */
    double now = 130.0;
    for (int i = 0; i < QVL_TIME_LIMIT_STEPS; i++)
        qvl_time_limit_step(&limit, now += i == 3 ? 8.0 : 1.0);
    assert_false(qvl_time_limit_is_near(&limit, 3700.0 - 21.5, 0.0)); /* 2 * 8 + 5 */
    assert_true(qvl_time_limit_is_near(&limit, 3700.0 - 20.5, 0.0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_earlier_one_counts),
        cmocka_unit_test(what_is_no_end_is_not_followed),
        cmocka_unit_test(the_margin_is_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
