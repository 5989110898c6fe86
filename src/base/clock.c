#include "src/base/clock.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <time.h>

double qvl_clock_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
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
