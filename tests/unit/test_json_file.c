/* Reading JSON files, their members, and printing JSON as Python does. */
#include "io/json_file.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/scratch_files.h"

static json_t *value_of(const char *text)
{
    json_error_t why;
    json_t *value = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
    if (!value)
        fail_msg("%s: %s", text, why.text);
    return value;
}

static void files_are_read(void **state)
{
    (void)state;
    static const char *const BAD[][2] = {
        {"", "f.json:1:0: "},
        {"{\"a\": 1,\n \"b\": }", "f.json:2:"},
        {"{\"a\": 1}\n x", "f.json:2:"},
        {"{\"a\": 1,\n\"a\": 2}", "f.json:2:"},
        {"{\"a\": \"\xff\"}", "f.json:1:|unable to decode byte 0xff"},
        {"1", "f.json:1:"},
        {"{\"a\": 99999999999999999999}", "f.json:1:|too big"},
    };
    char path[QVL_PATH_BYTES];
    json_t *value = NULL;
    qvl_err err = {0};
    write_text(scratch_path(path, "f.json"), "\xef\xbb\xbf{\"a\": [1]}\n");
    expect_ok(qvl_json_read(&value, path, 100, &err), &err);
    assert_int_equal(json_array_size(json_object_get(value, "a")), 1);
    json_decref(value);
    expect_failure(qvl_json_read(&value, path, 13, &err), QVL_EDATA, &err, "larger than the limit");
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        write_text(path, BAD[i][0]);
        expect_failure(qvl_json_read(&value, path, 100, &err), QVL_EDATA, &err, BAD[i][1]);
    }
    expect_failure(qvl_json_read(&value, "nowhere", 100, &err), QVL_EMISSING, &err, "nowhere");
}

static void members_have_types(void **state)
{
    (void)state;
    json_t *o =
        value_of("{\"i\": 7, \"r\": 7.5, \"t\": \"x\", \"b\": true, \"n\": null, \"l\": [], "
                 "\"o\": {}}");
    int64_t whole = -1;
    double number = -1.0;
    bool flag = true;
    const char *text = "kept";
    qvl_err err = {0};
    expect_ok(qvl_json_get_i64(&whole, o, "none", 0, 9, "f", &err), &err);
    expect_ok(qvl_json_get_i64(&whole, o, "n", 0, 9, "f", &err), &err);
    assert_int_equal(whole, -1);
    expect_ok(qvl_json_get_i64(&whole, o, "i", 7, 7, "f", &err), &err);
    assert_int_equal(whole, 7);
    expect_failure(qvl_json_get_i64(&whole, o, "i", 8, 9, "f", &err), QVL_EDATA, &err,
                   "f: i is 7, expected 8 to 9");
    expect_failure(qvl_json_get_i64(&whole, o, "r", 0, 9, "f", &err), QVL_EDATA, &err,
                   "f: r is a number, expected a whole number");
    expect_ok(qvl_json_get_double(&number, o, "none", "f", &err), &err);
    expect_ok(qvl_json_get_double(&number, o, "i", "f", &err), &err);
    assert_true(number == 7.0);
    expect_failure(qvl_json_get_double(&number, o, "t", "f", &err), QVL_EDATA, &err,
                   "f: t is a text, expected a number");
    expect_ok(qvl_json_get_bool(&flag, o, "n", "f", &err), &err);
    assert_true(flag);
    expect_failure(qvl_json_get_bool(&flag, o, "i", "f", &err), QVL_EDATA, &err,
                   "f: i is a whole number, expected true or false");
    expect_ok(qvl_json_get_text(&text, o, "n", "f", &err), &err);
    assert_string_equal(text, "kept");
    expect_failure(qvl_json_get_text(&text, o, "b", "f", &err), QVL_EDATA, &err,
                   "f: b is a boolean, expected a text");
    expect_failure(qvl_json_get_text(&text, o, "l", "f", &err), QVL_EDATA, &err, "l is a list");
    expect_failure(qvl_json_get_text(&text, o, "o", "f", &err), QVL_EDATA, &err, "o is an object");
    json_decref(o);
}

