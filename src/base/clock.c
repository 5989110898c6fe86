#include "src/base/clock.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <time.h>

static const double MOST_BETWEEN_ASKS_S = 5.0;

double qvl_clock_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

qvl_waiting qvl_waiting_begin(void)
{
    return (qvl_waiting){.before_s = qvl_clock_s()};
}

double qvl_waiting_s(qvl_waiting *w)
{
    const double now = qvl_clock_s();
    w->waited_s += fmin(now - w->before_s, MOST_BETWEEN_ASKS_S);
    w->before_s = now;
    return w->waited_s;
}

void qvl_clock_sleep_s(double seconds)
{
    struct timespec left = {.tv_sec = (time_t)seconds,
                            .tv_nsec = (long)(1e9 * (seconds - floor(seconds)))};
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
}

const char *qvl_format_duration(char buffer[48], double seconds)
{
    const long long total = seconds > 0 ? (long long)seconds : 0;
    const long long days = total / 86400, rest = total % 86400;
    char day_text[24] = "";
    if (days)
        snprintf(day_text, sizeof day_text, "%lld day%s, ", days, days == 1 ? "" : "s");
    snprintf(buffer, 48, "%s%lld:%02lld:%02lld", day_text, rest / 3600, rest / 60 % 60, rest % 60);
    return buffer;
}
