/* Records as conversations: what each format makes of them, what is dropped, and what is wrong. */
#include "src/data/conversation.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static qvl_dataset_info info_of(qvl_formatting formatting)
{
    static char words[][16] = {"instruction", "input",   "output", "history",   "messages",
                               "system",      "tools",   "images", "videos",    "audios",
                               "role",        "content", "user",   "assistant", "observation",
                               "function",    "system"};
    return (qvl_dataset_info){.formatting = formatting,
                              .prompt = words[0],
                              .query = words[1],
                              .response = words[2],
                              .history = words[3],
                              .messages = words[4],
                              .system = words[5],
                              .tools = words[6],
                              .images = words[7],
                              .videos = words[8],
                              .audios = words[9],
                              .role_tag = words[10],
                              .content_tag = words[11],
                              .user_tag = words[12],
                              .assistant_tag = words[13],
                              .observation_tag = words[14],
                              .function_tag = words[15],
                              .system_tag = words[16]};
}

static json_t *record_of(const char *json)
{
    json_error_t why;
    json_t *record = json_loads(json, JSON_ALLOW_NUL, &why);
    if (!record)
        fail_msg("%s: %s", json, why.text);
    return record;
}

/* "U:text|A:text|S:system|T:tools|I:path|D:why": everything of a conversation in one line. */
static void describe(qvl_text *out, const qvl_conversation *c)
{
    static const char ROLES[] = "UAOF";
    qvl_text_clear(out);
    for (size_t i = 0; i < c->n_messages; i++) {
        const qvl_message *m = &c->messages[i];
        qvl_text_printf(out, NULL, "%s%c:%.*s", i ? "|" : "", ROLES[m->role], (int)m->content.n,
                        c->text.data + m->content.begin);
    }
    if (c->system.n)
        qvl_text_printf(out, NULL, "|S:%.*s", (int)c->system.n, c->text.data + c->system.begin);
    if (c->tools.n)
        qvl_text_printf(out, NULL, "|T:%.*s", (int)c->tools.n, c->text.data + c->tools.begin);
    for (size_t i = 0; i < c->n_images; i++)
        qvl_text_printf(out, NULL, "|I:%s", c->images[i]);
    qvl_text_printf(out, NULL, "%s%s", c->dropped ? "|D:" : "", c->dropped ? c->dropped : "");
}

/* One conversation is used for all, as the program does. */
static void expect_each(const qvl_dataset_info *info, const char *const cases[][2], size_t n)
{
    qvl_conversation c = {0};
    qvl_text line = {0};
    for (size_t i = 0; i < n; i++) {
        qvl_err err = {0};
        json_t *record = record_of(cases[i][0]);
        if (qvl_conversation_read(&c, record, info, &err) != QVL_OK)
            fail_msg("%s: %s", cases[i][0], err.text);
        describe(&line, &c);
        assert_string_equal(line.data, cases[i][1]);
        json_decref(record);
    }
    qvl_text_fini(&line);
    qvl_conversation_fini(&c);
}

static void expect_each_refused(const qvl_dataset_info *info, const char *const cases[][2],
                                size_t n)
{
    qvl_conversation c = {0};
    for (size_t i = 0; i < n; i++) {
        qvl_err err = {0};
        json_t *record = record_of(cases[i][0]);
        if (qvl_conversation_read(&c, record, info, &err) != QVL_EDATA ||
            strcmp(err.text, cases[i][1]) != 0)
            fail_msg("%s\n  gives    \"%s\"\n  expected \"%s\"", cases[i][0], err.text,
                     cases[i][1]);
        json_decref(record);
    }
    qvl_conversation_fini(&c);
}

#define COUNT(cases) (sizeof(cases) / sizeof *(cases))

