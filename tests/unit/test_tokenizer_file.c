/* tokenizer.json files that are wrong, and the split expression: what is passed on to PCRE2, what
 * is refused, and what \s means. */
#include "io/tokenizer.h"
#include "io/tokenizer_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/tokenizer_variants.h"

/* A message is one line that begins with the file and holds this text. */
static void expect_message(const qvl_err *err, const char *text)
{
    char path[64];
    variant_path(path);
    if (strncmp(err->text, path, strlen(path)) != 0 || !strstr(err->text, text) ||
        strchr(err->text, '\n'))
        fail_msg("message \"%s\", expected %s and \"%s\"", err->text, path, text);
}

static void expect_refused(json_t *model, const char *text)
{
    qvl_tokenizer *tok = NULL;
    qvl_err err = {0};
    assert_int_equal(load_model(&tok, model, &err), QVL_EDATA);
    assert_null(tok);
    expect_message(&err, text);
}

/* Path, new value (NULL removes it), part of the message. */
static const struct {
    const char *path, *value, *message;
} WRONG_MEMBERS[] = {
    {"version", "\"2.0\"", "version is \"2.0\", expected \"1.0\""},
    {"version", NULL, "version is missing, expected \"1.0\""},
    {"version", "1", "version is 1, expected \"1.0\""},
    {"model", NULL, "model is missing, expected an object"},
    {"model", "[]", "model is an array, expected an object"},
    {"model.type", "\"Unigram\"", "model.type is \"Unigram\", expected \"BPE\""},
    {"model.type", NULL, "model.type is missing"},
    {"model.dropout", "0.1", "model.dropout is 0.1, expected null"},
    {"model.unk_token", "\"<unk>\"", "model.unk_token is \"<unk>\", expected null"},
    {"model.continuing_subword_prefix", "\"##\"", "model.continuing_subword_prefix is \"##\""},
    {"model.end_of_word_suffix", "\"</w>\"", "model.end_of_word_suffix is \"</w>\""},
    {"model.fuse_unk", "true", "model.fuse_unk is true, expected false"},
    {"model.byte_fallback", "true", "model.byte_fallback is true, expected false"},
    {"model.ignore_merges", "true", "model.ignore_merges is true, expected false"},
    {"model.vocab", NULL, "model.vocab is missing, expected an object"},
    {"model.vocab", "[\"a\"]", "model.vocab is an array"},
    {"model.vocab", "{}", "model.vocab has no \"\xc4\x80\", the token of byte 0x00"},
    {"model.vocab.a", NULL, "model.vocab has no \"a\", the token of byte 0x61"},
    {"model.vocab.\xc4\xa0", NULL, "the token of byte 0x20"},
    {"model.vocab.a", "\"1\"", "model.vocab \"a\": the id is not an integer"},
    {"model.vocab.a", "1.0", "model.vocab \"a\": the id is not an integer"},
    {"model.vocab.a", "true", "model.vocab \"a\": the id is not an integer"},
    {"model.vocab.a", "-1", "model.vocab \"a\": id -1, expected 0..4194303"},
    {"model.vocab.a", "4194304", "model.vocab \"a\": id 4194304, expected 0..4194303"},
    {"model.vocab.a", "9000000000000000000", "id 9000000000000000000, expected"},
    {"model.vocab.new", "300", "model.vocab gives id 300 to "},
    {"model.merges", NULL, "model.merges is missing, expected an array"},
    {"model.merges", "{}", "model.merges is an object"},
    {"model.merges.3", "[\"a\"]", "model.merges[3] is not a pair of tokens"},
    {"model.merges.3", "[\"a\",\"b\",\"c\"]", "model.merges[3] is not a pair of tokens"},
    {"model.merges.3", "[\"a\",1]", "model.merges[3] is not a pair of tokens"},
    {"model.merges.3", "\"ab\"", "model.merges[3] is not a pair of tokens"},
    {"model.merges.3", "\"a b c\"", "model.merges[3] is not a pair of tokens"},
    {"model.merges.3", "7", "model.merges[3] is not a pair of tokens"},
    {"model.merges.3", "[\"\",\"a\"]", "model.merges[3]: \"\" is not in model.vocab"},
    {"model.merges.3", "[\"a\",\"#?#\"]", "model.merges[3]: \"#?#\" is not in model.vocab"},
    {"model.merges.3", "[\"z\",\"q\"]", "model.merges[3]: the result \"zq\" is not in"},
    {"model.merges.0", "[\"<|im_end|>\",\"a\"]", "model.merges[0]: \"<|im_end|>\" is not in"},
    {"added_tokens", NULL, "added_tokens is missing, expected an array"},
    {"added_tokens", "{}", "added_tokens is an object"},
    {"added_tokens.1", "7", "added_tokens[1].content is missing"},
    {"added_tokens.1.content", NULL, "added_tokens[1].content is missing"},
    {"added_tokens.1.content", "7", "added_tokens[1].content is an integer"},
    {"added_tokens.1.content", "\"\"", "added_tokens[1].content has 0 bytes, expected 1..512"},
    {"added_tokens.1.id", NULL, "added_tokens \"<|im_start|>\": the id is not an integer"},
    {"added_tokens.1.id", "-3", "added_tokens \"<|im_start|>\": id -3"},
    {"added_tokens.1.id", "4194304", "added_tokens \"<|im_start|>\": id 4194304"},
    {"added_tokens.1.id", "902", "\"<|im_end|>\" has id 902, which is that of \"<|im_start|>\""},
    {"added_tokens.1.id", "300", "\"<|im_start|>\" has id 300, which is that of \""},
    {"added_tokens.1.content", "\"<|im_end|>\"", "added_tokens has \"<|im_end|>\" twice"},
    {"added_tokens.1.content", "\"a\"", "added_tokens \"a\" has id 901, but id 64 in model.vocab"},
    {"added_tokens.1.lstrip", "true", "added_tokens[1].lstrip of \"<|im_start|>\" is not false"},
    {"added_tokens.1.rstrip", "true", "added_tokens[1].rstrip of \"<|im_start|>\" is not false"},
    {"added_tokens.1.single_word", "true", "added_tokens[1].single_word of \"<|im_start|>\""},
    {"added_tokens.1.normalized", "true", "added_tokens[1].normalized of \"<|im_start|>\""},
    {"added_tokens.1.normalized", NULL, "added_tokens[1].normalized of \"<|im_start|>\""},
    {"added_tokens.1.special", "1", "added_tokens[1].special of \"<|im_start|>\" is neither"},
    {"added_tokens.1.special", NULL, "added_tokens[1].special of \"<|im_start|>\" is neither"},
    {"normalizer", "\"NFC\"", "normalizer is a string, expected an object"},
    {"normalizer.type", "\"NFKC\"", "normalizer.type is \"NFKC\", expected \"NFC\""},
    {"pre_tokenizer", NULL, "pre_tokenizer is missing, expected an object"},
    {"pre_tokenizer", "null", "pre_tokenizer is null, expected an object"},
    {"pre_tokenizer.type", "\"Whitespace\"", "pre_tokenizer.type is \"Whitespace\", expected"},
    {"pre_tokenizer.pretokenizers", NULL, "pre_tokenizer.pretokenizers is missing"},
    {"pre_tokenizer.pretokenizers.2", "{}", "pre_tokenizer.pretokenizers has 3 steps"},
    {"pre_tokenizer.pretokenizers.1", NULL, "pre_tokenizer.pretokenizers has 1 steps"},
    {"pre_tokenizer.pretokenizers.0", "7", "pretokenizers[0].type is missing"},
    {"pre_tokenizer.pretokenizers.0.type", "\"Digits\"", "pretokenizers[0].type is \"Digits\""},
    {"pre_tokenizer.pretokenizers.0.behavior", "\"Removed\"", "[0].behavior is \"Removed\""},
    {"pre_tokenizer.pretokenizers.0.invert", "true", "[0].invert is true, expected false"},
    {"pre_tokenizer.pretokenizers.0.pattern", "\"a\"", "[0].pattern is a string"},
    {"pre_tokenizer.pretokenizers.0.pattern", "{\"String\":\" \"}", "[0].pattern.Regex is miss"},
    {"pre_tokenizer.pretokenizers.1.type", "\"Split\"", "[1].type is \"Split\", expected"},
    {"pre_tokenizer.pretokenizers.1.add_prefix_space", "true", "[1].add_prefix_space is true"},
    {"pre_tokenizer.pretokenizers.1.add_prefix_space", NULL, "[1].add_prefix_space is missing"},
    {"pre_tokenizer.pretokenizers.1.use_regex", "true", "[1].use_regex is true, expected false"},
    {"pre_tokenizer.pretokenizers.1.use_regex", NULL, "[1].use_regex is true, expected false"},
    {"pre_tokenizer.pretokenizers.1.use_regex", "0", "[1].use_regex is 0, expected true or"},
    {"decoder", NULL, "decoder is missing, expected an object"},
    {"decoder", "null", "decoder is null, expected an object"},
    {"decoder.type", "\"WordPiece\"", "decoder.type is \"WordPiece\", expected \"ByteLevel\""},
};

