/* Messages for people. Rank 0 reports progress to standard output; diagnostics of any rank go to
 * standard error, one line each, named by program and rank. Messages quote what files say, so
 * control characters and bytes that are not UTF-8 appear as '?'. */
#ifndef QVL_SRC_BASE_LOG_H
#define QVL_SRC_BASE_LOG_H

#include <stdbool.h>

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_log {
    const char *program; /* borrowed */
    int rank;
    int n_ranks;
    bool is_terminal;    /* standard output is a terminal: progress is redrawn in place */
    int live_columns;    /* width of the progress line that is on screen, 0 when there is none */
    double live_drawn_s; /* when it was last drawn: at most ten times a second */
} qvl_log;

/* rank 0 of 1 until the world is known; then set rank and n_ranks. */
void qvl_log_init(qvl_log *log, const char *program);

/* A line on standard output, from rank 0 only. */
void qvl_log_line(qvl_log *log, const char *format, ...) QVL_PRINTF(2, 3);

/* "program: warning: ..." on standard error, from rank 0 only. */
void qvl_log_warn(qvl_log *log, const char *format, ...) QVL_PRINTF(2, 3);

/* Redraws the progress line where standard output is a terminal; nothing elsewhere. */
void qvl_log_live(qvl_log *log, const char *format, ...) QVL_PRINTF(2, 3);

/* The final error line: "program: [rank R: ]text". Called once, by the rank that reports. */
void qvl_log_error(qvl_log *log, int failed_rank, const char *text);

/* Where standard output is all that a program makes: QVL_EIO when some of it could not be written.
 */
qvl_status qvl_log_check_output(qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
