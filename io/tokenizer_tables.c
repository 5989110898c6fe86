#include "io/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/memory.h"

/* The printable bytes stand for themselves; the others, in order, are 256, 257, ... */
void qvl_byte_map(uint16_t out[256])
{
    uint16_t next = 256;
    for (int byte = 0; byte < 256; byte++) {
        const bool is_itself =
            (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
        out[byte] = is_itself ? (uint16_t)byte : next++;
    }
}

/* Smallest power of two, as an exponent, that leaves half of a table of n entries free. */
static unsigned table_bits(size_t n)
{
    unsigned bits = 4;
    while (((size_t)1 << bits) < 2 * n)
        bits++;
    return bits;
}

qvl_status qvl_tokenizer_tables_create(const qvl_tokenizer_file *file, int32_t n_ids,
                                       size_t n_texts, size_t n_bytes, size_t n_merges)
{
    qvl_tokenizer *tok = file->tokenizer;
    qvl_status rc = QVL_OK;
    tok->n_ids = n_ids;
    tok->text_bits = table_bits(n_texts);
    tok->merge_bits = table_bits(n_merges);
    tok->bytes_capacity = n_bytes;
    QVL_TRY(qvl_alloc(&tok->tokens, (size_t)n_ids, sizeof *tok->tokens, "tokens", file->err));
    QVL_TRY(qvl_alloc(&tok->bytes, n_bytes, 1, "token texts", file->err));
    QVL_TRY(qvl_alloc(&tok->text_slots, (size_t)1 << tok->text_bits, sizeof *tok->text_slots,
                      "token table", file->err));
    QVL_TRY(qvl_alloc(&tok->merges, (size_t)1 << tok->merge_bits, sizeof *tok->merges,
                      "merge table", file->err));
    memset(tok->merges, 0xff, sizeof *tok->merges << tok->merge_bits); /* QVL_NO_RANK */
    QVL_TRY(qvl_reserve(&tok->trie, &tok->trie_capacity, 1, sizeof *tok->trie, "added tokens",
                        file->err));
    tok->n_trie = 1; /* node 0 is "none" */
out:
    return rc;
}

static uint64_t hash_text(const char *text, size_t n_bytes)
{
    uint64_t hash = n_bytes, word = 0;
    for (; n_bytes >= 8; text += 8, n_bytes -= 8) {
        memcpy(&word, text, 8);
        hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 32;
    }
    word = 0;
    memcpy(&word, text, n_bytes);
    hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
    return (hash ^ hash >> 32) * 0x9E3779B97F4A7C15u;
}

/* Where text stands in the table, or the empty slot where it would. */
static uint32_t *text_slot(const qvl_tokenizer *tok, const char *text, size_t n_bytes)
{
    const size_t mask = ((size_t)1 << tok->text_bits) - 1;
    size_t i = (size_t)(hash_text(text, n_bytes) >> (64 - tok->text_bits));
    for (; tok->text_slots[i]; i = (i + 1) & mask) {
        const qvl_token *token = &tok->tokens[tok->text_slots[i] - 1];
        if (token->text_len == n_bytes && memcmp(tok->bytes + token->text_at, text, n_bytes) == 0)
            break;
    }
    return &tok->text_slots[i];
}

int32_t qvl_tokenizer_find_text(const qvl_tokenizer *tokenizer, const char *text, size_t n_bytes)
{
    return (int32_t)*text_slot(tokenizer, text, n_bytes) - 1;
}

/* Maps text (valid UTF-8) back to bytes; characters that stand for no byte stay as they are. The
 * result is never longer than text. */
static size_t unmap(char *out, const int16_t byte_of[512], const char *text, size_t n_bytes)
{
    size_t n = 0;
    for (size_t i = 0; i < n_bytes;) {
        const unsigned char c = (unsigned char)text[i];
        const int point = c < 0x80 ? c : (c & 0x1f) << 6 | (text[i + 1] & 0x3f);
        const bool is_short = c < 0xc8; /* below U+0200: one or two bytes */
        if (is_short && byte_of[point] >= 0) {
            out[n++] = (char)byte_of[point];
            i += c < 0x80 ? 1 : 2;
        } else {
            const size_t length = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
            memcpy(out + n, text + i, length);
            n += length;
            i += length;
        }
    }
    return n;
}

qvl_status qvl_tokenizer_set_token(const qvl_tokenizer_file *file, int32_t id, const char *text,
                                   size_t n_bytes, qvl_token_kind kind)
{
    qvl_tokenizer *tok = file->tokenizer;
    qvl_token *token = &tok->tokens[id];
    if (tok->bytes_capacity - tok->n_bytes < 2 * n_bytes)
        return qvl_fail(file->err, QVL_EINTERNAL, "%s: token texts exceed %zu bytes", file->path,
                        tok->bytes_capacity);
    token->kind = kind;
    token->text_at = (uint32_t)tok->n_bytes;
    token->text_len = (uint32_t)n_bytes;
    memcpy(tok->bytes + tok->n_bytes, text, n_bytes);
    token->bytes_at = token->text_at;
    token->bytes_len = token->text_len;
    tok->n_bytes += n_bytes;
    if (kind == QVL_TOKEN_ORDINARY) {
        token->bytes_at = (uint32_t)tok->n_bytes;
        token->bytes_len = (uint32_t)unmap(tok->bytes + tok->n_bytes, file->byte_of, text, n_bytes);
        tok->n_bytes += token->bytes_len;
    }
    *text_slot(tok, text, n_bytes) = (uint32_t)id + 1;
    return QVL_OK;
}

/* The child of a node (of the root: parent 0) for this byte, made where there is none. */
static qvl_status trie_step(const qvl_tokenizer_file *file, int32_t *out, int32_t parent,
                            unsigned char byte)
{
    qvl_tokenizer *tok = file->tokenizer;
    int32_t *link = parent ? &tok->trie[parent].child : &tok->trie_first[byte];
    int32_t node = *link;
    while (node && tok->trie[node].byte != byte)
        node = tok->trie[node].sibling;
    if (!node) {
        const qvl_status rc = qvl_reserve(&tok->trie, &tok->trie_capacity, tok->n_trie + 1,
                                          sizeof *tok->trie, "added tokens", file->err);
        if (rc != QVL_OK)
            return rc;
        link = parent ? &tok->trie[parent].child : &tok->trie_first[byte];
        node = (int32_t)tok->n_trie++;
        tok->trie[node] = (qvl_trie_node){.sibling = *link, .id = -1, .byte = byte};
        *link = node;
    }
    *out = node;
    return QVL_OK;
}

qvl_status qvl_tokenizer_trie_add(const qvl_tokenizer_file *file, const char *text, size_t n_bytes,
                                  int32_t id)
{
    qvl_tokenizer *tok = file->tokenizer;
    const unsigned char first = (unsigned char)text[0];
    int32_t node = 0;
    if (!tok->trie_first[first]) {
        tok->n_first_bytes++;
        tok->first_byte = first;
    }
    for (size_t i = 0; i < n_bytes; i++) {
        const qvl_status rc = trie_step(file, &node, node, (unsigned char)text[i]);
        if (rc != QVL_OK)
            return rc;
    }
    tok->trie[node].id = id;
    return QVL_OK;
}
