#include "tests/kernels/ref/ref_rows.h"

#include <stddef.h>

void qvl_ref_embed(double *x, const double *table, const int32_t *ids, int64_t T, int64_t D)
{
    qvl_ref_move_rows(x, table, NULL, ids, T, D);
}

void qvl_ref_move_rows(double *dst, const double *src, const int32_t *dst_rows,
                       const int32_t *src_rows, int64_t n_rows, int64_t D)
{
    for (int64_t i = 0; i < n_rows; i++) {
        const int64_t to = dst_rows ? dst_rows[i] : i, from = src_rows ? src_rows[i] : i;
        for (int64_t d = 0; d < D; d++)
            dst[to * D + d] = src[from * D + d];
    }
}
