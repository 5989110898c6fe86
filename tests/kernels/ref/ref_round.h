/* Rounding inside a reference makes it a plain low-precision implementation, which stores every
 * intermediate tensor: the baseline of the rule that a device may be at most twice as wrong as
 * that. NULL in place of the function rounds nothing, and the reference is the truth. */
#ifndef QVL_TESTS_KERNELS_REF_REF_ROUND_H
#define QVL_TESTS_KERNELS_REF_REF_ROUND_H

#include "src/base/dtype.h"

typedef double (*qvl_ref_round)(double value);

/* To bf16 and back, to nearest even. */
static inline double qvl_ref_round_bf16(double value)
{
    return (double)qvl_float_from_bf16(qvl_bf16_from_float((float)value));
}

static inline double qvl_ref_rounded(qvl_ref_round round, double value)
{
    return round ? round(value) : value;
}

#endif
