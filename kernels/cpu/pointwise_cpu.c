#include "kernels/cpu/cpu_backend.h"

#include <math.h>
#include <string.h>

/* exp(x) = 2^n exp(r), r = x - n ln 2 in [-ln2/2, ln2/2], as a polynomial of degree 7. Without
 * branches, so that the compiler vectorises it; libm's expf it does not. */
static inline float exp_one(float x)
{
    const float clamped = x < -87.3f ? -87.3f : x > 88.7f ? 88.7f : x;
    const float shifted = clamped * 1.44269504f + 12582912.0f; /* rounds to nearest */
    const float n = shifted - 12582912.0f;
    const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9841270e-4f;
    p = p * r + 1.3888889e-3f;
    p = p * r + 8.3333333e-3f;
    p = p * r + 4.1666667e-2f;
    p = p * r + 1.6666667e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    /* 2^n in two factors: n may be 128, and down to -126 */
    const int32_t whole = (int32_t)n, half = whole / 2;
    const float scaled = p * qvl_float_from_bits((uint32_t)(half + 127) << 23) *
                         qvl_float_from_bits((uint32_t)(whole - half + 127) << 23);
    return x < -87.3f ? 0.0f : x != x ? x : scaled;
}

QVL_SIMD_CLONES
void qvl_cpu_exp(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = exp_one(x[i]);
}

QVL_SIMD_CLONES
static void swiglu_row(float *h, const float *gate, const float *up, int64_t F)
{
    for (int64_t f = 0; f < F; f++)
        h[f] = gate[f] / (1.0f + exp_one(-gate[f])) * up[f];
}

qvl_status qvl_cpu_swiglu(qvl_device *dev, const qvl_swiglu_args *args, qvl_err *err)
{
    const int64_t F = args->F, h_stride = qvl_or_dense(args->h_stride, F);
    (void)err;
#pragma omp parallel for num_threads(qvl_cpu_threads(dev)) schedule(static)
    for (int64_t t = 0; t < args->T; t++) {
        const float *row = (const float *)args->gate_up + t * 2 * F;
        swiglu_row((float *)args->h + t * h_stride, row, row + F, F);
    }
    return QVL_OK;
}

/* silu'(g) = s (1 + g (1 - s)), s = 1 / (1 + exp(-g)) */
QVL_SIMD_CLONES
static void swiglu_backward_row(float *dgate, float *dup, const float *dh, const float *gate,
                                const float *up, int64_t F)
{
    for (int64_t f = 0; f < F; f++) {
        const float g = gate[f], u = up[f], s = 1.0f / (1.0f + exp_one(-g));
        dgate[f] = dh[f] * u * s * (1.0f + g * (1.0f - s));
        dup[f] = dh[f] * g * s;
    }
}

qvl_status qvl_cpu_swiglu_backward(qvl_device *dev, const qvl_swiglu_backward_args *args,
                                   qvl_err *err)
{
    const int64_t F = args->F;
    (void)err;
#pragma omp parallel for num_threads(qvl_cpu_threads(dev)) schedule(static)
    for (int64_t t = 0; t < args->T; t++) {
        const float *row = (const float *)args->gate_up + t * 2 * F;
        float *drow = (float *)args->dgate_up + t * 2 * F;
        swiglu_backward_row(drow, drow + F, (const float *)args->dh + t * F, row, row + F, F);
    }
    return QVL_OK;
}

qvl_status qvl_cpu_gelu(qvl_device *dev, const qvl_gelu_args *args, qvl_err *err)
{
    float *x = args->x;
    (void)err;
#pragma omp parallel for num_threads(qvl_cpu_threads(dev)) schedule(static)
    for (int64_t i = 0; i < args->n; i++)
        x[i] = 0.5f * x[i] * (1.0f + erff(x[i] * 0.70710678f));
    return QVL_OK;
}

/* ---- rotary -----------------------------------------------------------------------------------
 */

qvl_status qvl_cpu_rope_table(qvl_device *dev, const qvl_rope_table_args *args, qvl_err *err)
{
    (void)err;
#pragma omp parallel for num_threads(qvl_cpu_threads(dev)) schedule(static)
    for (int64_t t = 0; t < args->T; t++)
        for (int64_t i = 0; i < args->n_freq; i++) {
            const float position = (float)args->positions[args->axis[i] * args->T + t];
            const float angle = position * args->inv_freq[i];
            args->cosine[t * args->n_freq + i] = cosf(angle);
            args->sine[t * args->n_freq + i] = sinf(angle);
        }
    return QVL_OK;
}

QVL_SIMD_CLONES
static void rotate_head(float *x, const float *c, const float *s, int64_t half, float sign)
{
    for (int64_t i = 0; i < half; i++) {
        const float low = x[i], high = x[i + half], sine = sign * s[i];
        x[i] = low * c[i] - high * sine;
        x[i + half] = high * c[i] + low * sine;
    }
}

qvl_status qvl_cpu_rotate(qvl_device *dev, const qvl_rotate_args *args, qvl_err *err)
{
    const int64_t half = args->Dh / 2;
    (void)err;
#pragma omp parallel for num_threads(qvl_cpu_threads(dev)) schedule(static)
    for (int64_t t = 0; t < args->T; t++)
        for (int64_t h = 0; h < args->n_heads; h++)
            rotate_head((float *)args->x + t * args->stride + h * args->Dh, args->cosine + t * half,
                        args->sine + t * half, half, args->inverse ? -1.0f : 1.0f);
    return QVL_OK;
}
