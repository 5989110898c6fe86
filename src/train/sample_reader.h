/* Samples of a data set by number, some of them read before they are asked for: while the device
 * works on one step, those of the next. */
#ifndef QVL_SRC_TRAIN_SAMPLE_READER_H
#define QVL_SRC_TRAIN_SAMPLE_READER_H

#include <stdint.h>

#include "io/dataset_h5.h"
#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Tokens that are read ahead at most. */
enum { QVL_READ_AHEAD_TOKENS = 1 << 18 };

typedef struct qvl_sample_reader qvl_sample_reader;

/* data must outlive the reader. */
qvl_status qvl_sample_reader_create(qvl_sample_reader **out, qvl_dataset *data, qvl_err *err);
void qvl_sample_reader_destroy(qvl_sample_reader *reader); /* NULL is fine */

/* Reads samples numbers [n], in the order in which they will be asked for, in place of those read
 * ahead before; as many of the first as QVL_READ_AHEAD_TOKENS allow. Not an error: what cannot be
 * read now is read, and its fault named, when it is asked for. */
void qvl_sample_reader_ahead(qvl_sample_reader *reader, const int64_t *numbers, int64_t n);

/* ids, labels [length of the sample]: the reader's, valid until its next call. */
qvl_status qvl_sample_reader_get(qvl_sample_reader *reader, int64_t number, const int32_t **ids,
                                 const int32_t **labels, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
