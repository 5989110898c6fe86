#include "tests/kernels/ref/ref_activation.h"

#include <math.h>

static double sigmoid(double g)
{
    return 1 / (1 + exp(-g));
}

void qvl_ref_swiglu(double *h, const double *gate_up, int64_t T, int64_t F)
{
    for (int64_t t = 0; t < T; t++)
        for (int64_t f = 0; f < F; f++) {
            const double gate = gate_up[t * 2 * F + f], up = gate_up[t * 2 * F + F + f];
            h[t * F + f] = gate * sigmoid(gate) * up;
        }
}

/* d silu / dg = s + g s (1 - s), and 1 - s is sigmoid(-g), which does not cancel. */
void qvl_ref_swiglu_backward(double *dgate_up, const double *dh, const double *gate_up, int64_t T,
                             int64_t F)
{
    for (int64_t t = 0; t < T; t++)
        for (int64_t f = 0; f < F; f++) {
            const double gate = gate_up[t * 2 * F + f], up = gate_up[t * 2 * F + F + f];
            const double s = sigmoid(gate), g = dh[t * F + f];
            dgate_up[t * 2 * F + f] = g * up * (s + gate * s * sigmoid(-gate));
            dgate_up[t * 2 * F + F + f] = g * gate * s;
        }
}

/* 1 + erf(z) = erfc(-z), which keeps its digits where x is far below 0. */
void qvl_ref_gelu(double *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = x[i] / 2 * erfc(-x[i] / sqrt(2.0));
}
