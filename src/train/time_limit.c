#include "src/train/time_limit.h"

#include <math.h>

#include "src/base/clock.h"
#include "src/base/stop.h"
#include "src/base/text.h"

void qvl_time_limit_init(qvl_time_limit *limit, double max_hours, double started_s,
                         const char *job_end, double now_s, double unix_now, qvl_log *log)
{
    int64_t end = 0;
    *limit = (qvl_time_limit){.end_s = INFINITY, .step_began_s = now_s};
    if (max_hours > 0) {
        limit->end_s = started_s + 3600.0 * max_hours;
        limit->reason = QVL_STOP_MAX_HOURS;
    }
    if (!job_end || !job_end[0])
        return;
    if (!qvl_parse_i64(job_end, &end)) {
        qvl_log_warn(log, "SLURM_JOB_END_TIME: '%.40s' is no time and is not followed", job_end);
        return;
    }
    const double left = (double)end - unix_now;
    if (left <= 0) {
        qvl_log_warn(log, "SLURM_JOB_END_TIME: %.40s is over already and is not followed", job_end);
        return;
    }
    if (now_s + left < limit->end_s) {
        limit->end_s = now_s + left;
        limit->reason = QVL_STOP_JOB_END;
    }
}

void qvl_time_limit_step(qvl_time_limit *limit, double now_s)
{
    limit->steps_s[limit->n_steps % QVL_TIME_LIMIT_STEPS] = now_s - limit->step_began_s;
    limit->n_steps++;
    limit->step_began_s = now_s;
}

bool qvl_time_limit_is_near(const qvl_time_limit *limit, double now_s, double save_s)
{
    double longest = 0.0;
    const int64_t n = limit->n_steps < QVL_TIME_LIMIT_STEPS ? limit->n_steps : QVL_TIME_LIMIT_STEPS;
    for (int64_t i = 0; i < n; i++)
        longest = fmax(longest, limit->steps_s[i]);
    return n > 0 && limit->end_s - now_s < 2.0 * longest + 2.0 * save_s + 5.0;
}
