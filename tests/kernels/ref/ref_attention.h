/* Attention over packed sequences in double, one score row at a time.
 *
 * `round` rounds every tensor that a plain implementation stores: scores, scaled scores,
 * probabilities, their gradients, results. */
#ifndef QVL_TESTS_KERNELS_REF_REF_ATTENTION_H
#define QVL_TESTS_KERNELS_REF_REF_ATTENTION_H

#include "tests/kernels/ref/ref_round.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_ref_attention {
    const double *qkv;         /* [T, (H + 2 KV) * Dh]: q heads, k heads, v heads */
    const int32_t *cu_seqlens; /* [B+1] */
    int64_t T, B, H, KV, Dh;
    double scale;
    bool is_causal;
    qvl_ref_round round;
} qvl_ref_attention;

/* out [T, H*Dh], lse [H, T]. */
void qvl_ref_attention_forward(double *out, double *lse, const qvl_ref_attention *attention);

/* dqkv [T, (H + 2 KV) * Dh] (set) from dout [T, H*Dh]. */
void qvl_ref_attention_backward(double *dqkv, const double *dout,
                                const qvl_ref_attention *attention);

#ifdef __cplusplus
}
#endif
#endif
