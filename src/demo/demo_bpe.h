/* Learns a byte-level BPE vocabulary (REFERENCE 6.2) from text. */
#ifndef QVL_SRC_DEMO_BPE_H
#define QVL_SRC_DEMO_BPE_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Qwen2's split of a text into words, as PCRE2 and tokenizer.json both take it. */
#define QVL_DEMO_SPLIT_PATTERN                                                                     \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "                          \
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

enum { QVL_BPE_MAX_TOKENS = 2048, QVL_BPE_TOKEN_BYTES = 96 };

typedef struct qvl_bpe {
    /* Token i as the file writes it, bytes mapped to characters: "Ġthe". The first 256 are the
     * single bytes in the order of the map. */
    char tokens[QVL_BPE_MAX_TOKENS][QVL_BPE_TOKEN_BYTES];
    int n_tokens;
    uint16_t merges[QVL_BPE_MAX_TOKENS][2]; /* pairs of tokens, first rank first */
    int n_merges;
} qvl_bpe;

/* Merges the most frequent pair of neighbours within the words of text again and again (of equally
 * frequent ones that of the lower token numbers), until there are n_tokens tokens or no pair occurs
 * twice. text is ASCII, so that Unicode normalisation has nothing to do. *out is the caller's,
 * released with free(). n_tokens 256 .. QVL_BPE_MAX_TOKENS. */
qvl_status qvl_bpe_learn(qvl_bpe **out, const char *text, size_t n_bytes, int n_tokens,
                         qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
