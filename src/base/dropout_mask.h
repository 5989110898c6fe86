/* The dropout mask: a pure function of what is dropped, so packing, order and ranks do not matter.
 *
 * Philox4x32 with 7 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
 * One call covers 8 neighbouring elements with 16 bits each:
 *
 *     counter = (element / 8, module, token in sample, sample)      key = (seed, step)
 *     element e is dropped when its 16 bits are below threshold = round(drop_prob * 65536)
 *
 * Kept elements are scaled by 65536 / (65536 - threshold), which keeps the mean exactly.
 * This header is included by C and by CUDA code; both backends give the same masks.
 */
#ifndef QVL_SRC_BASE_DROPOUT_MASK_H
#define QVL_SRC_BASE_DROPOUT_MASK_H

#include <stdint.h>

#if defined(__CUDACC__)
#define QVL_HOST_DEVICE static __host__ __device__ __forceinline__
#else
#define QVL_HOST_DEVICE static inline
#endif

enum { QVL_DROPOUT_GROUP = 8 }; /* elements of one call */

QVL_HOST_DEVICE void qvl_philox4x32_7(uint32_t out[4], const uint32_t counter[4], uint32_t key0,
                                      uint32_t key1)
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    for (int round = 0; round < 7; round++) {
        const uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        const uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ key0;
        const uint32_t n2 = (uint32_t)(p0 >> 32) ^ c3 ^ key1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* 16 random bits of each of the elements 8 * group .. 8 * group + 7. */
QVL_HOST_DEVICE void qvl_dropout_bits(uint16_t bits[8], uint32_t group, uint32_t module,
                                      uint32_t token, uint32_t sample, uint32_t seed, uint32_t step)
{
    const uint32_t counter[4] = {group, module, token, sample};
    uint32_t words[4];
    qvl_philox4x32_7(words, counter, seed, step);
    for (int i = 0; i < 4; i++) {
        bits[2 * i] = (uint16_t)words[i];
        bits[2 * i + 1] = (uint16_t)(words[i] >> 16);
    }
}

QVL_HOST_DEVICE uint32_t qvl_dropout_threshold(double drop_prob)
{
    return (uint32_t)(drop_prob * 65536.0 + 0.5);
}

#endif
