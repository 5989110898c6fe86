/* Byte-level BPE tokenizer, read from the tokenizer.json of a Qwen2-family model.
 *
 *     text  ->  added tokens cut out  ->  NFC  ->  split by a regular expression  ->  bytes  -> ids
 *
 * The ids are those of Hugging Face's `tokenizers` for encode(text, add_special_tokens=False), so
 * the file's post_processor, truncation and padding, which that call does not use, are not looked
 * at. Everything else in the file must ask for what is implemented here, or loading says what not.
 *
 * A qvl_tokenizer does not change once loaded and is shared by threads. A qvl_token_encoder holds
 * what encoding writes to (match data, a cache of words); every thread has its own.
 */
#ifndef QVL_IO_TOKENIZER_H
#define QVL_IO_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/sha256.h"
#include "src/base/status.h"
#include "src/base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_tokenizer qvl_tokenizer;
typedef struct qvl_token_encoder qvl_token_encoder;

/* A growing list of token ids. Start with {0}; qvl_ids_fini frees it. */
typedef struct qvl_ids {
    int32_t *data;
    size_t len;
    size_t capacity;
} qvl_ids;

void qvl_ids_fini(qvl_ids *ids);
void qvl_ids_clear(qvl_ids *ids); /* length 0, memory kept */
qvl_status qvl_ids_add(qvl_ids *ids, const int32_t *values, size_t n, qvl_err *err);

/* *out belongs to the caller (destroy it); NULL on failure. QVL_EMISSING when path is not there,
 * QVL_EDATA when it is no tokenizer.json, contradicts itself or needs something that is not
 * implemented; the message names file and member. */
qvl_status qvl_tokenizer_load(qvl_tokenizer **out, const char *path, qvl_err *err);
void qvl_tokenizer_destroy(qvl_tokenizer *tokenizer);

/* SHA-256 of the file, 64 hexadecimal digits, without looking into it; errors as above. */
qvl_status qvl_tokenizer_file_sha256(char out[QVL_SHA256_TEXT_BYTES], const char *path,
                                     qvl_err *err);

/* Highest id + 1; ids below it may be unused. */
int32_t qvl_tokenizer_n_ids(const qvl_tokenizer *tokenizer);

/* SHA-256 of the file, 64 hexadecimal digits. Borrowed. */
const char *qvl_tokenizer_sha256(const qvl_tokenizer *tokenizer);

/* The id of a token as the file writes it ("<|im_end|>", or mapped bytes like "Ġthe"); -1 if there
 * is none. */
int32_t qvl_tokenizer_token_id(const qvl_tokenizer *tokenizer, const char *text);

/* The bytes an id stands for: an added token's text, else the token mapped back to bytes (which
 * need not be whole UTF-8). Borrowed, not NUL-terminated. NULL when the id is unused. */
const char *qvl_tokenizer_token_bytes(const qvl_tokenizer *tokenizer, int32_t id, size_t *n_bytes);

/* True for added tokens that the file marks as special. */
bool qvl_tokenizer_is_special(const qvl_tokenizer *tokenizer, int32_t id);

/* Whether the split runs as machine code. Where the system forbids that it is interpreted: same
 * result, slower. */
bool qvl_tokenizer_has_jit(const qvl_tokenizer *tokenizer);

/* *out belongs to the caller and must go before its tokenizer does. */
qvl_status qvl_token_encoder_create(qvl_token_encoder **out, const qvl_tokenizer *tokenizer,
                                    qvl_err *err);
void qvl_token_encoder_destroy(qvl_token_encoder *encoder);

/* Appends the ids of text (n_bytes of UTF-8, NUL bytes allowed) to *out. No token is put before or
 * after. With split_special, special added tokens are ordinary text (LLaMA-Factory's
 * split_special_tokens); other added tokens are still found. QVL_EDATA for invalid UTF-8 (the
 * message has the offset), for a text over 64 MiB, and for a split that takes too many steps;
 * *out then has its earlier length. */
qvl_status qvl_tokenizer_encode(qvl_token_encoder *encoder, const char *text, size_t n_bytes,
                                bool split_special, qvl_ids *out, qvl_err *err);

/* Appends the text of n ids to *out: added tokens as they are written (special ones left out with
 * skip_special), runs of others as bytes in which every malformed UTF-8 sequence becomes U+FFFD.
 * Unused ids and those past the last give nothing. QVL_EDATA for a negative id. */
qvl_status qvl_tokenizer_decode(const qvl_tokenizer *tokenizer, const int32_t *ids, size_t n,
                                bool skip_special, qvl_text *out, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
