#include "src/model/vision_windows.h"

/* The four patches of a unit: (0,0) (0,1) (1,0) (1,1). */
static void put_unit(int32_t *positions, int64_t P, int64_t place, int64_t row, int64_t col)
{
    for (int64_t k = 0; k < 4; k++) {
        positions[4 * place + k] = (int32_t)(2 * row + k / 2);
        positions[P + 4 * place + k] = (int32_t)(2 * col + k % 2);
    }
}

void qvl_vision_windows(int32_t *unit_order, int32_t *positions, int32_t *cu_windows,
                        int64_t *n_windows, int64_t rows, int64_t cols, int64_t window_units)
{
    const int64_t P = rows * cols, unit_rows = rows / 2, unit_cols = cols / 2;
    int64_t place = 0;
    *n_windows = 0;
    cu_windows[0] = 0;
    for (int64_t top = 0; top < unit_rows; top += window_units)
        for (int64_t left = 0; left < unit_cols; left += window_units) {
            for (int64_t r = top; r < top + window_units && r < unit_rows; r++)
                for (int64_t c = left; c < left + window_units && c < unit_cols; c++) {
                    unit_order[place] = (int32_t)(r * unit_cols + c);
                    put_unit(positions, P, place++, r, c);
                }
            cu_windows[++*n_windows] = (int32_t)(4 * place);
        }
}
