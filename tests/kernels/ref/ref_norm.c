#include "tests/kernels/ref/ref_norm.h"

#include <math.h>

static double inv_rms_of_row(const double *x, int64_t D, double eps)
{
    double sum = 0;
    for (int64_t d = 0; d < D; d++)
        sum += x[d] * x[d];
    return 1 / sqrt(sum / (double)D + eps);
}

void qvl_ref_norm(double *y, double *inv_rms, const double *x, const double *weight, int64_t T,
                  int64_t D, double eps)
{
    for (int64_t t = 0; t < T; t++) {
        inv_rms[t] = inv_rms_of_row(x + t * D, D, eps);
        for (int64_t d = 0; d < D; d++)
            y[t * D + d] = x[t * D + d] * inv_rms[t] * weight[d];
    }
}

/* With r = inv_rms: dr/dx_e = -r^3 x_e / D, so dx_e = r w_e dy_e - r^3 x_e / D * sum_d dy_d w_d
 * x_d. */
void qvl_ref_norm_backward(double *dx, const double *dy, const double *x, const double *weight,
                           int64_t T, int64_t D, double eps)
{
    for (int64_t t = 0; t < T; t++) {
        const double r = inv_rms_of_row(x + t * D, D, eps);
        double dot = 0;
        for (int64_t d = 0; d < D; d++)
            dot += dy[t * D + d] * weight[d] * x[t * D + d];
        for (int64_t d = 0; d < D; d++)
            dx[t * D + d] +=
                r * weight[d] * dy[t * D + d] - r * r * r * x[t * D + d] / (double)D * dot;
    }
}
