/* Records of JSON arrays and JSON lines: where they are, and what is said of files that are wrong.
 */
#include "io/record_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/scratch_files.h"

static const char *file_with(char path[QVL_PATH_BYTES], const char *text, size_t n)
{
    write_file(scratch_path(path, "records.json"), text, n);
    return path;
}

/* The file has these n records, which are what lies between the bars of "{..}|{..}". */
static void expect_records(const char *text, size_t n_bytes, const char *records)
{
    char path[QVL_PATH_BYTES];
    qvl_record_list list = {0};
    qvl_err err = {0};
    if (qvl_record_list_scan(&list, file_with(path, text, n_bytes), &err) != QVL_OK)
        fail_msg("%s: %s", text, err.text);
    size_t i = 0;
    for (const char *at = records; *at; i++) {
        const size_t length = strcspn(at, "|");
        assert_true(i < list.count);
        assert_int_equal(list.spans[i].length, length);
        assert_memory_equal(text + list.spans[i].offset, at, length);
        int64_t line = 1;
        for (int64_t k = 0; k < list.spans[i].offset; k++)
            line += text[k] == '\n';
        assert_int_equal(list.spans[i].line, line);
        at += length + (at[length] == '|');
    }
    assert_int_equal(list.count, i);
    char sha256[QVL_SHA256_TEXT_BYTES];
    assert_int_equal(qvl_sha256_bytes(sha256, text, n_bytes, NULL), QVL_OK);
    assert_string_equal(list.sha256, sha256);
    qvl_record_list_fini(&list);
}

