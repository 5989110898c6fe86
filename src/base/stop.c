#include "src/base/stop.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const int SIGNALS[] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGHUP, SIGXCPU};

static atomic_int reason_given;
static atomic_long first_at_ms;

enum { DUPLICATE_MS = 2000 };

/* clock_gettime is among the functions that a handler may call. */
static long now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void on_signal(int number)
{
    static const char TEXT[] = "qvl: second signal: stopped without saving\n";
    int none = 0;
    if (atomic_compare_exchange_strong(&reason_given, &none, number)) {
        atomic_store(&first_at_ms, now_ms());
        return;
    }
    /* After a limit of time the first signal is the first. */
    if (none >= QVL_STOP_MAX_HOURS) {
        atomic_store(&reason_given, number);
        atomic_store(&first_at_ms, now_ms());
    } else if (number != SIGXCPU && now_ms() - atomic_load(&first_at_ms) >= DUPLICATE_MS) {
        /* SIGXCPU comes every second from the kernel, and is never a second one */
        const ssize_t written = write(STDERR_FILENO, TEXT, sizeof TEXT - 1);
        (void)written;
        _exit(128 + number);
    }
}

void qvl_stop_install(void)
{
    struct sigaction action, old;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof SIGNALS / sizeof *SIGNALS; i++)
        if (sigaction(SIGNALS[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            sigaction(SIGNALS[i], &action, NULL);
}

void qvl_stop_request(int reason)
{
    int none = 0;
    if (atomic_compare_exchange_strong(&reason_given, &none, reason))
        atomic_store(&first_at_ms, now_ms());
}

int qvl_stop_reason(void)
{
    return atomic_load(&reason_given);
}

const char *qvl_stop_name(int reason)
{
    switch (reason) {
    case SIGTERM:
        return "SIGTERM";
    case SIGINT:
        return "SIGINT";
    case SIGUSR1:
        return "SIGUSR1";
    case SIGUSR2:
        return "SIGUSR2";
    case SIGHUP:
        return "SIGHUP";
    case SIGXCPU:
        return "SIGXCPU (the limit of CPU time)";
    case QVL_STOP_MAX_HOURS:
        return "max_hours";
    case QVL_STOP_JOB_END:
        return "the end of the Slurm job (SLURM_JOB_END_TIME)";
    default:
        return "a signal";
    }
}

qvl_status qvl_stop_check(const char *doing, qvl_err *err)
{
    const int reason = qvl_stop_reason();
    if (!reason)
        return QVL_OK;
    return qvl_fail(err, QVL_ESTOPPED,
                    "stopped on request (%s) while %s: nothing was to be saved; run the same "
                    "command again",
                    qvl_stop_name(reason), doing);
}
