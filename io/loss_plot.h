/* The picture of a loss over steps, as LLaMA-Factory leaves it (REFERENCE 8.10). */
#ifndef QVL_IO_LOSS_PLOT_H
#define QVL_IO_LOSS_PLOT_H

#include <stddef.h>

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Exponential moving average whose weight grows with the number of points (REFERENCE 8.10):
 *
 *     w = 1.8 * (1 / (1 + exp(-0.05 n)) - 0.5)        last = values[0]
 *     out[i] = last = last * w + (1 - w) * values[i]
 *
 * out, values [n]; out may be values. A NaN makes all that follow NaN. n of 0 does nothing. */
void qvl_smooth(double *out, const double *values, size_t n);

/* Writes a PNG of 640 x 480 pixels to path: the values over the steps in pale blue ("original") and
 * smoothed in blue ("smoothed"), title above, "step" below, y_label at the left, legend top right.
 *
 * steps, values [n], drawn in the order given. Points that are not finite are left out before
 * smoothing; magnitudes above 1e300 are drawn at 1e300. A single point is drawn as a dot. When no
 * point is left (n of 0 among them) nothing is written and QVL_OK returned. Bytes of title and
 * y_label that are not UTF-8 are drawn as '?'. Where the machine has no usable font the picture has
 * no text. The same input gives the same bytes on the same machine.
 *
 * The file appears whole or not at all (qvl_file_replace). QVL_EIO when it cannot be written,
 * QVL_EINTERNAL when memory runs out. */
qvl_status qvl_loss_plot(const char *path, const char *title, const char *y_label,
                         const double *steps, const double *values, size_t n, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
