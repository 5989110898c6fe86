/* optimizer.h5 of a checkpoint (docs/FORMATS.md): moments, counts, and what the run was. */
#ifndef QVL_SRC_TRAIN_OPTIMIZER_FILE_H
#define QVL_SRC_TRAIN_OPTIMIZER_FILE_H

#include "src/base/status.h"
#include "src/base/text.h"
#include "src/model/lora.h"
#include "src/train/checkpoint.h"

#ifdef __cplusplus
extern "C" {
#endif

#define QVL_OPTIMIZER_FILE "optimizer.h5"

/* The file's bytes, made in memory: whoever writes them needs no HDF5, which is not for threads. */
qvl_status qvl_optimizer_format(qvl_text *out, const qvl_train_state *state, const qvl_lora *lora,
                                qvl_err *err);

/* Reads directory's file into state, whose buffers are allocated and whose identity and order are
 * set. QVL_EDATA when identity differs, with what differs; *out_other_order says what differs in
 * order, "" when nothing does. */
qvl_status qvl_optimizer_read(const char *directory, qvl_train_state *state, const qvl_lora *lora,
                              qvl_text *out_other_order, qvl_err *err);

/* Appends "key: A there, B here" for every "key=value" of here (separated by "; ") that there has
 * another value for. */
qvl_status qvl_description_compare(qvl_text *out, const char *there, const char *here,
                                   qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
