#include "src/train/schedule.h"

#include <math.h>
#include <string.h>

static const double PI = 3.14159265358979323846;

/* The smallest rate as a share of the largest, however it is given; 0 unless it is. */
static double min_rate_of(const qvl_config *config)
{
    if (!isnan(config->lr_min))
        return config->lr_min / config->learning_rate;
    if (!isnan(config->lr_min_rate))
        return config->lr_min_rate;
    return isnan(config->lr_min_ratio) ? 0.0 : config->lr_min_ratio;
}

/* What LLaMA-Factory makes of the steps after warm-up: a third has the full rate, the rest decays;
 * each unless it is given. */
static void share_out(qvl_schedule *s, const qvl_config *config)
{
    const int64_t rest = s->steps > s->warmup ? s->steps - s->warmup : 0;
    s->stable = isnan(config->lr_stable_steps) ? rest / 3 : (int64_t)config->lr_stable_steps;
    s->decay = isnan(config->lr_decay_steps) ? rest - rest / 3 : (int64_t)config->lr_decay_steps;
    s->warmup_shape = isnan(config->lr_warmup_shape) ? QVL_SHAPE_LINEAR
                                                     : (qvl_schedule_shape)config->lr_warmup_shape;
    s->decay_shape = isnan(config->lr_decay_shape) ? QVL_SHAPE_COSINE
                                                   : (qvl_schedule_shape)config->lr_decay_shape;
}

qvl_schedule qvl_schedule_make(const qvl_config *config, int64_t steps)
{
    static const char *const NAMES[] = {"linear",
                                        "cosine",
                                        "constant",
                                        "constant_with_warmup",
                                        "cosine_with_restarts",
                                        "polynomial",
                                        "cosine_with_min_lr",
                                        "cosine_warmup_with_min_lr",
                                        "inverse_sqrt",
                                        "warmup_stable_decay"};
    qvl_schedule s = {.base = config->learning_rate, .steps = steps};
    for (int i = 0; i < (int)(sizeof NAMES / sizeof *NAMES); i++)
        if (strcmp(config->lr_scheduler_type, NAMES[i]) == 0)
            s.type = (qvl_schedule_type)i;
    if (s.type == QVL_CONSTANT) /* has none, whatever is asked for */
        s.warmup = 0;
    else if (config->warmup_steps >= 1)
        s.warmup = (int64_t)config->warmup_steps;
    else
        s.warmup = (int64_t)ceil((double)steps * (config->warmup_steps > 0 ? config->warmup_steps
                                                                           : config->warmup_ratio));
    s.num_cycles = s.type == QVL_COSINE_WITH_RESTARTS ? 1.0 : 0.5;
    if (!isnan(config->lr_num_cycles))
        s.num_cycles = config->lr_num_cycles;
    s.lr_end = isnan(config->lr_end) ? QVL_CONFIG_LR_END : config->lr_end;
    s.power = isnan(config->lr_power) ? 1.0 : config->lr_power;
    s.min_rate = min_rate_of(config);
    s.warmup_rate = config->lr_warmup_rate;
    s.timescale = s.warmup > 0 ? (double)s.warmup : 10000.0;
    if (!isnan(config->lr_timescale))
        s.timescale = config->lr_timescale;
    share_out(&s, config);
    return s;
}

/* Share of the steps after warm-up that are done. */
static double progress_of(const qvl_schedule *s, int64_t k)
{
    const int64_t rest = s->steps - s->warmup > 1 ? s->steps - s->warmup : 1;
    return (double)(k - s->warmup) / (double)rest;
}

static double polynomial(const qvl_schedule *s, int64_t k)
{
    if (k > s->steps)
        return s->lr_end;
    const double left = 1.0 - (double)(k - s->warmup) / (double)(s->steps - s->warmup);
    return (s->base - s->lr_end) * pow(left, s->power) + s->lr_end;
}

/* A share of base, brought into the range from min_rate to 1. */
static double above_min(const qvl_schedule *s, double factor)
{
    return fmax(0.0, factor * (1.0 - s->min_rate) + s->min_rate);
}

static double wave(const qvl_schedule *s, double progress)
{
    return 0.5 * (1.0 + cos(PI * s->num_cycles * 2.0 * progress));
}

/* The one that is a step ahead of the others: a warm-up reaches base at its last step. */
static double cosine_warmup_with_min(const qvl_schedule *s, int64_t k)
{
    const double warmup = (double)s->warmup, step = (double)k;
    if (k >= s->warmup) {
        const double rest = fmax(1.0, (double)s->steps - warmup);
        return above_min(s, wave(s, (step - warmup + 1.0) / rest));
    }
    if (isnan(s->warmup_rate))
        return (step + 1.0) / fmax(1.0, warmup);
    return s->warmup_rate + (1.0 - s->warmup_rate) * step / fmax(1.0, warmup - 1.0);
}

static double warmup_stable_decay(const qvl_schedule *s, int64_t k)
{
    if (k < s->warmup) {
        const double p = (double)k / (double)s->warmup;
        return above_min(s, s->warmup_shape == QVL_SHAPE_LINEAR   ? p
                            : s->warmup_shape == QVL_SHAPE_COSINE ? 0.5 * (1.0 - cos(PI * p))
                                                                  : 1.0 - sqrt(1.0 - p));
    }
    if (k < s->warmup + s->stable)
        return 1.0;
    if (k >= s->warmup + s->stable + s->decay)
        return s->min_rate;
    const double p = (double)(k - s->warmup - s->stable) / (double)s->decay;
    return above_min(s, s->decay_shape == QVL_SHAPE_LINEAR   ? 1.0 - p
                        : s->decay_shape == QVL_SHAPE_COSINE ? wave(s, p)
                                                             : 1.0 - sqrt(p));
}

double qvl_schedule_rate(const qvl_schedule *s, int64_t k)
{
    double factor = 1.0;
    if (s->type == QVL_CONSTANT)
        return s->base;
    if (s->type == QVL_COSINE_WARMUP_WITH_MIN_LR)
        return s->base * cosine_warmup_with_min(s, k);
    if (s->type == QVL_WARMUP_STABLE_DECAY)
        return s->base * warmup_stable_decay(s, k);
    if (k < s->warmup)
        return s->base * ((double)k / (double)(s->warmup > 1 ? s->warmup : 1));
    switch (s->type) {
    case QVL_LINEAR: {
        const int64_t rest = s->steps - s->warmup > 1 ? s->steps - s->warmup : 1;
        factor = fmax(0.0, (double)(s->steps - k) / (double)rest);
        break;
    }
    case QVL_COSINE:
        factor = fmax(0.0, wave(s, progress_of(s, k)));
        break;
    case QVL_COSINE_WITH_MIN_LR:
        factor = above_min(s, wave(s, progress_of(s, k)));
        break;
    case QVL_INVERSE_SQRT:
        factor = 1.0 / sqrt(((double)k + (s->timescale - (double)s->warmup)) / s->timescale);
        break;
    case QVL_COSINE_WITH_RESTARTS:
        factor =
            progress_of(s, k) >= 1.0
                ? 0.0
                : fmax(0.0, 0.5 * (1.0 + cos(PI * fmod(s->num_cycles * progress_of(s, k), 1.0))));
        break;
    case QVL_POLYNOMIAL:
        return polynomial(s, k);
    default:
        break;
    }
    return s->base * factor;
}
