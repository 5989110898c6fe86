/* Makes a model, a tokenizer, data and a config to try everything with. */
#ifndef QVL_SRC_DEMO_DEMO_H
#define QVL_SRC_DEMO_DEMO_H

#include <stdbool.h>
#include <stdint.h>

#include "src/base/text.h"
#include "src/demo/demo_model.h"

#ifdef __cplusplus
extern "C" {
#endif

#define QVL_DEMO_MAX_SAMPLES 100000

typedef struct qvl_demo_options {
    const char *directory; /* borrowed */
    qvl_demo_size size;
    bool is_sparse;    /* weights are holes; required for the real sizes */
    int64_t n_samples; /* of demo_shapes, 1 .. QVL_DEMO_MAX_SAMPLES */
    uint64_t seed;     /* the same one gives the same bytes */
} qvl_demo_options;

/* Writes into options->directory, which is made if need be:
 *
 *     qvl_demo.json   what was asked for; marks the directory as ours
 *     model/          config files, tokenizer, weights (demo_model.h, demo_tokenizer.h)
 *     data/           three data sets (demo_data.h)
 *     demo.yaml       a training run on them; its paths begin with the directory as it was given
 *
 * A directory that holds other files is left alone (QVL_EUSAGE), and so is a demo that was made
 * with other options; the same options write the same files again. Other errors: QVL_EUSAGE for a
 * real size that is not sparse and for a name that YAML cannot hold; QVL_EIO when writing fails.
 * Appends to report lines that say what was made, and the next command. */
qvl_status qvl_demo_write(qvl_text *report, const qvl_demo_options *options, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
