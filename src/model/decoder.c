#include "src/model/decoder.h"

#include <inttypes.h>
#include <math.h>
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
    for (int g = 0; g < QVL_N_GROUPS; g++) {
        const qvl_lora_options *adapters = qvl_lora_get_options(lora);
        const int n = qvl_lora_options_adapters(adapters, (qvl_group)g);
        decoder->tail[g] = qvl_tail_columns(dev->tail_align, n, adapters->rank);
        decoder->used[g] = dev->tail_align ? qvl_tail_used(n, adapters->rank) : 0;
    }
    const int n_down = qvl_lora_options_adapters(qvl_lora_get_options(lora), QVL_GROUP_DOWN);
    decoder->shares_h3 = !options->is_training || n_down == 0 ||
                         qvl_lora_get_options(lora)->rank <= dev->swiglu_rank;
    decoder->options = *options;
    QVL_TRY(qvl_alloc(&decoder->slots, L * N_ACTIVATIONS, sizeof *decoder->slots, "decoder", err));
    QVL_TRY(qvl_alloc(&decoder->layers, L, sizeof *decoder->layers, "decoder", err));
    QVL_TRY(
        qvl_alloc(&decoder->linears, L * QVL_N_GROUPS, sizeof *decoder->linears, "decoder", err));
    QVL_TRY(qvl_decoder_plan_buffers(decoder, plan, err));
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
    qvl_decoder_take_buffers(d, plan, base);
    for (int l = 0; l < (int)d->dims.text.L; l++) {
        decoder_layer *layer = &d->layers[l];
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
