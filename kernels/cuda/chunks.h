/* How the adapters' backward passes are cut into blocks: a block has a slab of columns and a chunk
 * of rows, and what it sums over its rows is one part a chunk. Plain C, so that the bounds, by
 * which scratch is planned, are tested without a GPU (tests/unit/test_chunks.c). */
#ifndef QVL_KERNELS_CUDA_CHUNKS_H
#define QVL_KERNELS_CUDA_CHUNKS_H

#include <stddef.h>
#include <stdint.h>

/* Starting and ending a block takes about as long as a strip of rows. */
enum {
    QVL_STRIP_ROWS = 16,
    QVL_LEAST_CHUNK_ROWS = 2 * QVL_STRIP_ROWS,
    QVL_CHUNK_OVERHEAD_ROWS = QVL_STRIP_ROWS,
    QVL_MOST_WAVES = 4
};

static inline int64_t qvl_chunk_divide_up(int64_t n, int64_t by)
{
    return (n + by - 1) / by;
}

/* Rows of a block, a multiple of QVL_STRIP_ROWS, at most `most`. slots blocks run at once, and a
 * wave of them takes as long as its rows: of the divisions into at most QVL_MOST_WAVES waves the
 * one that ends first; where there is none, the fewest chunks. */
static inline int64_t qvl_chunk_rows(int64_t T, int64_t n_blocks_wide, int64_t slots, int64_t most)
{
    int64_t best_rows = most, best_time = INT64_MAX;
    for (int64_t chunks = 1; chunks <= qvl_chunk_divide_up(T, QVL_LEAST_CHUNK_ROWS); chunks++) {
        const int64_t rows =
            qvl_chunk_divide_up(qvl_chunk_divide_up(T, chunks), QVL_STRIP_ROWS) * QVL_STRIP_ROWS;
        const int64_t waves =
            qvl_chunk_divide_up(n_blocks_wide * qvl_chunk_divide_up(T, rows), slots);
        const int64_t time = waves * (rows + QVL_CHUNK_OVERHEAD_ROWS);
        if (rows > most || time >= best_time || (waves > QVL_MOST_WAVES && best_time < INT64_MAX))
            continue;
        best_rows = rows;
        best_time = time;
    }
    return best_rows;
}

/* Chunks times columns, at most, for any number of rows up to T, with slabs of these columns. */
static inline size_t qvl_parts_bound(int64_t T, int64_t columns, int64_t slab, int64_t slots,
                                     int64_t most_rows)
{
    const int64_t by_blocks = (QVL_MOST_WAVES * slots + slots) * slab + columns;
    const int64_t by_rows = qvl_chunk_divide_up(T, most_rows) * columns;
    const int64_t by_least = qvl_chunk_divide_up(T, QVL_LEAST_CHUNK_ROWS) * columns;
    const int64_t wanted = by_blocks > by_rows ? by_blocks : by_rows;
    return (size_t)(wanted < by_least ? wanted : by_least);
}

#endif
