#include "src/train/step_floor.h"

#include <math.h>

#include "src/base/stop.h"

qvl_status qvl_time_since_mark(qvl_device *dev, double *ms, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    QVL_TRY(dev->ops->mark(dev, 1, err));
    QVL_TRY(dev->ops->wait(dev, QVL_LANE_COMPUTE, err));
    rc = dev->ops->between(dev, ms, 0, 1, err);
out:
    return rc;
}

qvl_status qvl_step_floor_time(qvl_run *run, int64_t tokens, double *ms, qvl_err *err)
{
    const int64_t most = run->memory.pack_tokens;
    qvl_status rc = QVL_OK;
    QVL_TRY(run->dev->ops->mark(run->dev, 0, err));
    for (int64_t first = 0; first < tokens; first += most)
        QVL_TRY(
            qvl_decoder_products(run->decoder, tokens - first < most ? tokens - first : most, err));
    rc = qvl_time_since_mark(run->dev, ms, err);
out:
    return rc;
}

/* What the device did for the steps of this process, but for waiting for other ranks. */
static double step_seconds(const qvl_timer *timer)
{
    static const qvl_phase PHASES[] = {QVL_PHASE_FORWARD, QVL_PHASE_LOSS, QVL_PHASE_BACKWARD,
                                       QVL_PHASE_EXCHANGE, QVL_PHASE_OPTIMISER};
    double seconds = 0.0;
    for (size_t i = 0; i < sizeof PHASES / sizeof *PHASES; i++)
        seconds += timer->seconds[PHASES[i]];
    return seconds;
}

/* The least of as many runs as a second has room for: the first one does what is done once for a
 * shape. */
static qvl_status least_time(qvl_run *run, int64_t tokens, double *least_ms, qvl_err *err)
{
    enum { MOST_RUNS = 4 };
    const double most_ms = 1000.0;
    double ms = 0.0, spent_ms = 0.0;
    qvl_status rc = QVL_OK;
    *least_ms = INFINITY;
    for (int i = 0; i < MOST_RUNS && spent_ms + ms <= most_ms && !qvl_stop_reason(); i++) {
        QVL_TRY(qvl_step_floor_time(run, tokens, &ms, err));
        spent_ms += ms;
        *least_ms = fmin(*least_ms, ms);
    }
out:
    return rc;
}

qvl_status qvl_step_floor_measure(qvl_run *run, qvl_step_floor *out, qvl_err *err)
{
    enum { FEWEST_STEPS = 3 };
    const double longest_step_s = 1.0;
    const int64_t steps = run->state.step - run->progress.first_step;
    const double seconds = step_seconds(&run->timer);
    qvl_status rc = QVL_OK;
    *out = (qvl_step_floor){.share = NAN};
    if (steps < FEWEST_STEPS || run->progress.own_tokens < steps || seconds <= 0.0 ||
        seconds > longest_step_s * (double)steps)
        return QVL_OK;
    out->tokens = run->progress.own_tokens / steps;
    QVL_TRY(least_time(run, out->tokens, &out->ms, err));
    if (isfinite(out->ms)) /* no stop was asked for before the first run */
        out->share = 1e-3 * out->ms * (double)steps / seconds;
out:
    return rc;
}
