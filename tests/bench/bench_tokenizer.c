/* Times the tokenizer on one thread.
 *
 *     bench_tokenizer TOKENIZER_JSON TEXT [REPEATS]
 *
 * TEXT is a file of JSON lines (every string in them is a text), or a JSON file of any shape (its
 * strings, not its keys), or else plain text, of which every line is a text. All texts are encoded
 * REPEATS times (20) by one encoder, after one round that is not timed. Prints one line:
 * load time, texts, bytes, tokens, seconds, MB/s (1e6 bytes), tokens/s.
 */
#include "io/tokenizer.h"
#include "src/base/clock.h"
#include "src/base/files.h"
#include "src/base/memory.h"

#include <jansson.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_LIMIT_BYTES ((size_t)1 << 30)

/* Texts end to end; text i is bytes[starts[i]] to bytes[starts[i + 1]]. */
typedef struct texts {
    qvl_text bytes;
    size_t *starts;
    size_t n, capacity;
} texts;

static qvl_status add_text(texts *all, const char *text, size_t n_bytes, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    QVL_TRY(
        qvl_reserve(&all->starts, &all->capacity, all->n + 2, sizeof *all->starts, "texts", err));
    all->starts[all->n++] = all->bytes.len;
    QVL_TRY(qvl_text_add(&all->bytes, text, n_bytes, err));
    all->starts[all->n] = all->bytes.len;
out:
    return rc;
}

static qvl_status add_strings(texts *all, const json_t *value, qvl_err *err)
{
    const char *key = NULL;
    json_t *item = NULL;
    size_t i = 0;
    qvl_status rc = QVL_OK;
    if (json_is_string(value))
        return add_text(all, json_string_value(value), json_string_length(value), err);
    json_array_foreach(value, i, item) QVL_TRY(add_strings(all, item, err));
    json_object_foreach((json_t *)value, key, item) QVL_TRY(add_strings(all, item, err));
out:
    return rc;
}

/* A line: its strings when it is JSON, else itself. */
static qvl_status add_line(texts *all, const char *line, size_t n_bytes, qvl_err *err)
{
    json_t *value = json_loadb(line, n_bytes, JSON_ALLOW_NUL, NULL);
    const qvl_status rc = value ? add_strings(all, value, err) : add_text(all, line, n_bytes, err);
    json_decref(value);
    return rc;
}

static qvl_status read_texts(texts *all, const char *path, qvl_err *err)
{
    qvl_text file = {0};
    json_t *whole = NULL;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_file_read(&file, path, FILE_LIMIT_BYTES, err));
    whole = json_loadb(file.data ? file.data : "", file.len, JSON_ALLOW_NUL, NULL);
    if (whole) {
        rc = add_strings(all, whole, err);
        goto out;
    }
    for (size_t at = 0; at < file.len;) {
        const char *end = memchr(file.data + at, '\n', file.len - at);
        const size_t n_bytes = (end ? (size_t)(end - file.data) : file.len) - at;
        QVL_TRY(add_line(all, file.data + at, n_bytes, err));
        at += n_bytes + 1;
    }
out:
    json_decref(whole);
    qvl_text_fini(&file);
    return rc;
}

static qvl_status encode_all(qvl_token_encoder *encoder, const texts *all, qvl_ids *ids,
                             size_t *n_tokens, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    for (size_t i = 0; rc == QVL_OK && i < all->n; i++) {
        qvl_ids_clear(ids);
        rc = qvl_tokenizer_encode(encoder, all->bytes.data + all->starts[i],
                                  all->starts[i + 1] - all->starts[i], false, ids, err);
        *n_tokens += ids->len;
    }
    return rc;
}

static qvl_status run(const char *tokenizer_path, const char *text_path, int repeats, qvl_err *err)
{
    qvl_tokenizer *tokenizer = NULL;
    qvl_token_encoder *encoder = NULL;
    texts all = {0};
    qvl_ids ids = {0};
    size_t n_tokens = 0;
    qvl_status rc = QVL_OK;
    const double load_start = qvl_clock_s();
    QVL_TRY(qvl_tokenizer_load(&tokenizer, tokenizer_path, err));
    const double load_s = qvl_clock_s() - load_start;
    QVL_TRY(qvl_token_encoder_create(&encoder, tokenizer, err));
    QVL_TRY(read_texts(&all, text_path, err));
    QVL_TRY(encode_all(encoder, &all, &ids, &n_tokens, err));
    n_tokens = 0;
    const double start = qvl_clock_s();
    for (int i = 0; i < repeats; i++)
        QVL_TRY(encode_all(encoder, &all, &ids, &n_tokens, err));
    const double seconds = qvl_clock_s() - start;
    const double bytes = (double)all.bytes.len * repeats;
    printf("load_s %.3f  texts %zu  bytes %.0f  tokens %zu  seconds %.3f  MB/s %.1f  tokens/s "
           "%.0f  jit %d\n",
           load_s, all.n * (size_t)repeats, bytes, n_tokens, seconds, bytes / seconds / 1e6,
           (double)n_tokens / seconds, qvl_tokenizer_has_jit(tokenizer));
out:
    qvl_ids_fini(&ids);
    qvl_text_fini(&all.bytes);
    free(all.starts);
    qvl_token_encoder_destroy(encoder);
    qvl_tokenizer_destroy(tokenizer);
    return rc;
}

int main(int argc, char **argv)
{
    const int repeats = argc == 4 ? atoi(argv[3]) : 20;
    qvl_err err = {0};
    if (argc < 3 || argc > 4 || repeats < 1) {
        fprintf(stderr, "usage: bench_tokenizer TOKENIZER_JSON TEXT [REPEATS]\n");
        return QVL_EUSAGE;
    }
    const qvl_status rc = run(argv[1], argv[2], repeats, &err);
    if (rc != QVL_OK)
        fprintf(stderr, "bench_tokenizer: %s\n", err.text);
    return rc;
}
