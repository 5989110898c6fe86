/* A conversation as token ids and labels (REFERENCE 7.5, 7.6). */
#ifndef QVL_SRC_DATA_ENCODE_H
#define QVL_SRC_DATA_ENCODE_H

#include <stdbool.h>
#include <stdint.h>

#include "io/image_pipeline.h"
#include "io/tokenizer.h"
#include "src/base/files.h"
#include "src/base/status.h"
#include "src/data/conversation.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_encode_options {
    int64_t cutoff_len;
    bool train_on_prompt, mask_history, split_special_tokens;
    const char *default_system; /* NULL: the template's */
    const char *media_dir;
    bool strict_paths; /* images must be within media_dir, wherever links lead */
    qvl_image_limits limits;
    int32_t image_token, video_token; /* ids of <|image_pad|> and <|video_pad|>; -1: none */
} qvl_encode_options;

/* One encoded sample. Start with {0}; reused. */
typedef struct qvl_encoded {
    qvl_ids ids, labels;
    qvl_text image_paths; /* as they are to be opened, each ended by a NUL */
    int32_t *grids;       /* [n_images, 3] */
    size_t n_images, grids_capacity;
    int64_t n_cut;       /* tokens that cutoff_len took */
    const char *dropped; /* why the sample is left out; NULL when it is not */
} qvl_encoded;

void qvl_encoded_fini(qvl_encoded *encoded);

typedef struct qvl_sample_encoder qvl_sample_encoder; /* scratch of one thread */

qvl_status qvl_sample_encoder_create(qvl_sample_encoder **out, const qvl_tokenizer *tokenizer,
                                     const qvl_encode_options *options, qvl_err *err);
void qvl_sample_encoder_destroy(qvl_sample_encoder *encoder); /* NULL is fine */

/* Encodes; image headers are read for their sizes. QVL_EDATA or QVL_EMISSING says what is wrong
 * (the caller says where): image tags and images that do not match, images that cannot be used, a
 * cut that would fall inside or before an image. */
qvl_status qvl_encode_sample(qvl_sample_encoder *encoder, qvl_encoded *out,
                             const qvl_conversation *conversation, qvl_err *err);

/* LLaMA-Factory's infer_seqlen: what prompt and answer keep when both must fit in room tokens. */
void qvl_cut_lengths(int64_t *keep_source, int64_t *keep_target, int64_t source, int64_t target,
                     int64_t room);

#ifdef __cplusplus
}
#endif
#endif
