/* Forward and backward of the decoder: the order of operations, nothing else. */
#include "src/model/decoder_internal.h"

#include <inttypes.h>
#include <math.h>

/* ---- forward -----------------------------------------------------------------------------------
 */

/* tail: columns behind the rows of y. */
static qvl_status run_norm(qvl_decoder *d, void *y, int64_t tail, void *x_out, float *inv_rms,
                           const void *x, const void *delta, const void *weight, qvl_err *err)
{
    return d->dev->ops->norm(d->dev,
                             &(qvl_norm_args){.y = y,
                                              .y_stride = d->dims.text.D + tail,
                                              .x_out = x_out,
                                              .inv_rms = inv_rms,
                                              .x = x,
                                              .delta = delta,
                                              .weight = weight,
                                              .T = d->n_rows,
                                              .D = d->dims.text.D,
                                              .eps = (float)d->dims.text.eps},
                             err);
}

/* Nothing below the first adapter needs a gradient: the group that backward ends with; -1: with
 * none of this layer. */
static int last_group_of(const qvl_decoder *d, const decoder_layer *layer)
{
    for (int g = 0; g < QVL_N_GROUPS && layer == d->layers; g++)
        if (layer->linear[g].n_adapters)
            return g;
    return -1;
}

/* Where u is kept apart; nowhere on a device with tails. */
static float *u_of(const qvl_decoder *d, const decoder_layer *layer, qvl_group group)
{
    static const int SLOT[QVL_N_GROUPS] = {[QVL_GROUP_QKV] = U_QKV,
                                           [QVL_GROUP_O] = U_O,
                                           [QVL_GROUP_GATE_UP] = U_GATE_UP,
                                           [QVL_GROUP_DOWN] = U_DOWN};
    return d->tail[group] ? NULL : layer->at[SLOT[group]];
}

/* Where what lies in the tail outlives it; NULL where the tail itself is still there in backward.
 */
static void *kept_u_of(const qvl_decoder *d, const decoder_layer *layer, qvl_group group)
{
    const bool is_there = layer->level == KEPT && !(group == QVL_GROUP_DOWN && d->shares_h3);
    int64_t before = 0;
    for (int g = 0; g < (int)group; g++)
        before += d->used[g];
    return is_there || !layer->kept_u
               ? NULL
               : (char *)layer->kept_u + (size_t)(before * d->pack->T) * d->act_bytes;
}

static qvl_status run_linear(qvl_decoder *d, const decoder_layer *layer, qvl_group group, void *y,
                             const void *x, bool is_recomputation, qvl_err *err)
{
    const qvl_linear *linear = &layer->linear[group];
    return d->dev->ops->linear(d->dev,
                               &(qvl_linear_args){.linear = linear,
                                                  .y = y,
                                                  .u = u_of(d, layer, group),
                                                  .kept_u = kept_u_of(d, layer, group),
                                                  .is_u_kept = is_recomputation,
                                                  .x = x,
                                                  .x_stride = linear->in + d->tail[group],
                                                  .T = d->n_rows,
                                                  .dropout = d->has_dropout ? &d->dropout : NULL},
                               err);
}

static qvl_rotate_args rotation(const qvl_decoder *d, void *qkv)
{
    const qvl_text_dims *t = &d->dims.text;
    return (qvl_rotate_args){.x = qkv,
                             .cosine = d->cosine,
                             .sine = d->sine,
                             .T = d->pack->T,
                             .stride = (t->H + 2 * t->KV) * t->Dh,
                             .n_heads = t->H + t->KV,
                             .Dh = t->Dh};
}

static qvl_attention_args attention_of(const qvl_decoder *d, const decoder_layer *layer)
{
    const qvl_text_dims *t = &d->dims.text;
    return (qvl_attention_args){.out = layer->at[ATTN],
                                .out_stride = t->H * t->Dh + d->tail[QVL_GROUP_O],
                                .lse = layer->at[LSE],
                                .qkv = layer->at[QKV],
                                .cu_seqlens = d->on_device.cu_seqlens,
                                .cu_seqlens_host = d->pack->cu_seqlens,
                                .T = d->pack->T,
                                .B = d->pack->B,
                                .H = t->H,
                                .KV = t->KV,
                                .Dh = t->Dh,
                                .scale = 1.0f / sqrtf((float)t->Dh),
                                .is_causal = true};
}

