/* Checked sizes, growing arrays, and sizes as text; the memory plan; statuses and their text. */
#include "src/base/memory.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/plan.h"

static void overflow_is_seen(void **state)
{
    (void)state;
    size_t size = 0;
    int64_t whole = 0;
    assert_false(qvl_mul_overflows(&size, SIZE_MAX, 1));
    assert_true(size == SIZE_MAX);
    assert_true(qvl_mul_overflows(&size, SIZE_MAX / 2 + 1, 2));
    assert_false(qvl_mul3_overflows(&size, 3, 5, 7));
    assert_int_equal(size, 105);
    assert_true(qvl_mul3_overflows(&size, SIZE_MAX, 2, 0));
    assert_true(qvl_mul3_overflows(&size, 1, SIZE_MAX, 2));
    assert_false(qvl_add_overflows(&size, SIZE_MAX - 1, 1));
    assert_true(qvl_add_overflows(&size, SIZE_MAX, 1));
    assert_false(qvl_mul_i64_overflows(&whole, INT64_MIN, 1));
    assert_true(qvl_mul_i64_overflows(&whole, INT64_MIN, -1));
    assert_true(qvl_mul_i64_overflows(&whole, INT64_MAX, 2));
}

static void allocation(void **state)
{
    (void)state;
    qvl_err err = {0};
    int32_t *values = NULL;
    assert_int_equal(qvl_alloc(&values, 1000, sizeof *values, "values", &err), QVL_OK);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(values[i], 0);
    free(values);
    assert_int_equal(qvl_alloc(&values, 0, sizeof *values, "values", &err), QVL_OK);
    assert_non_null(values);
    free(values);
    assert_int_equal(qvl_alloc(&values, SIZE_MAX / 2, 4, "values", &err), QVL_EINTERNAL);
    assert_non_null(strstr(err.text, "values: "));
    assert_non_null(strstr(err.text, "overflow"));
}

static void reserving(void **state)
{
    (void)state;
    qvl_err err = {0};
    int32_t *values = NULL;
    size_t capacity = 0;
    for (size_t n = 1; n < 3000; n++) {
        assert_int_equal(qvl_reserve(&values, &capacity, n, sizeof *values, "values", &err),
                         QVL_OK);
        assert_true(capacity >= n);
        values[n - 1] = (int32_t)n;
    }
    for (int i = 0; i < 2999; i++)
        assert_int_equal(values[i], i + 1);
    const size_t before = capacity;
    int32_t *const kept = values;
    assert_int_equal(qvl_reserve(&values, &capacity, 10, sizeof *values, "values", &err), QVL_OK);
    assert_ptr_equal(values, kept);
    assert_int_equal(qvl_reserve(&values, &capacity, SIZE_MAX, 4, "values", &err), QVL_EINTERNAL);
    qvl_err_clear(&err);
    assert_int_equal(qvl_reserve(&values, &capacity, SIZE_MAX / 4, 16, "values", &err),
                     QVL_EINTERNAL);
    assert_string_equal(err.text, "values: 4611686018427387903 elements overflow");
    assert_ptr_equal(values, kept); /* and it can still be freed */
    assert_int_equal(capacity, before);
    free(values);
}

static void copies_of_texts(void **state)
{
    (void)state;
    char *copy = (char *)&copy;
    assert_int_equal(qvl_copy_text(&copy, NULL, NULL), QVL_OK);
    assert_null(copy);
    assert_int_equal(qvl_copy_text(&copy, "abc", NULL), QVL_OK);
    assert_string_equal(copy, "abc");
    free(copy);
}

static void sizes_as_text(void **state)
{
    (void)state;
    char buffer[32];
    assert_string_equal(qvl_format_bytes(buffer, 0), "0 B");
    assert_string_equal(qvl_format_bytes(buffer, 1023), "1023 B");
    assert_string_equal(qvl_format_bytes(buffer, 1024), "1.00 KiB");
    assert_string_equal(qvl_format_bytes(buffer, 1610612736), "1.50 GiB");
    assert_string_equal(qvl_format_bytes(buffer, UINT64_MAX), "16384.00 PiB");
    assert_string_equal(qvl_format_count(buffer, 0), "0");
    assert_string_equal(qvl_format_count(buffer, 999), "999");
    assert_string_equal(qvl_format_count(buffer, 1000), "1,000");
    assert_string_equal(qvl_format_count(buffer, 20185088), "20,185,088");
    assert_string_equal(qvl_format_count(buffer, -123), "-123");
    assert_string_equal(qvl_format_count(buffer, -1234), "-1,234");
    assert_string_equal(qvl_format_count(buffer, INT64_MIN), "-9,223,372,036,854,775,808");
}

