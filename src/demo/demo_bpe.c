#include "src/demo/demo_bpe.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "src/base/memory.h"

/* A distinct word of the text: its tokens so far. */
typedef struct word {
    const char *bytes;
    size_t n_bytes;
    int64_t count; /* times it occurs */
    size_t first;  /* token, in bpe_learner.ids */
    size_t n_ids;
} word;

typedef struct bpe_learner {
    word *words;
    size_t n_words, word_capacity;
    uint16_t *ids;
    int64_t *pair_counts; /* [n_tokens, n_tokens] of the result */
    int n_tokens;
    qvl_bpe *bpe;
} bpe_learner;

static qvl_status split(bpe_learner *l, const char *text, size_t n_bytes, qvl_err *err)
{
    int code_error = 0, found = 0;
    size_t at = 0;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)QVL_DEMO_SPLIT_PATTERN, PCRE2_ZERO_TERMINATED,
                                     PCRE2_UTF | PCRE2_UCP, &code_error, &at, NULL);
    pcre2_match_data *match = code ? pcre2_match_data_create_from_pattern(code, NULL) : NULL;
    qvl_status rc = match ? QVL_OK : qvl_fail(err, QVL_EINTERNAL, "split: PCRE2 %d", code_error);
    for (at = 0; rc == QVL_OK && at < n_bytes;) {
        /* Checking the text once will do; it is checked to its end every time otherwise. */
        found = pcre2_match(code, (PCRE2_SPTR)text, n_bytes, at, at ? PCRE2_NO_UTF_CHECK : 0, match,
                            NULL);
        if (found < 1) {
            rc = qvl_fail(err, QVL_EINTERNAL, "split at byte %zu: PCRE2 %d", at, found);
            break;
        }
        const size_t *span = pcre2_get_ovector_pointer(match);
        rc = qvl_reserve(&l->words, &l->word_capacity, l->n_words + 1, sizeof *l->words, "words",
                         err);
        if (rc == QVL_OK)
            l->words[l->n_words++] =
                (word){.bytes = text + span[0], .n_bytes = span[1] - span[0], .count = 1};
        at = span[1];
    }
    pcre2_match_data_free(match);
    pcre2_code_free(code);
    return rc;
}

static int compare_words(const void *a, const void *b)
{
    const word *x = a, *y = b;
    const int order = memcmp(x->bytes, y->bytes, x->n_bytes < y->n_bytes ? x->n_bytes : y->n_bytes);
    return order ? order : (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes);
}

/* Sorts the words and keeps each once, with its count. */
static void gather_words(bpe_learner *l)
{
    word *words = l->words;
    size_t kept = 0;
    if (l->n_words)
        qsort(words, l->n_words, sizeof *words, compare_words);
    for (size_t i = 0; i < l->n_words; i++) {
        if (kept && compare_words(&words[kept - 1], &words[i]) == 0)
            words[kept - 1].count++;
        else
            words[kept++] = words[i];
    }
    l->n_words = kept;
}

/* Bytes that are printed as themselves come first in Qwen's vocabulary, then the other 68, which
 * are written as the characters from U+0100 on. */
static void make_byte_tokens(qvl_bpe *bpe, uint16_t token_of_byte[256])
{
    int n_hidden = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int byte = 0; byte < 256; byte++) {
            const bool is_hidden = byte < 33 || (byte > 126 && byte < 161) || byte == 173;
            if (is_hidden != (pass == 1))
                continue;
            const int code = is_hidden ? 256 + n_hidden++ : byte;
            char *token = bpe->tokens[bpe->n_tokens];
            if (code < 128) {
                token[0] = (char)code;
            } else {
                token[0] = (char)(0xc0 | code >> 6);
                token[1] = (char)(0x80 | (code & 0x3f));
            }
            token_of_byte[byte] = (uint16_t)bpe->n_tokens++;
        }
}

static qvl_status spell_words(bpe_learner *l, const uint16_t token_of_byte[256], qvl_err *err)
{
    size_t n_ids = 0;
    for (size_t i = 0; i < l->n_words; i++) {
        l->words[i].first = n_ids;
        n_ids += l->words[i].n_ids = l->words[i].n_bytes;
    }
    const qvl_status rc = qvl_alloc(&l->ids, n_ids, sizeof *l->ids, "tokens", err);
    for (size_t i = 0; rc == QVL_OK && i < l->n_words; i++)
        for (size_t k = 0; k < l->words[i].n_bytes; k++)
            l->ids[l->words[i].first + k] = token_of_byte[(unsigned char)l->words[i].bytes[k]];
    return rc;
}