/* SwiGLU and down. In recomputation, and before backward of a kept layer whose h3 was overwritten,
 * only what backward reads of it is wanted. */
static qvl_status run_mlp(qvl_decoder *d, const decoder_layer *layer, bool is_recomputation,
                          qvl_err *err)
{
    const qvl_linear *down = &layer->linear[QVL_GROUP_DOWN];
    const bool is_alone = last_group_of(d, layer) == QVL_GROUP_DOWN; /* mlp_backward does not run */
    if (is_recomputation && down->n_adapters == 0)
        return QVL_OK;
    return d->dev->ops->mlp(d->dev,
                            &(qvl_mlp_args){.linear = down,
                                            .y = is_recomputation ? NULL : d->delta,
                                            .h = layer->at[H3],
                                            .h_stride = d->weights->Fp + d->tail[QVL_GROUP_DOWN],
                                            .u = u_of(d, layer, QVL_GROUP_DOWN),
                                            .kept_u = kept_u_of(d, layer, QVL_GROUP_DOWN),
                                            .is_u_kept = is_recomputation && !is_alone,
                                            .gate_up = layer->at[GATE_UP],
                                            .T = d->n_rows,
                                            .F = d->weights->Fp,
                                            .dropout = d->has_dropout ? &d->dropout : NULL},
                            err);
}

/* From norm 1 (already run: h1) to the output of down in delta. In recomputation the last product
 * is not needed; likewise those whose results were kept. */
static qvl_status layer_body(qvl_decoder *d, decoder_layer *layer, const qvl_layer_weights *w,
                             bool is_recomputation, qvl_err *err)
{
    const qvl_ops *ops = d->dev->ops;
    void **at = layer->at;
    const qvl_rotate_args rotate = rotation(d, at[QKV]);
    const qvl_attention_args attention = attention_of(d, layer);
    const bool has_products = is_recomputation && layer->level != RECOMPUTED;
    qvl_status rc = QVL_OK;
    QVL_TRY(run_linear(d, layer, QVL_GROUP_QKV, has_products ? NULL : at[QKV], at[H1],
                       is_recomputation, err));
    if (!has_products)
        QVL_TRY(ops->rotate(d->dev, &rotate, err));
    QVL_TRY(ops->attention(d->dev, &attention, err));
    if (qvl_decoder_ends_in_loss_rows(d, layer))
        QVL_TRY(qvl_decoder_gather_rows(d, layer, err));
    QVL_TRY(run_linear(d, layer, QVL_GROUP_O, d->delta, qvl_decoder_attention_output(d, layer),
                       is_recomputation, err));
    QVL_TRY(run_norm(d, at[H2], d->tail[QVL_GROUP_GATE_UP], at[X_MID], at[INV2],
                     qvl_decoder_ends_in_loss_rows(d, layer) ? at[X_MID] : layer->x_in, d->delta,
                     w->norm2, err));
    QVL_TRY(run_linear(d, layer, QVL_GROUP_GATE_UP, has_products ? NULL : at[GATE_UP], at[H2],
                       is_recomputation, err));
    if (layer->level == AWAY && !is_recomputation)
        QVL_TRY(qvl_decoder_send_away(d, layer, err));
    rc = run_mlp(d, layer, is_recomputation, err);
out:
    return rc;
}

qvl_status qvl_decoder_forward(qvl_decoder *d, const qvl_pack *pack,
                               const qvl_decoder_dropout *dropout, qvl_err *err)
{
    const int64_t L = d->dims.text.L;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_decoder_start_pack(d, pack, dropout, err));
    for (int64_t l = 0; l < L; l++) {
        decoder_layer *layer = &d->layers[l];
        const qvl_layer_weights *w = &d->weights->layers[l];
        if (l == 0)
            QVL_TRY(run_norm(d, layer->at[H1], d->tail[QVL_GROUP_QKV], NULL, layer->at[INV1],
                             layer->x_in, NULL, w->norm1, err));
        else
            QVL_TRY(run_norm(d, layer->at[H1], d->tail[QVL_GROUP_QKV], layer->x_in, layer->at[INV1],
                             d->layers[l - 1].at[X_MID], d->delta, w->norm1, err));
        QVL_TRY(layer_body(d, layer, w, false, err));
    }
    QVL_TRY(run_norm(d, d->h_final, 0, d->x_final, d->inv_final, d->layers[L - 1].at[X_MID],
                     d->delta, d->weights->norm, err));
out:
    return rc;
}

