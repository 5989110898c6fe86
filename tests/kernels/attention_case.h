/* Packed attention, on the device and for the reference. */
#ifndef QVL_TESTS_KERNELS_ATTENTION_CASE_H
#define QVL_TESTS_KERNELS_ATTENTION_CASE_H

#include "tests/kernels/kernel_test.h"
#include "tests/kernels/ref/ref_attention.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { QVL_ATTENTION_MAX_SEQUENCES = 8 };

typedef struct qvl_attention_shape {
    int64_t lengths[QVL_ATTENTION_MAX_SEQUENCES]; /* of the first n_sequences */
    int64_t n_sequences;
    int64_t H, KV, Dh;
    bool is_causal;
    double size;  /* of q, k and v; 0: whole numbers, see below */
    double scale; /* 0: 1 / sqrt(Dh) */
} qvl_attention_shape;

typedef struct qvl_attention_case {
    qvl_attention_args args; /* out and lse are left to the caller */
    qvl_ref_attention ref;
    int64_t width;                      /* of a row of qkv */
    double score_size, qk_size, v_size; /* standard deviations, for the comparison */
} qvl_attention_case;

const char *qvl_attention_shape_text(char buffer[120], const qvl_attention_shape *shape);

/* Fills the open case's buffers qkv and cu_seqlens, and sets the workspace.
 * size 0 makes q and k whole numbers up to 16 and scale a power of two, so that scores of several
 * thousand are exact in float32 and bf16 products alike: then softmax is tested far from 0 without
 * asking for digits that float32 does not have. */
void qvl_attention_case_fill(qvl_attention_case *out, qvl_kt *kt, const qvl_attention_shape *shape,
                             bool backward);

#ifdef __cplusplus
}
#endif
#endif