static void records_are_found(void **state)
{
    (void)state;
    static const char *const CASES[][2] = {
        {"[]", ""},
        {" [ \n ] \n", ""},
        {"[{}]", "{}"},
        {"[{\"a\":1},{\"b\":2}]", "{\"a\":1}|{\"b\":2}"},
        {"[\n  {\n\"a\": 1\n} ,\r\n\t{}\n]\n", "{\n\"a\": 1\n}|{}"},
        {"{\"a\":1}\n{\"b\":2}\n", "{\"a\":1}|{\"b\":2}"},
        {"{\"a\":1}\r\n\r\n{\"b\":2}", "{\"a\":1}|{\"b\":2}"},
        {"{\"a\":1}{\"b\":2} {}", "{\"a\":1}|{\"b\":2}|{}"},
        {"{\"a\": {\"b\": [{}, [[]]]}}\n{}", "{\"a\": {\"b\": [{}, [[]]]}}|{}"},
        {"[{\"a\":\"}],{\\\"\\\\\"},{\"b\":\"\\\\\\\"}\"}]",
         "{\"a\":\"}],{\\\"\\\\\"}|{\"b\":\"\\\\\\\"}\"}"},
        {"\xef\xbb\xbf[{}]", "{}"},
        {"\xef\xbb\xbf{}\n{}", "{}|{}"},
        {"\n\n\n{\"x\":\"\xc3\xa9\"}", "{\"x\":\"\xc3\xa9\"}"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        expect_records(CASES[i][0], strlen(CASES[i][0]), CASES[i][1]);
}

static void wrong_files_are_refused(void **state)
{
    (void)state;
    static const char *const CASES[][2] = {
        {"", "records.json: is empty"},
        {" \n\n\t", "records.json: is empty"},
        {"\xef\xbb\xbf", "records.json: is empty"},
        {"hello", "records.json:1: found 'h', expected '[' or '{'"},
        {"\n\n\"a\"", "records.json:3: found '\"', expected '[' or '{'"},
        {"[", "records.json:1: the array does not end with ']'"},
        {"[{}\n,\n", "records.json:3: the array does not end with ']'"},
        {"[{}\n", "records.json:2: the array does not end with ']'"},
        {"[{},\n]", "records.json:2: found ']', expected an object '{'"},
        {"[\n{},\n,{}]", "records.json:3: found ',', expected an object '{'"},
        {"[,{}]", "records.json:1: found ',', expected an object '{'"},
        {"[{}\n{}]", "records.json:2: found '{', expected ',' or ']' after a record"},
        {"[{}}]", "records.json:1: found '}', expected ',' or ']' after a record"},
        {"[1, 2]", "records.json:1: found '1', expected an object '{'"},
        {"[[]]", "records.json:1: found '[', expected an object '{'"},
        {"[{}]\n\n[{}]", "records.json:3: found '[', expected nothing after the array"},
        {"[{}] x", "records.json:1: found 'x', expected nothing after the array"},
        {"{\"a\": [1, 2\n\n\n", "records.json:1: the record that begins here does not end"},
        {"{\"a\": [1}\n{}\n",
         "records.json:1: found '}', expected ']' in the record that begins in line 1"},
        {"[\n{},\n{\"a\": {}\n]",
         "records.json:4: found ']', expected '}' in the record that begins in line 3"},
        {"[{\"a\": ]}]",
         "records.json:1: found ']', expected '}' in the record that begins in line 1"},
        {"\xff\xfe[", "records.json:1: found 'another byte', expected '[' or '{'"},
    };
    char path[QVL_PATH_BYTES];
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        qvl_record_list list = {0};
        qvl_err err = {0};
        file_with(path, CASES[i][0], strlen(CASES[i][0]));
        expect_failure(qvl_record_list_scan(&list, path, &err), QVL_EDATA, &err, CASES[i][1]);
        qvl_record_list_fini(&list);
    }
    qvl_record_list list = {0};
    qvl_err err = {0};
    expect_failure(qvl_record_list_scan(&list, "nowhere.json", &err), QVL_EMISSING, &err,
                   "nowhere");
    expect_failure(qvl_record_list_scan(&list, scratch, &err), QVL_EMISSING, &err,
                   "is a directory");
}

/* Of JSON lines the others are found; those that are wrong are records that are refused. */
static void torn_lines_are_bad_records(void **state)
{
    (void)state;
    static const struct {
        const char *text, *records;
        size_t bad; /* which of them */
        const char *why;
    } CASES[] = {
        {"{}\n{},\n{}\n", "{}|{}|,|{}", 2, "records.json:2: '[' or '{' expected near ','"},
        {"{}\n]", "{}|]", 1, "records.json:2: '[' or '{' expected near ']'"},
        {"{}\nnull\n{}", "{}|null|{}", 1, "records.json:2: '[' or '{' expected near 'null'"},
        {"{}\n\x01\n", "{}|\x01", 1, "records.json:2: "},
        {"{}\n[1, {}]\n{}", "{}|[1, {}]|{}", 1, "records.json:2: a record must be an object '{'"},
        {"{}\n\n{\"a\": [1, 2\n\n\n{}", "{}|{\"a\": [1, 2|{}", 1, "records.json:3: ']' expected"},
        {"{}\n{\"a\": \"b}\n{}\n", "{}|{\"a\": \"b}|{}", 1, "records.json:2: premature end"},
        {"{}\n{\"a\": \"b\\\"}\r\n{}", "{}|{\"a\": \"b\\\"}\r|{}", 1, "records.json:2: "},
        {"{}\n{\"a\": \"b\\\n{}", "{}|{\"a\": \"b\\|{}", 1, "records.json:2: "},
        {"{}\n{\"a\": [1}\n{}", "{}|{\"a\": [1}|{}", 1, "records.json:2: ']' expected near '}'"},
        {"{}\n{\"a\": 1}}\n{}", "{}|{\"a\": 1}|}|{}", 2, "records.json:2: "},
        {"{}\n{\"a\": {\"b\"", "{}|{\"a\": {\"b\"", 1, "records.json:2: ':' expected"},
        {"{\"a\": \"b\n{}\n", "{\"a\": \"b|{}", 0, "records.json:1: premature end"},
    };
    char path[QVL_PATH_BYTES];
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        qvl_record_list list = {0};
        qvl_text scratch_text = {0};
        json_t *value = NULL;
        expect_records(CASES[i].text, strlen(CASES[i].text), CASES[i].records);
        file_with(path, CASES[i].text, strlen(CASES[i].text));
        assert_int_equal(qvl_record_list_scan(&list, path, NULL), QVL_OK);
        const int fd = open(path, O_RDONLY);
        for (size_t k = 0; k < list.count; k++) {
            qvl_err err = {0};
            const qvl_status rc =
                qvl_record_read(&value, fd, path, &list.spans[k], &scratch_text, &err);
            if (k == CASES[i].bad)
                expect_failure(rc, QVL_EDATA, &err, CASES[i].why);
            else
                expect_ok(rc, &err);
            json_decref(value);
            value = NULL;
        }
        close(fd);
        qvl_text_fini(&scratch_text);
        qvl_record_list_fini(&list);
    }
}

