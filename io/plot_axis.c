#include "io/plot_axis.h"

#include <math.h>
#include <stdio.h>

/* Ten ticks at most: nine intervals. */
#define MAX_INTERVALS 9.0

/* A range narrower than this share of the values would need labels of many digits. */
#define MIN_RELATIVE_RANGE 1e-6

/* Below it, powers of ten of the steps would leave what a double holds. */
#define MIN_MAGNITUDE 1e-290

static void set_limits(qvl_plot_axis *axis, const double *values, size_t n)
{
    double low = values[0], high = values[0];
    for (size_t i = 1; i < n; i++) {
        low = values[i] < low ? values[i] : low;
        high = values[i] > high ? values[i] : high;
    }
    const double largest = fmax(fabs(low), fabs(high));
    double room = 0.05 * (high - low);
    if (high - low <= MIN_RELATIVE_RANGE * largest)
        room = 0.055 * largest;
    if (largest < MIN_MAGNITUDE)
        room = 0.055;
    axis->low = low - room;
    axis->high = high + room;
}

enum { N_NICE = 4 };

/* 10^power * {1, 2, 2.5, 5}[nice]. */
static double step_of(int power, int nice)
{
    static const double NICE[N_NICE] = {1.0, 2.0, 2.5, 5.0};
    /* Dividing by 10^k keeps 0.1, 0.2, ... correctly rounded; multiplying by 10^-k does not. */
    return power < 0 ? NICE[nice] / pow(10.0, -power) : NICE[nice] * pow(10.0, power);
}

static void place_ticks(qvl_plot_axis *axis, double step)
{
    const double slack = 1e-9; /* a tick on the limit itself counts */
    const double first = ceil(axis->low / step - slack), last = floor(axis->high / step + slack);
    axis->n_ticks = 0;
    for (double k = first; k <= last && axis->n_ticks < QVL_AXIS_MAX_TICKS; k += 1.0)
        axis->ticks[axis->n_ticks++] = k == 0.0 ? 0.0 : k * step;
}

/* Smallest step of the nice ones that makes nine intervals or fewer; a smaller one when that leaves
 * fewer than two ticks. */
static void choose_ticks(qvl_plot_axis *axis)
{
    const double wanted = (axis->high - axis->low) / MAX_INTERVALS;
    int power = (int)floor(log10(wanted)), nice = 0;
    while (nice < N_NICE - 1 && step_of(power, nice) < wanted * (1.0 - 1e-12))
        nice++;
    if (step_of(power, nice) < wanted * (1.0 - 1e-12)) {
        nice = 0;
        power++;
    }
    place_ticks(axis, step_of(power, nice));
    while (axis->n_ticks < 2) {
        power -= nice == 0;
        nice = nice == 0 ? N_NICE - 1 : nice - 1;
        place_ticks(axis, step_of(power, nice));
    }
    const double largest = fmax(fabs(axis->ticks[0]), fabs(axis->ticks[axis->n_ticks - 1]));
    const int magnitude = (int)floor(log10(largest) + 1e-9);
    axis->exponent = magnitude >= 6 || magnitude <= -5 ? magnitude : 0;
    const int decimals = axis->exponent - power + (nice == 2);
    axis->decimals = decimals < 0 ? 0 : decimals > 17 ? 17 : decimals;
}

void qvl_plot_axis_init(qvl_plot_axis *axis, const double *values, size_t n)
{
    set_limits(axis, values, n);
    choose_ticks(axis);
}

double qvl_plot_axis_at(const qvl_plot_axis *axis, double value)
{
    return (value - axis->low) / (axis->high - axis->low);
}

const char *qvl_plot_axis_label(char buffer[QVL_AXIS_LABEL_BYTES], const qvl_plot_axis *axis, int i)
{
    /* In two halves: 10^300 and more can be reached, its inverse cannot. */
    const double half = pow(10.0, axis->exponent / 2);
    const double value = axis->ticks[i] / half / pow(10.0, axis->exponent - axis->exponent / 2);
    snprintf(buffer, QVL_AXIS_LABEL_BYTES, "%.*f", axis->decimals, value);
    return buffer;
}
