/* Growing texts, distances of names, UTF-8, and numbers from and to text. */
#include "src/base/text.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void a_text_grows(void **state)
{
    (void)state;
    qvl_text text = {0};
    assert_int_equal(qvl_text_add(&text, NULL, 0, NULL), QVL_OK);
    assert_string_equal(text.data, "");
    assert_int_equal(qvl_text_add(&text, "a\0b", 3, NULL), QVL_OK);
    assert_int_equal(text.len, 3);
    assert_memory_equal(text.data, "a\0b", 4);
    qvl_text_clear(&text);
    assert_int_equal(text.len, 0);
    for (int i = 0; i < 2000; i++)
        assert_int_equal(qvl_text_printf(&text, NULL, "%d,", i % 10), QVL_OK);
    assert_int_equal(text.len, 4000);
    assert_int_equal(strlen(text.data), 4000);
    assert_memory_equal(text.data + 3990, "5,6,7,8,9,", 11);
    assert_int_equal(qvl_text_printf(&text, NULL, "%s", ""), QVL_OK);
    assert_int_equal(text.len, 4000);
    qvl_text_fini(&text);
    assert_null(text.data);
    qvl_text_fini(&text);
    qvl_text_fini(NULL);
}

static void edit_distance(void **state)
{
    (void)state;
    assert_int_equal(qvl_edit_distance("", ""), 0);
    assert_int_equal(qvl_edit_distance("", "abc"), 3);
    assert_int_equal(qvl_edit_distance("abc", ""), 3);
    assert_int_equal(qvl_edit_distance("kitten", "sitting"), 3);
    assert_int_equal(qvl_edit_distance("lora_rnak", "lora_rank"), 2);
    assert_int_equal(qvl_edit_distance("flaw", "lawn"), 2);
    char a[67], b[67];
    memset(a, 'a', 66);
    memset(b, 'b', 66);
    a[64] = b[64] = '\0';
    assert_int_equal(qvl_edit_distance(a, b), 64);
    a[64] = 'a';
    a[65] = '\0';
    assert_int_equal(qvl_edit_distance(a, b), 99);
    assert_int_equal(qvl_edit_distance(b, a), 99);
}

static void utf8(void **state)
{
    (void)state;
    static const char *const GOOD[] = {"",
                                       "a",
                                       "\x7f",
                                       "\xc2\x80",
                                       "\xdf\xbf",
                                       "\xe0\xa0\x80",
                                       "\xed\x9f\xbf",
                                       "\xee\x80\x80",
                                       "\xef\xbf\xbf",
                                       "\xf0\x90\x80\x80",
                                       "\xf4\x8f\xbf\xbf"};
    static const struct {
        const char *text;
        size_t offset;
    } BAD[] = {{"\x80", 0},
               {"a\xbf", 1},
               {"\xc0\x80", 0},
               {"\xc1\xbf", 0},
               {"ab\xc2", 2},
               {"\xc2\x7f", 0},
               {"\xe0\x9f\xbf", 0},
               {"\xe1\x80", 0},
               {"\xed\xa0\x80", 0},
               {"\xed\xbf\xbf", 0},
               {"\xf0\x8f\xbf\xbf", 0},
               {"\xf4\x90\x80\x80", 0},
               {"\xf5\x80\x80\x80", 0},
               {"\xff", 0},
               {"\xc3\xa9\xe4\xbd", 2},
               {"\xf0\x9f\x98", 0}};
    for (size_t i = 0; i < sizeof GOOD / sizeof *GOOD; i++)
        assert_true(qvl_utf8_is_valid(GOOD[i], strlen(GOOD[i]), NULL));
    assert_true(qvl_utf8_is_valid("\0", 1, NULL));
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        size_t offset = 99;
        assert_false(qvl_utf8_is_valid(BAD[i].text, strlen(BAD[i].text), &offset));
        assert_int_equal(offset, BAD[i].offset);
    }
}