/* The middle record of a file is read; QVL_OK gives its text as Python prints it. */
static qvl_status read_middle(char out[256], const char *record, size_t n, qvl_err *err)
{
    char path[QVL_PATH_BYTES], text[1024];
    qvl_record_list list = {0};
    qvl_text scratch_text = {0};
    json_t *value = NULL;
    const int before = snprintf(text, sizeof text, "[\n {\"first\": 1},\n\n ");
    memcpy(text + before, record, n);
    const int after = snprintf(text + before + n, sizeof text - 100 - n, ",\n {}\n]\n");
    file_with(path, text, (size_t)before + n + (size_t)after);
    assert_int_equal(qvl_record_list_scan(&list, path, err), QVL_OK);
    assert_int_equal(list.count, 3);
    const int fd = open(path, O_RDONLY);
    const qvl_status rc = qvl_record_read(&value, fd, path, &list.spans[1], &scratch_text, err);
    if (rc == QVL_OK) {
        char *dumped = json_dumps(value, JSON_REAL_PRECISION(17));
        snprintf(out, 256, "%s", dumped);
        free(dumped);
    }
    json_decref(value);
    close(fd);
    qvl_text_fini(&scratch_text);
    qvl_record_list_fini(&list);
    return rc;
}

static void records_are_parsed(void **state)
{
    (void)state;
    static const char *const CASES[][2] = {
        {"{\"a\": [1, 2.5, true, null, \"x\"]}", "{\"a\": [1, 2.5, true, null, \"x\"]}"},
        {"{\"a\": \"\\u00e9\\ud83d\\ude00\\n\"}", "{\"a\": \"\xc3\xa9\xf0\x9f\x98\x80\\n\"}"},
        {"{\"a\": \"x\\u0000y\"}", "{\"a\": \"x\\u0000y\"}"},
        {"{\"a\": 1, \"b\": 2, \"a\": 3}", "{\"a\": 3, \"b\": 2}"},
        /* past 64 bits: that number becomes a real, the others stay what they are */
        {"{\"a\": 9223372036854775807, \"b\": -9223372036854775808}",
         "{\"a\": 9223372036854775807, \"b\": -9223372036854775808}"},
        {"{\"a\": 9223372036854775808, \"b\": 1, \"c\": \"9223372036854775808 \\\" 1\"}",
         "{\"a\": 9.2233720368547758e18, \"b\": 1, \"c\": \"9223372036854775808 \\\" 1\"}"},
        {"{\"a\": 9223372036854775808, \"b\": [9223372036854775807, -9223372036854775808]}",
         "{\"a\": 9.2233720368547758e18, \"b\": [9223372036854775807, -9223372036854775808]}"},
        {"{\"a\": [-99999999999999999999999999,12], \"9\\\\\": 1.5e3}",
         "{\"a\": [-1e26, 12], \"9\\\\\": 1500.0}"},
    };
    char out[256];
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        qvl_err err = {0};
        expect_ok(read_middle(out, CASES[i][0], strlen(CASES[i][0]), &err), &err);
        assert_string_equal(out, CASES[i][1]);
    }
}

/* The record begins in line 4 of the file. */
static void faults_in_records_name_the_line(void **state)
{
    (void)state;
    static const char *const CASES[][2] = {
        {"{\"a\" 1}", "records.json:4: ':' expected"},
        {"{\"a\": 1,\n \"b\" 2}", "records.json:5: ':' expected"},
        {"{\n\"a\": 1,\n\n\"b\": tru}", "records.json:7: "},
        {"{\"a\": 1,}", "records.json:4: "},
        {"{'a': 1}", "records.json:4: "},
        {"{\"a\": \"two\nlines\"}", "records.json:4: unexpected newline"},
        {"{\"a\":\n \"\xff\"}", "records.json:5: unable to decode byte 0xff"},
        {"{\"a\": \"caf\xe9\"}", "records.json:4: "},
        {"{\"a\": \"\xed\xa0\x80\"}", "records.json:4: "},
        {"{\"a\": \"\\ud83d\"}", "records.json:4: invalid Unicode"},
        {"{\"a\":\n\n\"\\udc00x\"}", "records.json:6: invalid Unicode"},
        {"{\"a\": \"\\ud83d\\u0041\"}", "records.json:4: invalid Unicode"},
        {"{\"a\": \"\\x\"}", "records.json:4: invalid escape"},
        {"{\"\\u0000\": 1}", "records.json:4: "},
        {"{\"a\": 1e999}", "records.json:4: real number overflow"},
        {"{\"a\": NaN}", "records.json:4: invalid token"},
        {"{\"a\": 01}", "records.json:4: "},
        {"{\"a\": \"\x1b[1m\"}", "records.json:4: control character 0x1b"},
    };
    char out[256];
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        qvl_err err = {0};
        const size_t n = strlen(CASES[i][0]);
        expect_failure(read_middle(out, CASES[i][0], n, &err), QVL_EDATA, &err, CASES[i][1]);
    }
    qvl_err err = {0};
    expect_failure(read_middle(out, "{\"a\": \"x\0y\"}", 12, &err), QVL_EDATA, &err,
                   "records.json:4: ");
}

