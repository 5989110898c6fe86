/* The tokenizer against `tokenizers` on a small model (tests/fixtures/tokenizer), against a naive
 * merge loop, and against files and texts that are wrong. */
#include "io/tokenizer.h"
#include "io/tokenizer_internal.h"
#include "src/base/files.h"

#include <jansson.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/tokenizer_variants.h"

#define EXPECTED_PATH QVL_TEST_FIXTURES "/tokenizer/expected.jsonl"

static void must_load(qvl_tokenizer **tok, qvl_token_encoder **encoder, json_t *model)
{
    qvl_err err = {0};
    if (load_model(tok, model, &err) != QVL_OK ||
        qvl_token_encoder_create(encoder, *tok, &err) != QVL_OK)
        fail_msg("%s", err.text);
}

typedef struct fixture {
    qvl_tokenizer *tok;
    qvl_token_encoder *encoder;
    json_t *lines; /* expected.jsonl as an array */
} fixture;

static int setup(void **state)
{
    static fixture f;
    qvl_err err = {0};
    qvl_text file = {0};
    if (qvl_tokenizer_load(&f.tok, MODEL_PATH, &err) != QVL_OK ||
        qvl_token_encoder_create(&f.encoder, f.tok, &err) != QVL_OK ||
        qvl_file_read(&file, EXPECTED_PATH, (size_t)1 << 20, &err) != QVL_OK) {
        fprintf(stderr, "%s\n", err.text);
        return -1;
    }
    f.lines = json_array();
    for (char *line = file.data; *line; line = strchr(line, '\n') + 1) {
        json_t *value = json_loadb(line, strcspn(line, "\n"), JSON_ALLOW_NUL, NULL);
        if (!value || json_array_append_new(f.lines, value) != 0)
            return -1;
    }
    qvl_text_fini(&file);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    json_decref(f->lines);
    qvl_token_encoder_destroy(f->encoder);
    qvl_tokenizer_destroy(f->tok);
    return 0;
}

static const json_t *get(const json_t *line, const char *key, const char *otherwise)
{
    const json_t *value = json_object_get(line, key);
    return value ? value : json_object_get(line, otherwise);
}

