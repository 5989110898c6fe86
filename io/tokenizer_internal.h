/* What the tokenizer's source files share; not for others. */
#ifndef QVL_IO_TOKENIZER_INTERNAL_H
#define QVL_IO_TOKENIZER_INTERNAL_H

#include "io/tokenizer.h"
#include "src/base/sha256.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <jansson.h>
#include <pcre2.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Limits on input. Qwen2.5's file has 5.4 MB and 151,665 ids, and its longest added token 20 bytes.
 * NFC makes a text three times as long at most, so positions in it fit an int32_t. */
#define QVL_TOKENIZER_FILE_BYTES ((size_t)64 << 20)
#define QVL_TOKENIZER_MAX_IDS    (1 << 22)
#define QVL_TOKENIZER_TEXT_BYTES ((size_t)64 << 20)
#define QVL_ADDED_TOKEN_BYTES    512
#define QVL_SPLIT_PATTERN_BYTES  4096

/* A cached word is one cache line: words of up to 32 bytes that gave up to 7 ids. */
enum { QVL_WORD_BYTES = 32, QVL_WORD_IDS = 7, QVL_WORD_SLOTS = 1 << 15 };

#define QVL_NO_RANK UINT32_MAX

typedef enum qvl_token_kind {
    QVL_TOKEN_UNUSED = 0,
    QVL_TOKEN_ORDINARY,
    QVL_TOKEN_ADDED,
    QVL_TOKEN_SPECIAL
} qvl_token_kind;

/* text is what the file writes, bytes what it stands for; both are places in qvl_tokenizer.bytes.
 */
typedef struct qvl_token {
    uint32_t text_at, text_len;
    uint32_t bytes_at, bytes_len;
    qvl_token_kind kind;
} qvl_token;

/* Neighbours left, right become result. Lower ranks go first. */
typedef struct qvl_merge {
    uint32_t left, right;
    uint32_t rank; /* place in the file's list; QVL_NO_RANK in an empty slot */
    uint32_t result;
} qvl_merge;

/* Node of the tree of added tokens: the children of a node are a list. 0 is "none". */
typedef struct qvl_trie_node {
    int32_t child, sibling;
    int32_t id; /* of the token that ends here, or -1 */
    unsigned char byte;
} qvl_trie_node;

struct qvl_tokenizer {
    char sha256[QVL_SHA256_TEXT_BYTES];

    int32_t n_ids;
    qvl_token *tokens; /* [n_ids] */
    char *bytes;       /* the texts and bytes of all tokens */
    size_t n_bytes, bytes_capacity;
    uint32_t *text_slots; /* open addressing, 2^text_bits: id + 1, 0 when empty */
    unsigned text_bits;

    qvl_merge *merges; /* open addressing, 2^merge_bits */
    unsigned merge_bits;
    uint32_t byte_ids[256]; /* the token of a single byte */

    qvl_trie_node *trie;
    size_t n_trie, trie_capacity;
    int32_t trie_first[256]; /* node of an added token's first byte, 0 when none starts so */
    int n_first_bytes;       /* how many of them are not 0 */
    unsigned char first_byte;

    bool needs_nfc;
    pcre2_code *split; /* NULL: a piece is not split */
    bool has_jit;
};

/* ids of a word that was seen; n_bytes is 0 in an empty entry, key is padded with zeros. */
typedef struct qvl_word {
    uint8_t n_bytes, n_ids;
    int32_t ids[QVL_WORD_IDS];
    uint64_t key[QVL_WORD_BYTES / 8];
} qvl_word;

struct qvl_token_encoder {
    const qvl_tokenizer *tokenizer;

    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *jit_stack;
    bool use_jit;

    qvl_text nfc; /* the normalised piece */
    int32_t *points;
    size_t points_capacity;
    int32_t *sorted;
    size_t sorted_capacity;

    qvl_word *words; /* [QVL_WORD_SLOTS]; the two places of a word are neighbours */

