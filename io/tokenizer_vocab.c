/* Vocabulary, added tokens and merges of tokenizer.json, checked and put into tables. */
#include "io/tokenizer_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/memory.h"

/* How much of a token's text a message shows. */
#define SHOWN       "%.60s"
#define SHOWN_BYTES 60

typedef struct added_token {
    int32_t id;
    const char *text;
    size_t n_bytes;
    qvl_token_kind kind;
} added_token;

/* What the tables must hold. */
typedef struct sizes {
    int32_t n_ids;
    size_t n_texts, n_bytes;
} sizes;

static void count(sizes *total, int32_t id, size_t n_bytes)
{
    if (id >= total->n_ids)
        total->n_ids = id + 1;
    total->n_texts++;
    total->n_bytes += 2 * n_bytes; /* the text, and its bytes, which are not longer */
}

static qvl_status read_id(int32_t *out, const qvl_tokenizer_file *file, const json_t *value,
                          const char *where, const char *text)
{
    const json_int_t id = json_integer_value(value);
    if (!json_is_integer(value))
        return qvl_fail(file->err, QVL_EDATA, "%s: %s \"" SHOWN "\": the id is not an integer",
                        file->path, where, text);
    if (id < 0 || id >= QVL_TOKENIZER_MAX_IDS)
        return qvl_fail(file->err, QVL_EDATA,
                        "%s: %s \"" SHOWN "\": id %" JSON_INTEGER_FORMAT ", expected 0..%d",
                        file->path, where, text, id, QVL_TOKENIZER_MAX_IDS - 1);
    *out = (int32_t)id;
    return QVL_OK;
}

static qvl_status count_vocab(sizes *total, const qvl_tokenizer_file *file, json_t *vocab)
{
    const char *text = NULL;
    json_t *value = NULL;
    json_object_foreach(vocab, text, value)
    {
        int32_t id = 0;
        const qvl_status rc = read_id(&id, file, value, "model.vocab", text);
        if (rc != QVL_OK)
            return rc;
        if (*text == '\0')
            return qvl_fail(file->err, QVL_EDATA, "%s: model.vocab has an empty token", file->path);
        count(total, id, strlen(text));
    }
    return QVL_OK;
}

/* The text of an id as SHOWN, for "%.*s". */
static int shown_bytes(const qvl_token *token)
{
    return token->text_len < SHOWN_BYTES ? (int)token->text_len : SHOWN_BYTES;
}

static qvl_status read_vocab(const qvl_tokenizer_file *file, json_t *vocab)
{
    const qvl_tokenizer *tok = file->tokenizer;
    const char *text = NULL;
    json_t *value = NULL;
    json_object_foreach(vocab, text, value)
    {
        const int32_t id = (int32_t)json_integer_value(value);
        const qvl_token *token = &tok->tokens[id];
        if (token->kind != QVL_TOKEN_UNUSED)
            return qvl_fail(file->err, QVL_EDATA,
                            "%s: model.vocab gives id %d to \"%.*s\" and to \"" SHOWN "\"",
                            file->path, id, shown_bytes(token), tok->bytes + token->text_at, text);
        const qvl_status rc =
            qvl_tokenizer_set_token(file, id, text, strlen(text), QVL_TOKEN_ORDINARY);
        if (rc != QVL_OK)
            return rc;
    }
    return QVL_OK;
}

/* One of added_tokens, checked by itself. Stripping, whole words and matching after NFC are not
 * implemented; no Qwen tokenizer asks for them. */
