#include <math.h>
#include <string.h>

#include "src/train/run.h"

/* Runs the pack forward, adds its weighted losses to *sum and empties it. */
static qvl_status run_pack(qvl_run *run, double *sum, qvl_err *err)
{
    qvl_pack *pack = &run->pack;
    const qvl_ops *ops = run->dev->ops;
    qvl_status rc = QVL_OK;
    if (pack->T == 0)
        return QVL_OK;
    qvl_pack_finish(pack);
    QVL_TRY(qvl_decoder_forward(run->decoder, pack, NULL, err));
    QVL_TRY(qvl_decoder_loss(run->decoder, run->row_loss, false, err));
    QVL_TRY(ops->download(run->dev, run->host_losses, run->row_loss,
                          (size_t)pack->n_rows * sizeof(float), QVL_LANE_COMPUTE, err));
    QVL_TRY(ops->wait(run->dev, QVL_LANE_COMPUTE, err));
    for (int64_t i = 0; i < pack->n_rows; i++)
        *sum += (double)pack->weights[i] * (double)run->host_losses[i];
    qvl_pack_clear(pack);
    if (run->eval.features)
        qvl_features_forget(run->eval.features);
out:
    return rc;
}

/* Samples first .. last-1 are one batch: each supervised token weighs so that the sum over all is
 * the mean over samples of their batch's mean loss. */
static qvl_status add_batch(qvl_run *run, int64_t first, int64_t last, double *sum, qvl_err *err)
{
    const qvl_sample_table *table = &run->eval.table;
    int64_t supervised = 0;
    qvl_status rc = QVL_OK;
    for (int64_t i = first; i < last; i++)
        supervised += table->supervised[i];
    const double weight =
        supervised ? (double)(last - first) / (double)table->n_samples / (double)supervised : 0.0;
    for (int64_t i = first; i < last; i++) {
        if (run->pack.T + table->length[i] > run->memory.pack_tokens)
            QVL_TRY(run_pack(run, sum, err));
        QVL_TRY(qvl_run_pack_sample(run, &run->eval, i, (float)weight, err));
    }
    if (!run->config->pack)
        QVL_TRY(run_pack(run, sum, err));
out:
    return rc;
}

qvl_status qvl_run_evaluate(qvl_run *run, double *out_loss, int64_t *out_batches, qvl_err *err)
{
    const int64_t n = run->eval.table.n_samples, size = run->config->per_device_eval_batch_size;
    const int64_t n_batches = (n + size - 1) / size;
    double sum = 0.0;
    qvl_status rc = QVL_OK;
    qvl_pack_clear(&run->pack);
    *out_batches = n_batches;
    *out_loss = NAN;
    /* Every rank a batch, then a look at the others: a stop need not wait for all of them. */
    for (int64_t round = 0; round < n_batches; round += qvl_world_size(run->world)) {
        const int64_t b = round + qvl_world_rank(run->world);
        if (b < n_batches)
            rc = add_batch(run, b * size, (b + 1) * size < n ? (b + 1) * size : n, &sum, err);
        QVL_TRY(qvl_world_agree(run->world, rc, err));
        if (qvl_world_is_stopping(run->world))
            return QVL_OK;
    }
    QVL_TRY(qvl_world_agree(run->world, run_pack(run, &sum, err), err));
    QVL_TRY(qvl_world_sum_f64(run->world, &sum, 1, err));
    *out_loss = sum;
out:
    return rc;
}
