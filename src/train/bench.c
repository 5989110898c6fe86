#include "src/train/bench.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/timed_ops.h"
#include "src/base/clock.h"
#include "src/base/memory.h"
#include "src/train/run.h"
#include "src/train/step_floor.h"

/* Steps before anything is measured: algorithms are chosen, clocks settle. */
enum { WARM_STEPS = 4, ROUND_STEPS = 4, MOST_ROUNDS = 10, TIMED_STEPS = 4 };

/* Rounds end when this long was measured: steps may take seconds. */
static const double MOST_SECONDS = 8.0;

typedef struct ceilings {
    int64_t size; /* of the square product */
    double tflops, copy_gb_s, upload_gb_s;
} ceilings;

typedef struct measured {
    int n; /* steps, and as many floors */
    double step_ms[ROUND_STEPS * MOST_ROUNDS], floor_ms[ROUND_STEPS * MOST_ROUNDS];
    double tokens[ROUND_STEPS * MOST_ROUNDS]; /* of all ranks */
    double rank_tokens;                       /* of this rank, all steps */
    double phase_ms[QVL_N_PHASES];            /* of all steps */
    double rested_floor_ms; /* of one step's products after a pause: the chip is cool */
    double rested_tokens;
    qvl_op_times ops; /* of TIMED_STEPS further steps */
    double op_tokens;
    ceilings ceilings;
} measured;

/* ---- ceilings ----------------------------------------------------------------------------------
 */

/* Best of a few runs, as ceilings are. Memory for them may be missing: 0 then. */
static qvl_status measure_ceilings(qvl_device *dev, ceilings *to, qvl_err *err)
{
    const bool is_host = strcmp(dev->ops->name, "cpu") == 0;
    const int64_t n = is_host ? 2048 : 8192;
    const size_t bytes = (size_t)(n * n) * dev->act_bytes;
    void *a = NULL, *b = NULL, *c = NULL, *host = NULL;
    qvl_err no_room = {QVL_OK, ""};
    double best[3] = {INFINITY, INFINITY, INFINITY}, ms = 0.0;
    qvl_status rc = QVL_OK;
    *to = (ceilings){.size = n};
    if (dev->ops->alloc(dev, &a, bytes, QVL_MEM_DEVICE, "ceilings", &no_room) != QVL_OK ||
        dev->ops->alloc(dev, &b, bytes, QVL_MEM_DEVICE, "ceilings", &no_room) != QVL_OK ||
        dev->ops->alloc(dev, &c, bytes, QVL_MEM_DEVICE, "ceilings", &no_room) != QVL_OK ||
        dev->ops->alloc(dev, &host, bytes, QVL_MEM_HOST, "ceilings", &no_room) != QVL_OK)
        goto out;
    /* bits that are no NaN and no zero in either type: products of zeros draw less power */
    uint32_t *words = host;
    for (size_t i = 0; i < bytes / 4; i++)
        words[i] = 0x3f003f00u | ((uint32_t)(i * 2654435761u) & 0x807f807fu);
    const qvl_linear square = {.weight = b, .in = n, .out = n};
    const qvl_linear_args product = {.linear = &square, .y = c, .x = a, .T = n};
    QVL_TRY(dev->ops->upload(dev, b, host, bytes, QVL_LANE_COMPUTE, err));
    for (int i = 0; i < 6; i++) {
        QVL_TRY(dev->ops->mark(dev, 0, err));
        QVL_TRY(dev->ops->upload(dev, a, host, bytes, QVL_LANE_COMPUTE, err));
        QVL_TRY(qvl_time_since_mark(dev, &ms, err));
        best[2] = fmin(best[2], ms);
        QVL_TRY(dev->ops->mark(dev, 0, err));
        QVL_TRY(dev->ops->copy(dev, c, a, bytes, err));
        QVL_TRY(qvl_time_since_mark(dev, &ms, err));
        best[1] = fmin(best[1], ms);
        QVL_TRY(dev->ops->mark(dev, 0, err));
        QVL_TRY(dev->ops->linear(dev, &product, err));
        QVL_TRY(qvl_time_since_mark(dev, &ms, err));
        best[0] = fmin(best[0], ms);
    }
    to->tflops = 2.0 * pow((double)n, 3.0) / best[0] / 1e9;
    to->copy_gb_s = 2.0 * (double)bytes / best[1] / 1e6;
    to->upload_gb_s = (double)bytes / best[2] / 1e6;
out:
    if (a)
        dev->ops->release(dev, a, QVL_MEM_DEVICE);
    if (b)
        dev->ops->release(dev, b, QVL_MEM_DEVICE);
    if (c)
        dev->ops->release(dev, c, QVL_MEM_DEVICE);
    if (host)
        dev->ops->release(dev, host, QVL_MEM_HOST);
    return rc;
}