static void a_plan_places_slots(void **state)
{
    (void)state;
    qvl_plan plan = {0};
    qvl_err err = {0};
    int slots[4];
    assert_int_equal(qvl_plan_add(&plan, &slots[0], "a", 100, 1, &err), QVL_OK);
    assert_int_equal(qvl_plan_add(&plan, &slots[1], "none", 0, 8, &err), QVL_OK);
    assert_int_equal(qvl_plan_add(&plan, &slots[2], "b", 64, 4, &err), QVL_OK);
    assert_int_equal(qvl_plan_add(&plan, &slots[3], "c", 257, 1, &err), QVL_OK);
    char *arena = aligned_alloc(QVL_PLAN_ALIGN_BYTES, plan.total_bytes);
    assert_non_null(arena);
    for (int i = 0; i < 4; i++) {
        char *const at = qvl_plan_at(&plan, arena, slots[i]);
        assert_int_equal((uintptr_t)at % QVL_PLAN_ALIGN_BYTES, 0);
        assert_true(at + plan.slots[i].bytes <= arena + plan.total_bytes);
        if (i)
            assert_true(at >=
                        (char *)qvl_plan_at(&plan, arena, slots[i - 1]) + plan.slots[i - 1].bytes);
    }
    qvl_plan_set_guards(&plan, arena);
    for (int i = 0; i < 4; i++)
        memset(qvl_plan_at(&plan, arena, slots[i]), 0x5a, plan.slots[i].bytes);
    assert_int_equal(qvl_plan_check_guards(&plan, arena, &err), QVL_OK);
#ifdef QVL_ARENA_GUARDS
    ((char *)qvl_plan_at(&plan, arena, slots[2]))[256 + 3] = 0;
    assert_int_equal(qvl_plan_check_guards(&plan, arena, &err), QVL_EINTERNAL);
    assert_string_equal(err.text, "memory slot b of 256 bytes was overrun at byte +3");
    qvl_err_clear(&err);
#endif
    int slot = 0;
    assert_int_equal(qvl_plan_add(&plan, &slot, "neg", -1, 1, &err), QVL_EINTERNAL);
    qvl_err_clear(&err);
    assert_int_equal(qvl_plan_add(&plan, &slot, "huge", INT64_MAX, 4, &err), QVL_EINTERNAL);
    qvl_err_clear(&err);
    assert_int_equal(qvl_plan_add(&plan, &slot, "full", INT64_MAX, 2, &err), QVL_EINTERNAL);
    assert_string_equal(err.text, "memory plan: full of 9223372036854775807 elements overflows");
    assert_int_equal(plan.n_slots, 4);
    free(arena);
    qvl_plan_fini(&plan);
}

static void the_first_failure_is_kept(void **state)
{
    (void)state;
    qvl_err err = {0};
    assert_int_equal(qvl_fail(&err, QVL_EDATA, "%s:%d: a\nb\x1b[1m\x7f", "f", 3), QVL_EDATA);
    assert_string_equal(err.text, "f:3: a?b?[1m?");
    assert_int_equal(qvl_fail(&err, QVL_EIO, "later"), QVL_EIO);
    assert_int_equal(err.status, QVL_EDATA);
    assert_string_equal(err.text, "f:3: a?b?[1m?");
    qvl_err_clear(&err);
    assert_int_equal(err.status, QVL_OK);
    assert_string_equal(err.text, "");
    assert_int_equal(qvl_fail(NULL, QVL_EUSAGE, "nobody listens"), QVL_EUSAGE);
    qvl_err_clear(NULL);
    assert_int_equal(qvl_fail_errno(&err, ENOENT, 0, "x"), QVL_EMISSING);
    assert_string_equal(err.text, "x: No such file or directory");
    qvl_err_clear(&err);
    assert_int_equal(qvl_fail_errno(&err, ENOENT, 1, "x"), QVL_EIO);
    qvl_err_clear(&err);
    assert_int_equal(qvl_fail_errno(&err, EIO, 0, "x"), QVL_EIO);
    qvl_err_clear(&err);
    assert_int_equal(qvl_fail_errno(&err, EACCES, 0, "%2000s", "x"), QVL_EMISSING);
    assert_int_equal(strlen(err.text), QVL_ERR_TEXT_BYTES - 1);
    qvl_err_clear(&err);
    assert_int_equal(qvl_fail_memory(&err, 12, "tokens"), QVL_EINTERNAL);
    assert_string_equal(err.text, "out of memory: 12 bytes for tokens");
    assert_string_equal(qvl_status_name(QVL_ESTOPPED), "QVL_ESTOPPED");
    assert_string_equal(qvl_status_name((qvl_status)3), "unknown status");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overflow_is_seen),
        cmocka_unit_test(allocation),
        cmocka_unit_test(reserving),
        cmocka_unit_test(copies_of_texts),
        cmocka_unit_test(sizes_as_text),
        cmocka_unit_test(a_plan_places_slots),
        cmocka_unit_test(the_first_failure_is_kept),
    };
    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
