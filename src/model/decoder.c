#include "src/model/decoder.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/base/memory.h"
#include "src/model/decoder_internal.h"
#include "src/model/mrope.h"

void qvl_decoder_destroy(qvl_decoder *decoder)
{
    if (!decoder)
        return;
    free(decoder->slots);
    free(decoder->layers);
    free(decoder->linears);
    free(decoder);
}

/* Bytes of one element and elements a token of each activation of a layer. */
static void describe_layer(const qvl_decoder *d, activation_shape shapes[N_ACTIVATIONS])
{
    const qvl_text_dims *t = &d->dims.text;
    const int64_t q = t->H * t->Dh, qkv = q + 2 * t->KV * t->Dh;
    const size_t act = d->act_bytes, f32 = sizeof(float);
    const int64_t rank = qvl_lora_get_options(d->lora)->rank;
    const int64_t *tail = d->tail;
    int64_t u[QVL_N_GROUPS]; /* kept apart where there are no tails */
    for (int g = 0; g < QVL_N_GROUPS; g++)
        u[g] = tail[g] ? 0 : rank * qvl_lora_group_adapters(d->lora, (qvl_group)g);
    const activation_shape table[N_ACTIVATIONS] = {
        [INV1] = {"inv_rms 1", 1, f32},
        [H1] = {"norm 1", t->D + tail[QVL_GROUP_QKV], act},
        [QKV] = {"qkv", qkv, act},
        [LSE] = {"attention lse", t->H, f32},
        [ATTN] = {"attention", q + tail[QVL_GROUP_O], act},
        [U_QKV] = {"u qkv", u[QVL_GROUP_QKV], f32},
        [U_O] = {"u o", u[QVL_GROUP_O], f32},
        [X_MID] = {"x mid", t->D, act},
        [INV2] = {"inv_rms 2", 1, f32},
        [H2] = {"norm 2", t->D + tail[QVL_GROUP_GATE_UP], act},
        [GATE_UP] = {"gate_up", 2 * t->F, act},
        [U_GATE_UP] = {"u gate_up", u[QVL_GROUP_GATE_UP], f32},
        [H3] = {"swiglu", t->F + tail[QVL_GROUP_DOWN], act},
        [U_DOWN] = {"u down", u[QVL_GROUP_DOWN], f32}};
    for (int i = 0; i < N_ACTIVATIONS; i++)
        shapes[i] = table[i];
}

/* One set of slots, numbered from *next. */
static qvl_status plan_set(qvl_decoder *d, qvl_plan *plan, const char *owner, int *slots,
                           qvl_err *err)
{
    activation_shape shapes[N_ACTIVATIONS];
    char name[56];
    qvl_status rc = QVL_OK;
    describe_layer(d, shapes);
    for (int i = 0; i < N_ACTIVATIONS && rc == QVL_OK; i++) {
        snprintf(name, sizeof name, "%s %s", owner, shapes[i].name);
        rc = qvl_plan_add(plan, &slots[i], name, d->options.tokens * shapes[i].per_token,
                          shapes[i].element_bytes, err);
    }
    return rc;
}

