#include "kernels/cpu/cpu_backend.h"

#include <cblas.h>

/* The tile is as large as leaves about 16 of them (so that a few threads are busy), between 32 rows
 * by 64 columns, below which CBLAS's own overhead shows, and 256 by 512, above which nothing is
 * gained. It depends on the shape only. */
static void choose_tile(int64_t m, int64_t n, int64_t *tile_m, int64_t *tile_n)
{
    *tile_m = m;
    *tile_n = n;
    while (*tile_m > 256)
        *tile_m = (*tile_m + 1) / 2;
    while (*tile_n > 512)
        *tile_n = (*tile_n + 1) / 2;
    for (;;) {
        const int64_t tiles = ((m + *tile_m - 1) / *tile_m) * ((n + *tile_n - 1) / *tile_n);
        if (tiles >= 16)
            return;
        if (*tile_n >= 128 && *tile_n >= *tile_m)
            *tile_n = (*tile_n + 1) / 2;
        else if (*tile_m >= 64)
            *tile_m = (*tile_m + 1) / 2;
        else if (*tile_n >= 128)
            *tile_n = (*tile_n + 1) / 2;
        else
            return;
    }
}

void qvl_cpu_gemm_serial(const qvl_cpu_gemm *g)
{
    if (g->m == 0 || g->n == 0)
        return;
    cblas_sgemm(CblasRowMajor, g->transpose_a ? CblasTrans : CblasNoTrans,
                g->transpose_b ? CblasTrans : CblasNoTrans, (int)g->m, (int)g->n, (int)g->k,
                g->alpha, g->a, (int)g->lda, g->b, (int)g->ldb, g->beta, g->c, (int)g->ldc);
}

void qvl_cpu_gemm_run(const qvl_device *dev, const qvl_cpu_gemm *gemm)
{
    int64_t tile_m = 0, tile_n = 0;
    if (gemm->m == 0 || gemm->n == 0)
        return;
    choose_tile(gemm->m, gemm->n, &tile_m, &tile_n);
    const int64_t rows = (gemm->m + tile_m - 1) / tile_m, cols = (gemm->n + tile_n - 1) / tile_n;
#pragma omp parallel for num_threads(qvl_cpu_threads(dev)) schedule(static)
    for (int64_t i = 0; i < rows * cols; i++) {
        const int64_t m0 = i / cols * tile_m, n0 = i % cols * tile_n;
        qvl_cpu_gemm tile = *gemm;
        tile.m = gemm->m - m0 < tile_m ? gemm->m - m0 : tile_m;
        tile.n = gemm->n - n0 < tile_n ? gemm->n - n0 : tile_n;
        tile.a += gemm->transpose_a ? m0 : m0 * gemm->lda;
        tile.b += gemm->transpose_b ? n0 * gemm->ldb : n0;
        tile.c += m0 * gemm->ldc + n0;
        qvl_cpu_gemm_serial(&tile);
    }
}