/* json.dumps(json.loads(text), ensure_ascii=False) in Python 3. */
static void dumps_are_pythons(void **state)
{
    (void)state;
    static const char *const CASES[][2] = {
        {"{}", "{}"},
        {"[]", "[]"},
        {"[[],{}, null,true,false]", "[[], {}, null, true, false]"},
        {"{\"b\":1,\"a\":{\"z\":[1,2],\"y\":-3}}", "{\"b\": 1, \"a\": {\"z\": [1, 2], \"y\": -3}}"},
        {"[1.0,0.1,1e5,1e-5,1e16,-0.0,123456789.125,2.5E+3]",
         "[1.0, 0.1, 100000.0, 1e-05, 1e+16, -0.0, 123456789.125, 2500.0]"},
        {"[9223372036854775807,-9223372036854775808]",
         "[9223372036854775807, -9223372036854775808]"},
        {"\"\\u00e9 \\u4f60 \\ud83d\\ude00 / \\/ \\u007f\"",
         "\"\xc3\xa9 \xe4\xbd\xa0 \xf0\x9f\x98\x80 / / \x7f\""},
        {"\"\\\" \\\\ \\n \\r \\t \\b \\f \\u0001 \\u001f \\u0000 \\u2028\"",
         "\"\\\" \\\\ \\n \\r \\t \\b \\f \\u0001 \\u001f \\u0000 \xe2\x80\xa8\""},
        {"{\"k\\\"\\n\\u00e9\":\"\"}", "{\"k\\\"\\n\xc3\xa9\": \"\"}"},
        {"{\"a\":1,\"b\":2,\"a\":3}", "{\"a\": 3, \"b\": 2}"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        qvl_text out = {0};
        json_t *value = value_of(CASES[i][0]);
        assert_int_equal(qvl_json_dump_python(&out, value, NULL), QVL_OK);
        assert_string_equal(out.data, CASES[i][1]);
        qvl_text_fini(&out);
        json_decref(value);
    }
}

/* Members stay in the order of the file, however many there are. */
static void members_keep_their_order(void **state)
{
    (void)state;
    qvl_text text = {0}, out = {0};
    assert_int_equal(qvl_text_puts(&text, "{", NULL), QVL_OK);
    for (int i = 0; i < 3000; i++)
        assert_int_equal(
            qvl_text_printf(&text, NULL, "%s\"k%d\": %d", i ? ", " : "", i * 7919 % 3001, i),
            QVL_OK);
    assert_int_equal(qvl_text_puts(&text, "}", NULL), QVL_OK);
    json_t *value = value_of(text.data);
    assert_int_equal(qvl_json_dump_python(&out, value, NULL), QVL_OK);
    assert_string_equal(out.data, text.data);
    json_decref(value);
    qvl_text_fini(&text);
    qvl_text_fini(&out);
}

/* json.dumps(..., indent=2, sort_keys=True) */
static void indented_dumps_are_pythons(void **state)
{
    (void)state;
    json_t *value = value_of("{\"b\":[1,{\"d\":[],\"c\":{}}],\"a\":0.5,\"B\":[[2]]}");
    qvl_text out = {0};
    json_object_set_new(value, "n", qvl_json_real((double)NAN));
    assert_int_equal(qvl_json_dump_indented(&out, value, 2, NULL), QVL_OK);
    assert_string_equal(out.data, "{\n"
                                  "  \"B\": [\n"
                                  "    [\n"
                                  "      2\n"
                                  "    ]\n"
                                  "  ],\n"
                                  "  \"a\": 0.5,\n"
                                  "  \"b\": [\n"
                                  "    1,\n"
                                  "    {\n"
                                  "      \"c\": {},\n"
                                  "      \"d\": []\n"
                                  "    }\n"
                                  "  ],\n"
                                  "  \"n\": \"NaN\"\n"
                                  "}");
    qvl_text_fini(&out);
    json_decref(value);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_read),
        cmocka_unit_test(members_have_types),
        cmocka_unit_test(dumps_are_pythons),
        cmocka_unit_test(members_keep_their_order),
        cmocka_unit_test(indented_dumps_are_pythons),
    };
    return cmocka_run_group_tests_name("json_file", tests, scratch_make, scratch_remove);
}
