#include "tests/kernels/linear_case.h"

#include <math.h>
#include <stdio.h>

#include "src/base/dropout_mask.h"

const char *qvl_linear_shape_text(char buffer[120], const qvl_linear_shape *shape)
{
    snprintf(buffer, 120, "T=%lld in=%lld out=%lld+%lld+%lld adapted=%x R=%lld drop=%g%s",
             (long long)shape->T, (long long)shape->in, (long long)shape->parts[0],
             (long long)shape->parts[1], (long long)shape->parts[2], shape->adapted,
             (long long)shape->rank, shape->drop_prob, shape->has_bias ? " bias" : "");
    return buffer;
}

/* Tokens as in a pack: samples of 5 tokens, numbered anyhow. */
static void fill_dropout(qvl_linear_case *c, qvl_kt *kt, double drop_prob)
{
    int32_t *sample = qvl_kt_ints(kt, c->T), *token = qvl_kt_ints(kt, c->T);
    for (int64_t t = 0; t < c->T; t++) {
        sample[t] = t % 5 == 0 ? (int32_t)qvl_kt_below(kt, 100000) : sample[t - 1];
        token[t] = (int32_t)(t % 5);
    }
    c->ref_dropout = (qvl_dropout){.threshold = qvl_dropout_threshold(drop_prob),
                                   .seed = 42,
                                   .step = 7,
                                   .sample = sample,
                                   .token = token};
    c->dropout = c->ref_dropout;
    c->dropout.sample = qvl_kt_in_i32(kt, "sample", sample, c->T);
    c->dropout.token = qvl_kt_in_i32(kt, "token", token, c->T);
    c->drops = true;
}

static void fill_adapter(qvl_linear_case *c, qvl_kt *kt, int part, int64_t offset, int64_t out,
                         bool with_gradients)
{
    const int i = c->linear.n_adapters++;
    const int64_t n_a = c->linear.rank * c->linear.in, n_b = out * c->linear.rank;
    qvl_adapter *adapter = &c->linear.adapters[i];
    qvl_ref_adapter *ref = &c->ref.adapters[i];
    char name[4][16];
    for (int k = 0; k < 4; k++)
        snprintf(name[k], sizeof name[k], "%s%s%d", k < 2 ? "" : "d", k % 2 ? "b" : "a", i);
    ref->a = qvl_kt_random(kt, n_a, 1 / sqrt((double)c->linear.in), QVL_KT_F32);
    ref->b = qvl_kt_random(kt, n_b, 0.5 / sqrt((double)c->linear.rank), QVL_KT_F32);
    adapter->a = qvl_kt_in(kt, name[0], ref->a, n_a, QVL_KT_F32);
    adapter->b = qvl_kt_in(kt, name[1], ref->b, n_b, QVL_KT_F32);
    if (with_gradients) {
        ref->da = qvl_kt_random(kt, n_a, 1, QVL_KT_F32);
        ref->db = qvl_kt_random(kt, n_b, 1, QVL_KT_F32);
        adapter->da = qvl_kt_inout(kt, name[2], ref->da, n_a, QVL_KT_F32);
        adapter->db = qvl_kt_inout(kt, name[3], ref->db, n_b, QVL_KT_F32);
    }
    adapter->out_offset = ref->out_offset = offset;
    adapter->out = ref->out = out;
    adapter->module = ref->module = (uint32_t)(100 + 7 * part);
}

void qvl_linear_case_fill(qvl_linear_case *out, qvl_kt *kt, const qvl_linear_shape *shape,
                          bool with_gradients)
{
    int64_t parts[QVL_MAX_FUSED], offset = 0;
    *out = (qvl_linear_case){.T = shape->T};
    qvl_linear *linear = &out->linear;
    linear->in = qvl_kt_width(kt, shape->in);
    for (int p = 0; p < QVL_MAX_FUSED; p++)
        linear->out += parts[p] = qvl_kt_width(kt, shape->parts[p]);
    linear->rank = shape->rank;
    linear->scale = 2;
    const int64_t n_weight = linear->out * linear->in;
    out->ref =
        (qvl_ref_linear){.in = linear->in, .out = linear->out, .rank = linear->rank, .scale = 2};
    out->ref.weight = qvl_kt_random(kt, n_weight, 1 / sqrt((double)linear->in), QVL_KT_ACT);
    linear->weight = qvl_kt_in(kt, "weight", out->ref.weight, n_weight, QVL_KT_ACT);
    if (shape->has_bias) {
        out->ref.bias = qvl_kt_random(kt, linear->out, 1, QVL_KT_ACT);
        linear->bias = qvl_kt_in(kt, "bias", out->ref.bias, linear->out, QVL_KT_ACT);
    }
    out->x = qvl_kt_random(kt, shape->T * linear->in, 1, QVL_KT_ACT);
    out->x_device = qvl_kt_in(kt, "x", out->x, shape->T * linear->in, QVL_KT_ACT);
    if (shape->drop_prob > 0)
        fill_dropout(out, kt, shape->drop_prob);
    for (int p = 0; p < QVL_MAX_FUSED; offset += parts[p++])
        if (shape->adapted >> p & 1u)
            fill_adapter(out, kt, p, offset, parts[p], with_gradients);
    out->ref.n_adapters = linear->n_adapters;
    out->u_width = linear->n_adapters * linear->rank;
    const bool has_adapters = linear->n_adapters > 0;
    qvl_kt_workspace(kt, &(qvl_workspace_limits){.tokens = shape->T,
                                                 .in_max = has_adapters ? linear->in : 0,
                                                 .out_max = has_adapters ? linear->out : 0,
                                                 .rank = has_adapters ? linear->rank : 0,
                                                 .backward = with_gradients,
                                                 .dropout = out->drops});
}