static void names_the_member_that_is_wrong(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof WRONG_MEMBERS / sizeof *WRONG_MEMBERS; i++) {
        json_t *model = read_model();
        change(model, WRONG_MEMBERS[i].path, WRONG_MEMBERS[i].value);
        expect_refused(model, WRONG_MEMBERS[i].message);
    }
}

static void refuses_a_merge_listed_twice(void **state)
{
    json_t *model = read_model();
    json_t *merges = json_object_get(json_object_get(model, "model"), "merges");
    (void)state;
    assert_int_equal(json_array_append(merges, json_array_get(merges, 5)), 0);
    expect_refused(model, "] repeats model.merges[5]");
}

static void refuses_an_empty_token(void **state)
{
    json_t *model = read_model();
    json_t *vocab = json_object_get(json_object_get(model, "model"), "vocab");
    (void)state;
    assert_int_equal(json_object_set_new(vocab, "", json_integer(3000)), 0);
    expect_refused(model, "model.vocab has an empty token");
}

static void refuses_long_added_tokens(void **state)
{
    json_t *model = read_model();
    char value[600];
    (void)state;
    memset(value, 'x', sizeof value);
    value[0] = value[514] = '"';
    value[515] = '\0';
    change(model, "added_tokens.0.content", value);
    expect_refused(model, "added_tokens[0].content has 513 bytes, expected 1..512");
}

