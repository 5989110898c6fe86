#include "tests/kernels/attention_case.h"

#include <math.h>
#include <stdio.h>

const char *qvl_attention_shape_text(char buffer[120], const qvl_attention_shape *shape)
{
    int length = snprintf(buffer, 120, "H=%lld KV=%lld Dh=%lld %s size=%g lengths",
                          (long long)shape->H, (long long)shape->KV, (long long)shape->Dh,
                          shape->is_causal ? "causal" : "full", shape->size);
    for (int64_t b = 0; b < shape->n_sequences && length < 112; b++)
        length += snprintf(buffer + length, (size_t)(120 - length), " %lld",
                           (long long)shape->lengths[b]);
    return buffer;
}

static double *make_qkv(qvl_kt *kt, const qvl_attention_shape *shape, int64_t T, int64_t width)
{
    if (shape->size > 0)
        return qvl_kt_random(kt, T * width, shape->size, QVL_KT_ACT);
    double *qkv = qvl_kt_whole(kt, T * width, 16);
    const double *v = qvl_kt_random(kt, T * width, 1, QVL_KT_ACT);
    for (int64_t i = 0; i < T * width; i++)
        if (i % width >= (shape->H + shape->KV) * shape->Dh)
            qkv[i] = v[i];
    return qkv;
}

void qvl_attention_case_fill(qvl_attention_case *out, qvl_kt *kt, const qvl_attention_shape *shape,
                             bool backward)
{
    const int64_t B = shape->n_sequences;
    int32_t *cu_seqlens = qvl_kt_ints(kt, B + 1);
    int64_t longest = 0;
    for (int64_t b = 0; b < B; b++) {
        cu_seqlens[b + 1] = cu_seqlens[b] + (int32_t)shape->lengths[b];
        longest = shape->lengths[b] > longest ? shape->lengths[b] : longest;
    }
    const int64_t T = cu_seqlens[B], width = (shape->H + 2 * shape->KV) * shape->Dh;
    const double scale = shape->scale > 0 ? shape->scale : 1 / sqrt((double)shape->Dh);
    const double *qkv = make_qkv(kt, shape, T, width);
    *out = (qvl_attention_case){.width = width};
    out->qk_size = shape->size > 0 ? shape->size : 10;
    out->v_size = shape->size > 0 ? shape->size : 1;
    out->score_size = scale * out->qk_size * out->qk_size * sqrt((double)shape->Dh);
    out->ref = (qvl_ref_attention){.qkv = qkv,
                                   .cu_seqlens = cu_seqlens,
                                   .T = T,
                                   .B = B,
                                   .H = shape->H,
                                   .KV = shape->KV,
                                   .Dh = shape->Dh,
                                   .scale = (double)(float)scale,
                                   .is_causal = shape->is_causal};
    out->args =
        (qvl_attention_args){.qkv = qvl_kt_in(kt, "qkv", qkv, T * width, QVL_KT_ACT),
                             .cu_seqlens = qvl_kt_in_i32(kt, "cu_seqlens", cu_seqlens, B + 1),
                             .cu_seqlens_host = cu_seqlens,
                             .T = T,
                             .B = B,
                             .H = shape->H,
                             .KV = shape->KV,
                             .Dh = shape->Dh,
                             .scale = (float)scale,
                             .is_causal = shape->is_causal};
    qvl_kt_workspace(kt, &(qvl_workspace_limits){.tokens = T,
                                                 .sequence = longest,
                                                 .heads = shape->H,
                                                 .kv_heads = shape->KV,
                                                 .head_size = shape->Dh,
                                                 .hidden = shape->H * shape->Dh,
                                                 .backward = backward});
}
