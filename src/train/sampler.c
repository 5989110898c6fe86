#include "src/train/sampler.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "src/base/memory.h"
#include "src/base/rng.h"

struct qvl_sampler {
    qvl_sampler_options options;
    int64_t batches; /* of an epoch, all ranks */
    int64_t batches_per_rank;
    int64_t steps_per_epoch, steps;
    int64_t most_batches; /* micro-batches of a step, all ranks */
    int64_t most_in_batch;
    int64_t *orders[2]; /* permutations of the two epochs in use */
    int64_t order_epochs[2];
    int64_t *samples;
    qvl_micro_batch *micro_batches;
};

void qvl_sampler_destroy(qvl_sampler *s)
{
    if (!s)
        return;
    free(s->orders[0]);
    free(s->orders[1]);
    free(s->samples);
    free(s->micro_batches);
    free(s);
}

int64_t qvl_sampler_steps(const qvl_sampler *s)
{
    return s->steps;
}
int64_t qvl_sampler_steps_per_epoch(const qvl_sampler *s)
{
    return s->steps_per_epoch;
}
int64_t qvl_sampler_batches_per_rank(const qvl_sampler *s)
{
    return s->batches_per_rank;
}

int64_t qvl_sampler_most_samples(const qvl_sampler *s)
{
    return s->most_batches * s->most_in_batch;
}

int64_t qvl_sampler_most_in_batch(const qvl_sampler *s)
{
    return s->most_in_batch;
}

int64_t qvl_sampler_most_repeats(const qvl_sampler *s)
{
    const qvl_sampler_options *o = &s->options;
    const int64_t pool = o->n_ranks * o->batch;
    const int64_t copies = o->n_ranks == 1 ? 0 : (pool + o->n_samples - 1) / o->n_samples;
    return (1 + copies) * (o->is_floor ? 2 : 1); /* a group may have places of two epochs */
}

static void count_steps(qvl_sampler *s)
{
    const qvl_sampler_options *o = &s->options;
    const int64_t real = (o->n_samples + o->batch - 1) / o->batch;
    /* accelerate completes the ranks' last round; one rank alone keeps its short last batch */
    s->batches_per_rank = (real + o->n_ranks - 1) / o->n_ranks;
    s->batches = s->batches_per_rank * o->n_ranks;
    const int64_t lower = s->batches_per_rank / o->accumulation;
    const int64_t upper = (s->batches_per_rank + o->accumulation - 1) / o->accumulation;
    s->steps_per_epoch = o->is_floor ? lower : upper;
    if (s->steps_per_epoch < 1)
        s->steps_per_epoch = 1;
    /* A group ends with its epoch, or is no longer than one, and one rank does not complete
     * batches: little data need little memory, however much is accumulated. */
    s->most_batches = o->n_ranks * (o->accumulation < s->batches_per_rank ? o->accumulation
                                                                          : s->batches_per_rank);
    s->most_in_batch = o->n_ranks == 1 && o->n_samples < o->batch ? o->n_samples : o->batch;
    s->steps =
        o->max_steps > 0 ? o->max_steps : (int64_t)ceil(o->epochs * (double)s->steps_per_epoch);
}

