#include "kernels/cpu/cpu_backend.h"

#include "src/base/dropout_mask.h"

/* One row: dst = mask(src) or dst += mask(src). */
QVL_SIMD_CLONES
static void dropout_row(float *dst, const float *src, int64_t in, uint32_t module, uint32_t token,
                        uint32_t sample, const qvl_dropout *dropout, bool add)
{
    const uint32_t threshold = dropout->threshold;
    const float keep = 65536.0f / (65536.0f - (float)threshold);
    for (int64_t e = 0; e < in; e += QVL_DROPOUT_GROUP) {
        uint16_t bits[QVL_DROPOUT_GROUP];
        const int64_t n = in - e < QVL_DROPOUT_GROUP ? in - e : QVL_DROPOUT_GROUP;
        qvl_dropout_bits(bits, (uint32_t)(e / QVL_DROPOUT_GROUP), module, token, sample,
                         dropout->seed, dropout->step);
        for (int64_t i = 0; i < n; i++) {
            const float kept = bits[i] < threshold ? 0.0f : src[e + i] * keep;
            dst[e + i] = add ? dst[e + i] + kept : kept;
        }
    }
}

static void dropout_rows(const qvl_device *dev, float *dst, const float *src, int64_t src_stride,
                         int64_t T, int64_t in, uint32_t module, const qvl_dropout *dropout,
                         bool add)
{
#pragma omp parallel for num_threads(qvl_cpu_threads(dev)) schedule(static)
    for (int64_t t = 0; t < T; t++)
        dropout_row(dst + t * in, src + t * src_stride, in, module, (uint32_t)dropout->token[t],
                    (uint32_t)dropout->sample[t], dropout, add);
}

void qvl_cpu_dropout_rows(const qvl_device *dev, float *out, const float *x, int64_t x_stride,
                          int64_t T, int64_t in, uint32_t module, const qvl_dropout *dropout)
{
    dropout_rows(dev, out, x, x_stride, T, in, module, dropout, false);
}

void qvl_cpu_dropout_rows_add(const qvl_device *dev, float *dst, const float *src, int64_t T,
                              int64_t in, uint32_t module, const qvl_dropout *dropout)
{
    dropout_rows(dev, dst, src, in, T, in, module, dropout, true);
}