/* Appending after what is in ids already is part of the contract, so every call does it. */
static void expect_ids(qvl_token_encoder *encoder, const json_t *text, bool split_special,
                       const json_t *ids)
{
    const int32_t first = -7;
    qvl_ids got = {0};
    qvl_err err = {0};
    assert_int_equal(qvl_ids_add(&got, &first, 1, NULL), QVL_OK);
    if (qvl_tokenizer_encode(encoder, json_string_value(text), json_string_length(text),
                             split_special, &got, &err) != QVL_OK)
        fail_msg("%s", err.text);
    bool is_same = got.len == json_array_size(ids) + 1 && got.data[0] == first;
    for (size_t i = 1; is_same && i < got.len; i++)
        is_same = got.data[i] == json_integer_value(json_array_get(ids, i - 1));
    if (!is_same) {
        char *shown = json_dumps(text, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
        print_error("text %s, split_special %d: got", shown, split_special);
        for (size_t i = 1; i < got.len; i++)
            print_error(" %d", got.data[i]);
        free(shown);
        shown = json_dumps(ids, JSON_COMPACT);
        print_error(", expected %s\n", shown);
        free(shown);
    }
    assert_true(is_same);
    qvl_ids_fini(&got);
}

static void expect_text(const qvl_tokenizer *tok, const json_t *ids, bool skip_special,
                        const json_t *text)
{
    qvl_ids list = {0};
    qvl_text got = {0};
    size_t i = 0;
    json_t *value = NULL;
    json_array_foreach(ids, i, value)
    {
        const int32_t id = (int32_t)json_integer_value(value);
        assert_int_equal(qvl_ids_add(&list, &id, 1, NULL), QVL_OK);
    }
    assert_int_equal(qvl_text_puts(&got, "> ", NULL), QVL_OK);
    assert_int_equal(qvl_tokenizer_decode(tok, list.data, list.len, skip_special, &got, NULL),
                     QVL_OK);
    assert_int_equal(got.len, json_string_length(text) + 2);
    assert_memory_equal(got.data + 2, json_string_value(text), got.len - 2);
    qvl_text_fini(&got);
    qvl_ids_fini(&list);
}

/* Twice, so that the second round finds words in the cache. */
static void encodes_as_the_reference(void **state)
{
    const fixture *f = *state;
    for (size_t i = 0; i < 2 * json_array_size(f->lines); i++) {
        const json_t *line = json_array_get(f->lines, i % json_array_size(f->lines));
        const json_t *text = json_object_get(line, "text");
        expect_ids(f->encoder, text, false, json_object_get(line, "ids"));
        expect_ids(f->encoder, text, true, get(line, "split_special", "ids"));
    }
    assert_int_equal(json_array_size(f->lines), 233);
}

static void encodes_the_same_without_jit(void **state)
{
    const fixture *f = *state;
    qvl_token_encoder *encoder = NULL;
    assert_int_equal(qvl_token_encoder_create(&encoder, f->tok, NULL), QVL_OK);
    encoder->use_jit = false;
    for (size_t i = 0; i < json_array_size(f->lines); i++) {
        const json_t *line = json_array_get(f->lines, i);
        expect_ids(encoder, json_object_get(line, "text"), false, json_object_get(line, "ids"));
    }
    qvl_token_encoder_destroy(encoder);
}

static void decodes_as_the_reference(void **state)
{
    const fixture *f = *state;
    for (size_t i = 0; i < json_array_size(f->lines); i++) {
        const json_t *line = json_array_get(f->lines, i), *ids = json_object_get(line, "ids");
        expect_text(f->tok, ids, false, json_object_get(line, "decoded"));
        expect_text(f->tok, ids, true, get(line, "decoded_skip", "decoded"));
    }
}

/* ByteLevel alone: with GPT-2's own split, and with none, which makes each piece one word. */
static void takes_byte_level_alone(void **state)
{
    static const struct {
        const char *pre_tokenizer, *key;
    } CASES[] = {
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false}", "gpt2"},
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}", "gpt2"},
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}", "whole"},
    };
    const fixture *f = *state;
    for (size_t k = 0; k < sizeof CASES / sizeof *CASES; k++) {
        qvl_tokenizer *tok = NULL;
        qvl_token_encoder *encoder = NULL;
        json_t *model = read_model();
        size_t n_seen = 0;
        change(model, "pre_tokenizer", CASES[k].pre_tokenizer);
        must_load(&tok, &encoder, model);
        for (size_t i = 0; i < json_array_size(f->lines); i++) {
            const json_t *line = json_array_get(f->lines, i);
            const json_t *ids = json_object_get(line, CASES[k].key);
            if (!ids)
                continue;
            expect_ids(encoder, json_object_get(line, "text"), false, ids);
            n_seen++;
        }
        assert_true(n_seen > 50);
        qvl_token_encoder_destroy(encoder);
        qvl_tokenizer_destroy(tok);
    }
}

/* Older files write a merge as "a b", and spell options that are off in other ways. */
static void takes_the_older_form(void **state)
{
    const fixture *f = *state;
    qvl_tokenizer *tok = NULL;
    qvl_token_encoder *encoder = NULL;
    json_t *model = read_model(), *merge = NULL;
    json_t *merges = json_object_get(json_object_get(model, "model"), "merges");
    size_t i = 0;
    json_array_foreach(merges, i, merge)
    {
        char pair[256];
        snprintf(pair, sizeof pair, "%s %s", json_string_value(json_array_get(merge, 0)),
                 json_string_value(json_array_get(merge, 1)));
        assert_int_equal(json_array_set_new(merges, i, json_string(pair)), 0);
    }
    change(model, "model.dropout", "0.0");
    change(model, "model.continuing_subword_prefix", "\"\"");
    change(model, "model.end_of_word_suffix", NULL);
    change(model, "model.ignore_merges", NULL);
    change(model, "pre_tokenizer.pretokenizers.0.invert", NULL);
    change(model, "post_processor", "null");
    must_load(&tok, &encoder, model);
    for (i = 0; i < json_array_size(f->lines); i++) {
        const json_t *line = json_array_get(f->lines, i);
        expect_ids(encoder, json_object_get(line, "text"), false, json_object_get(line, "ids"));
    }
    qvl_token_encoder_destroy(encoder);
    qvl_tokenizer_destroy(tok);
}

