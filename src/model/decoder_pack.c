/* From a pack to the first layer's input. */
#include "src/model/decoder_internal.h"

#include <inttypes.h>

/* The features of the pack's images go through delta, which is free before the first layer. */
static qvl_status upload_features(qvl_decoder *d, const qvl_pack *pack, qvl_err *err)
{
    const qvl_ops *ops = d->dev->ops;
    const size_t row_bytes = (size_t)d->dims.text.D * d->act_bytes;
    char *to = d->delta;
    int64_t rows = 0;
    qvl_status rc = QVL_OK;
    for (int64_t i = 0; i < pack->n_features; i++) {
        const size_t bytes = (size_t)pack->feature_tokens[i] * row_bytes;
        if (!pack->features[i])
            return qvl_fail(err, QVL_EINTERNAL, "pack: image %" PRId64 " has no features", i);
        QVL_TRY(ops->upload(d->dev, to, pack->features[i], bytes, QVL_LANE_COMPUTE, err));
        to += bytes;
        rows += pack->feature_tokens[i];
    }
    if (rows != pack->n_image_tokens)
        return qvl_fail(err, QVL_EDATA,
                        "image features and image tokens do not match: %" PRId64 " and %" PRId64,
                        rows, pack->n_image_tokens);
    QVL_TRY(ops->move_rows(d->dev,
                           &(qvl_move_rows_args){.dst = d->layers[0].x_in,
                                                 .src = d->delta,
                                                 .dst_rows = d->on_device.image_rows,
                                                 .n_rows = rows,
                                                 .D = d->dims.text.D},
                           err));
out:
    return rc;
}

qvl_status qvl_decoder_start_pack(qvl_decoder *d, const qvl_pack *pack,
                                  const qvl_decoder_dropout *dropout, qvl_err *err)
{
    const qvl_ops *ops = d->dev->ops;
    qvl_status rc = QVL_OK;
    if (pack->capacity > d->options.tokens)
        return qvl_fail(err, QVL_EINTERNAL, "pack of %" PRId64 " tokens, the decoder has %" PRId64,
                        pack->capacity, d->options.tokens);
    QVL_TRY(qvl_decoder_lay_out(d, pack->T, err));
    QVL_TRY(qvl_decoder_start_away(d, err));
    QVL_TRY(ops->upload(d->dev, d->device_pack, pack->buffer, qvl_pack_bytes(pack->capacity),
                        QVL_LANE_COMPUTE, err));
    qvl_pack_view(&d->on_device, pack->capacity, d->device_pack);
    d->pack = pack;
    d->has_dropout = dropout != NULL;
    if (dropout)
        d->dropout = (qvl_dropout){
            .threshold = dropout->threshold, .seed = dropout->seed, .step = dropout->step};
    qvl_decoder_work_on_tokens(d);
    QVL_TRY(ops->rope_table(d->dev,
                            &(qvl_rope_table_args){.cosine = d->cosine,
                                                   .sine = d->sine,
                                                   .positions = d->on_device.positions,
                                                   .inv_freq = d->inv_freq,
                                                   .axis = d->axis,
                                                   .T = pack->T,
                                                   .n_freq = d->dims.text.Dh / 2},
                            err));
    QVL_TRY(ops->embed(d->dev,
                       &(qvl_embed_args){.x = d->layers[0].x_in,
                                         .table = d->weights->embed,
                                         .ids = d->on_device.ids,
                                         .T = pack->T,
                                         .D = d->dims.text.D},
                       err));
    if (pack->n_image_tokens || pack->n_features)
        QVL_TRY(upload_features(d, pack, err));
out:
    return rc;
}