qvl_status qvl_decoder_loss(qvl_decoder *d, float *row_loss, bool with_gradient, qvl_err *err)
{
    const qvl_text_dims *t = &d->dims.text;
    const bool has_all = d->options.loss_rows_only; /* and no other rows */
    return d->dev->ops->head_loss(d->dev,
                                  &(qvl_head_loss_args){.row_loss = row_loss,
                                                        .dx = with_gradient ? d->delta : NULL,
                                                        .x = d->h_final,
                                                        .head = d->weights->head,
                                                        .rows = has_all ? NULL : d->on_device.rows,
                                                        .targets = d->on_device.targets,
                                                        .weights = d->on_device.weights,
                                                        .n_rows = d->pack->n_rows,
                                                        .T = d->n_rows,
                                                        .D = t->D,
                                                        .V = t->V},
                                  err);
}

/* ---- backward ----------------------------------------------------------------------------------
 */

static qvl_status run_norm_backward(qvl_decoder *d, const void *dy, const void *x,
                                    const float *inv_rms, const void *weight, qvl_err *err)
{
    return d->dev->ops->norm_backward(d->dev,
                                      &(qvl_norm_backward_args){.dx = d->dx,
                                                                .dy = dy,
                                                                .x = x,
                                                                .inv_rms = inv_rms,
                                                                .weight = weight,
                                                                .T = d->n_rows,
                                                                .D = d->dims.text.D},
                                      err);
}

static qvl_status run_linear_backward(qvl_decoder *d, const decoder_layer *layer, qvl_group group,
                                      void *dx, const void *dy, const void *x, qvl_err *err)
{
    const qvl_linear *linear = &layer->linear[group];
    return d->dev->ops->linear_backward(
        d->dev,
        &(qvl_linear_backward_args){.linear = linear,
                                    .dx = dx,
                                    .dy = dy,
                                    .x = x,
                                    .x_stride = linear->in + d->tail[group],
                                    .u = u_of(d, layer, group),
                                    .T = d->n_rows,
                                    .dropout = d->has_dropout ? &d->dropout : NULL},
        err);
}

static qvl_status mlp_backward(qvl_decoder *d, decoder_layer *layer, const qvl_layer_weights *w,
                               int last_group, qvl_err *err)
{
    void **at = layer->at;
    qvl_status rc = QVL_OK;
    if (last_group == QVL_GROUP_DOWN)
        return run_linear_backward(d, layer, QVL_GROUP_DOWN, NULL, d->dx, at[H3], err);
    QVL_TRY(d->dev->ops->mlp_backward(
        d->dev,
        &(qvl_mlp_backward_args){.down = &layer->linear[QVL_GROUP_DOWN],
                                 .gate_up_proj = &layer->linear[QVL_GROUP_GATE_UP],
                                 .dx = last_group == QVL_GROUP_GATE_UP ? NULL : d->delta,
                                 .dgate_up = at[GATE_UP],
                                 .dh = d->dh,
                                 .dy = d->dx,
                                 .h = at[H3],
                                 .h_stride = d->weights->Fp + d->tail[QVL_GROUP_DOWN],
                                 .h_u = u_of(d, layer, QVL_GROUP_DOWN),
                                 .x = at[H2],
                                 .x_stride = d->dims.text.D + d->tail[QVL_GROUP_GATE_UP],
                                 .x_u = u_of(d, layer, QVL_GROUP_GATE_UP),
                                 .gate_up = at[GATE_UP],
                                 .T = d->n_rows,
                                 .F = d->weights->Fp,
                                 .dropout = d->has_dropout ? &d->dropout : NULL},
        err));
    if (last_group == QVL_GROUP_GATE_UP)
        return QVL_OK;
    QVL_TRY(run_norm_backward(d, d->delta, at[X_MID], at[INV2], w->norm2, err));
out:
    return rc;
}