/* Without a normalizer U+00E9 stays apart from e and U+0301. */
static void normalizes_only_where_asked(void **state)
{
    const fixture *f = *state;
    qvl_tokenizer *tok = NULL;
    qvl_token_encoder *encoder = NULL;
    qvl_ids a = {0}, b = {0};
    json_t *model = read_model();
    change(model, "normalizer", "null");
    must_load(&tok, &encoder, model);
    assert_int_equal(qvl_tokenizer_encode(f->encoder, "e\xcc\x81x", 4, false, &a, NULL), QVL_OK);
    assert_int_equal(qvl_tokenizer_encode(f->encoder, "\xc3\xa9x", 3, false, &b, NULL), QVL_OK);
    assert_int_equal(a.len, b.len);
    assert_memory_equal(a.data, b.data, a.len * sizeof *a.data);
    qvl_ids_clear(&b);
    assert_int_equal(qvl_tokenizer_encode(encoder, "e\xcc\x81x", 4, false, &b, NULL), QVL_OK);
    assert_true(a.len != b.len || memcmp(a.data, b.data, a.len * sizeof *a.data) != 0);
    qvl_ids_fini(&a);
    qvl_ids_fini(&b);
    qvl_token_encoder_destroy(encoder);
    qvl_tokenizer_destroy(tok);
}

/* --- merging against a loop that knows nothing but the file's list -----------------------------
 */

/* Appends a byte's character in the file's spelling. */
static void add_mapped(qvl_text *out, unsigned char byte)
{
    uint16_t map[256];
    qvl_byte_map(map);
    const unsigned point = map[byte];
    const char two[2] = {(char)(0xc0 | point >> 6), (char)(0x80 | (point & 0x3f))};
    const char one = (char)point;
    assert_int_equal(qvl_text_add(out, point < 0x80 ? &one : two, point < 0x80 ? 1 : 2, NULL),
                     QVL_OK);
}

/* Symbols in the file's spelling; each round looks for the first rule of the list that applies. */
static size_t naive_merge(char symbols[][64], size_t n, const json_t *merges)
{
    for (size_t rule = 0; rule < json_array_size(merges);) {
        const json_t *merge = json_array_get(merges, rule++);
        const char *left = json_string_value(json_array_get(merge, 0));
        const char *right = json_string_value(json_array_get(merge, 1));
        for (size_t i = 0; i + 1 < n; i++) {
            if (strcmp(symbols[i], left) != 0 || strcmp(symbols[i + 1], right) != 0)
                continue;
            snprintf(symbols[i], 64, "%s%s", left, right);
            memmove(symbols[i + 1], symbols[i + 2], (n - i - 2) * sizeof symbols[0]);
            n--;
            rule = 0;
            break;
        }
    }
    return n;
}

/* Parts of words, so that many rules compete for the same characters. */
static void merges_as_a_naive_loop(void **state)
{
    enum { LONGEST = 150, N_WORDS = 250 };
    static const char *const PARTS[] = {
        "the",  "he",       "er",           "the", " t",  "in", "ing", "re",
        "st",   "a",        "an",           "n",   "e",   "s",  "  ",  "and",
        "ther", "\xc3\xa9", "\xe4\xbd\xa0", "or",  "tho", "un", "'",   "\n"};
    static const size_t LENGTHS[] = {1, 2, 3, 8, 31, 32, 33, 63, 64, 65, 66, 67, 80, LONGEST};
    const fixture *f = *state;
    json_t *model = read_model();
    const json_t *merges = json_object_get(json_object_get(model, "model"), "merges");
    char(*symbols)[64] = calloc(LONGEST, sizeof *symbols);
    uint32_t random = 1;
    assert_non_null(symbols);
    for (size_t k = 0; k < N_WORDS; k++) {
        const size_t n = LENGTHS[k % (sizeof LENGTHS / sizeof *LENGTHS)];
        qvl_text word = {0};
        qvl_ids ids = {0};
        while (word.len < n) {
            random = random * 1664525u + 1013904223u;
            assert_int_equal(
                qvl_text_puts(&word, PARTS[(random >> 16) % (sizeof PARTS / sizeof *PARTS)], NULL),
                QVL_OK);
        }
        for (size_t i = 0; i < n; i++) {
            qvl_text mapped = {0};
            add_mapped(&mapped, (unsigned char)word.data[i]);
            snprintf(symbols[i], sizeof symbols[i], "%s", mapped.data);
            qvl_text_fini(&mapped);
        }
        const size_t n_left = naive_merge(symbols, n, merges);
        assert_int_equal(
            qvl_token_encoder_word(f->encoder, word.data, n, word.data + n, &ids, NULL), QVL_OK);
        assert_int_equal(ids.len, n_left);
        for (size_t i = 0; i < n_left; i++)
            assert_int_equal(ids.data[i], qvl_tokenizer_token_id(f->tok, symbols[i]));
        qvl_ids_fini(&ids);
        qvl_text_fini(&word);
    }
    free(symbols);
    json_decref(model);
}