static qvl_status plan_common(qvl_decoder *d, qvl_plan *plan, qvl_err *err)
{
    const qvl_text_dims *t = &d->dims.text;
    const int64_t T = d->options.tokens, q = t->H * t->Dh, qkv = q + 2 * t->KV * t->Dh;
    const int64_t widest = t->F > q ? t->F : q;
    const int64_t back = d->options.is_training ? T : 0;
    const struct {
        int *slot;
        const char *name;
        int64_t count;
        size_t element_bytes;
    } table[] = {{&d->slot_pack, "pack", (int64_t)(qvl_pack_bytes(T) / 4), 4},
                 {&d->slot_inv_freq, "rotary frequencies", t->Dh / 2, sizeof(float)},
                 {&d->slot_axis, "rotary axes", t->Dh / 2, sizeof(int32_t)},
                 {&d->slot_cosine, "rotary cosine", T * (t->Dh / 2), sizeof(float)},
                 {&d->slot_sine, "rotary sine", T * (t->Dh / 2), sizeof(float)},
                 {&d->slot_delta, "delta", T * t->D, d->act_bytes},
                 {&d->slot_x_final, "x final", T * t->D, d->act_bytes},
                 {&d->slot_h_final, "norm final", T * t->D, d->act_bytes},
                 {&d->slot_inv_final, "inv_rms final", T, sizeof(float)},
                 {&d->slot_dx, "dx", back * t->D, d->act_bytes},
                 {&d->slot_dh, "dh", back * widest, d->act_bytes},
                 {&d->slot_dqkv, "dqkv", back * qkv, d->act_bytes}};
    qvl_status rc = QVL_OK;
    for (size_t i = 0; i < sizeof table / sizeof *table && rc == QVL_OK; i++)
        rc = qvl_plan_add(plan, table[i].slot, table[i].name, table[i].count,
                          table[i].element_bytes, err);
    return rc;
}

static qvl_status plan_layers(qvl_decoder *d, qvl_plan *plan, qvl_err *err)
{
    const int64_t L = d->dims.text.L, first_kept = L - d->options.n_kept;
    int shared[N_ACTIVATIONS] = {0};
    char owner[32];
    qvl_status rc = QVL_OK;
    if (first_kept > 0)
        QVL_TRY(plan_set(d, plan, "recomputed", shared, err));
    for (int64_t l = 0; l < L; l++) {
        int *slots = d->slots + l * N_ACTIVATIONS;
        snprintf(owner, sizeof owner, "layer %d", (int)l);
        if (l >= first_kept)
            QVL_TRY(plan_set(d, plan, owner, slots, err));
        else
            for (int i = 0; i < N_ACTIVATIONS; i++)
                slots[i] = shared[i];
        snprintf(owner, sizeof owner, "layer %d x in", (int)l);
        QVL_TRY(qvl_plan_add(plan, &d->layers[l].slot_x_in, owner,
                             d->options.tokens * d->dims.text.D, d->act_bytes, err));
    }
out:
    return rc;
}

qvl_status qvl_decoder_create(qvl_decoder **out, const qvl_model_dims *dims, const qvl_lora *lora,
                              const qvl_device *dev, const qvl_decoder_options *options,
                              qvl_plan *plan, qvl_err *err)
{
    qvl_decoder *decoder = NULL;
    const size_t L = (size_t)dims->text.L;
    qvl_status rc = qvl_alloc(&decoder, 1, sizeof *decoder, "decoder", err);
    if (rc != QVL_OK)
        return rc;
    decoder->dims = *dims;
    decoder->lora = lora;
    decoder->act_bytes = dev->act_bytes;
    for (int g = 0; g < QVL_N_GROUPS; g++)
        decoder->tail[g] =
            qvl_lora_options_tail(qvl_lora_get_options(lora), (qvl_group)g, dev->tail_align);
    decoder->options = *options;
    QVL_TRY(qvl_alloc(&decoder->slots, L * N_ACTIVATIONS, sizeof *decoder->slots, "decoder", err));
    QVL_TRY(qvl_alloc(&decoder->layers, L, sizeof *decoder->layers, "decoder", err));
    QVL_TRY(
        qvl_alloc(&decoder->linears, L * QVL_N_GROUPS, sizeof *decoder->linears, "decoder", err));
    QVL_TRY(plan_common(decoder, plan, err));
    QVL_TRY(plan_layers(decoder, plan, err));
    *out = decoder;
    return QVL_OK;
out:
    qvl_decoder_destroy(decoder);
    return rc;
}

