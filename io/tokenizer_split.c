/* Encoding: added tokens are cut out of the text, the pieces between are normalised and split into
 * words, and each word is merged (tokenizer_bpe.c). */
#include "io/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/memory.h"

/* Steps that one word may take: enough for any text under Qwen's expression (a run of n blanks is
 * walked a few times), and the end of an expression that backtracks without bound. */
#define BASE_STEPS      1000000u
#define STEPS_PER_BYTE  16u
#define MATCH_HEAP_KIB  (256u << 10)
#define JIT_STACK_FIRST ((size_t)32 << 10)
#define JIT_STACK_LIMIT ((size_t)8 << 20)

typedef struct added_match {
    size_t start, end;
    int32_t id;
} added_match;

qvl_status qvl_token_encoder_create(qvl_token_encoder **out, const qvl_tokenizer *tokenizer,
                                    qvl_err *err)
{
    const size_t cache_bytes = QVL_WORD_SLOTS * sizeof(qvl_word);
    qvl_token_encoder *encoder = NULL;
    qvl_status rc = QVL_OK;
    *out = NULL;
    QVL_TRY(qvl_alloc(&encoder, 1, sizeof *encoder, "token encoder", err));
    encoder->tokenizer = tokenizer;
    encoder->use_jit = tokenizer->has_jit;
    encoder->words = aligned_alloc(sizeof(qvl_word), cache_bytes);
    encoder->match = pcre2_match_data_create(1, NULL);
    encoder->context = pcre2_match_context_create(NULL);
    encoder->jit_stack = pcre2_jit_stack_create(JIT_STACK_FIRST, JIT_STACK_LIMIT, NULL);
    if (!encoder->words || !encoder->match || !encoder->context ||
        (encoder->use_jit && !encoder->jit_stack)) {
        rc = qvl_fail_memory(err, cache_bytes, "token encoder");
        goto out;
    }
    memset(encoder->words, 0, cache_bytes);
    pcre2_set_heap_limit(encoder->context, MATCH_HEAP_KIB);
    if (encoder->jit_stack)
        pcre2_jit_stack_assign(encoder->context, NULL, encoder->jit_stack);
    *out = encoder;
    encoder = NULL;
out:
    qvl_token_encoder_destroy(encoder);
    return rc;
}

void qvl_token_encoder_destroy(qvl_token_encoder *encoder)
{
    if (!encoder)
        return;
    pcre2_match_data_free(encoder->match);
    pcre2_match_context_free(encoder->context);
    pcre2_jit_stack_free(encoder->jit_stack);
    qvl_text_fini(&encoder->nfc);
    free(encoder->points);
    free(encoder->sorted);
    free(encoder->words);
    free(encoder->symbols);
    free(encoder->ranks);
    free(encoder->results);
    free(encoder->previous);
    free(encoder->next);
    free(encoder->heap);
    free(encoder);
}

/* The first place at or after `from` where an added token can begin. */
static size_t next_first_byte(const qvl_tokenizer *tok, const char *text, size_t n_bytes,
                              size_t from)
{
    if (tok->n_first_bytes == 0)
        return n_bytes;
    if (tok->n_first_bytes == 1) {
        const char *found = memchr(text + from, tok->first_byte, n_bytes - from);
        return found ? (size_t)(found - text) : n_bytes;
    }
    while (from < n_bytes && !tok->trie_first[(unsigned char)text[from]])
        from++;
    return from;
}

/* The leftmost added token at or after `from`; of those that begin there, the longest. */
static bool find_added(added_match *out, const qvl_tokenizer *tok, const char *text, size_t n_bytes,
                       size_t from)
{
    for (size_t start = from; start < n_bytes; start++) {
        start = next_first_byte(tok, text, n_bytes, start);
        if (start == n_bytes)
            return false;
        int32_t node = tok->trie_first[(unsigned char)text[start]];
        out->id = -1;
        for (size_t i = start + 1; node; i++) {
            if (tok->trie[node].id >= 0) {
                out->id = tok->trie[node].id;
                out->end = i;
            }
            if (i == n_bytes)
                break;
            node = tok->trie[node].child;
            while (node && tok->trie[node].byte != (unsigned char)text[i])
                node = tok->trie[node].sibling;
        }
        out->start = start;
        if (out->id >= 0)
            return true;
    }
    return false;
}

static qvl_status fail_match(int code, size_t at, qvl_err *err)
{
    PCRE2_UCHAR text[160];
    if (pcre2_get_error_message(code, text, sizeof text) < 0)
        text[0] = '\0';
    return qvl_fail(err, code == PCRE2_ERROR_NOMEMORY ? QVL_EINTERNAL : QVL_EDATA,
                    "the tokenizer's split expression at byte %zu of a piece: %s", at,
                    (const char *)text);
}