/* ---- steps and floors --------------------------------------------------------------------------
 */

static qvl_status run_step(qvl_run *run, qvl_step_result *result, qvl_err *err)
{
    return qvl_run_step(run, run->state.step % qvl_sampler_steps(run->sampler), result, err);
}

static int64_t own_tokens(const qvl_run *run)
{
    return run->step_plan->load[qvl_world_rank(run->world)];
}

static qvl_status run_round(qvl_run *run, measured *m, qvl_err *err)
{
    int64_t tokens[ROUND_STEPS];
    double before[QVL_N_PHASES];
    qvl_step_result result;
    qvl_status rc = QVL_OK;
    /* Once for what is done the first time that a shape is met, then again, measured. */
    for (int i = 0; i < ROUND_STEPS; i++, run->state.step++)
        QVL_TRY(run_step(run, &result, err));
    run->state.step -= ROUND_STEPS;
    memcpy(before, run->timer.seconds, sizeof before);
    qvl_timer_lap(&run->timer, QVL_PHASE_OTHER);
    for (int i = 0; i < ROUND_STEPS; i++, run->state.step++) {
        const double start = qvl_clock_s();
        QVL_TRY(run_step(run, &result, err));
        m->step_ms[m->n + i] = 1e3 * (qvl_clock_s() - start);
        m->tokens[m->n + i] = (double)result.tokens;
        tokens[i] = own_tokens(run);
        m->rank_tokens += (double)tokens[i];
    }
    for (int p = 0; p < QVL_N_PHASES; p++)
        m->phase_ms[p] += 1e3 * (run->timer.seconds[p] - before[p]);
    for (int i = 0; i < ROUND_STEPS; i++)
        QVL_TRY(qvl_step_floor_time(run, tokens[i], &m->floor_ms[m->n + i], err));
    m->n += ROUND_STEPS;
    qvl_timer_lap(&run->timer, QVL_PHASE_OTHER);
out:
    return rc;
}

static qvl_status measure_rested(qvl_run *run, measured *m, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    m->rested_tokens = (double)own_tokens(run);
    m->rested_floor_ms = INFINITY;
    for (int i = 0; i < 3; i++) {
        double ms = 0.0;
        qvl_clock_sleep_s(0.3);
        QVL_TRY(qvl_step_floor_time(run, own_tokens(run), &ms, err));
        m->rested_floor_ms = fmin(m->rested_floor_ms, ms);
    }
out:
    return rc;
}

