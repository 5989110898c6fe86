/* The exact text of each turn. What is expected was printed by Python: json.dumps(value,
 * ensure_ascii=False) within the template's words. */
#include "io/chat_template.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

typedef qvl_status (*add_function)(qvl_text *, const char *, size_t, qvl_err *);

static void expect_turn(add_function add, const char *content, const char *expected)
{
    qvl_text out = {0};
    qvl_err err = {0};
    if (add(&out, content, strlen(content), &err) != QVL_OK)
        fail_msg("%s: %s", content, err.text);
    assert_string_equal(out.data, expected);
    qvl_text_fini(&out);
}

static void expect_system(const char *system, const char *fallback, const char *tools,
                          const char *expected)
{
    qvl_text out = {0};
    qvl_err err = {0};
    assert_int_equal(qvl_text_puts(&out, "", NULL), QVL_OK);
    if (qvl_chat_add_system(&out, system, strlen(system), fallback, tools, strlen(tools), &err) !=
        QVL_OK)
        fail_msg("%s: %s", tools, err.text);
    assert_string_equal(out.data, expected);
    qvl_text_fini(&out);
}

static void turns(void **state)
{
    (void)state;
    expect_turn(qvl_chat_add_user, "Who?",
                "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n");
    expect_turn(qvl_chat_add_user, "", "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n");
    expect_turn(qvl_chat_add_assistant, "Me.\n", "Me.\n<|im_end|>\n");
    expect_turn(qvl_chat_add_assistant, "", "<|im_end|>\n");
    expect_turn(qvl_chat_add_observation, "{\"t\": 3}",
                "<|im_start|>user\n<tool_response>\n{\"t\": 3}\n</tool_response><|im_end|>\n"
                "<|im_start|>assistant\n");
    qvl_text out = {0};
    assert_int_equal(qvl_chat_add_user(&out, "a\0b", 3, NULL), QVL_OK);
    assert_int_equal(out.len, 17 + 3 + 33);
    assert_memory_equal(out.data + 17, "a\0b<|im_end|>", 13);
    qvl_text_fini(&out);
}

static void images(void **state)
{
    (void)state;
    qvl_text out = {0};
    assert_int_equal(qvl_chat_add_image(&out, 3, NULL), QVL_OK);
    assert_int_equal(qvl_chat_add_image(&out, 0, NULL), QVL_OK);
    assert_string_equal(out.data, "<|vision_start|><|image_pad|><|image_pad|><|image_pad|>"
                                  "<|vision_end|><|vision_start|><|vision_end|>");
    qvl_text_fini(&out);
}

static void system_turns(void **state)
{
    (void)state;
    const char ours[] = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n";
    expect_system("", NULL, "", ours);
    expect_system("Be brief.", NULL, "", "<|im_start|>system\nBe brief.<|im_end|>\n");
    expect_system("", "Be kind.", "", "<|im_start|>system\nBe kind.<|im_end|>\n");
    expect_system("Be brief.", "Be kind.", "", "<|im_start|>system\nBe brief.<|im_end|>\n");
    expect_system("", "", "", ""); /* default_system: "" */
    expect_system("", NULL, "[]", ours);
    expect_system("", "", "[]", "<|im_start|>system\n<|im_end|>\n");
}

#define TOOLS_BEFORE                                                                               \
    "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are " \
    "provided with function signatures within <tools></tools> XML tags:\n<tools>"
#define TOOLS_AFTER                                                                                \
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments " \
    "within <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, "          \
    "\"arguments\": <args-json-object>}\n</tool_call>"

