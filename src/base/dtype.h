/* Element types of tensors in files and on devices. */
#ifndef QVL_SRC_BASE_DTYPE_H
#define QVL_SRC_BASE_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum qvl_dtype { QVL_F32 = 0, QVL_BF16 = 1, QVL_F16 = 2 } qvl_dtype;

static inline size_t qvl_dtype_bytes(qvl_dtype dtype)
{
    return dtype == QVL_F32 ? 4 : 2;
}

static inline const char *qvl_dtype_name(qvl_dtype dtype)
{
    return dtype == QVL_F32 ? "F32" : dtype == QVL_BF16 ? "BF16" : "F16";
}

static inline float qvl_float_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t qvl_bits_from_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float qvl_float_from_bf16(uint16_t bits)
{
    return qvl_float_from_bits((uint32_t)bits << 16);
}

/* Round to nearest even; NaN stays NaN. */
static inline uint16_t qvl_bf16_from_float(float value)
{
    const uint32_t bits = qvl_bits_from_float(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((bits >> 16) | 0x40u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static inline float qvl_float_from_f16(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = (half >> 10) & 31u;
    const uint32_t fraction = half & 0x3ffu;
    if (exponent == 31)
        return qvl_float_from_bits(sign | 0x7f800000u | fraction << 13);
    if (exponent)
        return qvl_float_from_bits(sign | (exponent + 112) << 23 | fraction << 13);
    const float value = (float)fraction / 16777216.0f; /* subnormal: fraction * 2^-24 */
    return sign ? -value : value;
}

#endif
