/* Time. */
#ifndef QVL_SRC_BASE_CLOCK_H
#define QVL_SRC_BASE_CLOCK_H

#ifdef __cplusplus
extern "C" {
#endif

/* Seconds of a clock that never goes back. */
double qvl_clock_s(void);

void qvl_clock_sleep_s(double seconds);

/* How long something is waited for by asking again and again. Time between two asks counts as 5 s
 * at most: in the rest of it this process did not run, as when a job is suspended. */
typedef struct qvl_waiting {
    double before_s, waited_s;
} qvl_waiting;

qvl_waiting qvl_waiting_begin(void);
double qvl_waiting_s(qvl_waiting *waiting); /* so far */

/* "H:MM:SS" from whole seconds, as Python prints a timedelta ("1 day, 2:03:04" past a day). */
const char *qvl_format_duration(char buffer[48], double seconds);

#ifdef __cplusplus
}
#endif
#endif