static void alpaca(void **state)
{
    (void)state;
    static const char *const CASES[][2] = {
        {"{\"instruction\": \"a\", \"input\": \"b\", \"output\": \"c\"}", "U:a\nb|A:c"},
        {"{\"instruction\": \"a\", \"input\": \"\", \"output\": \"c\"}", "U:a|A:c"},
        {"{\"instruction\": \"a\", \"input\": null, \"output\": \"c\"}", "U:a|A:c"},
        {"{\"instruction\": \"a\", \"output\": \"c\"}", "U:a|A:c"},
        {"{\"instruction\": \"\", \"input\": \"b\", \"output\": \"c\"}", "U:b|A:c"},
        {"{\"instruction\": \"\", \"input\": \"\", \"output\": \"\"}", "U:|A:"},
        {"{\"output\": \"c\"}", "U:|A:c"},
        {"{\"instruction\": \"a\", \"output\": \"\"}", "U:a|A:"},
        {"{\"instruction\": \"a\", \"output\": null}", "U:a|D:has no answer"},
        {"{\"instruction\": \"a\", \"output\": 42}", "U:a|D:has no answer"},
        {"{\"instruction\": \"a\"}", "U:a|D:has no answer"},
        {"{\"instruction\": \"a\\n\", \"input\": \"\\nb\", \"output\": \"c\"}", "U:a\n\n\nb|A:c"},
        /* what Python takes for false is left out */
        {"{\"instruction\": 0, \"input\": [], \"output\": \"c\"}", "U:|A:c"},
        {"{\"instruction\": false, \"input\": {}, \"output\": \"c\"}", "U:|A:c"},
        {"{\"instruction\": \"a\", \"output\": \"c\", \"history\": [[\"1\", \"2\"], [\"3\", "
         "\"\"]]}",
         "U:1|A:2|U:3|A:|U:a|A:c"},
        {"{\"instruction\": \"a\", \"output\": \"c\", \"history\": []}", "U:a|A:c"},
        {"{\"instruction\": \"a\", \"output\": \"c\", \"history\": null}", "U:a|A:c"},
        {"{\"instruction\": \"a\", \"output\": \"c\", \"history\": \"none\"}", "U:a|A:c"},
        {"{\"instruction\": \"a\", \"output\": \"c\", \"system\": \"s\", \"tools\": \"[]\"}",
         "U:a|A:c|S:s|T:[]"},
        {"{\"instruction\": \"a\", \"output\": \"c\", \"system\": \"\", \"tools\": null}",
         "U:a|A:c"},
        {"{\"instruction\": \"a\", \"output\": \"c\", \"tools\": [{\"name\":\"f\"}]}",
         "U:a|A:c|T:[{\"name\": \"f\"}]"},
    };
    const qvl_dataset_info info = info_of(QVL_ALPACA);
    expect_each(&info, CASES, COUNT(CASES));
}

static void alpaca_without_columns(void **state)
{
    (void)state;
    static const char *const CASES[][2] = {
        {"{\"instruction\": \"a\", \"input\": \"b\", \"output\": \"c\", \"system\": \"s\", "
         "\"history\": [[\"1\", \"2\"]], \"images\": [\"i\"], \"videos\": [\"v\"]}",
         "U:|D:has no answer"},
    };
    const qvl_dataset_info info = {.formatting = QVL_ALPACA};
    expect_each(&info, CASES, COUNT(CASES));
}

static void alpaca_that_is_wrong(void **state)
{
    (void)state;
    static const char *const CASES[][2] = {
        {"{\"instruction\": 7, \"output\": \"c\"}", "\"instruction\" is not a text"},
        {"{\"instruction\": [\"a\"], \"output\": \"c\"}", "\"instruction\" is not a text"},
        {"{\"instruction\": \"a\", \"input\": true, \"output\": \"c\"}", "\"input\" is not a text"},
        {"{\"output\": \"c\", \"history\": [[\"1\"]]}",
         "\"history\"[0] is not a pair [question, answer]"},
        {"{\"output\": \"c\", \"history\": [[\"1\", \"2\"], \"3\"]}",
         "\"history\"[1] is not a pair [question, answer]"},
        {"{\"output\": \"c\", \"history\": [[\"1\", \"2\"], [\"3\", null]]}",
         "message 3: \"history\" is not a text, expected a text"},
        {"{\"output\": \"c\", \"system\": 1}", "\"system\" is not a text"},
        {"{\"output\": \"c\", \"system\": [\"s\"]}", "\"system\" is not a text"},
        {"{\"output\": \"c\", \"tools\": 1}", "\"tools\" is not a text"},
    };
    const qvl_dataset_info info = info_of(QVL_ALPACA);
    expect_each_refused(&info, CASES, COUNT(CASES));
}

