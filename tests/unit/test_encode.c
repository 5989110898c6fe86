/* Conversations as ids and labels. */
#include "src/data/encode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/encode_helpers.h"

#define MESSAGE(role, text) "{\"role\": \"" role "\", \"content\": \"" text "\"}"
#define U(text)             MESSAGE("user", text)
#define A(text)             MESSAGE("assistant", text)
#define TALK(messages)      "{\"messages\": [" messages "]}"

#define SYSTEM_TURN       "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
#define USER_TURN(text)   "<|im_start|>user\n" text "<|im_end|>\n<|im_start|>assistant\n"
#define ANSWER_TURN(text) text "<|im_end|>\n"

/* What was found, and what is expected. */
typedef struct check {
    qvl_encoded found;
    qvl_ids ids, labels;
} check;

static void add(check *c, const char *text, bool is_supervised)
{
    expect_more(&c->ids, &c->labels, text, is_supervised);
}

static void compare(check *c)
{
    assert_null(c->found.dropped);
    assert_ids(&c->found.ids, &c->ids, "ids");
    assert_ids(&c->found.labels, &c->labels, "labels");
    qvl_ids_clear(&c->ids);
    qvl_ids_clear(&c->labels);
}

static void finish(check *c)
{
    qvl_encoded_fini(&c->found);
    qvl_ids_fini(&c->ids);
    qvl_ids_fini(&c->labels);
}

/* As the tokenizers library gives them: system and user turn apart, the answer apart (its newline
 * does not merge with the one before it). */
static void one_turn(void **state)
{
    (void)state;
    static const int32_t IDS[] = {901, 82,  88,  82,  361, 76,  198, 56,  357, 697, 259,
                                  624, 75,  79,  69,  84,  75,  699, 861, 13,  902, 198,
                                  906, 198, 54,  71,  78,  827, 30,  902, 198, 901, 306,
                                  82,  861, 198, 198, 305, 772, 260, 13,  902, 198};
    enum { N = sizeof IDS / sizeof *IDS, N_PROMPT = 22 + 14 };
    const qvl_encode_options options = plain_options();
    qvl_encoded found = {0};
    encode_ok(&found, TALK(U("Who fell?") "," A("\\nThe river.")), &options);
    assert_null(found.dropped);
    assert_int_equal(found.ids.len, N);
    assert_int_equal(found.labels.len, N);
    assert_memory_equal(found.ids.data, IDS, sizeof IDS);
    for (int i = 0; i < N; i++)
        assert_int_equal(found.labels.data[i], i < N_PROMPT ? -100 : IDS[i]);
    assert_int_equal(found.n_images, 0);
    assert_int_equal(found.n_cut, 0);
    qvl_encoded_fini(&found);
}

#define THREE                                                                                      \
    TALK(U("The first?") "," A("One.") "," U("The second?") "," A("Two.") "," U("Last?") "," A(    \
        "Three."))

static void expect_three(check *c, bool prompts, bool history)
{
    add(c, SYSTEM_TURN, prompts);
    add(c, USER_TURN("The first?"), prompts);
    add(c, ANSWER_TURN("One."), history);
    add(c, USER_TURN("The second?"), prompts);
    add(c, ANSWER_TURN("Two."), history);
    add(c, USER_TURN("Last?"), prompts);
    add(c, ANSWER_TURN("Three."), true);
}

static void what_is_supervised(void **state)
{
    (void)state;
    check c = {0};
    qvl_encode_options options = plain_options();
    encode_ok(&c.found, THREE, &options);
    expect_three(&c, false, true);
    compare(&c);
    options.mask_history = true;
    encode_ok(&c.found, THREE, &options);
    expect_three(&c, false, false);
    compare(&c);
    options.mask_history = false;
    options.train_on_prompt = true;
    encode_ok(&c.found, THREE, &options);
    expect_three(&c, true, true);
    compare(&c);
    finish(&c);
}

#define CALL      "{\\\"name\\\":\\\"f\\\",\\\"arguments\\\":{}}"
#define TOOL_TURN U("a") "," MESSAGE("function", CALL) "," MESSAGE("tool", "7") "," A("b")
#define TOOL_TALK "{\"messages\": [" TOOL_TURN "], \"tools\": \"[]\"}"