static qvl_status read_added(added_token *out, const qvl_tokenizer_file *file, const json_t *entry,
                             size_t index)
{
    static const char *const FLAGS[] = {"lstrip", "rstrip", "single_word", "normalized"};
    char where[48];
    json_t *content = NULL;
    snprintf(where, sizeof where, "added_tokens[%zu].", index);
    qvl_status rc = qvl_tokenizer_member(&content, file, entry, where, "content", JSON_STRING);
    if (rc != QVL_OK)
        return rc;
    const json_t *special = json_object_get(entry, "special");
    out->text = json_string_value(content);
    out->n_bytes = json_string_length(content);
    out->kind = json_is_true(special) ? QVL_TOKEN_SPECIAL : QVL_TOKEN_ADDED;
    if (out->n_bytes == 0 || out->n_bytes > QVL_ADDED_TOKEN_BYTES)
        return qvl_fail(file->err, QVL_EDATA, "%s: %scontent has %zu bytes, expected 1..%d",
                        file->path, where, out->n_bytes, QVL_ADDED_TOKEN_BYTES);
    if (!json_is_boolean(special))
        return qvl_fail(file->err, QVL_EDATA,
                        "%s: %sspecial of \"" SHOWN "\" is neither true nor false", file->path,
                        where, out->text);
    for (size_t i = 0; i < sizeof FLAGS / sizeof *FLAGS; i++)
        if (!json_is_false(json_object_get(entry, FLAGS[i])))
            return qvl_fail(file->err, QVL_EDATA,
                            "%s: %s%s of \"" SHOWN "\" is not false, which is not supported",
                            file->path, where, FLAGS[i], out->text);
    return read_id(&out->id, file, json_object_get(entry, "id"), "added_tokens", out->text);
}

/* An added token may also be in the vocabulary, then under the same id. */
static qvl_status set_added(const qvl_tokenizer_file *file, const added_token *added)
{
    const qvl_tokenizer *tok = file->tokenizer;
    const qvl_token *token = &tok->tokens[added->id];
    const int32_t known = qvl_tokenizer_find_text(tok, added->text, added->n_bytes);
    if (known >= 0 && tok->tokens[known].kind != QVL_TOKEN_ORDINARY)
        return qvl_fail(file->err, QVL_EDATA, "%s: added_tokens has \"" SHOWN "\" twice",
                        file->path, added->text);
    if (known >= 0 && known != added->id)
        return qvl_fail(file->err, QVL_EDATA,
                        "%s: added_tokens \"" SHOWN "\" has id %d, but id %d in model.vocab",
                        file->path, added->text, added->id, known);
    if (known < 0 && token->kind != QVL_TOKEN_UNUSED)
        return qvl_fail(file->err, QVL_EDATA,
                        "%s: added_tokens \"" SHOWN "\" has id %d, which is that of \"%.*s\"",
                        file->path, added->text, added->id, shown_bytes(token),
                        tok->bytes + token->text_at);
    const qvl_status rc =
        qvl_tokenizer_set_token(file, added->id, added->text, added->n_bytes, added->kind);
    return rc == QVL_OK ? qvl_tokenizer_trie_add(file, added->text, added->n_bytes, added->id) : rc;
}

static qvl_status read_byte_ids(const qvl_tokenizer_file *file)
{
    qvl_tokenizer *tok = file->tokenizer;
    uint16_t map[256];
    qvl_byte_map(map);
    for (int byte = 0; byte < 256; byte++) {
        char text[2] = {(char)map[byte], 0};
        const size_t n_bytes = map[byte] < 0x80 ? 1 : 2;
        if (n_bytes == 2) {
            text[0] = (char)(0xc0 | map[byte] >> 6);
            text[1] = (char)(0x80 | (map[byte] & 0x3f));
        }
        const int32_t id = qvl_tokenizer_find_text(tok, text, n_bytes);
        if (id < 0)
            return qvl_fail(file->err, QVL_EDATA,
                            "%s: model.vocab has no \"%.*s\", the token of byte 0x%02x", file->path,
                            (int)n_bytes, text, (unsigned)byte);
        tok->byte_ids[byte] = (uint32_t)id;
    }
    return QVL_OK;
}

/* The two parts of a merge: ["a","b"], or "a b" as older files have it. */
static bool merge_parts(const char *parts[2], size_t n_bytes[2], const json_t *merge)
{
    if (json_is_string(merge)) {
        const char *text = json_string_value(merge), *space = strchr(text, ' ');
        if (!space || strchr(space + 1, ' '))
            return false;
        parts[0] = text;
        n_bytes[0] = (size_t)(space - text);
        parts[1] = space + 1;
    } else {
        parts[0] = json_string_value(json_array_get(merge, 0));
        parts[1] = json_string_value(json_array_get(merge, 1));
        if (json_array_size(merge) != 2 || !parts[0] || !parts[1])
            return false;
        n_bytes[0] = strlen(parts[0]);
    }
    n_bytes[1] = strlen(parts[1]);
    return true;
}