#define U(text) "{\"role\": \"user\", \"content\": \"" text "\"}"
#define A(text) "{\"role\": \"assistant\", \"content\": \"" text "\"}"
#define O(text) "{\"role\": \"observation\", \"content\": \"" text "\"}"
#define F(text) "{\"role\": \"function\", \"content\": \"" text "\"}"
#define S(text) "{\"role\": \"system\", \"content\": \"" text "\"}"

static void sharegpt(void **state)
{
    (void)state;
    static const char *const CASES[][2] = {
        {"{\"messages\": [" U("a") "," A("b") "]}", "U:a|A:b"},
        {"{\"messages\": [" U("a") "," A("b") "," U("") "," A("") "]}", "U:a|A:b|U:|A:"},
        {"{\"messages\": [" U("a") "," F("{}") "," O("r") "," A("b") "]}", "U:a|F:{}|O:r|A:b"},
        {"{\"messages\": [" O("r") "," F("{}") "]}", "O:r|F:{}"},
        {"{\"messages\": [" S("s") "," U("a") "," A("b") "]}", "U:a|A:b|S:s"},
        {"{\"messages\": [" S("s") "," U("a") "," A("b") "], \"system\": \"column\"}",
         "U:a|A:b|S:s"},
        {"{\"messages\": [" S("") "," U("a") "," A("b") "], \"system\": \"column\"}", "U:a|A:b"},
        {"{\"messages\": [" U("a") "," A("b") "], \"system\": \"column\", \"tools\": \"[1]\"}",
         "U:a|A:b|S:column|T:[1]"},
        {"{\"messages\": [" U("a") "," A("b") "], \"system\": null, \"tools\": \"\"}", "U:a|A:b"},
        {"{\"messages\": []}", "|D:has no messages"},
        {"{\"messages\": [" S("s") "]}", "|S:s|D:has no messages"},
        {"{\"messages\": [" U("a") "]}", "U:a|D:its last turn has no answer"},
        {"{\"messages\": [" U("a") "," A("b") "," U("c") "]}",
         "U:a|A:b|U:c|D:its last turn has no answer"},
        {"{\"messages\": [{\"role\": \"user\", \"content\": \"a\", \"extra\": 1}," A("b") "]}",
         "U:a|A:b"},
    };
    const qvl_dataset_info info = info_of(QVL_SHAREGPT);
    expect_each(&info, CASES, COUNT(CASES));
}