static void systems_tools_and_functions(void **state)
{
    (void)state;
    check c = {0};
    qvl_encode_options options = plain_options();
    encode_ok(&c.found, TALK(MESSAGE("system", "Be brief.") "," U("a") "," A("b")), &options);
    add(&c, "<|im_start|>system\nBe brief.<|im_end|>\n", false);
    add(&c, USER_TURN("a"), false);
    add(&c, ANSWER_TURN("b"), true);
    compare(&c);
    options.default_system = "";
    encode_ok(&c.found, TALK(U("a") "," A("b")), &options);
    add(&c, USER_TURN("a"), false);
    add(&c, ANSWER_TURN("b"), true);
    compare(&c);
    options.default_system = "Be kind.";
    encode_ok(&c.found, TOOL_TALK, &options);
    add(&c, "<|im_start|>system\nBe kind.<|im_end|>\n", false);
    add(&c, USER_TURN("a"), false);
    add(&c, "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call><|im_end|>\n", true);
    add(&c,
        "<|im_start|>user\n<tool_response>\n7\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n",
        false);
    add(&c, ANSWER_TURN("b"), true);
    compare(&c);
    finish(&c);
}

/* infer_seqlen in Python. */
static void lengths_are_cut_as_in_python(void **state)
{
    (void)state;
    static const int64_t CASES[][5] = {
        {10, 5, 16, 10, 5},
        {10, 7, 16, 9, 7},
        {10, 8, 16, 9, 7},
        {7, 9, 16, 7, 9},
        {8, 8, 16, 8, 8},
        {9, 9, 16, 8, 8},
        {200, 8, 16, 16, 0},
        {7, 100, 16, 7, 9},
        {8, 100, 16, 2, 14},
        {0, 5, 16, 0, 5},
        {0, 40, 16, 0, 16},
        {5, 0, 16, 5, 0},
        {40, 0, 16, 16, 0},
        {1, 1, 1, 1, 0},
        {5, 1, 1, 1, 0},
        {1, 5, 1, 1, 0},
        {0, 5, 1, 0, 1},
        {5, 0, 1, 1, 0},
        {1, 1, 2, 1, 1},
        {3, 1, 2, 2, 0},
        {1, 3, 2, 1, 1},
        {1000, 1000, 2048, 1000, 1000},
        {1024, 1024, 2048, 1024, 1024},
        {2000, 1000, 2048, 1048, 1000},
        {2000, 1024, 2048, 1355, 693},
        {3000, 1024, 2048, 1527, 521},
        {1023, 5000, 2048, 1023, 1025},
        {1024, 5000, 2048, 349, 1699},
        {100000, 100, 2048, 1948, 100},
        {100, 100000, 2048, 100, 1948},
        /* 49 * (64 / 98) is a whole number, but not in doubles */
        {34, 64, 49, 18, 31},
        {44, 54, 49, 23, 26},
        {51, 96, 49, 18, 31},
        {16, 16, 31, 16, 15},
    };
    int64_t s = 0, t = 0, sum = 0;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        qvl_cut_lengths(&s, &t, CASES[i][0], CASES[i][1], CASES[i][2]);
        assert_int_equal(s, CASES[i][3]);
        assert_int_equal(t, CASES[i][4]);
    }
    for (int64_t source = 0; source < 60; source++)
        for (int64_t target = 0; target < 60; target++)
            for (int64_t room = 1; room < 60; room++) {
                qvl_cut_lengths(&s, &t, source, target, room);
                assert_true(s >= 0 && s <= source && t >= 0 && t <= target && s + t <= room);
                sum = (sum * 31 + s * 61 + t) % 1000000007;
            }
    assert_int_equal(sum, 928886672);
}

/* Cuts what add() gave to the first n. */
static void keep(check *c, size_t n)
{
    c->ids.len = c->labels.len = n;
}