/* A message shows the beginning of a long name, and no control characters. */
static void messages_stay_short(void **state)
{
    json_t *model = read_model();
    json_t *vocab = json_object_get(json_object_get(model, "model"), "vocab");
    qvl_tokenizer *tok = NULL;
    qvl_err err = {0};
    char name[4000];
    (void)state;
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    name[3] = '\n';
    assert_int_equal(json_object_set_new(vocab, name, json_integer(-1)), 0);
    assert_int_equal(load_model(&tok, model, &err), QVL_EDATA);
    expect_message(&err, "model.vocab \"nnn?nnn");
    assert_true(strlen(err.text) < 250);
}

/* In the vocabulary and among the added tokens, under one id. */
static void takes_an_added_token_of_the_vocabulary(void **state)
{
    qvl_tokenizer *tok = NULL;
    qvl_token_encoder *encoder = NULL;
    qvl_ids ids = {0};
    qvl_err err = {0};
    json_t *model = read_model();
    (void)state;
    change(model, "model.vocab.<|im_end|>", "902");
    change(model, "model.vocab.far away", "1000");
    assert_int_equal(load_model(&tok, model, &err), QVL_OK);
    assert_int_equal(qvl_tokenizer_n_ids(tok), 1001);
    assert_int_equal(qvl_tokenizer_token_id(tok, "<|im_end|>"), 902);
    assert_int_equal(qvl_tokenizer_token_id(tok, "far away"), 1000);
    assert_int_equal(qvl_token_encoder_create(&encoder, tok, &err), QVL_OK);
    assert_int_equal(qvl_tokenizer_encode(encoder, "<|im_end|>", 10, false, &ids, &err), QVL_OK);
    assert_int_equal(ids.len, 1);
    assert_int_equal(ids.data[0], 902);
    qvl_ids_fini(&ids);
    qvl_token_encoder_destroy(encoder);
    qvl_tokenizer_destroy(tok);
}

