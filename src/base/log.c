#include "src/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/clock.h"
#include "src/base/text.h"

/* Long enough for a line that quotes two paths. */
enum { LINE_BYTES = 3 * 4096 };

/* Open MPI gives its ranks a pseudo-terminal even when mpirun's own output goes to a file. Only
 * what mpirun (our parent, on its host) writes to tells whether somebody is looking. */
static bool stdout_is_seen(void)
{
    char link[64], target[256];
    if (!isatty(STDOUT_FILENO))
        return false;
    if (!getenv("OMPI_COMM_WORLD_SIZE"))
        return true;
    snprintf(link, sizeof link, "/proc/%ld/fd/1", (long)getppid());
    const ssize_t n = readlink(link, target, sizeof target - 1);
    if (n <= 0)
        return false;
    target[n] = '\0';
    return strncmp(target, "/dev/pts/", 9) == 0 || strncmp(target, "/dev/tty", 8) == 0;
}

void qvl_log_init(qvl_log *log, const char *program)
{
    *log = (qvl_log){.program = program, .n_ranks = 1, .is_terminal = stdout_is_seen()};
    setvbuf(stdout, NULL, _IOLBF, 0);
}

static void clear_live(qvl_log *log)
{
    if (log->live_columns)
        fputs("\r\033[K", stdout);
    log->live_columns = 0;
}

void qvl_log_line(qvl_log *log, const char *format, ...)
{
    if (log->rank != 0)
        return;
    clear_live(log);
    char text[LINE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    qvl_text_keep_one_line(text);
    printf("%s\n", text);
    fflush(stdout);
}

void qvl_log_warn(qvl_log *log, const char *format, ...)
{
    if (log->rank != 0)
        return;
    clear_live(log);
    fflush(stdout);
    char text[LINE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    qvl_text_keep_one_line(text);
    fprintf(stderr, "%s: warning: %s\n", log->program, text);
}

void qvl_log_live(qvl_log *log, const char *format, ...)
{
    const double now = qvl_clock_s();
    if (log->rank != 0 || !log->is_terminal || now - log->live_drawn_s < 0.1)
        return;
    log->live_drawn_s = now;
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    qvl_text_keep_one_line(text);
    fputs("\r\033[K", stdout);
    fputs(text, stdout);
    fflush(stdout);
    log->live_columns = (int)strlen(text);
}

void qvl_log_error(qvl_log *log, int failed_rank, const char *text)
{
    clear_live(log);
    fflush(stdout);
    if (log->n_ranks > 1 && failed_rank > 0)
        fprintf(stderr, "%s: rank %d: %s\n", log->program, failed_rank, text);
    else
        fprintf(stderr, "%s: %s\n", log->program, text);
    fflush(stderr);
}

qvl_status qvl_log_check_output(qvl_err *err)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return QVL_OK;
    return qvl_fail(err, QVL_EIO,
                    "standard output could not be written (closed, or a full disk?): what was to "
                    "be told is lost");
}
