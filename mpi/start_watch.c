#include "mpi/start_watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "src/base/memory.h"
#include "src/base/text.h"
#include "src/base/thread.h"

static const double DEFAULT_S = 600.0, MOST_S = 1e9;

struct qvl_start_watch {
    qvl_ticker ticker;
    double deadline_s, waited_s;
    const char *program;
};

/* This process's number as its launcher tells it: Open MPI, PMIx (srun), PMI (MPICH, Intel MPI).
 * NULL: no launcher. */
static const char *launched_rank(void)
{
    static const char *const VARIABLES[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"};
    for (size_t i = 0; i < sizeof VARIABLES / sizeof *VARIABLES; i++)
        if (getenv(VARIABLES[i]))
            return getenv(VARIABLES[i]);
    return NULL;
}

/* Not through stdio or the log, which the main thread may be holding. */
static void end_process(const qvl_start_watch *w)
{
    char line[640], host[128] = "?";
    const char *rank = launched_rank();
    gethostname(host, sizeof host - 1);
    const int n = snprintf(
        line, sizeof line,
        "%s: rank %.20s (process %ld on %.127s): MPI has not started after %.0f s: a rank is "
        "stopped, was not started, or cannot be reached over the network; look for it and start "
        "again (a start that takes longer: set QVL_START_TIMEOUT, now %.0f s)\n",
        w->program, rank ? rank : "?", (long)getpid(), host, w->waited_s, w->deadline_s);
    const ssize_t written = write(STDERR_FILENO, line, (size_t)n);
    (void)written;
    _exit(QVL_EDEVICE);
}

static void tick(void *watch, double seconds)
{
    qvl_start_watch *w = watch;
    w->waited_s += seconds;
    if (w->waited_s >= w->deadline_s)
        end_process(w);
}

static qvl_status read_deadline(double *out, qvl_err *err)
{
    const char *text = getenv("QVL_START_TIMEOUT");
    double seconds = 0.0;
    *out = DEFAULT_S;
    if (!text || !text[0])
        return QVL_OK;
    if (!qvl_parse_double(text, &seconds) || seconds < 1.0 || seconds > MOST_S)
        return qvl_fail(err, QVL_ECONFIG,
                        "environment variable QVL_START_TIMEOUT: '%s' is not a number of seconds "
                        "in 1 to 1e9",
                        text);
    *out = seconds;
    return QVL_OK;
}

qvl_status qvl_start_watch_open(qvl_start_watch **out, const char *program, qvl_err *err)
{
    qvl_start_watch *w = NULL;
    *out = NULL;
    if (!launched_rank())
        return QVL_OK;
    qvl_status rc = qvl_alloc(&w, 1, sizeof *w, "watch over the start", err);
    if (rc != QVL_OK)
        return rc;
    w->program = program;
    rc = read_deadline(&w->deadline_s, err);
    if (qvl_ticker_start(&w->ticker, tick, w) == 0) {
        *out = w;
        return rc;
    }
    free(w);
    return rc == QVL_OK ? qvl_fail(err, QVL_EINTERNAL, "no thread for the watch over the start")
                        : rc;
}

void qvl_start_watch_close(qvl_start_watch *w)
{
    if (!w)
        return;
    qvl_ticker_stop(&w->ticker);
    free(w);
}
