#include "tests/kernels/ref/ref_adamw.h"

#include <math.h>

double qvl_ref_sum_squares(const double *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sum;
}

void qvl_ref_adamw_step(const qvl_ref_adamw *args)
{
    const double bias1 = 1 - pow(args->beta1, args->step), bias2 = 1 - pow(args->beta2, args->step);
    double coef = 1;
    if (args->max_grad_norm > 0)
        coef = fmin(1, args->max_grad_norm / (sqrt(args->grad_sum_squares) + 1e-6));
    for (int64_t i = 0; i < args->n; i++) {
        const double g = args->grad[i] * coef;
        double *p = &args->param[i], *m = &args->exp_avg[i], *v = &args->exp_avg_sq[i];
        *p *= 1 - args->lr * args->weight_decay;
        *m = args->beta1 * *m + (1 - args->beta1) * g;
        *v = args->beta2 * *v + (1 - args->beta2) * g * g;
        *p -= args->lr / bias1 * *m / (sqrt(*v) / sqrt(bias2) + args->eps);
        args->grad[i] = 0;
    }
}
