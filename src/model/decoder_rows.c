/* Which rows operations work on. Behind the last attention only those that the loss reads matter:
 * one of many where prompts are long.
 *
 *   forward    x_in, attn [tokens]  --gather-->  x_mid, dqkv [loss rows] -> o, MLP, norm, head
 *   backward   dx, dh [tokens]      <--spread--  dx, delta [loss rows] <- o, MLP, norm, head
 */
#include "src/model/decoder_internal.h"

void qvl_decoder_work_on_tokens(qvl_decoder *d)
{
    d->n_rows = d->pack->T;
    d->dropout.sample = d->on_device.sample;
    d->dropout.token = d->on_device.token;
}

static void work_on_loss_rows(qvl_decoder *d)
{
    d->n_rows = d->pack->n_rows;
    d->dropout.sample = d->on_device.row_sample;
    d->dropout.token = d->on_device.row_token;
}

bool qvl_decoder_ends_in_loss_rows(const qvl_decoder *d, const decoder_layer *layer)
{
    return d->options.loss_rows_only && layer == &d->layers[d->dims.text.L - 1];
}

/* What o reads in the last layer: dqkv is free until attention's backward pass. */
void *qvl_decoder_attention_output(const qvl_decoder *d, const decoder_layer *layer)
{
    return qvl_decoder_ends_in_loss_rows(d, layer) ? d->dqkv : layer->at[ATTN];
}

/* In the last layer, between attention and o: attention's output, and the residual stream that
 * becomes x_mid. */
qvl_status qvl_decoder_gather_rows(qvl_decoder *d, decoder_layer *layer, qvl_err *err)
{
    const qvl_text_dims *t = &d->dims.text;
    const qvl_move_rows_args attention = {.dst = d->dqkv,
                                          .src = layer->at[ATTN],
                                          .src_rows = d->on_device.rows,
                                          .n_rows = d->pack->n_rows,
                                          .D = t->H * t->Dh + d->tail[QVL_GROUP_O]};
    const qvl_move_rows_args x = {.dst = layer->at[X_MID],
                                  .src = layer->x_in,
                                  .src_rows = d->on_device.rows,
                                  .n_rows = d->pack->n_rows,
                                  .D = t->D};
    qvl_status rc = QVL_OK;
    QVL_TRY(d->dev->ops->move_rows(d->dev, &attention, err));
    QVL_TRY(d->dev->ops->move_rows(d->dev, &x, err));
    work_on_loss_rows(d);
out:
    return rc;
}

static qvl_status spread(qvl_decoder *d, void *dst, const void *src, int64_t width, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    QVL_TRY(d->dev->ops->zero(d->dev, dst, (size_t)(d->pack->T * width) * d->act_bytes, err));
    QVL_TRY(d->dev->ops->move_rows(d->dev,
                                   &(qvl_move_rows_args){.dst = dst,
                                                         .src = src,
                                                         .dst_rows = d->on_device.rows,
                                                         .n_rows = d->pack->n_rows,
                                                         .D = width},
                                   err));
out:
    return rc;
}

/* The other way, between o and attention: the gradients of attention's output, which o left in
 * delta, and of the residual stream; those of all other tokens are zero. */
qvl_status qvl_decoder_spread_rows(qvl_decoder *d, qvl_err *err)
{
    const qvl_text_dims *t = &d->dims.text;
    void *const spread_dx = d->delta;
    qvl_status rc = QVL_OK;
    QVL_TRY(spread(d, d->dh, d->delta, t->H * t->Dh, err));
    QVL_TRY(spread(d, spread_dx, d->dx, t->D, err));
    d->delta = d->dx;
    d->dx = spread_dx;
    qvl_decoder_work_on_tokens(d);
out:
    return rc;
}