static qvl_status read_merge(const qvl_tokenizer_file *file, const json_t *entry, size_t rank,
                             qvl_text *joined)
{
    const qvl_tokenizer *tok = file->tokenizer;
    const char *parts[2] = {NULL, NULL};
    size_t n_bytes[2] = {0, 0};
    int32_t ids[2] = {0, 0};
    if (!merge_parts(parts, n_bytes, entry))
        return qvl_fail(file->err, QVL_EDATA, "%s: model.merges[%zu] is not a pair of tokens",
                        file->path, rank);
    qvl_text_clear(joined);
    for (int i = 0; i < 2; i++) {
        const qvl_status rc = qvl_text_add(joined, parts[i], n_bytes[i], file->err);
        if (rc != QVL_OK)
            return rc;
        ids[i] = qvl_tokenizer_find_text(tok, parts[i], n_bytes[i]);
        if (ids[i] < 0)
            return qvl_fail(file->err, QVL_EDATA,
                            "%s: model.merges[%zu]: \"%.*s\" is not in model.vocab", file->path,
                            rank, n_bytes[i] < SHOWN_BYTES ? (int)n_bytes[i] : SHOWN_BYTES,
                            parts[i]);
    }
    const int32_t result = qvl_tokenizer_find_text(tok, joined->data, joined->len);
    if (result < 0)
        return qvl_fail(file->err, QVL_EDATA,
                        "%s: model.merges[%zu]: the result \"" SHOWN "\" is not in model.vocab",
                        file->path, rank, joined->data);
    qvl_merge *slot = qvl_tokenizer_merge_slot(tok, (uint32_t)ids[0], (uint32_t)ids[1]);
    if (slot->rank != QVL_NO_RANK)
        return qvl_fail(file->err, QVL_EDATA, "%s: model.merges[%zu] repeats model.merges[%u]",
                        file->path, rank, slot->rank);
    *slot = (qvl_merge){.left = (uint32_t)ids[0],
                        .right = (uint32_t)ids[1],
                        .rank = (uint32_t)rank,
                        .result = (uint32_t)result};
    return QVL_OK;
}

qvl_status qvl_tokenizer_read_vocab(const qvl_tokenizer_file *file, const json_t *root)
{
    json_t *model = NULL, *vocab = NULL, *merges = NULL, *added = NULL;
    added_token *tokens = NULL;
    qvl_text joined = {0};
    sizes total = {0};
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_tokenizer_member(&model, file, root, "", "model", JSON_OBJECT));
    QVL_TRY(qvl_tokenizer_member(&vocab, file, model, "model.", "vocab", JSON_OBJECT));
    QVL_TRY(qvl_tokenizer_member(&merges, file, model, "model.", "merges", JSON_ARRAY));
    QVL_TRY(qvl_tokenizer_member(&added, file, root, "", "added_tokens", JSON_ARRAY));
    const size_t n_added = json_array_size(added), n_merges = json_array_size(merges);
    QVL_TRY(qvl_alloc(&tokens, n_added, sizeof *tokens, "added tokens", file->err));
    QVL_TRY(count_vocab(&total, file, vocab));
    for (size_t i = 0; i < n_added; i++) {
        QVL_TRY(read_added(&tokens[i], file, json_array_get(added, i), i));
        count(&total, tokens[i].id, tokens[i].n_bytes);
    }
    QVL_TRY(qvl_tokenizer_tables_create(file, total.n_ids, total.n_texts, total.n_bytes, n_merges));
    QVL_TRY(read_vocab(file, vocab));
    QVL_TRY(read_byte_ids(file)); /* before added tokens: one of those cannot stand for a byte */
    for (size_t i = 0; i < n_merges; i++)
        QVL_TRY(read_merge(file, json_array_get(merges, i), i, &joined));
    for (size_t i = 0; i < n_added; i++)
        QVL_TRY(set_added(file, &tokens[i]));
out:
    qvl_text_fini(&joined);
    free(tokens);
    return rc;
}