static qvl_status upload_constants(qvl_decoder *d, qvl_err *err)
{
    const size_t pairs = (size_t)d->dims.text.Dh / 2;
    const qvl_ops *ops = d->dev->ops;
    float *inv_freq = NULL;
    int32_t *axis = NULL;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_alloc(&inv_freq, pairs, sizeof *inv_freq, "rotary", err));
    QVL_TRY(qvl_alloc(&axis, pairs, sizeof *axis, "rotary", err));
    qvl_mrope_frequencies(inv_freq, axis, &d->dims.text);
    QVL_TRY(ops->upload(d->dev, d->inv_freq, inv_freq, pairs * sizeof *inv_freq, QVL_LANE_COMPUTE,
                        err));
    QVL_TRY(ops->upload(d->dev, d->axis, axis, pairs * sizeof *axis, QVL_LANE_COMPUTE, err));
    QVL_TRY(ops->wait(d->dev, QVL_LANE_COMPUTE, err));
out:
    free(inv_freq);
    free(axis);
    return rc;
}

qvl_status qvl_decoder_bind(qvl_decoder *d, qvl_device *dev, const qvl_plan *plan, void *base,
                            const qvl_text_weights *weights, const qvl_lora_buffers *adapters,
                            qvl_err *err)
{
    d->dev = dev;
    d->weights = weights;
    d->device_pack = qvl_plan_at(plan, base, d->slot_pack);
    d->inv_freq = qvl_plan_at(plan, base, d->slot_inv_freq);
    d->axis = qvl_plan_at(plan, base, d->slot_axis);
    d->cosine = qvl_plan_at(plan, base, d->slot_cosine);
    d->sine = qvl_plan_at(plan, base, d->slot_sine);
    d->delta = qvl_plan_at(plan, base, d->slot_delta);
    d->x_final = qvl_plan_at(plan, base, d->slot_x_final);
    d->h_final = qvl_plan_at(plan, base, d->slot_h_final);
    d->inv_final = qvl_plan_at(plan, base, d->slot_inv_final);
    d->dx = qvl_plan_at(plan, base, d->slot_dx);
    d->dh = qvl_plan_at(plan, base, d->slot_dh);
    d->dqkv = qvl_plan_at(plan, base, d->slot_dqkv);
    for (int l = 0; l < (int)d->dims.text.L; l++) {
        decoder_layer *layer = &d->layers[l];
        layer->x_in = qvl_plan_at(plan, base, layer->slot_x_in);
        for (int i = 0; i < N_ACTIVATIONS; i++)
            layer->at[i] = qvl_plan_at(plan, base, d->slots[l * N_ACTIVATIONS + i]);
        layer->linear = d->linears + l * QVL_N_GROUPS;
        for (int g = 0; g < QVL_N_GROUPS; g++)
            layer->linear[g] = qvl_lora_linear(d->lora, adapters, weights, l, (qvl_group)g);
    }
    return upload_constants(d, err);
}

qvl_status qvl_decoder_fold(qvl_decoder *d, qvl_err *err)
{
    return d->dev->ops->fold(
        d->dev, &(qvl_fold_args){.linears = d->linears, .n = d->dims.text.L * QVL_N_GROUPS}, err);
}

qvl_workspace_limits qvl_decoder_limits(const qvl_decoder *d, int64_t sequence)
{
    const qvl_text_dims *t = &d->dims.text;
    const int64_t q = t->H * t->Dh, qkv = q + 2 * t->KV * t->Dh;
    const int64_t in = t->F > q ? t->F : q, out = 2 * t->F > qkv ? 2 * t->F : qkv;
    return (qvl_workspace_limits){.tokens = d->options.tokens,
                                  .sequence = sequence,
                                  .in_max = in > t->D ? in : t->D,
                                  .out_max = out > t->D ? out : t->D,
                                  .rank = qvl_lora_get_options(d->lora)->rank,
                                  .heads = t->H,
                                  .kv_heads = t->KV,
                                  .head_size = t->Dh,
                                  .vocab = t->V,
                                  .head_rows = d->options.head_rows,
                                  .hidden = t->D,
                                  .backward = d->options.is_training,
                                  .dropout = qvl_lora_get_options(d->lora)->dropout > 0.0};
}
