/* The demo's three data sets, in LLaMA-Factory's formats (REFERENCE 7.1 to 7.4). */
#ifndef QVL_SRC_DEMO_DATA_H
#define QVL_SRC_DEMO_DATA_H

#include <stdint.h>

#include "src/base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_demo_data {
    int64_t n_shapes, n_facts, n_chats; /* samples */
    int64_t n_pictures;
} qvl_demo_data;

/* Writes into directory, which is made:
 *
 *     dataset_info.json
 *     demo_shapes.json    sharegpt; n_samples questions about drawn pictures, one or two of them,
 *                         in one or two turns; demo_shapes/00001.png ...
 *     demo_facts.jsonl    alpaca; text only
 *     demo_chat.json      openai; system messages, one or two turns, text only
 *
 * *out says how much. QVL_EIO when a file cannot be written. */
qvl_status qvl_demo_write_data(qvl_demo_data *out, const char *directory, int64_t n_samples,
                               uint64_t seed, qvl_err *err);

/* Appends the kinds of text that occur in the data, whatever the seed: to learn tokens from. */
qvl_status qvl_demo_add_corpus(qvl_text *out, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