    uint32_t *symbols, *ranks, *results; /* the word being merged */
    int32_t *previous, *next;
    size_t symbols_capacity, ranks_capacity, results_capacity, previous_capacity, next_capacity;
    uint64_t *heap;
    size_t n_heap, heap_capacity;
};

/* The file while it is read. */
typedef struct qvl_tokenizer_file {
    const char *path;
    qvl_tokenizer *tokenizer;
    qvl_err *err;
    int16_t byte_of[512]; /* what a code point stands for in a token's text; -1 for none */
} qvl_tokenizer_file;

/* --- tokenizer_options.c: what the file asks for -----------------------------------------------
 */

/* Member key of object, which must have this type; where is object's name with a dot, or "". */
qvl_status qvl_tokenizer_member(json_t **out, const qvl_tokenizer_file *file, const json_t *object,
                                const char *where, const char *key, json_type type);
/* Version, model options, normalizer, pre_tokenizer and decoder; sets needs_nfc and split. */
qvl_status qvl_tokenizer_check_options(const qvl_tokenizer_file *file, const json_t *root);

/* --- tokenizer_pattern.c: the split expression -------------------------------------------------
 */

/* Compiles an expression written for Oniguruma, the reference's engine, into tokenizer->split.
 * where names it in messages. QVL_EDATA when its meaning could differ, or when it can match nothing
 * at all. */
qvl_status qvl_tokenizer_compile_split(const qvl_tokenizer_file *file, const char *where,
                                       const char *pattern);

/* --- tokenizer_tables.c ------------------------------------------------------------------------
 */

void qvl_byte_map(uint16_t out[256]); /* the code point that stands for a byte, below 324 */
qvl_status qvl_tokenizer_tables_create(const qvl_tokenizer_file *file, int32_t n_ids,
                                       size_t n_texts, size_t n_bytes, size_t n_merges);
int32_t qvl_tokenizer_find_text(const qvl_tokenizer *tokenizer, const char *text, size_t n_bytes);
/* Sets tokens[id]; bytes come from text through the byte map unless kind is an added one's. */
qvl_status qvl_tokenizer_set_token(const qvl_tokenizer_file *file, int32_t id, const char *text,
                                   size_t n_bytes, qvl_token_kind kind);
qvl_status qvl_tokenizer_trie_add(const qvl_tokenizer_file *file, const char *text, size_t n_bytes,
                                  int32_t id);

/* The slot of a pair: its rule, or an empty slot (rank QVL_NO_RANK) where it would stand. */
static inline qvl_merge *qvl_tokenizer_merge_slot(const qvl_tokenizer *tokenizer, uint32_t left,
                                                  uint32_t right)
{
    const size_t mask = ((size_t)1 << tokenizer->merge_bits) - 1;
    const uint64_t pair = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u;
    size_t i = (size_t)(pair >> (64 - tokenizer->merge_bits));
    qvl_merge *slot = &tokenizer->merges[i];
    while (slot->rank != QVL_NO_RANK && (slot->left != left || slot->right != right)) {
        i = (i + 1) & mask;
        slot = &tokenizer->merges[i];
    }
    return slot;
}

/* --- tokenizer_vocab.c -------------------------------------------------------------------------
 */

/* Vocabulary, added tokens and merges: all of the tables. */
qvl_status qvl_tokenizer_read_vocab(const qvl_tokenizer_file *file, const json_t *root);

/* --- tokenizer_nfc.c ---------------------------------------------------------------------------
 */

/* *out is text itself where it is in NFC already, else encoder->nfc. */
qvl_status qvl_token_encoder_normalize(const char **out, size_t *out_bytes,
                                       qvl_token_encoder *encoder, const char *text, size_t n_bytes,
                                       qvl_err *err);

/* --- tokenizer_bpe.c ---------------------------------------------------------------------------
 */

/* Appends the ids of the word at word; the memory up to end (of the text) may be read. */
qvl_status qvl_token_encoder_word(qvl_token_encoder *encoder, const char *word, size_t n_bytes,
                                  const char *end, qvl_ids *out, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
