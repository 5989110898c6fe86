/* Sum of squares and one AdamW step with clipping, in double (REFERENCE 8.5 and 8.6). */
#ifndef QVL_TESTS_KERNELS_REF_REF_ADAMW_H
#define QVL_TESTS_KERNELS_REF_REF_ADAMW_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_ref_adamw {
    double *param, *grad, *exp_avg, *exp_avg_sq; /* [n], all changed; grad ends as 0 */
    double grad_sum_squares;
    int64_t n;
    double lr, beta1, beta2, eps, weight_decay;
    double max_grad_norm; /* 0: no clipping */
    int step;             /* t of the bias corrections 1 - beta^t; the first step is 1 */
} qvl_ref_adamw;

double qvl_ref_sum_squares(const double *x, int64_t n);
void qvl_ref_adamw_step(const qvl_ref_adamw *args);

#ifdef __cplusplus
}
#endif
#endif
