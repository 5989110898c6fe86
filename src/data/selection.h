/* Which records of which files are encoded, in which order (REFERENCE 7.8), and the digest that
 * tells whether a pre-tokenized file was made from them. */
#ifndef QVL_SRC_DATA_SELECTION_H
#define QVL_SRC_DATA_SELECTION_H

#include <stddef.h>
#include <stdint.h>

#include "io/record_file.h"
#include "mpi/world.h"
#include "src/base/sha256.h"
#include "src/base/status.h"
#include "src/config/config.h"
#include "src/data/dataset_info.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_record_ref {
    int32_t info, file; /* data set, and file of it */
    int64_t record;     /* number in the file, from 0 */
    qvl_record_span span;
} qvl_record_ref;

/* The data sets of dataset or eval_dataset, and the records of both parts. */
typedef struct qvl_selection {
    qvl_dataset_info *infos;
    size_t n_infos;
    qvl_record_ref *refs; /* the training part, then the evaluation part */
    int64_t n_train, n_eval;
    char digest[QVL_SHA256_TEXT_BYTES]; /* of data, tokenizer and every setting of the encoding */
} qvl_selection;

/* Collective: rank 0 reads the data files once, all get the result. Start with {0}. */
qvl_status qvl_selection_make(qvl_selection *out, const qvl_config *config,
                              const char *tokenizer_sha256, const char *limits, qvl_world *world,
                              qvl_err *err);
void qvl_selection_fini(qvl_selection *selection);

/* Number of a record's file among all files of all data sets, in their order. */
int64_t qvl_selection_source(const qvl_selection *selection, const qvl_record_ref *ref);
/* The paths of all these files with newlines between, for the attribute of a pre-tokenized file;
 * nothing when they do not fit into one. */
qvl_status qvl_selection_join_sources(qvl_text *out, const qvl_selection *selection, qvl_err *err);

/* "data/x.json: sample 17" */
const char *qvl_selection_describe(const qvl_selection *selection, const qvl_record_ref *ref,
                                   char buffer[512]);

#ifdef __cplusplus
}
#endif
#endif
