/* Requests to stop: by a signal, or by a limit of time. The handler does nothing but remember.
 *
 * SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGHUP and SIGXCPU (ulimit -St) ask the program to finish what
 * it is doing, save and end with exit code 75. A second one, two seconds later or more (launchers
 * like to send one twice), ends the process at once, saving nothing, with 128 + its number; a
 * SIGXCPU, which the kernel repeats every second, is never a second one.
 */
#ifndef QVL_SRC_BASE_STOP_H
#define QVL_SRC_BASE_STOP_H

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Reasons that are not signals, as numbers that no signal has. */
enum { QVL_STOP_MAX_HOURS = 200, QVL_STOP_JOB_END = 201 };

/* Takes the signals over; one that the parent had us ignore (nohup) stays ignored. */
void qvl_stop_install(void);

/* Asks for a stop; an earlier reason stays. */
void qvl_stop_request(int reason);

/* The reason, 0 when none was given. */
int qvl_stop_reason(void);

/* "SIGTERM", "max_hours" */
const char *qvl_stop_name(int reason);

/* For long work on one rank: QVL_ESTOPPED when a stop was asked for. doing is for the message. */
qvl_status qvl_stop_check(const char *doing, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
