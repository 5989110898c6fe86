#include "src/train/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "src/base/clock.h"
#include "src/base/memory.h"

void qvl_timer_start(qvl_timer *timer)
{
    *timer = (qvl_timer){0};
    timer->started_s = timer->mark_s = qvl_clock_s();
}

void qvl_timer_lap(qvl_timer *timer, qvl_phase phase)
{
    const double now = qvl_clock_s();
    timer->seconds[phase] += now - timer->mark_s;
    timer->mark_s = now;
}

void qvl_progress_draw(const qvl_progress *progress, int64_t step, double loss, double rate,
                       qvl_log *log)
{
    enum { WIDTH = 24 };
    char bar[WIDTH + 1], left[48];
    const double seconds = qvl_clock_s() - progress->started_s;
    const int64_t here = step - progress->first_step;
    const int filled = (int)(WIDTH * step / (progress->total_steps ? progress->total_steps : 1));
    const double left_s =
        here > 0 ? seconds / (double)here * (double)(progress->total_steps - step) : 0.0;
    if (!log->is_terminal)
        return;
    for (int i = 0; i < WIDTH; i++)
        bar[i] = i < filled ? '#' : '-';
    bar[WIDTH] = '\0';
    qvl_log_live(log, "[%s] %" PRId64 "/%" PRId64 "  loss %.4f  lr %.2e  %.0f tokens/s  %s left",
                 bar, step, progress->total_steps, loss, rate,
                 (double)progress->tokens / (seconds > 0 ? seconds : 1),
                 qvl_format_duration(left, left_s));
}

qvl_status qvl_timer_mark(qvl_timer *timer, qvl_device *dev, qvl_phase phase, qvl_err *err)
{
    if (timer->n_marks ==
        QVL_MARKS) /* a step of very many packs: its last ones are not told apart */
        timer->n_marks--;
    timer->phases[timer->n_marks] = phase;
    return dev->ops->mark(dev, timer->n_marks++, err);
}

qvl_status qvl_timer_collect(qvl_timer *timer, qvl_device *dev, qvl_err *err)
{
    const double now = qvl_clock_s();
    double device_s = 0.0, ms = 0.0;
    qvl_status rc = QVL_OK;
    for (int i = 1; i < timer->n_marks; i++) {
        QVL_TRY(dev->ops->between(dev, &ms, i - 1, i, err));
        timer->seconds[timer->phases[i]] += 1e-3 * ms;
        device_s += 1e-3 * ms;
    }
    timer->seconds[QVL_PHASE_OTHER] += now - timer->mark_s - device_s;
    timer->mark_s = now;
out:
    timer->n_marks = 0;
    return rc;
}

void qvl_timer_print(const qvl_timer *timer, const qvl_progress *progress, int64_t step,
                     qvl_log *log)
{
    static const char *const NAMES[QVL_N_PHASES] = {"data preparation",
                                                    "model loading",
                                                    "image features",
                                                    "reading samples",
                                                    "forward",
                                                    "loss",
                                                    "backward",
                                                    "waiting for ranks",
                                                    "exchange",
                                                    "optimiser",
                                                    "evaluation",
                                                    "saving",
                                                    "other"};
    const double total = qvl_clock_s() - timer->started_s;
    const double training = qvl_clock_s() - progress->started_s;
    const int64_t here = step - progress->first_step;
    struct rusage usage;
    char peak[32];
    qvl_log_line(log, "%-20s %10s %7s", "where the time went", "seconds", "share");
    for (int p = 0; p < QVL_N_PHASES; p++)
        if (timer->seconds[p] >= 0.0005)
            qvl_log_line(log, "  %-18s %10.3f %6.1f %%", NAMES[p], timer->seconds[p],
                         100.0 * timer->seconds[p] / (total > 0 ? total : 1));
    qvl_log_line(log, "  %-18s %10.3f", "total", total);
    getrusage(RUSAGE_SELF, &usage);
    qvl_log_line(log, "%.0f tokens/s, %.1f ms a step, peak host memory %s",
                 (double)progress->tokens / (training > 0 ? training : 1),
                 here > 0 ? 1e3 * training / (double)here : 0.0,
                 qvl_format_bytes(peak, (uint64_t)usage.ru_maxrss * 1024));
}
