/* The cutting of the adapters' backward passes stays within what scratch is planned for. */
#include "kernels/cuda/chunks.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const int64_t SLOTS[] = {16, 264, 396, 1056};
static const int64_t SLABS[] = {128, 256, 512};
static const int64_t COLUMNS[] = {8, 512, 3584, 18944, 37888, 59136};

/* Chunks of T rows in blocks that are at most so many rows; 0: as many as there are. */
static int64_t chunks_of(int64_t T, int64_t columns, int64_t slab, int64_t slots, int64_t most)
{
    const int64_t limit = most ? most : T + QVL_STRIP_ROWS;
    const int64_t rows = qvl_chunk_rows(T, qvl_chunk_divide_up(columns, slab), slots, limit);
    assert_true(rows > 0 && rows <= limit && rows % QVL_STRIP_ROWS == 0);
    return qvl_chunk_divide_up(T, rows);
}

static void parts_fit_their_bound(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof SLOTS / sizeof *SLOTS; k++)
        for (size_t s = 0; s < sizeof SLABS / sizeof *SLABS; s++)
            for (size_t c = 0; c < sizeof COLUMNS / sizeof *COLUMNS; c++)
                for (int64_t T = 1; T <= 40000; T += 1 + T / 7)
                    for (int64_t most = 0; most <= 384; most += 384) {
                        const size_t bound = qvl_parts_bound(T, COLUMNS[c], SLABS[s], SLOTS[k],
                                                             most ? most : T + QVL_STRIP_ROWS);
                        const int64_t chunks = chunks_of(T, COLUMNS[c], SLABS[s], SLOTS[k], most);
                        if ((size_t)(chunks * COLUMNS[c]) > bound)
                            fail_msg("T=%lld columns=%lld slab=%lld slots=%lld: %lld chunks",
                                     (long long)T, (long long)COLUMNS[c], (long long)SLABS[s],
                                     (long long)SLOTS[k], (long long)chunks);
                    }
}

/* A pack shorter than the one that scratch was planned for, of 7B's gate and up. */
static void shorter_packs_fit_as_well(void **state)
{
    (void)state;
    const size_t bound = qvl_parts_bound(16384, 37888, 512, 396, 384);
    for (int64_t T = 1; T <= 16384; T++)
        assert_true((size_t)(chunks_of(T, 37888, 512, 396, 384) * 37888) <= bound);
}

static void chunks_fill_the_chip(void **state)
{
    (void)state;
    /* 14 slabs of 256 columns and 264 slots: one wave, as full as it gets */
    assert_int_equal(qvl_chunk_rows(1366, 14, 264, 2000), 80);
    /* few rows: the least that is worth a block */
    assert_int_equal(qvl_chunk_rows(40, 1, 264, 2000), QVL_LEAST_CHUNK_ROWS);
    /* more blocks side by side than four waves hold: the largest chunks */
    assert_int_equal(qvl_chunk_rows(10000, 5000, 16, 384), 384);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_fit_their_bound),
        cmocka_unit_test(shorter_packs_fit_as_well),
        cmocka_unit_test(chunks_fill_the_chip),
    };
    return cmocka_run_group_tests_name("chunks", tests, NULL, NULL);
}
