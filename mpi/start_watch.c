#include "mpi/start_watch.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "src/base/clock.h"
#include "src/base/memory.h"
#include "src/base/text.h"

static const double DEFAULT_S = 600.0, MOST_S = 1e9;

struct qvl_start_watch {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool is_over;
    double deadline_s;
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
static void end_process(const qvl_start_watch *w, double waited)
{
    char line[640], host[128] = "?";
    const char *rank = launched_rank();
    gethostname(host, sizeof host - 1);
    const int n = snprintf(
        line, sizeof line,
        "%s: rank %.20s (process %ld on %.127s): MPI has not started after %.0f s: a rank is "
        "stopped, was not started, or cannot be reached over the network; look for it and start "
        "again (a start that takes longer: set QVL_START_TIMEOUT, now %.0f s)\n",
        w->program, rank ? rank : "?", (long)getpid(), host, waited, w->deadline_s);
    const ssize_t written = write(STDERR_FILENO, line, (size_t)n);
    (void)written;
    _exit(QVL_EDEVICE);
}

/* One second more, or less once the watch is over. */
static void wait_a_second(qvl_start_watch *w)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec++;
    while (!w->is_over && pthread_cond_timedwait(&w->changed, &w->lock, &until) != ETIMEDOUT)
        ;
}

static void *run(void *watch)
{
    qvl_start_watch *w = watch;
    double before = qvl_clock_s(), waited = 0.0;
    pthread_mutex_lock(&w->lock);
    while (!w->is_over && waited < w->deadline_s) {
        wait_a_second(w);
        /* Time in which this process was suspended does not count (as in qvl_world_wait). */
        const double now = qvl_clock_s();
        waited += now - before < 5.0 ? now - before : 5.0;
        before = now;
    }
    if (!w->is_over)
        end_process(w, waited);
    pthread_mutex_unlock(&w->lock);
    return NULL;
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

/* Signals are for the threads that look at what they ask for. */
static bool start_thread(qvl_start_watch *w)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int failed = pthread_create(&w->thread, NULL, run, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return !failed;
}

qvl_status qvl_start_watch_open(qvl_start_watch **out, const char *program, qvl_err *err)
{
    pthread_condattr_t attributes;
    qvl_start_watch *w = NULL;
    *out = NULL;
    if (!launched_rank())
        return QVL_OK;
    qvl_status rc = qvl_alloc(&w, 1, sizeof *w, "watch over the start", err);
    if (rc != QVL_OK)
        return rc;
    w->program = program;
    rc = read_deadline(&w->deadline_s, err);
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&w->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    if (start_thread(w)) {
        *out = w;
        return rc;
    }
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    free(w);
    return rc == QVL_OK ? qvl_fail(err, QVL_EINTERNAL, "no thread for the watch over the start")
                        : rc;
}

void qvl_start_watch_close(qvl_start_watch *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->is_over = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    free(w);
}
