/* How long each operation takes: a table of functions around a device's own. */
#ifndef QVL_KERNELS_TIMED_OPS_H
#define QVL_KERNELS_TIMED_OPS_H

#include <stdint.h>

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum qvl_timed_op {
    QVL_TIMED_EMBED,
    QVL_TIMED_NORM,
    QVL_TIMED_LINEAR,
    QVL_TIMED_ROTATE,
    QVL_TIMED_ATTENTION,
    QVL_TIMED_SWIGLU,
    QVL_TIMED_MLP, /* SwiGLU and down's linear */
    QVL_TIMED_HEAD_LOSS,
    QVL_TIMED_NORM_BACKWARD,
    QVL_TIMED_LINEAR_BACKWARD,
    QVL_TIMED_MLP_BACKWARD, /* down's linear and SwiGLU */
    QVL_TIMED_ATTENTION_BACKWARD,
    QVL_TIMED_OPTIMISER, /* norm of the gradients, AdamW, fold */
    QVL_N_TIMED
} qvl_timed_op;

typedef struct qvl_op_times {
    double ms[QVL_N_TIMED]; /* of the device; the time between operations is not in it */
    int64_t calls[QVL_N_TIMED];
} qvl_op_times;

const char *qvl_timed_op_name(qvl_timed_op op);

/* From here to the end every operation of dev is enclosed in marks, for up to QVL_MARKS / 2
 * operations; further ones run untimed. One device of a process at a time; marks of the caller's
 * own are overwritten. */
void qvl_timed_ops_begin(qvl_device *dev);
/* Waits, adds what was measured to times, and restores the device. */
qvl_status qvl_timed_ops_end(qvl_device *dev, qvl_op_times *times, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
