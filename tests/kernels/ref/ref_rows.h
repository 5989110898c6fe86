/* Rows that are looked up or moved. */
#ifndef QVL_TESTS_KERNELS_REF_REF_ROWS_H
#define QVL_TESTS_KERNELS_REF_REF_ROWS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* x[t,:] = table[ids[t],:] */
void qvl_ref_embed(double *x, const double *table, const int32_t *ids, int64_t T, int64_t D);

/* dst[dst_rows[i],:] = src[src_rows[i],:]; a NULL index array means row i. */
void qvl_ref_move_rows(double *dst, const double *src, const int32_t *dst_rows,
                       const int32_t *src_rows, int64_t n_rows, int64_t D);

#ifdef __cplusplus
}
#endif
#endif