static void expect_bytes_refused(const char *bytes, size_t n_bytes, const char *text)
{
    qvl_tokenizer *tok = NULL;
    qvl_err err = {0};
    assert_int_equal(load_bytes(&tok, bytes, n_bytes, &err), QVL_EDATA);
    assert_null(tok);
    expect_message(&err, text);
}

static void refuses_what_is_not_json(void **state)
{
    (void)state;
    expect_bytes_refused("", 0, "");
    expect_bytes_refused("\0\0", 2, "");
    expect_bytes_refused("[1]", 3, "the top level is not an object");
    expect_bytes_refused("{\"version\":\"1.0\"} x", 19, "end of file expected");
    expect_bytes_refused("{\"version\":\"1.0\",\"version\":\"1.0\"}", 33, "duplicate object key");
    expect_bytes_refused("{\"version\":\"\xff\"}", 15, "unable to decode byte 0xff");
    expect_bytes_refused("{\"a\":\"\\u0000\"}", 14, "\\u0000");
    char *deep = malloc(100000);
    assert_non_null(deep);
    memset(deep, '[', 100000);
    expect_bytes_refused(deep, 100000, "maximum parsing depth");
    free(deep);
}

/* Cut anywhere: never a tokenizer, always a message. */
static void refuses_a_file_cut_short(void **state)
{
    qvl_text file = {0};
    (void)state;
    assert_int_equal(qvl_file_read(&file, MODEL_PATH, (size_t)1 << 20, NULL), QVL_OK);
    while (file.data[file.len - 1] != '}') /* without the newline it is whole */
        file.len--;
    for (size_t n = 0; n < file.len; n += n < 300 ? 7 : 997)
        expect_bytes_refused(file.data, n, "");
    expect_bytes_refused(file.data, file.len - 1, "");
    qvl_text_fini(&file);
}

static void says_when_there_is_no_file(void **state)
{
    qvl_tokenizer *tok = NULL;
    qvl_err err = {0};
    (void)state;
    assert_int_equal(qvl_tokenizer_load(&tok, "no/such/tokenizer.json", &err), QVL_EMISSING);
    assert_non_null(strstr(err.text, "no/such/tokenizer.json"));
    qvl_err_clear(&err);
    assert_int_equal(qvl_tokenizer_load(&tok, ".", &err), QVL_EMISSING);
    assert_null(tok);
}

static void refuses_a_file_over_the_limit(void **state)
{
    qvl_tokenizer *tok = NULL;
    qvl_err err = {0};
    char path[64];
    (void)state;
    FILE *file = fopen(variant_path(path), "wb");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)QVL_TOKENIZER_FILE_BYTES, SEEK_SET), 0); /* a hole */
    assert_int_equal(fputc('x', file), 'x');
    assert_int_equal(fclose(file), 0);
    const qvl_status rc = qvl_tokenizer_load(&tok, path, &err);
    unlink(path);
    assert_int_equal(rc, QVL_EDATA);
    assert_null(tok);
    expect_message(&err, "");
}

/* --- the split expression -----------------------------------------------------------------------
 */

