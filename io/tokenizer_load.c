#include "io/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/files.h"
#include "src/base/memory.h"

static qvl_status parse(json_t **out, const char *path, const qvl_text *text, qvl_err *err)
{
    json_error_t error;
    *out = json_loadb(text->data ? text->data : "", text->len, JSON_REJECT_DUPLICATES, &error);
    if (!*out)
        return qvl_fail(err, QVL_EDATA, "%s:%d:%d: %s", path, error.line, error.column, error.text);
    if (!json_is_object(*out))
        return qvl_fail(err, QVL_EDATA, "%s: the top level is not an object", path);
    return QVL_OK;
}

/* The file's text and its SHA-256. */
static qvl_status read_file(qvl_text *text, char sha256[QVL_SHA256_TEXT_BYTES], const char *path,
                            qvl_err *err)
{
    const qvl_status rc = qvl_file_read(text, path, QVL_TOKENIZER_FILE_BYTES, err);
    return rc == QVL_OK ? qvl_sha256_bytes(sha256, text->data, text->len, err) : rc;
}

qvl_status qvl_tokenizer_file_sha256(char out[QVL_SHA256_TEXT_BYTES], const char *path,
                                     qvl_err *err)
{
    qvl_text text = {0};
    const qvl_status rc = read_file(&text, out, path, err);
    qvl_text_fini(&text);
    return rc;
}

qvl_status qvl_tokenizer_load(qvl_tokenizer **out, const char *path, qvl_err *err)
{
    qvl_tokenizer_file file = {.path = path, .err = err};
    uint16_t map[256];
    qvl_text text = {0};
    json_t *root = NULL;
    qvl_status rc = QVL_OK;
    *out = NULL;
    qvl_byte_map(map);
    memset(file.byte_of, 0xff, sizeof file.byte_of); /* -1 */
    for (int byte = 0; byte < 256; byte++)
        file.byte_of[map[byte]] = (int16_t)byte;
    QVL_TRY(qvl_alloc(&file.tokenizer, 1, sizeof *file.tokenizer, "tokenizer", err));
    QVL_TRY(read_file(&text, file.tokenizer->sha256, path, err));
    QVL_TRY(parse(&root, path, &text, err));
    QVL_TRY(qvl_tokenizer_check_options(&file, root));
    QVL_TRY(qvl_tokenizer_read_vocab(&file, root));
    *out = file.tokenizer;
    file.tokenizer = NULL;
out:
    json_decref(root);
    qvl_text_fini(&text);
    qvl_tokenizer_destroy(file.tokenizer);
    return rc;
}

void qvl_tokenizer_destroy(qvl_tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    pcre2_code_free(tokenizer->split);
    free(tokenizer->trie);
    free(tokenizer->merges);
    free(tokenizer->text_slots);
    free(tokenizer->bytes);
    free(tokenizer->tokens);
    free(tokenizer);
}

int32_t qvl_tokenizer_n_ids(const qvl_tokenizer *tokenizer)
{
    return tokenizer->n_ids;
}

const char *qvl_tokenizer_sha256(const qvl_tokenizer *tokenizer)
{
    return tokenizer->sha256;
}

int32_t qvl_tokenizer_token_id(const qvl_tokenizer *tokenizer, const char *text)
{
    return qvl_tokenizer_find_text(tokenizer, text, strlen(text));
}

const char *qvl_tokenizer_token_bytes(const qvl_tokenizer *tokenizer, int32_t id, size_t *n_bytes)
{
    *n_bytes = 0;
    if (id < 0 || id >= tokenizer->n_ids || tokenizer->tokens[id].kind == QVL_TOKEN_UNUSED)
        return NULL;
    *n_bytes = tokenizer->tokens[id].bytes_len;
    return tokenizer->bytes + tokenizer->tokens[id].bytes_at;
}

bool qvl_tokenizer_is_special(const qvl_tokenizer *tokenizer, int32_t id)
{
    return id >= 0 && id < tokenizer->n_ids && tokenizer->tokens[id].kind == QVL_TOKEN_SPECIAL;
}

bool qvl_tokenizer_has_jit(const qvl_tokenizer *tokenizer)
{
    return tokenizer->has_jit;
}