/* Adds sign times every word's count to its pairs. */
static void count_pairs(bpe_learner *l, int sign)
{
    for (size_t i = 0; i < l->n_words; i++) {
        const word *w = &l->words[i];
        const uint16_t *ids = l->ids + w->first;
        for (size_t k = 0; k + 1 < w->n_ids; k++)
            l->pair_counts[ids[k] * l->n_tokens + ids[k + 1]] += sign * w->count;
    }
}

/* The most frequent pair that makes a token which fits; false when none occurs twice. Only pairs
 * that occur are looked at: they are few, all pairs of tokens are not. */
static bool find_best_pair(const bpe_learner *l, uint16_t best[2])
{
    int64_t most = 1;
    for (size_t i = 0; i < l->n_words; i++) {
        const uint16_t *ids = l->ids + l->words[i].first;
        for (size_t k = 0; k + 1 < l->words[i].n_ids; k++) {
            const int a = ids[k], b = ids[k + 1];
            const int64_t count = l->pair_counts[a * l->n_tokens + b];
            const bool is_lower = a < best[0] || (a == best[0] && b < best[1]);
            if (count < most || (count == most && (most == 1 || !is_lower)))
                continue;
            if (strlen(l->bpe->tokens[a]) + strlen(l->bpe->tokens[b]) >= QVL_BPE_TOKEN_BYTES)
                continue;
            most = count;
            best[0] = (uint16_t)a;
            best[1] = (uint16_t)b;
        }
    }
    return most > 1;
}

static void replace_pair(bpe_learner *l, const uint16_t pair[2], uint16_t token)
{
    for (size_t i = 0; i < l->n_words; i++) {
        word *w = &l->words[i];
        uint16_t *ids = l->ids + w->first;
        size_t kept = 0;
        for (size_t k = 0; k < w->n_ids; k++) {
            const bool is_pair = k + 1 < w->n_ids && ids[k] == pair[0] && ids[k + 1] == pair[1];
            ids[kept++] = is_pair ? token : ids[k];
            k += is_pair;
        }
        w->n_ids = kept;
    }
}

/* The token of both texts together: a new one, or one that another pair has made before. */
static uint16_t join(qvl_bpe *bpe, const uint16_t pair[2])
{
    char text[QVL_BPE_TOKEN_BYTES];
    memcpy(text, bpe->tokens[pair[0]], sizeof text);
    strcat(text, bpe->tokens[pair[1]]);
    for (int i = 256; i < bpe->n_tokens; i++)
        if (strcmp(bpe->tokens[i], text) == 0)
            return (uint16_t)i;
    memcpy(bpe->tokens[bpe->n_tokens], text, sizeof text);
    return (uint16_t)bpe->n_tokens++;
}

static void merge_pairs(bpe_learner *l)
{
    qvl_bpe *bpe = l->bpe;
    uint16_t pair[2] = {0};
    while (bpe->n_tokens < l->n_tokens && bpe->n_merges < QVL_BPE_MAX_TOKENS) {
        count_pairs(l, 1);
        const bool is_found = find_best_pair(l, pair);
        count_pairs(l, -1); /* back to zeros */
        if (!is_found)
            break;
        memcpy(bpe->merges[bpe->n_merges++], pair, sizeof pair);
        replace_pair(l, pair, join(bpe, pair));
    }
}

qvl_status qvl_bpe_learn(qvl_bpe **out, const char *text, size_t n_bytes, int n_tokens,
                         qvl_err *err)
{
    bpe_learner l = {.n_tokens = n_tokens};
    uint16_t token_of_byte[256];
    qvl_status rc = QVL_OK;
    *out = NULL;
    if (n_tokens < 256 || n_tokens > QVL_BPE_MAX_TOKENS)
        return qvl_fail(err, QVL_EINTERNAL, "a vocabulary of %d tokens", n_tokens);
    QVL_TRY(qvl_alloc(&l.bpe, 1, sizeof *l.bpe, "vocabulary", err));
    QVL_TRY(qvl_alloc(&l.pair_counts, (size_t)n_tokens * (size_t)n_tokens, sizeof *l.pair_counts,
                      "pairs of tokens", err));
    make_byte_tokens(l.bpe, token_of_byte);
    QVL_TRY(split(&l, text, n_bytes, err));
    gather_words(&l);
    QVL_TRY(spell_words(&l, token_of_byte, err));
    merge_pairs(&l);
    *out = l.bpe;
    l.bpe = NULL;
out:
    free(l.bpe);
    free(l.pair_counts);
    free(l.words);
    free(l.ids);
    return rc;
}
