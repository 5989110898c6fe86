/* The frozen products of a step without anything else: what its time is compared with. */
#include "src/model/decoder_internal.h"

typedef struct product {
    void *y;        /* [T, out] */
    const void *x;  /* [T, in] */
    void *dx;       /* [T, in] */
    const void *dy; /* [T, out] */
} product;

static qvl_status run_both(qvl_decoder *d, const decoder_layer *layer, qvl_group group,
                           const product *p, int64_t T, qvl_err *err)
{
    qvl_linear frozen = layer->linear[group];
    const int64_t x_stride = frozen.in + d->tail[group];
    frozen.n_adapters = 0;
    qvl_status rc = d->dev->ops->linear(
        d->dev,
        &(qvl_linear_args){.linear = &frozen, .y = p->y, .x = p->x, .x_stride = x_stride, .T = T},
        err);
    if (rc == QVL_OK)
        rc = d->dev->ops->linear_backward(d->dev,
                                          &(qvl_linear_backward_args){.linear = &frozen,
                                                                      .dx = p->dx,
                                                                      .dy = p->dy,
                                                                      .x = p->x,
                                                                      .x_stride = x_stride,
                                                                      .T = T},
                                          err);
    return rc;
}

qvl_status qvl_decoder_products(qvl_decoder *d, int64_t T, qvl_err *err)
{
    qvl_status rc = qvl_decoder_lay_out(d, T, err);
    for (int64_t l = 0; l < d->dims.text.L && rc == QVL_OK; l++) {
        const decoder_layer *layer = &d->layers[l];
        void *const *at = layer->at;
        const product products[QVL_N_GROUPS] = {
            [QVL_GROUP_QKV] = {at[QKV], at[H1], d->delta, d->dqkv},
            [QVL_GROUP_O] = {d->delta, at[ATTN], d->dh, d->dx},
            [QVL_GROUP_GATE_UP] = {at[GATE_UP], at[H2], d->delta, at[GATE_UP]},
            [QVL_GROUP_DOWN] = {d->delta, at[H3], d->dh, d->dx}};
        for (int g = 0; g < QVL_N_GROUPS && rc == QVL_OK; g++)
            rc = run_both(d, layer, (qvl_group)g, &products[g], T, err);
    }
    return rc;
}

double qvl_decoder_product_flops(const qvl_decoder *d)
{
    double flops = 0.0;
    for (int g = 0; g < QVL_N_GROUPS; g++) {
        const qvl_linear *linear = &d->layers[0].linear[g];
        flops += 4.0 * (double)linear->in * (double)linear->out;
    }
    return flops * (double)d->dims.text.L;
}
