/* The order in which the vision tower works on an image's patches, and its attention segments
 * (REFERENCE 4.2, 4.3). */
#ifndef QVL_SRC_MODEL_VISION_WINDOWS_H
#define QVL_SRC_MODEL_VISION_WINDOWS_H

#include <stdint.h>

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* For one still image of rows x cols patches (both even), P = rows * cols:
 *   unit_order [P/4]  merged unit (row-major number) at each place of the window order
 *   positions [2, P]  row and column of each patch in window order
 *   cu_windows        boundaries of the windows in patches, from 0 to P; room for P/4 + 1
 *   *n_windows        how many; cu_windows has one more entry */
void qvl_vision_windows(int32_t *unit_order, int32_t *positions, int32_t *cu_windows,
                        int64_t *n_windows, int64_t rows, int64_t cols, int64_t window_units);

#ifdef __cplusplus
}
#endif
#endif
