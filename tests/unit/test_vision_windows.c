/* The vision tower's window order against REFERENCE 4.2 and 4.3. */
#include "src/model/vision_windows.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_PATCHES = 1200 };

typedef struct windows {
    int32_t order[MAX_PATCHES / 4], positions[2 * MAX_PATCHES], cu[MAX_PATCHES / 4 + 1];
    int64_t n;
} windows;

static windows make(int64_t rows, int64_t cols, int64_t units)
{
    windows w;
    assert_true(rows * cols <= MAX_PATCHES);
    memset(&w, 0xff, sizeof w);
    qvl_vision_windows(w.order, w.positions, w.cu, &w.n, rows, cols, units);
    return w;
}

#define LIST(...)          ((const int32_t[]){__VA_ARGS__})
#define EXPECT(array, ...) assert_memory_equal(array, LIST(__VA_ARGS__), sizeof(LIST(__VA_ARGS__)))

static void vectors_of_the_reference(void **state)
{
    (void)state;
    windows w = make(4, 6, 4);
    assert_int_equal(w.n, 1);
    EXPECT(w.cu, 0, 24);
    EXPECT(w.order, 0, 1, 2, 3, 4, 5);

    w = make(12, 10, 4);
    assert_int_equal(w.n, 4);
    EXPECT(w.cu, 0, 64, 80, 112, 120);
    EXPECT(w.order, 0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 15, 16, 17, 18, 4, 9, 14, 19, 20, 21,
           22, 23, 25, 26, 27, 28, 24, 29);
    int32_t inverse[30];
    for (int i = 0; i < 30; i++)
        inverse[w.order[i]] = i;
    EXPECT(inverse, 0, 1, 2, 3, 16, 4, 5, 6, 7, 17, 8, 9, 10, 11, 18, 12, 13, 14, 15, 19, 20, 21,
           22, 23, 28, 24, 25, 26, 27, 29);

    w = make(16, 16, 4); /* no empty windows are left */
    assert_int_equal(w.n, 4);
    EXPECT(w.cu, 0, 64, 128, 192, 256);
    for (int i = 0; i < 64; i++) {
        const int window = i / 16, row = i % 16 / 4 + 4 * (window / 2),
                  col = i % 4 + window % 2 * 4;
        assert_int_equal(w.order[i], 8 * row + col);
    }
}

/* 2x2 blocks of a 4x4 grid, as REFERENCE 4.2 lists them. */
static void positions_come_in_blocks(void **state)
{
    (void)state;
    const windows w = make(4, 4, 4);
    EXPECT(w.positions, 0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3);
    EXPECT(w.positions + 16, 0, 1, 0, 1, 2, 3, 2, 3, 0, 1, 0, 1, 2, 3, 2, 3);
    const windows one = make(2, 2, 4);
    EXPECT(one.positions, 0, 0, 1, 1, 0, 1, 0, 1);
    EXPECT(one.cu, 0, 4);
}

/* The padded arrangement of the reference's code: index tensor padded with -1, cut into windows. */
static void any_grid_is_as_the_padded_arrangement(void **state)
{
    (void)state;
    for (int64_t units = 1; units <= 5; units++)
        for (int64_t unit_rows = 1; unit_rows <= 17; unit_rows++)
            for (int64_t unit_cols = 1; unit_cols <= 17; unit_cols++) {
                const windows w = make(2 * unit_rows, 2 * unit_cols, units);
                const int64_t P = 4 * unit_rows * unit_cols;
                const int64_t down = (unit_rows + units - unit_rows % units) / units;
                const int64_t across = (unit_cols + units - unit_cols % units) / units;
                int64_t place = 0, n = 0;
                for (int64_t window = 0; window < down * across; window++) {
                    const int64_t before = place;
                    for (int64_t k = 0; k < units * units; k++) {
                        const int64_t row = window / across * units + k / units;
                        const int64_t col = window % across * units + k % units;
                        if (row >= unit_rows || col >= unit_cols)
                            continue;
                        assert_int_equal(w.order[place], row * unit_cols + col);
                        for (int64_t p = 0; p < 4; p++) {
                            assert_int_equal(w.positions[4 * place + p], 2 * row + p / 2);
                            assert_int_equal(w.positions[P + 4 * place + p], 2 * col + p % 2);
                        }
                        place++;
                    }
                    if (place > before)
                        assert_int_equal(w.cu[++n], 4 * place);
                }
                assert_int_equal(w.n, n);
                assert_int_equal(w.cu[n], P);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_of_the_reference),
        cmocka_unit_test(positions_come_in_blocks),
        cmocka_unit_test(any_grid_is_as_the_padded_arrangement),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