static qvl_status load_pattern(qvl_tokenizer **out, const char *pattern, qvl_err *err)
{
    json_t *model = read_model();
    json_t *steps = json_object_get(json_object_get(model, "pre_tokenizer"), "pretokenizers");
    json_t *regex = json_object_get(json_array_get(steps, 0), "pattern");
    assert_int_equal(json_object_set_new(regex, "Regex", json_string(pattern)), 0);
    return load_model(out, model, err);
}

static void passes_on_what_both_engines_read_alike(void **state)
{
    static const char *const PATTERNS[] = {"a|b",
                                           "(?:a+|b)",
                                           "(a)(b)?c",
                                           "(?i:abc)",
                                           "a(?=b)|b(?!c)|(?<=x)y|(?<!z)w",
                                           "(?>ab|a)",
                                           "a+?|b*?c|d??e",
                                           "a++|b*+c|d?+e",
                                           "\\p{N}{1,3}|\\p{L}{2,}|a{3}|b{1,2}?",
                                           ".",
                                           "\\r\\n\\t|\\d|\\D",
                                           "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+",
                                           "[a-z\\-\\]\\[]",
                                           "[-a]|[a-]|[\\s-]",
                                           "[\xe4\xb8\x80-\xe9\xbe\xa5]+",
                                           "\\.\\*\\(\\)\\[\\]\\{\\}\\\\\\/\\'\\#",
                                           "[\\S\\s]",
                                           "\\P{Lu}|\\p{Sc}",
                                           "a&b|[&a]",
                                           "x|#y"};
    (void)state;
    for (size_t i = 0; i < sizeof PATTERNS / sizeof *PATTERNS; i++) {
        qvl_tokenizer *tok = NULL;
        qvl_err err = {0};
        if (load_pattern(&tok, PATTERNS[i], &err) != QVL_OK)
            fail_msg("%s", err.text);
        qvl_tokenizer_destroy(tok);
    }
}

static const struct {
    const char *pattern, *message;
} REFUSED_PATTERNS[] = {
    {"", "Regex is empty"},
    {"\\w+", "an escape sequence that is not supported at byte 0: \"\\w+\""},
    {"a\\h", "an escape sequence that is not supported at byte 1"},
    {"\\x41", "an escape sequence"},
    {"\\b", "an escape sequence"},
    {"\\Ka", "an escape sequence"},
    {"\\1", "an escape sequence"},
    {"a\\", "an escape sequence"},
    {"\\\xc3\xa9", "an escape sequence"},
    {"^a", "an anchor"},
    {"a$", "an anchor at byte 1"},
    {"\\p{Han}", "a property that is no general category"},
    {"\\p{^L}", "a property"},
    {"\\pL", "a property"},
    {"\\p{L", "a property"},
    {"(?i)a", "a group of this kind at byte 0"},
    {"(?m:a)", "a group"},
    {"(?<name>a)", "a group"},
    {"(?P<n>a)", "a group"},
    {"(*COMMIT)a", "a verb"},
    {"[[:alpha:]]", "a class in a class at byte 1"},
    {"[a[b]]", "a class in a class"},
    {"[a&&b]", "a class in a class"},
    {"[]a]", "an empty class"},
    {"[^]a]", "an empty class"},
    {"[a", "a class that does not end"},
    {"[a\\", "an escape sequence"},
    {"[\\s-z]", "a range that begins or ends with a set"},
    {"[a-\\S]", "a range that begins or ends with a set"},
    {"[\\p{L}-z]", "a range that begins or ends with a set"},
    {"a{,3}", "a repetition of this form at byte 1"},
    {"a{x}", "a repetition"},
    {"a{2}?", "a repetition"},
    {"a{1,2}+", "a repetition"},
    {"a{2", "a repetition"},
    {"(a", "missing closing parenthesis"},
    {"a)", "unmatched closing parenthesis"},
    {"*a", "quantifier does not follow"},
    {"a{70000}", "number too big"},
    {"((a{1,60000}){1,60000}){1,60000}b", "Regex \"((a{1,60000})"},
    {"a*", "can match nothing"},
    {"a|", "can match nothing"},
    {"(?=a)", "can match nothing"},
};

