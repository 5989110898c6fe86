/* Byte pair encoding of one word.
 *
 * The word starts as single bytes. The neighbours with the lowest rank, leftmost on ties, become
 * one symbol, until no neighbours have a rule. Results are kept in a cache with two places for a
 * word, in which new words replace old ones, so memory and time stay bounded whatever the text is.
 */
#include "io/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/memory.h"

/* Up to here the lowest rank is looked for in all pairs; longer words keep a heap. */
enum { SCANNED_SYMBOLS = 64 };

_Static_assert(sizeof(qvl_word) == 64, "a cached word is one cache line");

void qvl_ids_fini(qvl_ids *ids)
{
    if (!ids)
        return;
    free(ids->data);
    *ids = (qvl_ids){0};
}

void qvl_ids_clear(qvl_ids *ids)
{
    ids->len = 0;
}

qvl_status qvl_ids_add(qvl_ids *ids, const int32_t *values, size_t n, qvl_err *err)
{
    const qvl_status rc =
        qvl_reserve(&ids->data, &ids->capacity, ids->len + n, sizeof *ids->data, "token ids", err);
    if (rc != QVL_OK)
        return rc;
    if (n)
        memcpy(ids->data + ids->len, values, n * sizeof *values);
    ids->len += n;
    return QVL_OK;
}

/* Merges symbols[0..n) in place; returns how many are left. */
static size_t merge_scanned(const qvl_tokenizer *tok, uint32_t symbols[SCANNED_SYMBOLS], size_t n)
{
    uint32_t ranks[SCANNED_SYMBOLS], results[SCANNED_SYMBOLS]; /* of the pair i, i + 1 */
    for (size_t i = 0; i + 1 < n; i++) {
        const qvl_merge *merge = qvl_tokenizer_merge_slot(tok, symbols[i], symbols[i + 1]);
        ranks[i] = merge->rank;
        results[i] = merge->result;
    }
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (ranks[i] < ranks[best])
                best = i;
        if (ranks[best] == QVL_NO_RANK)
            break;
        symbols[best] = results[best];
        n--;
        for (size_t i = best + 1; i < n; i++)
            symbols[i] = symbols[i + 1];
        for (size_t i = best + 1; i + 1 < n; i++) {
            ranks[i] = ranks[i + 1];
            results[i] = results[i + 1];
        }
        for (size_t i = best ? best - 1 : 0; i <= best && i + 1 < n; i++) {
            const qvl_merge *merge = qvl_tokenizer_merge_slot(tok, symbols[i], symbols[i + 1]);
            ranks[i] = merge->rank;
            results[i] = merge->result;
        }
    }
    return n;
}

/* The heap holds rank << 32 | position. An entry whose pair has changed since is skipped when it
 * comes up: its rank is no longer that of the position. */
static qvl_status heap_push(qvl_token_encoder *e, uint64_t entry, qvl_err *err)
{
    const qvl_status rc = qvl_reserve(&e->heap, &e->heap_capacity, e->n_heap + 1, sizeof *e->heap,
                                      "merges of a word", err);
    if (rc != QVL_OK)
        return rc;
    size_t i = e->n_heap++;
    for (; i > 0 && e->heap[(i - 1) / 2] > entry; i = (i - 1) / 2)
        e->heap[i] = e->heap[(i - 1) / 2];
    e->heap[i] = entry;
    return QVL_OK;
}

static uint64_t heap_pop(qvl_token_encoder *e)
{
    const uint64_t top = e->heap[0], last = e->heap[--e->n_heap];
    size_t i = 0;
    for (size_t child = 1; child < e->n_heap; child = 2 * i + 1) {
        if (child + 1 < e->n_heap && e->heap[child + 1] < e->heap[child])
            child++;
        if (e->heap[child] >= last)
            break;
        e->heap[i] = e->heap[child];
        i = child;
    }
    e->heap[i] = last;
    return top;
}

/* Looks up the pair that begins at position i. */
static qvl_status queue_pair(qvl_token_encoder *e, int32_t i, qvl_err *err)
{
    e->ranks[i] = QVL_NO_RANK;
    if (e->next[i] < 0)
        return QVL_OK;
    const qvl_merge *merge =
        qvl_tokenizer_merge_slot(e->tokenizer, e->symbols[i], e->symbols[e->next[i]]);
    if (merge->rank == QVL_NO_RANK)
        return QVL_OK;
    e->ranks[i] = merge->rank;
    e->results[i] = merge->result;
    return heap_push(e, (uint64_t)merge->rank << 32 | (uint32_t)i, err);
}

static qvl_status reserve_word(qvl_token_encoder *e, size_t n, qvl_err *err)
{
    static const char WHAT[] = "symbols of a word";
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_reserve(&e->symbols, &e->symbols_capacity, n, sizeof *e->symbols, WHAT, err));
    QVL_TRY(qvl_reserve(&e->ranks, &e->ranks_capacity, n, sizeof *e->ranks, WHAT, err));
    QVL_TRY(qvl_reserve(&e->results, &e->results_capacity, n, sizeof *e->results, WHAT, err));
    QVL_TRY(qvl_reserve(&e->previous, &e->previous_capacity, n, sizeof *e->previous, WHAT, err));
    QVL_TRY(qvl_reserve(&e->next, &e->next_capacity, n, sizeof *e->next, WHAT, err));
out:
    return rc;
}

