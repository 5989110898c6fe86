#include "src/base/clock.h"

#include <stdio.h>
#include <time.h>

double qvl_clock_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
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