static void refuses_what_they_read_differently(void **state)
{
    char *longest = malloc(5000);
    (void)state;
    assert_non_null(longest);
    for (size_t i = 0; i < sizeof REFUSED_PATTERNS / sizeof *REFUSED_PATTERNS; i++) {
        qvl_tokenizer *tok = NULL;
        qvl_err err = {0};
        assert_int_equal(load_pattern(&tok, REFUSED_PATTERNS[i].pattern, &err), QVL_EDATA);
        assert_null(tok);
        expect_message(&err, "pre_tokenizer.pretokenizers[0].pattern.Regex");
        expect_message(&err, REFUSED_PATTERNS[i].message);
    }
    qvl_tokenizer *tok = NULL;
    qvl_err err = {0};
    memset(longest, 'a', 4097);
    longest[4097] = '\0';
    assert_int_equal(load_pattern(&tok, longest, &err), QVL_EDATA);
    expect_message(&err, "has 4097 bytes, expected 4096 or less");
    free(longest);
}

/* Unicode's White_Space, written down apart from the code's ranges. */
static bool is_white_space(uint32_t point)
{
    static const uint32_t POINTS[] = {0x09,   0x0a,   0x0b,   0x0c,   0x0d,   0x20,   0x85,
                                      0xa0,   0x1680, 0x2000, 0x2001, 0x2002, 0x2003, 0x2004,
                                      0x2005, 0x2006, 0x2007, 0x2008, 0x2009, 0x200a, 0x2028,
                                      0x2029, 0x202f, 0x205f, 0x3000};
    for (size_t i = 0; i < sizeof POINTS / sizeof *POINTS; i++)
        if (POINTS[i] == point)
            return true;
    return false;
}

static size_t encode_point(char out[4], uint32_t point)
{
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    const size_t n = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, point >>= 6)
        out[i] = (char)(0x80 | (point & 0x3f));
    out[0] = (char)((0xf00 >> n & 0xff) | point);
    return n;
}

/* Every code point against each way of writing the two sets. */
static void white_space_is_unicodes(void **state)
{
    static const struct {
        const char *pattern;
        bool is_space; /* the pattern stands for white space, or for all else */
    } CASES[] = {{"\\s", true},      {"[\\s]", true},        {"[^\\S]", true},
                 {"(?i:\\s)", true}, {"\\S", false},         {"[\\S]", false},
                 {"[^\\s]", false},  {"[\\p{L}\\S]", false}, {"(?i:\\S)", false}};
    (void)state;
    for (size_t k = 0; k < sizeof CASES / sizeof *CASES; k++) {
        qvl_tokenizer *tok = NULL;
        qvl_err err = {0};
        if (load_pattern(&tok, CASES[k].pattern, &err) != QVL_OK)
            fail_msg("%s", err.text);
        pcre2_match_data *match = pcre2_match_data_create(1, NULL);
        assert_non_null(match);
        for (uint32_t point = 0; point < 0x110000; point++) {
            char text[4];
            if (point >= 0xd800 && point < 0xe000)
                continue;
            const size_t n = encode_point(text, point);
            const int rc = pcre2_match(tok->split, (PCRE2_SPTR)text, n, 0, 0, match, NULL);
            assert_true(rc == 1 || rc == PCRE2_ERROR_NOMATCH);
            if ((rc == 1) != (is_white_space(point) == CASES[k].is_space))
                fail_msg("%s and U+%04X", CASES[k].pattern, (unsigned)point);
        }
        pcre2_match_data_free(match);
        qvl_tokenizer_destroy(tok);
    }
}