static void sharegpt_that_is_wrong(void **state)
{
    (void)state;
    static const char *const CASES[][2] = {
        {"{\"messages\": [" A("a") "," U("b") "]}",
         "roles in the wrong order: message 0 is of the assistant, expected the user or an "
         "observation"},
        {"{\"messages\": [" U("a") "," A("b") "," U("c") "," U("d") "]}",
         "roles in the wrong order: message 3 is of the user, expected the assistant or a "
         "function"},
        /* the number is that of the record, whose message 0 is the system's */
        {"{\"messages\": [" S("s") "," U("a") "," O("b") "]}",
         "roles in the wrong order: message 2 is of the observation, expected the assistant or a "
         "function"},
        {"{\"messages\": [" U("a") "," A("b") "," F("c") "," A("d") "]}",
         "roles in the wrong order: message 2 is of the function, expected the user or an "
         "observation"},
        {"{\"messages\": [" U("a") "," S("s") "]}",
         "message 1 has the role \"system\", which no tag names"},
        {"{\"messages\": [" S("s") "," S("t") "," U("a") "]}",
         "message 1 has the role \"system\", which no tag names"},
        {"{\"messages\": [{\"role\": \"bot\", \"content\": \"a\"}]}",
         "message 0 has the role \"bot\", which no tag names"},
        {"{\"messages\": [{\"from\": \"user\", \"content\": \"a\"}]}", "message 0 has no \"role\""},
        {"{\"messages\": [" U("a") ", 7]}", "message 1 has no \"role\""},
        {"{\"messages\": [" U("a") ", {\"role\": 1, \"content\": \"a\"}]}",
         "message 1 has no \"role\""},
        {"{\"messages\": [" S("s") "," U("a") ", {\"role\": \"assistant\"}]}",
         "message 2: \"content\" is missing, expected a text"},
        {"{\"messages\": [" U("a") ", {\"role\": \"assistant\", \"content\": null}]}",
         "message 1: \"content\" is not a text, expected a text"},
        {"{\"messages\": [{\"role\": \"system\", \"content\": 3}]}",
         "the system message has no \"content\""},
        {"{}", "\"messages\" is missing, expected a list of messages"},
        {"{\"messages\": null}", "\"messages\" is not a list, expected a list of messages"},
        {"{\"messages\": \"a\"}", "\"messages\" is not a list, expected a list of messages"},
        {"{\"messages\": [], \"tools\": 3}", "\"tools\" is not a text"},
    };
    const qvl_dataset_info info = info_of(QVL_SHAREGPT);
    expect_each_refused(&info, CASES, COUNT(CASES));
}

/* mllm_demo's entry has tags without a system_tag. */
static void no_system_tag(void **state)
{
    (void)state;
    static const char *const CASES[][2] = {
        {"{\"messages\": [" S("s") "," U("a") "," A("b") "]}",
         "message 0 has the role \"system\", which no tag names"}};
    qvl_dataset_info info = info_of(QVL_SHAREGPT);
    info.system_tag = NULL;
    expect_each_refused(&info, CASES, COUNT(CASES));
}

#define CALLS(list) "{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [" list "]}"
#define CALL(name)  "{\"id\": 1, \"function\": {\"name\": \"" name "\", \"arguments\": {\"x\":1.0}}}"

static void openai(void **state)
{
    (void)state;
    static const char *const CASES[][2] = {
        {"{\"messages\": [" S("s") "," U("a") "," A("b") "]}", "U:a|A:b|S:s"},
        {"{\"messages\": [" U("a") "," CALLS(CALL("f")) "," O("r") "," A("b") "]}",
         "U:a|F:[{\"name\": \"f\", \"arguments\": {\"x\": 1.0}}]|O:r|A:b"},
        {"{\"messages\": [" U("a") "," CALLS(CALL("f") "," CALL("g")) "," O("1") "," O("2") "," O(
             "3") "," A("b") "]}",
         "U:a|F:[{\"name\": \"f\", \"arguments\": {\"x\": 1.0}}, {\"name\": \"g\", \"arguments\": "
         "{\"x\": 1.0}}]|O:1\n</tool_response>\n<tool_response>\n2\n</tool_response>\n"
         "<tool_response>\n3|A:b"},
        {"{\"messages\": [" U(
             "a") ", {\"role\": \"assistant\", \"content\": \"b\", \"tool_calls\": "
                  "[]}]}",
         "U:a|A:b"},
        {"{\"messages\": [" U(
             "a") ", {\"role\": \"assistant\", \"content\": \"b\", \"tool_calls\": "
                  "null}]}",
         "U:a|A:b"},
        {"{\"messages\": [" U("a") "," F("[]") "]}", "U:a|F:[]"},
        {"{\"messages\": [" U("a") ", {\"role\": \"function\", \"tool_calls\": [" CALL("f") "]}]}",
         "U:a|F:[{\"name\": \"f\", \"arguments\": {\"x\": 1.0}}]"},
        /* the tools' last answers, which no message follows, are not taken in */
        {"{\"messages\": [" U("a") "," CALLS(CALL("f")) "," O("1") "," O("2") "]}",
         "U:a|F:[{\"name\": \"f\", \"arguments\": {\"x\": 1.0}}]"},
        {"{\"messages\": [" U("a") "," O("1") "]}", "U:a|D:its last turn has no answer"},
        {"{\"messages\": [" U("a") "," A("b") "], \"tools\": [{\"name\": \"f\"}]}",
         "U:a|A:b|T:[{\"name\": \"f\"}]"},
    };
    static const char *const WRONG[][2] = {
        {"{\"messages\": [" U("a") "," CALLS("{\"name\": \"f\"}") "]}",
         "tool_calls[0] has no \"function\""},
        {"{\"messages\": [" U("a") "," O("1") "," O("2") "," O("3") "," A("b") "]}",
         "roles in the wrong order: message 1 is of the observation, expected the assistant or a "
         "function"},
        {"{\"messages\": [" U("a") "," CALLS(CALL("f")) "," O("1") "," O("2") "," U("c") "," A(
             "b") "]}",
         "roles in the wrong order: message 4 is of the user, expected the assistant or a "
         "function"},
        {"{\"messages\": [" U("a") "," CALLS("") "]}",
         "message 1: \"content\" is not a text, expected a text"},
        {"{\"messages\": [" U("a") "," A("b") ", {\"role\": \"observation\"}]}",
         "message 2: \"content\" is missing, expected a text"},
    };
    const qvl_dataset_info info = info_of(QVL_OPENAI);
    expect_each(&info, CASES, COUNT(CASES));
    expect_each_refused(&info, WRONG, COUNT(WRONG));
}

