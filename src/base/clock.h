/* Time. */
#ifndef QVL_SRC_BASE_CLOCK_H
#define QVL_SRC_BASE_CLOCK_H

#ifdef __cplusplus
extern "C" {
#endif

/* Seconds of a clock that never goes back. */
double qvl_clock_s(void);

void qvl_clock_sleep_s(double seconds);

/* "H:MM:SS" from whole seconds, as Python prints a timedelta ("1 day, 2:03:04" past a day). */
const char *qvl_format_duration(char buffer[48], double seconds);

#ifdef __cplusplus
}
#endif
#endif
