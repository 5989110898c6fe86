/* Limits and ticks of one axis of a plot. */
#ifndef QVL_IO_PLOT_AXIS_H
#define QVL_IO_PLOT_AXIS_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { QVL_AXIS_MAX_TICKS = 12, QVL_AXIS_LABEL_BYTES = 40 };

typedef struct qvl_plot_axis {
    double low, high; /* what the ends of the axis stand for */
    double ticks[QVL_AXIS_MAX_TICKS];
    int n_ticks;
    int exponent; /* labels are to be multiplied by 10^exponent; 0: they are the values */
    int decimals; /* of a label */
} qvl_plot_axis;

/* Room of 5 % at both ends of the values (a constant gets 5.5 % of itself on either side, zero
 * 0.055), and at most ten ticks at multiples of 1, 2, 2.5 or 5 times a power of ten, as matplotlib
 * does by default. Where the largest tick is 1e6 or more, or below 1e-4, labels share an exponent.
 * values [n], n at least 1, all finite and at most 1e300 in magnitude. */
void qvl_plot_axis_init(qvl_plot_axis *axis, const double *values, size_t n);

/* Where value stands on the axis: 0 at low, 1 at high. */
double qvl_plot_axis_at(const qvl_plot_axis *axis, double value);

/* The label of tick i, "0.25"; into buffer, which is returned. */
const char *qvl_plot_axis_label(char buffer[QVL_AXIS_LABEL_BYTES], const qvl_plot_axis *axis,
                                int i);

#ifdef __cplusplus
}
#endif
#endif
