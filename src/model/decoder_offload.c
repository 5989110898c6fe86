/* Activations that wait in host memory.
 *
 * AWAY layers, in their turns 0 .. n-1 from the first layer up, write qkv and gate_up into one of
 * two buffers, turn by turn; the copy lane takes them to host memory while the layers up to the
 * turn after the next work. The last two stay in their buffers. Backward finds those there and
 * brings the others back, each while the layers above it work:
 *
 *     compute   |layer of turn k   |layer    |turn k+1          |layer    |turn k+2
 *     copy               |turn k to the host         |turn k+1 to the host
 *                        ^ gate_up is made  ^ waits for turn k, whose buffer turn k+2 takes
 */
#include <math.h>

#include "src/model/decoder_internal.h"

/* A pack without backward (evaluation) may have left copies under way. */
qvl_status qvl_decoder_start_away(qvl_decoder *d, qvl_err *err)
{
    if (!d->kept.n_away)
        return QVL_OK;
    return d->dev->ops->order(d->dev, QVL_LANE_COMPUTE, QVL_LANE_COPY, err);
}

static bool is_sent(const qvl_decoder *d, int64_t turn)
{
    return turn < d->kept.n_away - AWAY_BUFFERS;
}

static char *place_of(const qvl_decoder *d, int64_t turn)
{
    return (char *)d->offload.host + (size_t)turn * d->first_bytes;
}

qvl_status qvl_decoder_send_away(qvl_decoder *d, const decoder_layer *layer, qvl_err *err)
{
    const qvl_ops *ops = d->dev->ops;
    qvl_status rc = QVL_OK;
    /* the turn before, whose buffer the next one takes */
    if (layer->turn > 0)
        QVL_TRY(ops->order(d->dev, QVL_LANE_COMPUTE, QVL_LANE_COPY, err));
    if (!is_sent(d, layer->turn))
        return QVL_OK;
    QVL_TRY(ops->order(d->dev, QVL_LANE_COPY, QVL_LANE_COMPUTE, err));
    QVL_TRY(ops->download(d->dev, place_of(d, layer->turn), layer->at[QKV], d->first_bytes,
                          QVL_LANE_COPY, err));
out:
    return rc;
}

/* Waits for the layer's own; then the turn below may come into the buffer of the turn above, which
 * backward has left. */
qvl_status qvl_decoder_bring_back(qvl_decoder *d, int64_t l, qvl_err *err)
{
    const qvl_ops *ops = d->dev->ops;
    const int64_t turn = d->layers[l].turn;
    qvl_status rc = QVL_OK;
    if (is_sent(d, turn))
        QVL_TRY(ops->order(d->dev, QVL_LANE_COMPUTE, QVL_LANE_COPY, err));
    if (turn == 0 || !is_sent(d, turn - 1))
        return QVL_OK;
    const decoder_layer *below = &d->layers[l - d->offload.stride];
    QVL_TRY(ops->order(d->dev, QVL_LANE_COPY, QVL_LANE_COMPUTE, err));
    QVL_TRY(ops->upload(d->dev, below->at[QKV], place_of(d, turn - 1), d->first_bytes,
                        QVL_LANE_COPY, err));
out:
    return rc;
}

/* ---- is it worth it ----------------------------------------------------------------------------
 */

static qvl_status timed(qvl_decoder *d, double *best, qvl_err *err)
{
    double ms = 0.0;
    qvl_status rc = QVL_OK;
    QVL_TRY(d->dev->ops->mark(d->dev, 1, err));
    QVL_TRY(d->dev->ops->wait(d->dev, QVL_LANE_COMPUTE, err));
    QVL_TRY(d->dev->ops->between(d->dev, &ms, 0, 1, err));
    *best = fmin(*best, ms);
out:
    return rc;
}

qvl_status qvl_decoder_time_offload(qvl_decoder *d, qvl_offload_times *out, void *host,
                                    size_t bytes, qvl_err *err)
{
    const qvl_ops *ops = d->dev->ops;
    const int64_t T = d->options.tokens;
    double product_ms = INFINITY, copy_ms = INFINITY, flops = 0.0;
    qvl_status rc = qvl_decoder_lay_out(d, T, err);
    QVL_TRY(rc);
    const decoder_layer *layer = &d->layers[0];
    qvl_linear frozen = layer->linear[QVL_GROUP_GATE_UP];
    frozen.n_adapters = 0;
    /* Rows of the weight itself stand in for activations: products of zeros take less time. */
    const int64_t rows = T < frozen.out ? T : frozen.out;
    const qvl_linear_args product = {.linear = &frozen,
                                     .y = layer->at[GATE_UP],
                                     .x = frozen.weight,
                                     .x_stride = frozen.weight_stride,
                                     .T = rows};
    for (int g = 0; g < QVL_N_GROUPS; g++)
        flops += (double)layer->linear[g].in * (double)layer->linear[g].out;
    const size_t gate_up_bytes = (size_t)(T * frozen.out) * d->act_bytes;
    bytes = bytes < gate_up_bytes ? bytes : gate_up_bytes;
    for (int i = 0; i < 4; i++) { /* the first also chooses algorithms */
        QVL_TRY(ops->mark(d->dev, 0, err));
        QVL_TRY(ops->linear(d->dev, &product, err));
        QVL_TRY(timed(d, &product_ms, err));
        QVL_TRY(ops->mark(d->dev, 0, err));
        QVL_TRY(ops->download(d->dev, host, layer->at[GATE_UP], bytes, QVL_LANE_COMPUTE, err));
        QVL_TRY(timed(d, &copy_ms, err));
    }
    product_ms *= (double)T / (double)rows;
    *out = (qvl_offload_times){.layer_ms =
                                   product_ms * flops / ((double)frozen.in * (double)frozen.out),
                               .copy_ms = copy_ms * (double)d->first_bytes / (double)bytes};
out:
    return rc;
}
