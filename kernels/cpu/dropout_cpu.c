#include "kernels/cpu/cpu_backend.h"

#include "src/base/dropout_mask.h"

/* Groups whose bits are made together: loops over them become vector instructions. */
enum { LANES = 32, BLOCK = LANES * QVL_DROPOUT_GROUP };

/* qvl_dropout_bits of groups first .. first + LANES - 1, side by side (dropout_mask.h has the
 * source). */
QVL_SIMD_CLONES
static void block_bits(uint16_t bits[BLOCK], uint32_t first, uint32_t module, uint32_t token,
                       uint32_t sample, const qvl_dropout *dropout)
{
    uint32_t c0[LANES], c1[LANES], c2[LANES], c3[LANES], key0 = dropout->seed, key1 = dropout->step;
    for (uint32_t i = 0; i < LANES; i++) {
        c0[i] = first + i;
        c1[i] = module;
        c2[i] = token;
        c3[i] = sample;
    }
    for (int round = 0; round < 7; round++) {
        for (int i = 0; i < LANES; i++) {
            const uint64_t p0 = (uint64_t)0xD2511F53u * c0[i], p1 = (uint64_t)0xCD9E8D57u * c2[i];
            c0[i] = (uint32_t)(p1 >> 32) ^ c1[i] ^ key0;
            c2[i] = (uint32_t)(p0 >> 32) ^ c3[i] ^ key1;
            c1[i] = (uint32_t)p1;
            c3[i] = (uint32_t)p0;
        }
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    for (int i = 0; i < LANES; i++) {
        const uint32_t words[4] = {c0[i], c1[i], c2[i], c3[i]};
        for (int j = 0; j < 4; j++) {
            bits[QVL_DROPOUT_GROUP * i + 2 * j] = (uint16_t)words[j];
            bits[QVL_DROPOUT_GROUP * i + 2 * j + 1] = (uint16_t)(words[j] >> 16);
        }
    }
}

/* keep[i]: 1 where the element stays. */
QVL_SIMD_CLONES
static void compare_bits(uint8_t *restrict keep, const uint16_t *restrict bits, int64_t n,
                         int32_t threshold)
{
    for (int64_t i = 0; i < n; i++)
        keep[i] = (int32_t)bits[i] >= threshold;
}

QVL_SIMD_CLONES
static void mask_row(float *restrict dst, const float *restrict src, const uint8_t *restrict keep,
                     int64_t n, float scale)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = src[i] * (scale * (float)keep[i]);
}

QVL_SIMD_CLONES
static void add_masked_row(float *restrict dst, const float *restrict src,
                           const uint8_t *restrict keep, int64_t n, float scale)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] += src[i] * (scale * (float)keep[i]);
}

static float scale_of(const qvl_dropout *dropout)
{
    return 65536.0f / (65536.0f - (float)dropout->threshold);
}

void qvl_cpu_dropout_mask(const qvl_device *dev, uint8_t *keep, int64_t T, int64_t in,
                          uint32_t module, const qvl_dropout *dropout)
{
#pragma omp parallel for num_threads(qvl_cpu_threads(dev)) schedule(static)
    for (int64_t t = 0; t < T; t++)
        for (int64_t e = 0; e < in; e += BLOCK) {
            uint16_t bits[BLOCK];
            block_bits(bits, (uint32_t)(e / QVL_DROPOUT_GROUP), module, (uint32_t)dropout->token[t],
                       (uint32_t)dropout->sample[t], dropout);
            compare_bits(keep + t * in + e, bits, in - e < BLOCK ? in - e : BLOCK,
                         (int32_t)dropout->threshold);
        }
}

void qvl_cpu_mask_rows(const qvl_device *dev, float *out, const float *x, int64_t x_stride,
                       const uint8_t *keep, int64_t T, int64_t in, const qvl_dropout *dropout)
{
#pragma omp parallel for num_threads(qvl_cpu_threads(dev)) schedule(static)
    for (int64_t t = 0; t < T; t++)
        mask_row(out + t * in, x + t * x_stride, keep + t * in, in, scale_of(dropout));
}

void qvl_cpu_mask_rows_add(const qvl_device *dev, float *dst, const float *src, const uint8_t *keep,
                           int64_t T, int64_t in, const qvl_dropout *dropout)
{
#pragma omp parallel for num_threads(qvl_cpu_threads(dev)) schedule(static)
    for (int64_t t = 0; t < T; t++)
        add_masked_row(dst + t * in, src + t * in, keep + t * in, in, scale_of(dropout));
}
