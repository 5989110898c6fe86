#include "kernels/cpu/cpu_backend.h"

#include "src/base/dropout_mask.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the low half of a word comes first");

/* LANES groups go through the rounds side by side, as vectors that stay in registers. */
enum { LANES = 8, BLOCK_GROUPS = 32, BLOCK = BLOCK_GROUPS * QVL_DROPOUT_GROUP };

/* qvl_dropout_bits of groups first .. first + LANES - 1 (dropout_mask.h has the source). */
static inline void lane_bits(uint16_t bits[LANES * QVL_DROPOUT_GROUP], uint32_t first,
                             uint32_t module, uint32_t token, uint32_t sample,
                             const qvl_dropout *dropout)
{
    uint32_t c0[LANES], c1[LANES], c2[LANES], c3[LANES], key0 = dropout->seed, key1 = dropout->step;
    for (uint32_t i = 0; i < LANES; i++) {
        c0[i] = first + i;
        c1[i] = module;
        c2[i] = token;
        c3[i] = sample;
    }
    /* unrolled, the counters need not go through memory between rounds */
#pragma GCC unroll 7
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
    uint32_t words[4 * LANES];
    for (int i = 0; i < LANES; i++) {
        words[4 * i] = c0[i];
        words[4 * i + 1] = c1[i];
        words[4 * i + 2] = c2[i];
        words[4 * i + 3] = c3[i];
    }
    memcpy(bits, words, sizeof words);
}

QVL_SIMD_CLONES
static void block_bits(uint16_t bits[BLOCK], uint32_t first, uint32_t module, uint32_t token,
                       uint32_t sample, const qvl_dropout *dropout)
{
    for (uint32_t i = 0; i < BLOCK_GROUPS; i += LANES)
        lane_bits(bits + i * QVL_DROPOUT_GROUP, first + i, module, token, sample, dropout);
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