/* Splits a normalised piece. Every match is a word, and so is what stands between two matches. */
static qvl_status encode_words(qvl_token_encoder *e, const char *text, size_t n_bytes, qvl_ids *out,
                               qvl_err *err)
{
    const pcre2_code *split = e->tokenizer->split;
    const PCRE2_SIZE *bounds = pcre2_get_ovector_pointer(e->match);
    const char *end = text + n_bytes;
    qvl_status rc = QVL_OK;
    if (!split)
        return n_bytes ? qvl_token_encoder_word(e, text, n_bytes, end, out, err) : QVL_OK;
    const uint64_t steps = BASE_STEPS + (uint64_t)STEPS_PER_BYTE * n_bytes;
    pcre2_set_match_limit(e->context, steps < UINT32_MAX ? (uint32_t)steps : UINT32_MAX);
    for (size_t at = 0; at < n_bytes;) {
        const int code =
            e->use_jit
                ? pcre2_jit_match(split, (PCRE2_SPTR)text, n_bytes, at, 0, e->match, e->context)
                : pcre2_match(split, (PCRE2_SPTR)text, n_bytes, at,
                              PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, e->match, e->context);
        if (code < 0 && code != PCRE2_ERROR_NOMATCH)
            return fail_match(code, at, err);
        const size_t start = code < 0 ? n_bytes : bounds[0], stop = code < 0 ? n_bytes : bounds[1];
        if (start < at || (stop <= start && start < n_bytes))
            return qvl_fail(err, QVL_EDATA, "the tokenizer's split expression matched nothing");
        if (start > at)
            QVL_TRY(qvl_token_encoder_word(e, text + at, start - at, end, out, err));
        if (stop > start)
            QVL_TRY(qvl_token_encoder_word(e, text + start, stop - start, end, out, err));
        at = stop;
    }
out:
    return rc;
}

static qvl_status encode_piece(qvl_token_encoder *e, const char *text, size_t n_bytes, qvl_ids *out,
                               qvl_err *err)
{
    if (e->tokenizer->needs_nfc) {
        const qvl_status rc = qvl_token_encoder_normalize(&text, &n_bytes, e, text, n_bytes, err);
        if (rc != QVL_OK)
            return rc;
    }
    return encode_words(e, text, n_bytes, out, err);
}

/* As qvl_utf8_is_valid, which looks at one character at a time: the ASCII at the start goes by
 * eight bytes. */
static bool is_valid(const char *text, size_t n_bytes, size_t *bad_offset)
{
    size_t ascii = 0;
    for (uint64_t word = 0; n_bytes - ascii >= 8; ascii += 8) {
        memcpy(&word, text + ascii, 8);
        if (word & 0x8080808080808080u)
            break;
    }
    if (qvl_utf8_is_valid(text + ascii, n_bytes - ascii, bad_offset))
        return true;
    *bad_offset += ascii;
    return false;
}

qvl_status qvl_tokenizer_encode(qvl_token_encoder *encoder, const char *text, size_t n_bytes,
                                bool split_special, qvl_ids *out, qvl_err *err)
{
    const qvl_tokenizer *tok = encoder->tokenizer;
    const size_t n_before = out->len;
    size_t piece = 0, bad = 0;
    added_match match = {0};
    qvl_status rc = QVL_OK;
    if (n_bytes > QVL_TOKENIZER_TEXT_BYTES)
        return qvl_fail(err, QVL_EDATA, "a text of %zu bytes, expected %zu or less", n_bytes,
                        QVL_TOKENIZER_TEXT_BYTES);
    if (!is_valid(text, n_bytes, &bad))
        return qvl_fail(err, QVL_EDATA, "the text is not UTF-8 at byte %zu (0x%02x)", bad,
                        (unsigned char)text[bad]);
    while (find_added(&match, tok, text, n_bytes, match.end)) {
        if (split_special && tok->tokens[match.id].kind == QVL_TOKEN_SPECIAL)
            continue; /* the search goes on after it, as the reference's does */
        QVL_TRY(encode_piece(encoder, text + piece, match.start - piece, out, err));
        QVL_TRY(qvl_ids_add(out, &match.id, 1, err));
        piece = match.end;
    }
    rc = encode_piece(encoder, text + piece, n_bytes - piece, out, err);
out:
    if (rc != QVL_OK)
        out->len = n_before;
    return rc;
}