/* More words than the cache has places, then all of them again. */
static void cache_changes_nothing(void **state)
{
    enum { N_WORDS = 3 * QVL_WORD_SLOTS };
    const fixture *f = *state;
    qvl_token_encoder *encoder = NULL;
    qvl_ids first = {0}, again = {0}, one = {0};
    char word[32];
    assert_int_equal(qvl_token_encoder_create(&encoder, f->tok, NULL), QVL_OK);
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < N_WORDS; i++) {
            const int n =
                snprintf(word, sizeof word, " %c%c%c%c%c", 'a' + i % 26, 'a' + i / 26 % 26,
                         'a' + i / 676 % 26, 'a' + i / 17576, "th"[i % 2]);
            assert_int_equal(qvl_tokenizer_encode(encoder, word, (size_t)n, false,
                                                  round ? &again : &first, NULL),
                             QVL_OK);
            if (i == 0)
                assert_int_equal(qvl_tokenizer_encode(encoder, word, (size_t)n, false, &one, NULL),
                                 QVL_OK);
        }
    assert_int_equal(first.len, again.len);
    assert_memory_equal(first.data, again.data, first.len * sizeof *first.data);
    assert_memory_equal(first.data, one.data, one.len / 2 * sizeof *one.data);
    qvl_ids_fini(&first);
    qvl_ids_fini(&again);
    qvl_ids_fini(&one);
    qvl_token_encoder_destroy(encoder);
}

/* --- accessors, decoding, texts -----------------------------------------------------------------
 */

static void looks_tokens_up(void **state)
{
    const fixture *f = *state;
    size_t n = 0;
    char sha256[QVL_SHA256_TEXT_BYTES];
    const int32_t end = qvl_tokenizer_token_id(f->tok, "<|im_end|>");
    assert_int_equal(qvl_tokenizer_n_ids(f->tok), 912);
    assert_int_equal(end, 902);
    assert_true(qvl_tokenizer_is_special(f->tok, end));
    assert_memory_equal(qvl_tokenizer_token_bytes(f->tok, end, &n), "<|im_end|>", 10);
    assert_int_equal(n, 10);
    const int32_t call = qvl_tokenizer_token_id(f->tok, "<tool_call>");
    assert_true(call > end && !qvl_tokenizer_is_special(f->tok, call));
    const int32_t the = qvl_tokenizer_token_id(f->tok, "\xc4\xa0the"); /* U+0120: a blank */
    assert_true(the >= 0 && !qvl_tokenizer_is_special(f->tok, the));
    assert_memory_equal(qvl_tokenizer_token_bytes(f->tok, the, &n), " the", 4);
    assert_int_equal(n, 4);
    assert_int_equal(qvl_tokenizer_token_id(f->tok, "no such token"), -1);
    assert_int_equal(qvl_tokenizer_token_id(f->tok, ""), -1);
    assert_null(qvl_tokenizer_token_bytes(f->tok, 912, &n));
    assert_null(qvl_tokenizer_token_bytes(f->tok, -1, &n));
    assert_false(qvl_tokenizer_is_special(f->tok, 912) || qvl_tokenizer_is_special(f->tok, -1));
    assert_int_equal(qvl_sha256_file(sha256, MODEL_PATH, NULL), QVL_OK);
    assert_string_equal(qvl_tokenizer_sha256(f->tok), sha256);
    bool is_seen[256] = {false};
    for (int32_t id = 0; id < 912; id++) { /* every byte is a token */
        const char *bytes = qvl_tokenizer_token_bytes(f->tok, id, &n);
        if (bytes && n == 1)
            is_seen[(unsigned char)bytes[0]] = true;
    }
    for (int byte = 0; byte < 256; byte++)
        assert_true(is_seen[byte]);
}