static qvl_status measure(qvl_run *run, measured *m, qvl_err *err)
{
    const int64_t steps = qvl_sampler_steps(run->sampler);
    qvl_step_result result;
    double ms = 0.0;
    qvl_status rc = QVL_OK;
    for (int i = 0; i < WARM_STEPS; i++, run->state.step++) {
        QVL_TRY(run_step(run, &result, err));
        QVL_TRY(qvl_step_floor_time(run, own_tokens(run), &ms, err));
    }
    const double start = qvl_clock_s();
    for (int r = 0; r < MOST_ROUNDS; r++) {
        /* every rank takes rank 0's decision */
        int64_t is_over =
            r > 0 && (m->n + WARM_STEPS >= steps || qvl_clock_s() - start > MOST_SECONDS);
        QVL_TRY(qvl_world_broadcast(run->world, &is_over, sizeof is_over, 0, err));
        if (is_over)
            break;
        QVL_TRY(run_round(run, m, err));
    }
    QVL_TRY(measure_rested(run, m, err));
    for (int i = 0; i < TIMED_STEPS; i++, run->state.step++) {
        QVL_TRY(run_step(run, &result, err));
        qvl_timed_ops_begin(run->dev);
        const qvl_status stepped = run_step(run, &result, err);
        QVL_TRY(qvl_timed_ops_end(run->dev, &m->ops, err));
        QVL_TRY(stepped);
        m->op_tokens += (double)own_tokens(run);
    }
    rc = measure_ceilings(run->dev, &m->ceilings, err);
out:
    return rc;
}

