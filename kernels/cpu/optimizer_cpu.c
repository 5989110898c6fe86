#include "kernels/cpu/cpu_backend.h"

#include <math.h>

enum { SUM_PIECES = 256, ADAMW_BLOCK = 16384 };

qvl_status qvl_cpu_sum_squares(qvl_device *dev, const qvl_sum_squares_args *args, qvl_err *err)
{
    double piece[SUM_PIECES] = {0}, sum = 0.0;
    const int64_t length = (args->n + SUM_PIECES - 1) / SUM_PIECES;
    (void)err;
#pragma omp parallel for num_threads(qvl_cpu_threads(dev)) schedule(static)
    for (int p = 0; p < SUM_PIECES; p++) {
        const int64_t first = p * length;
        const int64_t last = first + length < args->n ? first + length : args->n;
        double part = 0.0;
        for (int64_t i = first; i < last; i++)
            part += (double)args->x[i] * args->x[i];
        piece[p] = part;
    }
    for (int p = 0; p < SUM_PIECES; p++)
        sum += piece[p];
    args->out[0] = (float)sum;
    return QVL_OK;
}

typedef struct adamw_factors {
    float coef, decay, lerp, beta2, square, step_size, root_bias2, eps;
} adamw_factors;

QVL_SIMD_CLONES
static void adamw_block(float *p, float *g, float *m, float *v, int64_t n, const adamw_factors *f)
{
    const adamw_factors k = *f;
    for (int64_t i = 0; i < n; i++) {
        const float grad = g[i] * k.coef;
        const float decayed = p[i] * k.decay;
        m[i] = m[i] + k.lerp * (grad - m[i]);
        v[i] = v[i] * k.beta2 + k.square * grad * grad;
        p[i] = decayed - k.step_size * (m[i] / (sqrtf(v[i]) / k.root_bias2 + k.eps));
        g[i] = 0.0f;
    }
}

qvl_status qvl_cpu_adamw(qvl_device *dev, const qvl_adamw_args *args, qvl_err *err)
{
    const float norm = sqrtf(*args->grad_sum_squares);
    const double coef = args->max_grad_norm / ((double)norm + 1e-6);
    const adamw_factors factors = {.coef = args->max_grad_norm > 0 && !(coef > 1.0) ? (float)coef
                                                                                    : 1.0f,
                                   .decay = (float)(1.0 - args->lr * args->weight_decay),
                                   .lerp = (float)(1.0 - args->beta1),
                                   .beta2 = (float)args->beta2,
                                   .square = (float)(1.0 - args->beta2),
                                   .step_size = (float)(args->lr / args->bias1),
                                   .root_bias2 = (float)sqrt(args->bias2),
                                   .eps = (float)args->eps};
    (void)err;
    if (!isfinite(*args->grad_sum_squares))
        return QVL_OK;
#pragma omp parallel for num_threads(qvl_cpu_threads(dev)) schedule(static)
    for (int64_t first = 0; first < args->n; first += ADAMW_BLOCK) {
        const int64_t n = args->n - first < ADAMW_BLOCK ? args->n - first : ADAMW_BLOCK;
        adamw_block(args->param + first, args->grad + first, args->exp_avg + first,
                    args->exp_avg_sq + first, n, &factors);
    }
    return QVL_OK;
}
