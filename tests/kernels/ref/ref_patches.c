#include "tests/kernels/ref/ref_patches.h"

enum { SIDE = 14, WIDTH = 3 * 2 * SIDE * SIDE };

static void cut_patch(double *out, const uint8_t *rgb, int64_t row, int64_t col, int64_t cols,
                      const float mean[3], const float stddev[3])
{
    for (int64_t c = 0; c < 3; c++)
        for (int64_t frame = 0; frame < 2; frame++)
            for (int64_t y = 0; y < SIDE; y++)
                for (int64_t x = 0; x < SIDE; x++) {
                    const int64_t line = row * SIDE + y, column = col * SIDE + x;
                    const double value = (double)rgb[(line * cols * SIDE + column) * 3 + c];
                    out[((c * 2 + frame) * SIDE + y) * SIDE + x] =
                        (value / 255 - (double)mean[c]) / (double)stddev[c];
                }
}

void qvl_ref_patches(double *out, const uint8_t *rgb, const int32_t *unit_order, int64_t rows,
                     int64_t cols, const float mean[3], const float stddev[3])
{
    for (int64_t u = 0; u < rows * cols / 4; u++)
        for (int64_t in_unit = 0; in_unit < 4; in_unit++) {
            const int64_t unit_row = unit_order[u] / (cols / 2);
            const int64_t unit_col = unit_order[u] % (cols / 2);
            cut_patch(out + (4 * u + in_unit) * WIDTH, rgb, 2 * unit_row + in_unit / 2,
                      2 * unit_col + in_unit % 2, cols, mean, stddev);
        }
}
