/* A deadline for the start of MPI, which itself waits for ever for a rank that is stopped or never
 * came.
 *
 * Under a launcher a thread counts the seconds; past the deadline it says who waits and ends the
 * process with QVL_EDEVICE, upon which the launcher ends the others. It is gone once the watch is
 * closed. A program that was started without a launcher waits for nobody and gets no thread.
 */
#ifndef QVL_MPI_START_WATCH_H
#define QVL_MPI_START_WATCH_H

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_start_watch qvl_start_watch;

/* *out belongs to the caller; NULL where there is nothing to watch. program is borrowed until
 * close. The deadline is QVL_START_TIMEOUT in seconds, 600 unless set; when it is no number in 1
 * to 1e9: QVL_ECONFIG, and the watch runs with 600. */
qvl_status qvl_start_watch_open(qvl_start_watch **out, const char *program, qvl_err *err);

/* MPI has started, or will not: the thread ends. NULL is fine. */
void qvl_start_watch_close(qvl_start_watch *watch);

#ifdef __cplusplus
}
#endif
#endif