static void nesting_is_bounded(void **state)
{
    (void)state;
    enum { DEPTH = 2047, DEEPER = 200000 };
    char path[QVL_PATH_BYTES], *text = malloc(2 * DEEPER + 16);
    qvl_record_list list = {0};
    qvl_text scratch_text = {0};
    qvl_err err = {0};
    json_t *value = NULL;
    assert_non_null(text);
    for (int depth = DEPTH; depth <= DEEPER; depth += DEEPER - DEPTH) {
        const int n = snprintf(text, 8, "{\n\"a\":");
        memset(text + n, '[', (size_t)depth);
        memset(text + n + depth, ']', (size_t)depth);
        text[n + 2 * depth] = '}';
        file_with(path, text, (size_t)n + 2 * (size_t)depth + 1);
        const qvl_status rc = qvl_record_list_scan(&list, path, &err);
        if (depth == DEPTH)
            expect_ok(rc, &err);
        else
            expect_failure(rc, QVL_EDATA, &err, "records.json:2: nested deeper than 2048");
        if (depth == DEPTH) {
            const int fd = open(path, O_RDONLY);
            expect_ok(qvl_record_read(&value, fd, path, &list.spans[0], &scratch_text, &err), &err);
            json_decref(value);
            close(fd);
        }
        qvl_record_list_fini(&list);
    }
    qvl_text_fini(&scratch_text);
    free(text);
}

/* Across the blocks in which a file is read, and up to the largest record. */
static void large_files(void **state)
{
    (void)state;
    enum { N = 40000 };
    char path[QVL_PATH_BYTES];
    qvl_text text = {0};
    qvl_record_list list = {0};
    qvl_err err = {0};
    for (int i = 0; i < N; i++)
        assert_int_equal(qvl_text_printf(&text, NULL,
                                         "%s{\"number\": %d, \"text\": \"}{\\\"%*s\"}\n",
                                         i ? "," : "[", i, i % 97, ""),
                         QVL_OK);
    assert_int_equal(qvl_text_puts(&text, "]", NULL), QVL_OK);
    assert_true(text.len > 2 << 20);
    file_with(path, text.data, text.len);
    expect_ok(qvl_record_list_scan(&list, path, &err), &err);
    assert_int_equal(list.count, N);
    const int fd = open(path, O_RDONLY);
    for (int i = 0; i < N; i += 997) {
        json_t *value = NULL;
        qvl_text scratch_text = {0};
        expect_ok(qvl_record_read(&value, fd, path, &list.spans[i], &scratch_text, &err), &err);
        assert_int_equal(json_integer_value(json_object_get(value, "number")), i);
        assert_int_equal(list.spans[i].line, i + 1);
        json_decref(value);
        qvl_text_fini(&scratch_text);
    }
    close(fd);
    qvl_record_list_fini(&list);
    qvl_text_clear(&text);
    assert_int_equal(
        qvl_text_printf(&text, NULL, "{}\n{\"a\": \"%*s\"}", QVL_RECORD_LIMIT_BYTES, ""), QVL_OK);
    file_with(path, text.data, text.len);
    expect_failure(qvl_record_list_scan(&list, path, &err), QVL_EDATA, &err,
                   "records.json:2: the record that begins here has no end within 64 MiB");
    qvl_record_list_fini(&list);
    qvl_text_fini(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_are_found),
        cmocka_unit_test(wrong_files_are_refused),
        cmocka_unit_test(torn_lines_are_bad_records),
        cmocka_unit_test(records_are_parsed),
        cmocka_unit_test(faults_in_records_name_the_line),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(large_files),
    };
    return cmocka_run_group_tests_name("record_file", tests, scratch_make, scratch_remove);
}