/* What an expression leaves out is a word of its own: each word by itself gives the same ids. */
static void keeps_text_between_matches(void **state)
{
    static const char *const WORDS[] = {"t", "he", "n t", "he", " t", "he", "re"};
    qvl_tokenizer *tok = NULL;
    qvl_token_encoder *encoder = NULL;
    qvl_ids whole = {0}, single = {0};
    qvl_text text = {0}, back = {0};
    qvl_err err = {0};
    (void)state;
    assert_int_equal(load_pattern(&tok, "he|z+", &err), QVL_OK);
    assert_int_equal(qvl_token_encoder_create(&encoder, tok, &err), QVL_OK);
    for (size_t i = 0; i < sizeof WORDS / sizeof *WORDS; i++) {
        assert_int_equal(qvl_text_puts(&text, WORDS[i], &err), QVL_OK);
        assert_int_equal(
            qvl_tokenizer_encode(encoder, WORDS[i], strlen(WORDS[i]), false, &single, &err),
            QVL_OK);
    }
    assert_int_equal(qvl_tokenizer_encode(encoder, text.data, text.len, false, &whole, &err),
                     QVL_OK);
    assert_int_equal(whole.len, single.len);
    assert_memory_equal(whole.data, single.data, whole.len * sizeof *whole.data);
    assert_int_equal(qvl_tokenizer_decode(tok, whole.data, whole.len, false, &back, &err), QVL_OK);
    assert_string_equal(back.data, text.data);
    qvl_text_fini(&back);
    qvl_ids_fini(&whole);
    qvl_ids_fini(&single);
    qvl_text_fini(&text);
    qvl_token_encoder_destroy(encoder);
    qvl_tokenizer_destroy(tok);
}

/* An expression that backtracks without bound ends with a message, compiled or interpreted. */
static void stops_an_endless_match(void **state)
{
    char text[200];
    qvl_tokenizer *tok = NULL;
    qvl_err err = {0};
    (void)state;
    memset(text, 'a', sizeof text);
    memcpy(text, "<|im_end|>", 10); /* its id must be taken back */
    memcpy(text + sizeof text - 2, "cb",
           2); /* the b is there, so the search is not cut off early */
    assert_int_equal(load_pattern(&tok, "(?:a|aa)+b", &err), QVL_OK);
    for (int use_jit = 0; use_jit < 2; use_jit++) {
        qvl_token_encoder *encoder = NULL;
        qvl_ids ids = {0};
        qvl_err_clear(&err);
        assert_int_equal(qvl_token_encoder_create(&encoder, tok, &err), QVL_OK);
        encoder->use_jit = use_jit && tok->has_jit;
        assert_int_equal(qvl_tokenizer_encode(encoder, text, sizeof text, false, &ids, &err),
                         QVL_EDATA);
        assert_non_null(strstr(err.text, "split expression at byte 0 of a piece: match limit"));
        assert_int_equal(ids.len, 0);
        qvl_ids_fini(&ids);
        qvl_token_encoder_destroy(encoder);
    }
    qvl_tokenizer_destroy(tok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_the_member_that_is_wrong),
        cmocka_unit_test(refuses_a_merge_listed_twice),
        cmocka_unit_test(refuses_an_empty_token),
        cmocka_unit_test(refuses_long_added_tokens),
        cmocka_unit_test(messages_stay_short),
        cmocka_unit_test(takes_an_added_token_of_the_vocabulary),
        cmocka_unit_test(refuses_what_is_not_json),
        cmocka_unit_test(refuses_a_file_cut_short),
        cmocka_unit_test(says_when_there_is_no_file),
        cmocka_unit_test(refuses_a_file_over_the_limit),
        cmocka_unit_test(passes_on_what_both_engines_read_alike),
        cmocka_unit_test(refuses_what_they_read_differently),
        cmocka_unit_test(white_space_is_unicodes),
        cmocka_unit_test(keeps_text_between_matches),
        cmocka_unit_test(stops_an_endless_match),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