static void media(void **state)
{
    (void)state;
#define WITH(member) "{\"messages\": [" U("a") "," A("b") "], " member "}"
    static const char *const CASES[][2] = {
        {WITH("\"images\": [\"1.png\", \"d/2.jpg\"]"), "U:a|A:b|I:1.png|I:d/2.jpg"},
        {WITH("\"images\": \"1.png\""), "U:a|A:b|I:1.png"},
        {WITH("\"images\": []"), "U:a|A:b"},
        {WITH("\"images\": null"), "U:a|A:b"},
        {WITH("\"images\": \"\""), "U:a|A:b"},
        {WITH("\"videos\": [], \"audios\": null"), "U:a|A:b"},
        {WITH("\"other\": 1"), "U:a|A:b"},
    };
    static const char *const WRONG[][2] = {
        {WITH("\"images\": [\"1.png\", 2]"), "\"images\"[1] is not a path"},
        {WITH("\"images\": [null]"), "\"images\"[0] is not a path"},
        {WITH("\"images\": [[\"1.png\"]]"), "\"images\"[0] is not a path"},
        {WITH("\"images\": {\"path\": \"1.png\"}"), "\"images\"[0] is not a path"},
        {WITH("\"images\": [\"1.png\\u0000\"]"), "\"images\"[0] is not a path"},
        {WITH("\"images\": 7"), "\"images\"[0] is not a path"},
        {WITH("\"videos\": [\"v.mp4\"]"), "has a video or an audio; only images are supported"},
        {WITH("\"videos\": \"v.mp4\""), "has a video or an audio; only images are supported"},
        {WITH("\"audios\": [\"a.wav\"]"), "has a video or an audio; only images are supported"},
    };
    const qvl_dataset_info info = info_of(QVL_SHAREGPT);
    expect_each(&info, CASES, COUNT(CASES));
    expect_each_refused(&info, WRONG, COUNT(WRONG));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alpaca),
        cmocka_unit_test(alpaca_without_columns),
        cmocka_unit_test(alpaca_that_is_wrong),
        cmocka_unit_test(sharegpt),
        cmocka_unit_test(sharegpt_that_is_wrong),
        cmocka_unit_test(no_system_tag),
        cmocka_unit_test(openai),
        cmocka_unit_test(media),
    };
    return cmocka_run_group_tests_name("conversation", tests, NULL, NULL);
}
