/* tokenizer.json and tokenizer_config.json in Qwen2.5-VL's form (REFERENCE 6). */
#ifndef QVL_SRC_DEMO_TOKENIZER_H
#define QVL_SRC_DEMO_TOKENIZER_H

#include <stdint.h>

#include "src/base/status.h"
#include "src/demo/demo_bpe.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Qwen's 22 added tokens have neighbouring ids; these are the places of those that configs name. */
enum {
    QVL_ADDED_ENDOFTEXT = 0,
    QVL_ADDED_IM_END = 2,
    QVL_ADDED_VISION_START = 9,
    QVL_ADDED_VISION_END = 10,
    QVL_ADDED_VISION_PAD = 11,
    QVL_ADDED_IMAGE_PAD = 12,
    QVL_ADDED_VIDEO_PAD = 13,
    QVL_N_ADDED = 22
};

/* Writes both files into directory. The added tokens get the ids from first_added on (at least
 * bpe->n_tokens); ids in between are filled with tokens that no merge makes, so that no reader
 * finds a hole. */
qvl_status qvl_demo_write_tokenizer(const char *directory, const qvl_bpe *bpe, int64_t first_added,
                                    qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