static qvl_status attention_backward(qvl_decoder *d, decoder_layer *layer,
                                     const qvl_layer_weights *w, int last_group, qvl_err *err)
{
    const qvl_ops *ops = d->dev->ops;
    void **at = layer->at;
    const qvl_attention_backward_args attention = {.dqkv = d->dqkv,
                                                   .dout = d->dh,
                                                   .cosine = d->cosine,
                                                   .sine = d->sine,
                                                   .forward = attention_of(d, layer)};
    qvl_status rc = QVL_OK;
    const bool is_spread = qvl_decoder_ends_in_loss_rows(d, layer);
    void *const dattention = is_spread ? d->delta : d->dh;
    QVL_TRY(run_linear_backward(d, layer, QVL_GROUP_O,
                                last_group == QVL_GROUP_O ? NULL : dattention, d->dx,
                                qvl_decoder_attention_output(d, layer), err));
    if (last_group == QVL_GROUP_O)
        return QVL_OK;
    if (is_spread)
        QVL_TRY(qvl_decoder_spread_rows(d, err));
    QVL_TRY(ops->attention_backward(d->dev, &attention, err));
    QVL_TRY(run_linear_backward(d, layer, QVL_GROUP_QKV,
                                last_group == QVL_GROUP_QKV ? NULL : d->delta, d->dqkv, at[H1],
                                err));
    if (last_group == QVL_GROUP_QKV)
        return QVL_OK;
    QVL_TRY(run_norm_backward(d, d->delta, layer->x_in, at[INV1], w->norm1, err));
out:
    return rc;
}

qvl_status qvl_decoder_backward(qvl_decoder *d, const qvl_layer_watch *watch, qvl_err *err)
{
    const int64_t L = d->dims.text.L, D = d->dims.text.D;
    qvl_status rc = QVL_OK;
    /* head_loss left d(loss)/d(h_final) in delta */
    QVL_TRY(d->dev->ops->zero(d->dev, d->dx, (size_t)(d->n_rows * D) * d->act_bytes, err));
    QVL_TRY(run_norm_backward(d, d->delta, d->x_final, d->inv_final, d->weights->norm, err));
    for (int64_t l = L - 1; l >= 0; l--) {
        decoder_layer *layer = &d->layers[l];
        const qvl_layer_weights *w = &d->weights->layers[l];
        const int last_group = last_group_of(d, layer);
        if (layer->level == AWAY)
            QVL_TRY(qvl_decoder_bring_back(d, l, err));
        if (layer->level != KEPT) {
            qvl_decoder_work_on_tokens(d);
            QVL_TRY(run_norm(d, layer->at[H1], d->tail[QVL_GROUP_QKV], NULL, layer->at[INV1],
                             layer->x_in, NULL, w->norm1, err));
            QVL_TRY(layer_body(d, layer, w, true, err));
        } else if (d->shares_h3) {
            QVL_TRY(run_mlp(d, layer, true, err));
        }
        QVL_TRY(mlp_backward(d, layer, w, last_group, err));
        if (last_group != QVL_GROUP_GATE_UP && last_group != QVL_GROUP_DOWN)
            QVL_TRY(attention_backward(d, layer, w, last_group, err));
        if (watch)
            QVL_TRY(watch->is_done(watch->context, (int)l, err));
    }
out:
    return rc;
}

/* ---- looking inside ----------------------------------------------------------------------------
 */

qvl_status qvl_decoder_fetch_hidden(qvl_decoder *d, float *host, int64_t l, qvl_err *err)
{
    const void *from = l < d->dims.text.L ? d->layers[l].x_in : d->h_final;
    return d->dev->ops->fetch(d->dev, host, from, d->pack->T * d->dims.text.D, err);
}

/* A row at a time, in pieces of what the gate_up buffer of layer 0 holds, which is free after
 * forward. */
qvl_status qvl_decoder_fetch_logits(qvl_decoder *d, float *host, qvl_err *err)
{
    const qvl_text_dims *t = &d->dims.text;
    const int64_t room = d->laid_out_tokens * 2 * t->F / 8 * 8, n = d->pack->T * t->V;
    qvl_status rc = QVL_OK;
    for (int64_t at = 0, columns = 0; at < n; at += columns) {
        const int64_t row = at / t->V, first = at % t->V;
        columns = t->V - first < room ? t->V - first : room;
        const qvl_linear head = {.weight = (const char *)d->weights->head +
                                           (size_t)(first * t->D) * d->act_bytes,
                                 .in = t->D,
                                 .out = columns};
        const qvl_linear_args args = {.linear = &head,
                                      .y = d->layers[0].at[GATE_UP],
                                      .x = (const char *)d->h_final +
                                           (size_t)(row * t->D) * d->act_bytes,
                                      .T = 1};
        QVL_TRY(d->dev->ops->linear(d->dev, &args, err));
        QVL_TRY(d->dev->ops->fetch(d->dev, host + at, args.y, columns, err));
    }
out:
    return rc;
}