/* The token of each byte, concatenated and decoded. */
static void expect_bytes(const fixture *f, const char *bytes, size_t n, const char *text)
{
    qvl_text got = {0};
    int32_t ids[16];
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)f->tok->byte_ids[(unsigned char)bytes[i]];
    assert_int_equal(qvl_tokenizer_decode(f->tok, ids, n, false, &got, NULL), QVL_OK);
    assert_string_equal(got.data, text);
    qvl_text_fini(&got);
}

#define BAD "\xef\xbf\xbd"

static void replaces_malformed_bytes(void **state)
{
    const fixture *f = *state;
    expect_bytes(f,
                 "a\xff\xfe"
                 "b",
                 4, "a" BAD BAD "b");
    expect_bytes(f, "\xe4\xbd", 2, BAD); /* cut short: one for the stretch */
    expect_bytes(f, "\xe4\xbdz", 3, BAD "z");
    expect_bytes(f, "\xf0\x9f\x98", 3, BAD);
    expect_bytes(f, "\xf0\x9f\x98\x80", 4, "\xf0\x9f\x98\x80");
    expect_bytes(f, "\xc0\x80", 2, BAD BAD);         /* overlong */
    expect_bytes(f, "\xe0\x80\x80", 3, BAD BAD BAD); /* overlong */
    expect_bytes(f, "\xed\xa0\x80", 3, BAD BAD BAD); /* a surrogate */
    expect_bytes(f, "\xf4\x90\x80\x80", 4, BAD BAD BAD BAD);
    expect_bytes(f, "\x80\xc3", 2, BAD BAD);
    /* An added token stands between the two bytes of a character; left out, they join. */
    const uint32_t *bytes = f->tok->byte_ids;
    const int32_t ids[] = {(int32_t)bytes[0xc3], 902, (int32_t)bytes[0xa9]};
    qvl_text got = {0};
    assert_int_equal(qvl_tokenizer_decode(f->tok, ids, 3, false, &got, NULL), QVL_OK);
    assert_string_equal(got.data, BAD "<|im_end|>" BAD);
    qvl_text_clear(&got);
    assert_int_equal(qvl_tokenizer_decode(f->tok, ids, 3, true, &got, NULL), QVL_OK);
    assert_string_equal(got.data, "\xc3\xa9");
    qvl_text_fini(&got);
}

static void decodes_unused_ids_to_nothing(void **state)
{
    const fixture *f = *state;
    const int32_t ids[] = {912, 902, 2000000000, 902}, negative[] = {902, -100};
    qvl_text got = {0};
    qvl_err err = {0};
    assert_int_equal(qvl_tokenizer_decode(f->tok, ids, 4, false, &got, NULL), QVL_OK);
    assert_string_equal(got.data, "<|im_end|><|im_end|>");
    assert_int_equal(qvl_tokenizer_decode(f->tok, negative, 2, false, &got, &err), QVL_EDATA);
    assert_string_equal(err.text, "token id -100 at 1, expected 0 or more");
    qvl_text_fini(&got);
}

/* Texts below U+0300 are in NFC, so they come back as they were. */
static void round_trips(void **state)
{
    const fixture *f = *state;
    uint32_t random = 7;
    for (int k = 0; k < 300; k++) {
        qvl_text text = {0}, back = {0};
        qvl_ids ids = {0};
        for (int i = 0; i < k; i++) {
            random = random * 1664525u + 1013904223u;
            const unsigned point = (random >> 9) % (k % 2 ? 0x300 : 0x80);
            const char two[2] = {(char)(0xc0 | point >> 6), (char)(0x80 | (point & 0x3f))};
            const char one = (char)point;
            assert_int_equal(
                qvl_text_add(&text, point < 0x80 ? &one : two, point < 0x80 ? 1 : 2, NULL), QVL_OK);
        }
        assert_int_equal(qvl_tokenizer_encode(f->encoder, text.data ? text.data : "", text.len,
                                              false, &ids, NULL),
                         QVL_OK);
        assert_int_equal(qvl_tokenizer_decode(f->tok, ids.data, ids.len, false, &back, NULL),
                         QVL_OK);
        assert_int_equal(back.len, text.len);
        if (text.len)
            assert_memory_equal(back.data, text.data, text.len);
        qvl_text_fini(&text);
        qvl_text_fini(&back);
        qvl_ids_fini(&ids);
    }
}

