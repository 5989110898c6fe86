#include "mpi/watch.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/clock.h"
#include "src/base/memory.h"

/* Written by its rank, read by the others for messages only: a text that is being changed is read
 * as some mixture, never past its end. */
struct qvl_watch_seat {
    _Atomic int64_t pid, number, step;
    _Atomic int is_ending;
    int rank;
    char phase[QVL_WATCH_PHASE_BYTES];
};

/* State of a process as /proc shows it: 'R', 'S', 'T' (stopped), 'Z' (ended, not collected); 0: no
 * such process. */
static char process_state(int64_t pid)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%" PRId64 "/stat", pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    const size_t n = fread(line, 1, sizeof line - 1, file);
    fclose(file);
    line[n] = '\0';
    const char *after = strrchr(line, ')'); /* names may have parentheses */
    return after && after[1] == ' ' ? after[2] : 0;
}

static bool is_gone(int64_t pid)
{
    const char state = process_state(pid);
    return state == 0 || state == 'Z' || state == 'X';
}

/* ---- the board ---------------------------------------------------------------------------------
 */

static bool find_seats(qvl_watch *w)
{
    for (int r = 0; r < w->n; r++) {
        MPI_Aint size = 0;
        int unit = 0;
        void *at = NULL;
        if (MPI_Win_shared_query(w->window, r, &size, &unit, &at) != MPI_SUCCESS || !at ||
            size < (MPI_Aint)sizeof(qvl_watch_seat))
            return false;
        w->seats[r] = at;
    }
    return true;
}

void qvl_watch_open(qvl_watch *w, MPI_Comm local, int rank)
{
    void *mine = NULL;
    *w = (qvl_watch){.window = MPI_WIN_NULL, .step = -1, .phase = "starting"};
    MPI_Comm_rank(local, &w->self);
    MPI_Comm_size(local, &w->n);
    if (w->n < 2)
        return;
    MPI_Comm_set_errhandler(local, MPI_ERRORS_RETURN);
    if (MPI_Win_allocate_shared((MPI_Aint)sizeof(qvl_watch_seat), 1, MPI_INFO_NULL, local, &mine,
                                &w->window) != MPI_SUCCESS)
        return;
    qvl_watch_seat **seats = NULL;
    bool *is_visible = NULL;
    if (qvl_alloc(&seats, (size_t)w->n, sizeof *seats, "board", NULL) != QVL_OK ||
        qvl_alloc(&is_visible, (size_t)w->n, sizeof *is_visible, "board", NULL) != QVL_OK) {
        free(seats);
        seats = NULL;
    }
    w->seats = seats;
    w->is_visible = is_visible;
    qvl_watch_seat *seat = mine;
    memset(seat, 0, sizeof *seat);
    seat->rank = rank;
    atomic_store(&seat->step, -1);
    atomic_store(&seat->pid, (int64_t)getpid());
    MPI_Barrier(local);
    if (!w->seats || !find_seats(w)) {
        free(w->seats);
        w->seats = NULL;
        return;
    }
    for (int r = 0; r < w->n; r++)
        w->is_visible[r] = r != w->self && !is_gone(atomic_load(&w->seats[r]->pid));
    qvl_watch_set_phase(w, w->phase);
}

void qvl_watch_close(qvl_watch *w)
{
    free(w->seats);
    free(w->is_visible);
    w->seats = NULL;
    if (w->window != MPI_WIN_NULL)
        MPI_Win_free(&w->window);
}

/* ---- where this rank is ------------------------------------------------------------------------
 */

void qvl_watch_set_phase(qvl_watch *w, const char *phase)
{
    w->phase = phase;
    if (w->seats)
        snprintf(w->seats[w->self]->phase, QVL_WATCH_PHASE_BYTES, "%s", phase);
}

void qvl_watch_set_step(qvl_watch *w, int64_t step)
{
    w->step = step;
    if (w->seats)
        atomic_store(&w->seats[w->self]->step, step);
}