static void whole_numbers(void **state)
{
    (void)state;
    static const char *const BAD[] = {
        "", " 1", "1 ", "\t1", "1x", "0x10", "1.0", "1e3", "-", "--1", "9223372036854775808"};
    int64_t value = 0;
    assert_true(qvl_parse_i64("-12", &value) && value == -12);
    assert_true(qvl_parse_i64("+7", &value) && value == 7);
    assert_true(qvl_parse_i64("007", &value) && value == 7);
    assert_true(qvl_parse_i64("9223372036854775807", &value) && value == INT64_MAX);
    assert_true(qvl_parse_i64("-9223372036854775808", &value) && value == INT64_MIN);
    value = 5;
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++)
        assert_false(qvl_parse_i64(BAD[i], &value));
    assert_int_equal(value, 5);
}

static void numbers(void **state)
{
    (void)state;
    static const char *const BAD[] = {"",      " 1",  "1 ",    "nan", "inf", "0x1p3", "1e",
                                      "1e400", "1,5", "1_000", ".",   "e5",  "1.2.3", "--1"};
    double value = 0.0;
    assert_true(qvl_parse_double("1e-4", &value) && value == 1e-4);
    assert_true(qvl_parse_double("-1.5E+3", &value) && value == -1500.0);
    assert_true(qvl_parse_double(".5", &value) && value == 0.5);
    assert_true(qvl_parse_double("5.", &value) && value == 5.0);
    assert_true(qvl_parse_double("1e-400", &value) && value == 0.0);
    value = 3.0;
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++)
        if (qvl_parse_double(BAD[i], &value))
            fail_msg("\"%s\" is taken for a number", BAD[i]);
    assert_true(value == 3.0);
}

/* What Python 3 prints with repr(). */
static void doubles_print_as_in_python(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } CASES[] = {
        {0.0, "0.0"},
        {-0.0, "-0.0"},
        {1.0, "1.0"},
        {0.1, "0.1"},
        {-2.5, "-2.5"},
        {1e-4, "0.0001"},
        {1e-5, "1e-05"},
        {0.00012345, "0.00012345"},
        {1e15, "1000000000000000.0"},
        {1e16, "1e+16"},
        {123456789012345.6, "123456789012345.6"},
        {1.2345678901234568e17, "1.2345678901234568e+17"},
        {1e22, "1e+22"},
        {1e100, "1e+100"},
        {5e-324, "5e-324"},
        {1.7976931348623157e308, "1.7976931348623157e+308"},
        {0.30000000000000004, "0.30000000000000004"},
        {2.0 / 3.0, "0.6666666666666666"},
        {100.0, "100.0"},
        {1e-7, "1e-07"},
        {1.5e-7, "1.5e-07"},
        /* powers of two, where the nearest short decimal does not read back and the next does */
        {0x1p-1017, "7.120236347223045e-307"},
        {-0x1p-140, "-7.174648137343064e-43"},
    };
    char buffer[40];
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        assert_string_equal(qvl_format_double(buffer, CASES[i].value), CASES[i].text);
    assert_string_equal(qvl_format_double(buffer, (double)NAN), "NaN");
    assert_string_equal(qvl_format_double(buffer, (double)INFINITY), "Infinity");
    assert_string_equal(qvl_format_double(buffer, -(double)INFINITY), "-Infinity");
}

/* Nothing that a file says may steer a terminal. */
static void one_line_is_kept(void **state)
{
    static const struct {
        const char *text, *kept;
    } CASES[] = {
        {"", ""},
        {"a b~ \u00dc\u5b66 \U0001f600", "a b~ \u00dc\u5b66 \U0001f600"},
        {"a\nb\rc\td\x1b[31me\x7f", "a?b?c?d?[31me?"},
        {"\xc2\x9b"
         "31m \xc2\x80 \xc2\x9f \xc2\xa0",
         "??31m ?? ?? \xc2\xa0"},
        {"\x9b"
         "31m \xff \xc2",
         "?31m ? ?"},
        {"cut \xe5\xad", "cut ??"},
        {"\xe5\xad\n", "???"},
    };
    char text[64];
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        strcpy(text, CASES[i].text);
        qvl_text_keep_one_line(text);
        assert_string_equal(text, CASES[i].kept);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_grows),
        cmocka_unit_test(edit_distance),
        cmocka_unit_test(utf8),
        cmocka_unit_test(whole_numbers),
        cmocka_unit_test(numbers),
        cmocka_unit_test(doubles_print_as_in_python),
        cmocka_unit_test(one_line_is_kept),
    };
    return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}