/* A long word: symbols in a list, pairs in a heap, n log n steps. */
static qvl_status encode_long(qvl_token_encoder *e, const char *word, size_t n_bytes, qvl_ids *out,
                              qvl_err *err)
{
    const int32_t n = (int32_t)n_bytes;
    qvl_status rc = QVL_OK;
    QVL_TRY(reserve_word(e, n_bytes, err));
    e->n_heap = 0;
    for (int32_t i = 0; i < n; i++) {
        e->symbols[i] = e->tokenizer->byte_ids[(unsigned char)word[i]];
        e->previous[i] = i - 1;
        e->next[i] = i + 1 < n ? i + 1 : -1;
    }
    for (int32_t i = 0; i < n; i++)
        QVL_TRY(queue_pair(e, i, err));
    while (e->n_heap > 0) {
        const uint64_t entry = heap_pop(e);
        const int32_t left = (int32_t)(uint32_t)entry;
        if (e->ranks[left] != entry >> 32)
            continue;
        const int32_t right = e->next[left];
        e->symbols[left] = e->results[left];
        e->ranks[right] = QVL_NO_RANK;
        e->next[left] = e->next[right];
        if (e->next[left] >= 0)
            e->previous[e->next[left]] = left;
        QVL_TRY(queue_pair(e, left, err));
        if (e->previous[left] >= 0)
            QVL_TRY(queue_pair(e, e->previous[left], err));
    }
    for (int32_t i = 0; i >= 0; i = e->next[i]) {
        const int32_t id = (int32_t)e->symbols[i];
        QVL_TRY(qvl_ids_add(out, &id, 1, err));
    }
out:
    return rc;
}

/* Up to QVL_WORD_BYTES of a word as four words of memory, padded with zeros. Where the text goes on
 * far enough they are read at once and cut by a mask. */
static void load_key(uint64_t key[4], const char *word, size_t n_bytes, const char *end)
{
    static const unsigned char MASK[2 * QVL_WORD_BYTES] = {
        255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
        255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    };
    uint64_t mask[4];
    if (end - word < QVL_WORD_BYTES) {
        memset(key, 0, QVL_WORD_BYTES);
        memcpy(key, word, n_bytes);
        return;
    }
    memcpy(key, word, QVL_WORD_BYTES);
    memcpy(mask, MASK + QVL_WORD_BYTES - n_bytes, QVL_WORD_BYTES);
    for (int i = 0; i < 4; i++)
        key[i] &= mask[i];
}

/* The two places where a word with this key can be. */
static qvl_word *key_places(const qvl_token_encoder *e, const uint64_t key[4], size_t n_bytes)
{
    uint64_t hash = (key[0] ^ n_bytes) * 0x9E3779B97F4A7C15u;
    hash ^= hash >> 32;
    hash +=
        key[1] * 0xC2B2AE3D27D4EB4Fu + key[2] * 0x165667B19E3779F9u + key[3] * 0xD6E8FEB86659FD93u;
    hash *= 0x9E3779B97F4A7C15u;
    return &e->words[(hash >> 32) % (QVL_WORD_SLOTS / 2) * 2];
}

static bool is_word(const qvl_word *entry, const uint64_t key[4], size_t n_bytes)
{
    return entry->n_bytes == n_bytes && memcmp(entry->key, key, sizeof entry->key) == 0;
}

/* A word of up to SCANNED_SYMBOLS bytes. places, if given, take it if it fits: the first place,
 * whose word moves to the second. */
static qvl_status encode_short(qvl_token_encoder *e, const char *word, size_t n_bytes,
                               qvl_word places[2], const uint64_t key[4], qvl_ids *out,
                               qvl_err *err)
{
    uint32_t symbols[SCANNED_SYMBOLS];
    int32_t ids[SCANNED_SYMBOLS];
    for (size_t i = 0; i < n_bytes; i++)
        symbols[i] = e->tokenizer->byte_ids[(unsigned char)word[i]];
    const size_t n = merge_scanned(e->tokenizer, symbols, n_bytes);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)symbols[i];
    if (places && n <= QVL_WORD_IDS) {
        places[1] = places[0];
        places[0].n_bytes = (uint8_t)n_bytes;
        places[0].n_ids = (uint8_t)n;
        memcpy(places[0].ids, ids, n * sizeof *ids);
        memcpy(places[0].key, key, sizeof places[0].key);
    }
    return qvl_ids_add(out, ids, n, err);
}

qvl_status qvl_token_encoder_word(qvl_token_encoder *encoder, const char *word, size_t n_bytes,
                                  const char *end, qvl_ids *out, qvl_err *err)
{
    uint64_t key[4];
    if (n_bytes > SCANNED_SYMBOLS)
        return encode_long(encoder, word, n_bytes, out, err);
    if (n_bytes > QVL_WORD_BYTES)
        return encode_short(encoder, word, n_bytes, NULL, NULL, out, err);
    load_key(key, word, n_bytes, end);
    qvl_word *places = key_places(encoder, key, n_bytes);
    const qvl_word *entry = is_word(&places[0], key, n_bytes) ? &places[0] : &places[1];
    if (entry != &places[0] && !is_word(entry, key, n_bytes))
        return encode_short(encoder, word, n_bytes, places, key, out, err);
    if (out->capacity - out->len < QVL_WORD_IDS) {
        const qvl_status rc = qvl_reserve(&out->data, &out->capacity, out->len + QVL_WORD_IDS,
                                          sizeof *out->data, "token ids", err);
        if (rc != QVL_OK)
            return rc;
    }
    memcpy(out->data + out->len, entry->ids, sizeof entry->ids); /* all: a fixed size is faster */
    out->len += entry->n_ids;
    return QVL_OK;
}
