/* How gradients are summed over GPUs: all at once after backward, or a few layers at a time beside
 * it.
 *
 * Beside backward a sum takes multiprocessors from the products, for as long as the slowest rank
 * lets it wait. Over NVLink that costs more than the whole sum does at the end
 * (docs/BENCHMARKS.md); over slower links the sum is longer than what it costs beside backward.
 * With more than two ranks the order of a sum, and so its last bits, depends on this choice: the
 * limit lies where no link is, between PCIe and networks (below 50 GB/s) and NVLink (above 100).
 */
#include <math.h>

#include "src/base/clock.h"
#include "src/train/run.h"

static const double FAST_BYTES_PER_S = 70e9;
enum { BUCKET_BYTES = 8 << 20, ROUNDS = 6 };

/* Best of a few sums of all gradients, which are zero. */
static qvl_status time_sum(qvl_run *run, double *best, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    *best = INFINITY;
    qvl_exchange_expect(run->exchange, true);
    for (int i = 0; i < ROUNDS; i++) {
        QVL_TRY(run->dev->ops->wait(run->dev, QVL_LANE_REDUCE, err));
        const double start = qvl_clock_s();
        QVL_TRY(qvl_exchange_sum_f32(run->exchange, run->buffers.grad,
                                     qvl_lora_parameters(run->lora), err));
        QVL_TRY(run->dev->ops->wait(run->dev, QVL_LANE_REDUCE, err));
        *best = fmin(*best, qvl_clock_s() - start);
    }
out:
    qvl_exchange_expect(run->exchange, false);
    return rc;
}

qvl_status qvl_run_choose_buckets(qvl_run *run, qvl_err *err)
{
    const int L = (int)run->model.dims.text.L;
    const double bytes = (double)qvl_lora_parameters(run->lora) * sizeof(float);
    int64_t first = 0, count = 0, slowest_ns = 0;
    double seconds = 0.0;
    qvl_status rc = QVL_OK;
    qvl_lora_layer_range(run->lora, 0, &first, &count);
    const int64_t layers = count ? BUCKET_BYTES / (count * (int64_t)sizeof(float)) : 1;
    run->bucket_layers = layers < 1 ? 1 : layers > L ? L : (int)layers;
    if (!run->exchange)
        return QVL_OK;
    rc = time_sum(run, &seconds, err);
    QVL_TRY(qvl_world_agree(run->world, rc, err));
    slowest_ns = (int64_t)(1e9 * seconds);
    QVL_TRY(qvl_world_max_i64(run->world, &slowest_ns, 1, err)); /* all do the same */
    const double rate = bytes / (1e-9 * (double)slowest_ns);
    if (rate > FAST_BYTES_PER_S)
        run->bucket_layers = L;
    qvl_log_line(run->log, "sums over GPUs: %.3g GB/s, %.2f ms for all gradients: %s", 1e-9 * rate,
                 1e-6 * (double)slowest_ns,
                 run->bucket_layers == L ? "once, after backward" : "some layers at a time");
out:
    return rc;
}