/* ---- report ------------------------------------------------------------------------------------
 */

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *values, int n)
{
    double sorted[ROUND_STEPS * MOST_ROUNDS];
    memcpy(sorted, values, (size_t)n * sizeof *values);
    qsort(sorted, (size_t)n, sizeof *sorted, compare);
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

static double sum(const double *values, int n)
{
    double total = 0.0;
    for (int i = 0; i < n; i++)
        total += values[i];
    return total;
}

typedef struct report {
    double step_ms, floor_ms, share, tokens, tokens_per_s, floor_tflops, rested_share;
} report;

static report make_report(const qvl_run *run, const measured *m)
{
    double shares[ROUND_STEPS * MOST_ROUNDS];
    const double flops = qvl_decoder_product_flops(run->decoder);
    for (int i = 0; i < m->n; i++)
        shares[i] = m->floor_ms[i] / m->step_ms[i];
    const double total_ms = sum(m->step_ms, m->n);
    report r = {.step_ms = median(m->step_ms, m->n),
                .floor_ms = median(m->floor_ms, m->n),
                .share = median(shares, m->n),
                .tokens = sum(m->tokens, m->n) / m->n,
                .tokens_per_s = 1e3 * sum(m->tokens, m->n) / total_ms,
                .floor_tflops = flops * m->rank_tokens / sum(m->floor_ms, m->n) / 1e9};
    r.rested_share = m->rested_floor_ms / m->rested_tokens / (total_ms / m->rank_tokens);
    return r;
}

static void print_parts(const measured *m, qvl_log *log)
{
    static const struct {
        qvl_phase phase;
        const char *name;
    } PHASES[] = {{QVL_PHASE_FORWARD, "forward"},
                  {QVL_PHASE_LOSS, "head and loss"},
                  {QVL_PHASE_BACKWARD, "backward"},
                  {QVL_PHASE_WAITING, "waiting for ranks"},
                  {QVL_PHASE_EXCHANGE, "sum over ranks, not hidden"},
                  {QVL_PHASE_OPTIMISER, "optimiser"},
                  {QVL_PHASE_SAMPLES, "before the first operation"}};
    const double total = sum(m->step_ms, m->n) / m->n;
    double known = 0.0;
    for (size_t i = 0; i < sizeof PHASES / sizeof *PHASES; i++) {
        const double ms = m->phase_ms[PHASES[i].phase] / m->n;
        known += ms;
        qvl_log_line(log, "    %-28s %9.3f ms %6.1f %%", PHASES[i].name, ms, 100.0 * ms / total);
    }
    qvl_log_line(log, "    %-28s %9.3f ms %6.1f %%", "between steps", total - known,
                 100.0 * (total - known) / total);
    qvl_log_line(log, "  operations, %d steps of %.0f tokens, each measured alone:", TIMED_STEPS,
                 m->op_tokens / TIMED_STEPS);
    for (int op = 0; op < QVL_N_TIMED; op++)
        if (m->ops.calls[op])
            qvl_log_line(log, "    %-28s %9.3f ms %6" PRId64 " calls of %8.1f us",
                         qvl_timed_op_name((qvl_timed_op)op), m->ops.ms[op] / TIMED_STEPS,
                         m->ops.calls[op] / TIMED_STEPS,
                         1e3 * m->ops.ms[op] / (double)m->ops.calls[op]);
}

static void print_table(const qvl_run *run, const measured *m, qvl_log *log)
{
    const report r = make_report(run, m);
    const ceilings *c = &m->ceilings;
    if (c->tflops > 0)
        qvl_log_line(log,
                     "ceilings  product %" PRId64 "^3 %.4g TFLOP/s, copy %.4g GB/s (read and "
                     "written), host to device %.4g GB/s",
                     c->size, c->tflops, c->copy_gb_s, c->upload_gb_s);
    qvl_log_line(log, "a step of %.0f tokens, median of %d:", r.tokens, m->n);
    qvl_log_line(log, "  %-30s %9.3f ms   %.0f tokens/s", "step", r.step_ms, r.tokens_per_s);
    qvl_log_line(log, "  %-30s %9.3f ms   %.4g TFLOP/s", "its frozen products alone", r.floor_ms,
                 r.floor_tflops);
    qvl_log_line(log, "  %-30s %9.1f %%  (of products after a pause: %.1f %%)",
                 "share of the floor", 100.0 * r.share, 100.0 * r.rested_share);
    print_parts(m, log);
}

static void print_json(const qvl_run *run, const measured *m)
{
    const report r = make_report(run, m);
    printf("{\"device\": \"%s\", \"ranks\": %d, \"steps\": %d, \"tokens_per_step\": %.1f, "
           "\"step_ms\": %.4f, \"tokens_per_second\": %.1f, \"floor_ms\": %.4f, "
           "\"floor_tflops\": %.2f, \"share_of_floor\": %.4f, \"share_of_rested_floor\": %.4f",
           run->dev->name, qvl_world_size(run->world), m->n, r.tokens, r.step_ms, r.tokens_per_s,
           r.floor_ms, r.floor_tflops, r.share, r.rested_share);
    if (m->ceilings.tflops > 0)
        printf(", \"product_tflops\": %.2f, \"copy_gb_s\": %.1f, \"upload_gb_s\": %.2f",
               m->ceilings.tflops, m->ceilings.copy_gb_s, m->ceilings.upload_gb_s);
    printf(", \"operations_ms\": {");
    for (int op = 0, n = 0; op < QVL_N_TIMED; op++)
        if (m->ops.calls[op])
            printf("%s\"%s\": %.4f", n++ ? ", " : "", qvl_timed_op_name((qvl_timed_op)op),
                   m->ops.ms[op] / TIMED_STEPS);
    printf("}}\n");
    fflush(stdout);
}

qvl_status qvl_bench(const qvl_config *config, bool is_json, qvl_world *world, qvl_log *log,
                     qvl_err *err)
{
    qvl_run run = {0};
    measured *m = NULL;
    qvl_log quiet = *log;
    qvl_status rc = QVL_OK;
    quiet.rank = is_json ? 1 : log->rank; /* only rank 0 prints */
    qvl_world_set_deadline(world, qvl_config_deadline(config));
    QVL_TRY(qvl_alloc(&m, 1, sizeof *m, "measurements", err));
    QVL_TRY(qvl_run_open(&run, config, QVL_RUN_MEASURES, world, &quiet, err));
    QVL_TRY(qvl_run_plan(&run, err));
    qvl_run_print_plan(&run);
    QVL_TRY(qvl_world_agree(world, qvl_memory_plan_require(&run.memory, run.dev, err), err));
    QVL_TRY(qvl_run_allocate(&run, err));
    qvl_world_set_phase(world, "measuring");
    QVL_TRY(measure(&run, m, err));
    if (qvl_world_rank(world) == 0 && is_json)
        print_json(&run, m);
    else
        print_table(&run, m, log);
out:
    if (rc != QVL_OK && qvl_world_size(world) > 1 && qvl_world_failed_rank(world) < 0)
        qvl_world_abort(world, rc, err->text);
    qvl_run_close(&run);
    free(m);
    return rc;
}