static void tools(void **state)
{
    (void)state;
    expect_system("S", NULL, "[{\"name\":\"f\",\"parameters\":{\"b\":1,\"a\":[0.5,1e16,null]}}]",
                  "<|im_start|>system\nS" TOOLS_BEFORE
                  "\n{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": "
                  "{\"b\": 1, \"a\": [0.5, 1e+16, null]}}}" TOOLS_AFTER "<|im_end|>\n");
    expect_system("S", NULL,
                  "[{\"type\":\"function\",\"function\":{\"name\":\"caf\\u00e9 \\u4f60\"}},"
                  "{\"type\":\"object\",\"name\":\"g\\n\"}]",
                  "<|im_start|>system\nS" TOOLS_BEFORE
                  "\n{\"type\": \"function\", \"function\": {\"name\": \"caf\xc3\xa9 "
                  "\xe4\xbd\xa0\"}}"
                  "\n{\"type\": \"function\", \"function\": {\"type\": \"object\", \"name\": "
                  "\"g\\n\"}}" TOOLS_AFTER "<|im_end|>\n");
    /* one that is not in a list; no system text, but tools */
    expect_system("", "", "{\"name\": \"f\"}",
                  "<|im_start|>system\n" TOOLS_BEFORE
                  "\n{\"type\": \"function\", \"function\": {\"name\": \"f\"}}" TOOLS_AFTER
                  "<|im_end|>\n");
    expect_system("S", NULL, "[{\"name\":\"\\u0000\"}]",
                  "<|im_start|>system\nS" TOOLS_BEFORE
                  "\n{\"type\": \"function\", \"function\": {\"name\": \"\\u0000\"}}" TOOLS_AFTER
                  "<|im_end|>\n");
}

static void function_calls(void **state)
{
    (void)state;
    expect_turn(qvl_chat_add_function,
                "{\"name\":\"f\",\"arguments\":{\"x\":1.0,\"y\":\"\\u00e9\"}}",
                "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1.0, \"y\": \"\xc3\xa9\"}}\n"
                "</tool_call><|im_end|>\n");
    expect_turn(qvl_chat_add_function,
                "[{\"arguments\":{},\"name\":\"f\",\"id\":7}, "
                "{\"name\":\"g\",\"arguments\":\"{\\\"a\\\": 1}\"}]",
                "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n"
                "<tool_call>\n{\"name\": \"g\", \"arguments\": \"{\\\"a\\\": 1}\"}\n</tool_call>"
                "<|im_end|>\n");
    expect_turn(qvl_chat_add_function, " {\"name\": \"f\", \"arguments\": null} ",
                "<tool_call>\n{\"name\": \"f\", \"arguments\": null}\n</tool_call><|im_end|>\n");
    expect_turn(qvl_chat_add_function, "[]", "<|im_end|>\n");
}

static void wrong_json(void **state)
{
    (void)state;
    static const char *const TOOLS[][2] = {{"[{\"name\"]", "tools: not JSON: "},
                                           {"\"f\"", "tools: expected a list of functions"},
                                           {"[1]", "tools: entry 0 is not an obje"},
                                           {"none", "tools: not JSON: "},
                                           {"[{}, \"f\"]", "tools: entry 1 is not an object"}};
    static const char *const CALLS[][2] = {
        {"I call f", "function call: not JSON: "},
        {"{\"name\": \"f\"}", "function call: expected an object with \"name\" and \"arguments\""},
        {"{\"arguments\": {}}", "function call: expected an object"},
        {"{\"name\": 1, \"arguments\": {}}", "function call: expected an object"},
        {"[\"f\"]", "function call: expected an object"},
        {"3", "function call: expected an object"},
        {"{\"name\": \"f\", \"arguments\": 99999999999999999999}", "too big"}};
    qvl_text out = {0};
    for (size_t i = 0; i < sizeof TOOLS / sizeof *TOOLS; i++) {
        qvl_err err = {0};
        assert_int_equal(
            qvl_chat_add_system(&out, "", 0, NULL, TOOLS[i][0], strlen(TOOLS[i][0]), &err),
            QVL_EDATA);
        if (!strstr(err.text, TOOLS[i][1]))
            fail_msg("\"%s\" does not say \"%s\"", err.text, TOOLS[i][1]);
    }
    for (size_t i = 0; i < sizeof CALLS / sizeof *CALLS; i++) {
        qvl_err err = {0};
        assert_int_equal(qvl_chat_add_function(&out, CALLS[i][0], strlen(CALLS[i][0]), &err),
                         QVL_EDATA);
        if (!strstr(err.text, CALLS[i][1]))
            fail_msg("\"%s\" does not say \"%s\"", err.text, CALLS[i][1]);
    }
    qvl_text_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(turns), cmocka_unit_test(images),         cmocka_unit_test(system_turns),
        cmocka_unit_test(tools), cmocka_unit_test(function_calls), cmocka_unit_test(wrong_json),
    };
    return cmocka_run_group_tests_name("chat_template", tests, NULL, NULL);
}