static void refuses_invalid_utf8(void **state)
{
    static const struct {
        const char *text;
        size_t n_bytes, offset;
    } CASES[] = {
        {"\xff", 1, 0},
        {"abc\x80", 4, 3},
        {"0123456789\xc3\xa9\xc3", 13, 12},
        {"01234567\xed\xa0\x80", 11, 8},
        {"<|im_end|>\xf5", 11, 10},
        {"a\0\xc0\x80", 4, 2},
    };
    const fixture *f = *state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char expected[80];
        const int32_t before = 5;
        qvl_ids ids = {0};
        qvl_err err = {0};
        assert_int_equal(qvl_ids_add(&ids, &before, 1, NULL), QVL_OK);
        assert_int_equal(
            qvl_tokenizer_encode(f->encoder, CASES[i].text, CASES[i].n_bytes, false, &ids, &err),
            QVL_EDATA);
        snprintf(expected, sizeof expected, "the text is not UTF-8 at byte %zu (0x%02x)",
                 CASES[i].offset, (unsigned char)CASES[i].text[CASES[i].offset]);
        assert_string_equal(err.text, expected);
        assert_int_equal(ids.len, 1);
        qvl_ids_fini(&ids);
    }
}

/* Runs far past any cache or stack; twice as much text must not take much more than twice the
 * steps, which the limit on them would show. */
static void takes_long_runs(void **state)
{
    static const char *const UNITS[] = {" ",
                                        "\n",
                                        " \n",
                                        "a",
                                        "!",
                                        "1",
                                        "e\xcc\x81",
                                        "\xe4\xbd\xa0",
                                        "\xe3\x80\x80",
                                        "<|im_end",
                                        "\xcc\x81\xcc\x96"};
    enum { N_BYTES = 1 << 20 };
    const fixture *f = *state;
    char *text = malloc(N_BYTES + 16);
    assert_non_null(text);
    for (int use_jit = 0; use_jit < 2; use_jit++)
        for (size_t k = 0; k < sizeof UNITS / sizeof *UNITS; k++) {
            const size_t unit = strlen(UNITS[k]);
            size_t n = 0;
            qvl_token_encoder *encoder = NULL;
            qvl_ids ids = {0};
            qvl_text back = {0};
            qvl_err err = {0};
            for (; n < N_BYTES; n += unit)
                memcpy(text + n, UNITS[k], unit);
            text[n++] = 'x';
            assert_int_equal(qvl_token_encoder_create(&encoder, f->tok, NULL), QVL_OK);
            encoder->use_jit = use_jit && f->tok->has_jit;
            if (qvl_tokenizer_encode(encoder, text, n, false, &ids, &err) != QVL_OK)
                fail_msg("%s: %s", UNITS[k], err.text);
            assert_int_equal(qvl_tokenizer_decode(f->tok, ids.data, ids.len, false, &back, NULL),
                             QVL_OK);
            if (!strchr(UNITS[k], '\xcc')) { /* NFC leaves it */
                assert_int_equal(back.len, n);
                assert_memory_equal(back.data, text, n);
            }
            qvl_ids_fini(&ids);
            qvl_text_fini(&back);
            qvl_token_encoder_destroy(encoder);
        }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encodes_as_the_reference),
        cmocka_unit_test(encodes_the_same_without_jit),
        cmocka_unit_test(decodes_as_the_reference),
        cmocka_unit_test(takes_byte_level_alone),
        cmocka_unit_test(takes_the_older_form),
        cmocka_unit_test(normalizes_only_where_asked),
        cmocka_unit_test(merges_as_a_naive_loop),
        cmocka_unit_test(cache_changes_nothing),
        cmocka_unit_test(looks_tokens_up),
        cmocka_unit_test(replaces_malformed_bytes),
        cmocka_unit_test(decodes_unused_ids_to_nothing),
        cmocka_unit_test(round_trips),
        cmocka_unit_test(refuses_invalid_utf8),
        cmocka_unit_test(takes_long_runs),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
