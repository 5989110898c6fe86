/* Cross-entropy of the output head on chosen rows, and its gradient, in double. */
#ifndef QVL_TESTS_KERNELS_REF_REF_HEAD_LOSS_H
#define QVL_TESTS_KERNELS_REF_REF_HEAD_LOSS_H

#include "tests/kernels/ref/ref_round.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_ref_head_loss {
    const double *x;    /* [T, D] */
    const double *head; /* [V, D] */
    const int32_t *rows, *targets;
    const double *weights; /* [n_rows] */
    int64_t n_rows, T, D, V;
    qvl_ref_round round; /* of logits and of their gradient */
} qvl_ref_head_loss;

/* logits = x[rows[i],:] head^T;  row_loss[i] = logsumexp(logits) - logits[targets[i]];
 * dx[rows[i],:] = weights[i] * (softmax(logits) - onehot(targets[i])) head; other rows of dx are 0.
 * row_loss [n_rows], dx [T, D]; dx NULL: no gradient. */
void qvl_ref_head_loss_run(double *row_loss, double *dx, const qvl_ref_head_loss *args);

#ifdef __cplusplus
}
#endif
#endif
