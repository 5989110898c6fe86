#include "src/train/schedule.h"

#include <math.h>
#include <string.h>

static const double PI = 3.14159265358979323846;

qvl_schedule qvl_schedule_make(const qvl_config *config, int64_t steps)
{
    static const char *const NAMES[] = {
        "linear",    "cosine", "constant", "constant_with_warmup", "cosine_with_restarts",
        "polynomial"};
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
    s.num_cycles = s.type == QVL_COSINE ? 0.5 : 1.0;
    if (!isnan(config->lr_num_cycles))
        s.num_cycles = config->lr_num_cycles;
    s.lr_end = isnan(config->lr_end) ? QVL_CONFIG_LR_END : config->lr_end;
    s.power = isnan(config->lr_power) ? 1.0 : config->lr_power;
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

double qvl_schedule_rate(const qvl_schedule *s, int64_t k)
{
    double factor = 1.0;
    if (s->type == QVL_CONSTANT)
        return s->base;
    if (k < s->warmup)
        return s->base * ((double)k / (double)(s->warmup > 1 ? s->warmup : 1));
    switch (s->type) {
    case QVL_LINEAR: {
        const int64_t rest = s->steps - s->warmup > 1 ? s->steps - s->warmup : 1;
        factor = fmax(0.0, (double)(s->steps - k) / (double)rest);
        break;
    }
    case QVL_COSINE:
        factor = fmax(0.0, 0.5 * (1.0 + cos(PI * s->num_cycles * 2.0 * progress_of(s, k))));
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
