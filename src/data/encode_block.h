/* Encoding a block of records with all threads of a rank, into one message for rank 0. */
#ifndef QVL_SRC_DATA_ENCODE_BLOCK_H
#define QVL_SRC_DATA_ENCODE_BLOCK_H

#include <stddef.h>
#include <stdint.h>

#include "io/tokenizer.h"
#include "src/base/status.h"
#include "src/base/text.h"
#include "src/data/encode.h"
#include "src/data/selection.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { QVL_BLOCK_RECORDS = 256 };

typedef enum qvl_outcome { QVL_KEPT, QVL_DROPPED, QVL_BAD } qvl_outcome;

/* One record of a message; pointers are into it. */
typedef struct qvl_block_entry {
    qvl_outcome outcome;
    int32_t n_ids, n_images, n_cut;
    qvl_status status;           /* of a bad one */
    uint32_t columns;            /* that the record has (qvl_dataset_info_columns_of) */
    const int32_t *ids, *labels; /* [n_ids] */
    const int32_t *grids;        /* [n_images, 3] */
    const char *text;            /* image paths, each ended by a NUL; or why it is dropped or bad */
} qvl_block_entry;

typedef struct qvl_block_encoder qvl_block_encoder;

/* One encoder for each thread; files are opened when first needed and stay open. */
qvl_status qvl_block_encoder_create(qvl_block_encoder **out, const qvl_selection *selection,
                                    const qvl_tokenizer *tokenizer,
                                    const qvl_encode_options *options, int n_threads, qvl_err *err);
void qvl_block_encoder_destroy(qvl_block_encoder *encoder); /* NULL is fine */

/* Encodes refs [n], n <= QVL_BLOCK_RECORDS; the message replaces *out. A bad record is an entry,
 * not a failure; failures are the machine's (I/O, memory). */
qvl_status qvl_block_encode(qvl_block_encoder *encoder, qvl_text *out, const qvl_record_ref *refs,
                            int64_t n, qvl_err *err);

/* Walks a message: *at starts at 0 and moves to the next entry. False at the end. */
int qvl_block_next(qvl_block_entry *out, const qvl_text *message, size_t *at);

#ifdef __cplusplus
}
#endif
#endif