qvl_status qvl_sampler_create(qvl_sampler **out, const qvl_sampler_options *options, qvl_err *err)
{
    qvl_sampler *s = NULL;
    qvl_status rc = qvl_alloc(&s, 1, sizeof *s, "sampler", err);
    if (rc != QVL_OK)
        return rc;
    s->options = *options;
    s->order_epochs[0] = s->order_epochs[1] = -1;
    if (options->n_samples < 1) {
        rc = qvl_fail(err, QVL_EDATA, "there are no samples to train on");
        goto out;
    }
    if (options->batch * options->accumulation > QVL_MOST_STEP_SAMPLES / options->n_ranks) {
        rc = qvl_fail(
            err, QVL_ECONFIG,
            "per_device_train_batch_size %" PRId64 " x gradient_accumulation_steps %" PRId64
            " x %" PRId64 " ranks is more than the %d samples that a step may have",
            options->batch, options->accumulation, options->n_ranks, QVL_MOST_STEP_SAMPLES);
        goto out;
    }
    count_steps(s);
    for (int i = 0; i < 2; i++)
        QVL_TRY(qvl_alloc(&s->orders[i], (size_t)options->n_samples, sizeof *s->orders[i],
                          "sample order", err));
    QVL_TRY(qvl_alloc(&s->samples, (size_t)qvl_sampler_most_samples(s), sizeof *s->samples,
                      "step samples", err));
    QVL_TRY(qvl_alloc(&s->micro_batches, (size_t)s->most_batches, sizeof *s->micro_batches,
                      "step micro-batches", err));
    *out = s;
    s = NULL;
out:
    qvl_sampler_destroy(s);
    return rc;
}

/* The epoch's order; two are kept, since a group may run across an epoch's end. */
static const int64_t *order_of(qvl_sampler *s, int64_t epoch)
{
    const int slot = (int)(epoch % 2);
    if (s->order_epochs[slot] == epoch)
        return s->orders[slot];
    s->order_epochs[slot] = epoch;
    if (s->options.is_shuffled)
        qvl_torch_randperm(s->orders[slot], s->options.n_samples,
                           s->options.seed + (uint64_t)epoch);
    else
        for (int64_t i = 0; i < s->options.n_samples; i++)
            s->orders[slot][i] = i;
    return s->orders[slot];
}

/* Batch number b of an epoch: batch slices of the order, completed from the epoch's first n_ranks *
 * batch samples, cyclically (REFERENCE 8.1, row 3). */
static void add_batch(qvl_sampler *s, qvl_step *step, int64_t epoch, int64_t b)
{
    const qvl_sampler_options *o = &s->options;
    const int64_t *order = order_of(s, epoch);
    const int64_t first = b * o->batch, pool = o->n_ranks * o->batch;
    const int64_t n_pool = pool < o->n_samples ? pool : o->n_samples;
    qvl_micro_batch *to = &s->micro_batches[step->n_batches++];
    *to = (qvl_micro_batch){.rank = (int)(b % o->n_ranks), .first = step->n_samples};
    for (int64_t i = first; i < first + o->batch; i++) {
        if (i >= o->n_samples && o->n_ranks == 1)
            break;
        s->samples[step->n_samples++] =
            i < o->n_samples ? order[i] : order[(i - o->n_samples) % n_pool];
        to->n++;
    }
}

/* Micro-batches place .. place+n-1 of every rank, counted through all epochs. */
static void add_places(qvl_sampler *s, qvl_step *step, int64_t place, int64_t n)
{
    for (int64_t p = place; p < place + n; p++)
        for (int64_t r = 0; r < s->options.n_ranks; r++)
            add_batch(s, step, p / s->batches_per_rank,
                      p % s->batches_per_rank * s->options.n_ranks + r);
}

qvl_status qvl_sampler_step(qvl_sampler *s, int64_t k, qvl_step *out, qvl_err *err)
{
    const int64_t G = s->options.accumulation, Lr = s->batches_per_rank;
    int64_t place = k * G, n = G;
    if (k < 0 || k >= s->steps)
        return qvl_fail(err, QVL_EINTERNAL, "step %" PRId64 " of %" PRId64, k, s->steps);
    if (!s->options.is_floor || Lr < G) { /* an epoch shorter than a group is a group */
        const int64_t group = k % s->steps_per_epoch;
        place = k / s->steps_per_epoch * Lr + group * G;
        n = Lr - group * G < G ? Lr - group * G : G;
    }
    *out = (qvl_step){.samples = s->samples, .batches = s->micro_batches};
    add_places(s, out, place, n);
    out->epoch = (double)((place + n) / Lr) + (double)((place + n) % Lr) / (double)Lr;
    return QVL_OK;
}
