#include "src/train/due.h"

#include <math.h>
#include <string.h>

qvl_due qvl_due_make(const char *strategy, double steps, int64_t total_steps,
                     int64_t steps_per_epoch)
{
    const double every = steps < 1.0 ? ceil(steps * (double)total_steps) : steps;
    if (strcmp(strategy, "epoch") == 0)
        return (qvl_due){.every = steps_per_epoch, .last = total_steps};
    if (strcmp(strategy, "steps") != 0)
        return (qvl_due){0};
    return (qvl_due){.every = every < 1.0 ? 1 : (int64_t)every};
}

bool qvl_is_due(const qvl_due *due, int64_t step)
{
    return due->every > 0 && step > 0 && (step % due->every == 0 || step == due->last);
}