static void cutoff_cuts_and_drops_pairs(void **state)
{
    (void)state;
    check c = {0};
    qvl_encode_options options = plain_options();
    encode_ok(&c.found, THREE, &options);
    const size_t whole = c.found.ids.len;
    /* exactly enough; and one less, which the last prompt loses, at its end */
    options.cutoff_len = (int64_t)whole;
    encode_ok(&c.found, THREE, &options);
    expect_three(&c, false, true);
    compare(&c);
    assert_int_equal(c.found.n_cut, 0);
    options.cutoff_len--;
    encode_ok(&c.found, THREE, &options);
    assert_int_equal(c.found.n_cut, 1);
    assert_int_equal(c.found.ids.len, whole - 1);
    expect_three(&c, false, true);
    keep(&c, 0);
    add(&c, SYSTEM_TURN, false);
    add(&c, USER_TURN("The first?"), false);
    add(&c, ANSWER_TURN("One."), true);
    const size_t first = c.ids.len;
    add(&c, USER_TURN("The second?"), false);
    add(&c, ANSWER_TURN("Two."), true);
    const size_t second = c.ids.len;
    add(&c, USER_TURN("Last?"), false);
    keep(&c, c.ids.len - 1);
    add(&c, ANSWER_TURN("Three."), true);
    compare(&c);
    /* no room for the last pair, then for the last two */
    for (int i = 0; i < 2; i++) {
        options.cutoff_len = (int64_t)(i ? first : second);
        encode_ok(&c.found, THREE, &options);
        expect_three(&c, false, true);
        keep(&c, i ? first : second);
        compare(&c);
        assert_int_equal(c.found.n_cut, whole - (i ? first : second));
    }
    /* one token of room is the next prompt's first */
    options.cutoff_len = (int64_t)second + 1;
    encode_ok(&c.found, THREE, &options);
    expect_three(&c, false, true);
    keep(&c, second + 1);
    compare(&c);
    /* with mask_history the budget goes to the last pair first */
    options.mask_history = true;
    options.cutoff_len = (int64_t)(whole - second);
    encode_ok(&c.found, THREE, &options);
    add(&c, USER_TURN("Last?"), false);
    add(&c, ANSWER_TURN("Three."), true);
    compare(&c);
    options.cutoff_len++;
    encode_ok(&c.found, THREE, &options);
    add(&c, USER_TURN("The second?"), false);
    keep(&c, 1);
    add(&c, USER_TURN("Last?"), false);
    add(&c, ANSWER_TURN("Three."), true);
    compare(&c);
    finish(&c);
}

static void samples_without_labels_are_dropped(void **state)
{
    (void)state;
    char json[4096], words[3000] = "";
    qvl_encoded found = {0};
    qvl_encode_options options = plain_options();
    for (int i = 0; i < 300; i++)
        strcat(words, "the "); /* a token each */
    options.cutoff_len = 16;
    snprintf(json, sizeof json, TALK(U("%s") "," A("The river rose, the bri")), words);
    encode_ok(&found, json, &options);
    assert_string_equal(found.dropped, "no supervised tokens are left within cutoff_len");
    assert_int_equal(found.ids.len, 16);
    options.train_on_prompt = true;
    encode_ok(&found, json, &options);
    assert_null(found.dropped);
    assert_int_equal(found.ids.len, 16);
    /* and what the converter drops stays dropped */
    encode_ok(&found, TALK(U("a")), &options);
    assert_string_equal(found.dropped, "its last turn has no answer");
    assert_int_equal(found.ids.len, 0);
    qvl_encoded_fini(&found);
}

static void special_tokens_in_texts(void **state)
{
    (void)state;
    check c = {0};
    qvl_encode_options options = plain_options();
    encode_ok(&c.found, TALK(U("x<|im_end|>y") "," A("<|endoftext|>")), &options);
    add(&c, SYSTEM_TURN, false);
    add(&c, USER_TURN("x<|im_end|>y"), false);
    add(&c, ANSWER_TURN("<|endoftext|>"), true);
    compare(&c);
    /* split_special_tokens takes the template's own apart as well, as LLaMA-Factory's does */
    options.split_special_tokens = true;
    encode_ok(&c.found, TALK(U("x<|im_end|>y") "," A("z")), &options);
    for (size_t i = 0; i < c.found.ids.len; i++)
        assert_true(c.found.ids.data[i] < 900 || c.found.ids.data[i] > 903);
    finish(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_turn),
        cmocka_unit_test(what_is_supervised),
        cmocka_unit_test(systems_tools_and_functions),
        cmocka_unit_test(lengths_are_cut_as_in_python),
        cmocka_unit_test(cutoff_cuts_and_drops_pairs),
        cmocka_unit_test(samples_without_labels_are_dropped),
        cmocka_unit_test(special_tokens_in_texts),
    };
    return cmocka_run_group_tests_name("encode", tests, load_tokenizer, free_tokenizer);
}
