/* A JSON file, its members by type, and both ways to print it, which must read back the same. */
#include <stdlib.h>
#include <string.h>

#include "io/json_file.h"
#include "tests/fuzz/fuzz.h"

static void check_members(const json_t *root)
{
    int64_t whole = 3;
    double number = 0.5;
    bool flag = false;
    const char *text = "t";
    qvl_err err = {0};
    fuzz_expect(qvl_json_get_i64(&whole, root, "a", 0, 9, "x.json", &err), &err);
    FUZZ_CHECK(whole >= 0 && whole <= 9);
    qvl_err_clear(&err);
    fuzz_expect(qvl_json_get_double(&number, root, "a", "x.json", &err), &err);
    qvl_err_clear(&err);
    fuzz_expect(qvl_json_get_bool(&flag, root, "a", "x.json", &err), &err);
    qvl_err_clear(&err);
    fuzz_expect(qvl_json_get_text(&text, root, "a", "x.json", &err), &err);
    FUZZ_CHECK(text != NULL);
}

static void check_print(const json_t *root,
                        qvl_status (*print)(qvl_text *out, const json_t *value, qvl_err *err))
{
    qvl_text text = {0};
    qvl_err err = {0};
    FUZZ_CHECK(print(&text, root, &err) == QVL_OK);
    json_t *again = json_loadb(text.data, text.len, JSON_DECODE_ANY, NULL);
    FUZZ_CHECK(again && json_equal(again, root));
    json_decref(again);
    qvl_text_fini(&text);
}

static qvl_status print_indented(qvl_text *out, const json_t *value, qvl_err *err)
{
    return qvl_json_dump_indented(out, value, 2, err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *root = NULL;
    qvl_err err = {0};
    const qvl_status rc =
        qvl_json_read(&root, fuzz_file("x.json", data, size), (size_t)1 << 20, &err);
    fuzz_expect(rc, &err);
    if (rc == QVL_OK) {
        check_members(root);
        check_print(root, qvl_json_dump_python);
        check_print(root, print_indented);
    }
    json_decref(root);
    return 0;
}
