#include "tests/kernels/ref/ref_rope.h"

#include <math.h>

void qvl_ref_rope_table(double *cosine, double *sine, const int32_t *positions,
                        const float *inv_freq, const int32_t *axis, int64_t T, int64_t n_freq)
{
    for (int64_t t = 0; t < T; t++)
        for (int64_t i = 0; i < n_freq; i++) {
            const float angle = (float)positions[axis[i] * T + t] * inv_freq[i];
            cosine[t * n_freq + i] = cos((double)angle);
            sine[t * n_freq + i] = sin((double)angle);
        }
}

void qvl_ref_rotate(double *x, const double *cosine, const double *sine, int64_t T, int64_t stride,
                    int64_t n_heads, int64_t Dh, bool inverse)
{
    const int64_t half = Dh / 2;
    for (int64_t t = 0; t < T; t++)
        for (int64_t h = 0; h < n_heads; h++)
            for (int64_t i = 0; i < half; i++) {
                double *head = x + t * stride + h * Dh;
                const double c = cosine[t * half + i];
                const double s = inverse ? -sine[t * half + i] : sine[t * half + i];
                const double first = head[i], second = head[i + half];
                head[i] = first * c - second * s;
                head[i + half] = second * c + first * s;
            }
}