void qvl_watch_begin(qvl_watch *w, const char *doing, size_t bytes)
{
    w->ring[w->n_entries % QVL_WATCH_RING] = (qvl_watch_entry){
        .number = w->n_entries, .step = w->step, .doing = doing, .phase = w->phase, .bytes = bytes};
    w->n_entries++;
    if (w->seats)
        atomic_store(&w->seats[w->self]->number, w->n_entries);
}

void qvl_watch_end(qvl_watch *w)
{
    w->ring[(w->n_entries + QVL_WATCH_RING - 1) % QVL_WATCH_RING].is_done = true;
    w->n_gone = 0;
}

void qvl_watch_announce_end(qvl_watch *w)
{
    if (w->seats)
        atomic_store(&w->seats[w->self]->is_ending, 1);
}

/* ---- where the others are ----------------------------------------------------------------------
 */

/* ", step 37" of a seat, nothing outside of steps. */
static const char *format_step(char buffer[40], int64_t step)
{
    buffer[0] = '\0';
    if (step >= 0)
        snprintf(buffer, 40, ", step %" PRId64, step);
    return buffer;
}

qvl_status qvl_watch_look(qvl_watch *w, qvl_err *err)
{
    char step[40];
    const double now = qvl_clock_s();
    if (!w->seats || now - w->looked_s < 0.2)
        return QVL_OK;
    w->looked_s = now;
    for (int r = 0; r < w->n; r++) {
        const qvl_watch_seat *seat = w->seats[r];
        const int64_t pid = atomic_load(&seat->pid);
        if (!w->is_visible[r] || atomic_load(&seat->is_ending) || !is_gone(pid))
            continue;
        if (++w->n_gone < 2) /* what it sent last may still be on its way */
            return QVL_OK;
        return qvl_fail(err, QVL_EDEVICE,
                        "rank %d (process %" PRId64 " of this host) is gone: killed, out of memory "
                        "or stopped by hand, while %.*s%s",
                        seat->rank, pid, QVL_WATCH_PHASE_BYTES - 1, seat->phase,
                        format_step(step, atomic_load(&seat->step)));
    }
    w->n_gone = 0;
    return QVL_OK;
}

void qvl_watch_describe(qvl_text *out, qvl_watch *w)
{
    char step[40];
    int n_late = 0;
    if (!w->seats)
        return;
    const int64_t own = atomic_load(&w->seats[w->self]->number);
    for (int r = 0; r < w->n; r++) {
        const qvl_watch_seat *seat = w->seats[r];
        const char state =
            r != w->self && w->is_visible[r] ? process_state(atomic_load(&seat->pid)) : 'R';
        const bool is_stopped = state == 'T' || state == 't';
        if (r == w->self || (atomic_load(&seat->number) >= own && !is_stopped))
            continue;
        n_late++;
        qvl_text_printf(out, NULL, "; rank %d is late: %slast seen while %.*s%s", seat->rank,
                        is_stopped ? "it is stopped (SIGSTOP), " : "", QVL_WATCH_PHASE_BYTES - 1,
                        seat->phase, format_step(step, atomic_load(&seat->step)));
    }
    if (n_late == 0)
        qvl_text_puts(out, "; no rank of this host is late", NULL);
}

void qvl_watch_format_ring(qvl_text *out, const qvl_watch *w, int rank)
{
    char step[40];
    const int64_t first = w->n_entries > QVL_WATCH_RING ? w->n_entries - QVL_WATCH_RING : 0;
    qvl_text_printf(out, NULL, "rank %d: last operations between ranks, of %" PRId64 ":\n", rank,
                    w->n_entries);
    for (int64_t i = first; i < w->n_entries; i++) {
        const qvl_watch_entry *entry = &w->ring[i % QVL_WATCH_RING];
        qvl_text_printf(out, NULL, "  #%" PRId64 " %s, %zu bytes, while %s%s: %s\n", entry->number,
                        entry->doing, entry->bytes, entry->phase, format_step(step, entry->step),
                        entry->is_done ? "done" : "waiting");
    }
}
