#include "kernels/cpu/cpu_backend.h"

#include <math.h>

QVL_SIMD_CLONES
static float norm_row(float *y, float *x_out, const float *x, const float *delta,
                      const float *weight, int64_t D, float eps)
{
    double sum = 0.0;
    if (delta) {
        for (int64_t d = 0; d < D; d++)
            x_out[d] = x[d] + delta[d];
        x = x_out;
    }
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < D; d++)
        sum += (double)x[d] * x[d];
    const float inv_rms = (float)(1.0 / sqrt(sum / (double)D + eps));
    for (int64_t d = 0; d < D; d++)
        y[d] = x[d] * inv_rms * weight[d];
    return inv_rms;
}

qvl_status qvl_cpu_norm(qvl_device *dev, const qvl_norm_args *args, qvl_err *err)
{
    const int64_t D = args->D, y_stride = qvl_or_dense(args->y_stride, D);
    if (args->delta && !args->x_out)
        return qvl_fail(err, QVL_EINTERNAL, "norm: delta without x_out");
#pragma omp parallel for num_threads(qvl_cpu_threads(dev)) schedule(static)
    for (int64_t t = 0; t < args->T; t++) {
        const float inv_rms = norm_row(
            (float *)args->y + t * y_stride, args->delta ? (float *)args->x_out + t * D : NULL,
            (const float *)args->x + t * D, args->delta ? (const float *)args->delta + t * D : NULL,
            args->weight, D, args->eps);
        if (args->inv_rms)
            args->inv_rms[t] = inv_rms;
    }
    return QVL_OK;
}

/* y = x r w, r = (mean x^2 + eps)^-1/2:  dx_d = r w_d dy_d - x_d r^3 / D * sum_e w_e dy_e x_e */
QVL_SIMD_CLONES
static void norm_backward_row(float *dx, const float *dy, const float *x, const float *weight,
                              float inv_rms, int64_t D)
{
    double dot = 0.0;
#pragma omp simd reduction(+ : dot)
    for (int64_t d = 0; d < D; d++)
        dot += (double)(weight[d] * dy[d]) * x[d];
    const float along = (float)(dot * inv_rms * inv_rms * inv_rms / (double)D);
    for (int64_t d = 0; d < D; d++)
        dx[d] += inv_rms * weight[d] * dy[d] - along * x[d];
}

qvl_status qvl_cpu_norm_backward(qvl_device *dev, const qvl_norm_backward_args *args, qvl_err *err)
{
    const int64_t D = args->D;
    (void)err;
#pragma omp parallel for num_threads(qvl_cpu_threads(dev)) schedule(static)
    for (int64_t t = 0; t < args->T; t++)
        norm_backward_row((float *)args->dx + t * D, (const float *)args->dy + t * D,
                          (const float *)args->x + t * D, args->weight, args->inv_rms[t], D);
    return QVL_OK;
}
