#include "mpi/stall_watch.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "mpi/world_internal.h"
#include "src/base/memory.h"
#include "src/base/thread.h"

struct qvl_stall_watch {
    qvl_ticker ticker;
    qvl_world *world;
    double margin_s;
    _Atomic int64_t n_beats; /* odd: nothing is awaited */
    /* the thread's */
    int64_t n_seen;
    double silent_s;
};

/* Not through standard error's buffer or the log, and not through MPI, which the main thread may be
 * holding. */
static void end_process(qvl_stall_watch *w)
{
    char line[1536], where[128];
    qvl_text who = {0};
    qvl_watch_describe(&who, &w->world->watch);
    qvl_watch_announce_end(&w->world->watch);
    const int n =
        snprintf(line, sizeof line,
                 "%s: rank %d (process %ld on %s): %s: a call to the GPU has not returned for %.0f "
                 "s: another rank is late, or the GPU hangs; %s is %.0f s%.900s\n",
                 w->world->log->program, w->world->rank, (long)getpid(), w->world->host,
                 qvl_world_where(where, w->world), w->silent_s, w->world->deadline_key,
                 w->world->deadline_s, who.data ? who.data : "");
    const ssize_t written = write(STDERR_FILENO, line, (size_t)n);
    (void)written;
    _exit(QVL_EDEVICE);
}

static void tick(void *watch, double seconds)
{
    qvl_stall_watch *w = watch;
    const int64_t n = atomic_load(&w->n_beats);
    w->silent_s = n == w->n_seen && n % 2 == 0 ? w->silent_s + seconds : 0.0;
    w->n_seen = n;
    if (w->silent_s > w->world->deadline_s + w->margin_s)
        end_process(w);
}

qvl_status qvl_stall_watch_open(qvl_stall_watch **out, qvl_world *world, double margin_s,
                                qvl_err *err)
{
    qvl_stall_watch *w = NULL;
    const qvl_status rc = qvl_alloc(&w, 1, sizeof *w, "watch over the GPU", err);
    if (rc != QVL_OK)
        return rc;
    w->world = world;
    w->margin_s = margin_s;
    atomic_store(&w->n_beats, 1);
    const int failed = qvl_ticker_start(&w->ticker, tick, w);
    if (failed) {
        free(w);
        return qvl_fail_errno(err, failed, 1, "start the thread that watches over the GPU");
    }
    *out = w;
    return QVL_OK;
}

void qvl_stall_watch_expect(qvl_stall_watch *w, bool is_expected)
{
    const int64_t next = atomic_load(&w->n_beats) + 1;
    atomic_store(&w->n_beats, is_expected == (next % 2 == 0) ? next : next + 1);
}

void qvl_stall_watch_beat(qvl_stall_watch *w)
{
    atomic_fetch_add(&w->n_beats, 2);
}

void qvl_stall_watch_close(qvl_stall_watch *w)
{
    if (!w)
        return;
    qvl_ticker_stop(&w->ticker);
    free(w);
}
