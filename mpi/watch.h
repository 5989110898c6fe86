/* What ranks know of each other while they wait: where each rank of this host is, whether it is
 * alive, and which operations this rank did last.
 *
 * The ranks of a host share a board; a rank looks at the others' processes only while it waits.
 * Ranks of other hosts are the launcher's to watch (mpirun, srun --kill-on-bad-exit) and the
 * deadline's.
 */
#ifndef QVL_MPI_WATCH_H
#define QVL_MPI_WATCH_H

#include <mpi.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"
#include "src/base/text.h"

enum { QVL_WATCH_RING = 16, QVL_WATCH_PHASE_BYTES = 64 };

typedef struct qvl_watch_seat qvl_watch_seat; /* a rank's place on the board, in shared memory */

typedef struct qvl_watch_entry {
    int64_t number, step;
    const char *doing, *phase; /* literals */
    size_t bytes;
    bool is_done;
} qvl_watch_entry;

typedef struct qvl_watch {
    MPI_Win window;
    qvl_watch_seat **seats; /* [n] of this host; NULL: none to watch */
    bool *is_visible;       /* [n] its process can be looked at from here */
    int n, self;
    int n_gone;        /* looks in a row that found somebody gone */
    double looked_s;   /* when */
    int64_t n_entries; /* operations so far */
    int64_t step;      /* in work; -1: none */
    const char *phase; /* borrowed */
    qvl_watch_entry ring[QVL_WATCH_RING];
} qvl_watch;

/* Collective over the ranks of the host. Where they cannot share memory there is no board, and the
 * deadline alone tells. */
void qvl_watch_open(qvl_watch *watch, MPI_Comm local, int rank);
void qvl_watch_close(qvl_watch *watch); /* all ranks of the host meet */

void qvl_watch_set_phase(qvl_watch *watch, const char *phase);
void qvl_watch_set_step(qvl_watch *watch, int64_t step);

/* An operation begins; it is the newest until the next begins. */
void qvl_watch_begin(qvl_watch *watch, const char *doing, size_t bytes);
void qvl_watch_end(qvl_watch *watch);

/* From now on the others do not report this rank as gone: it says itself why it goes. */
void qvl_watch_announce_end(qvl_watch *watch);

/* Somebody of this host has ended: QVL_EDEVICE with who, and where it was. Looks at most five times
 * a second. */
qvl_status qvl_watch_look(qvl_watch *watch, qvl_err *err);

/* Appends who is behind this rank, or stopped; for the message when a deadline passes. */
void qvl_watch_describe(qvl_text *out, qvl_watch *watch);

/* Appends the last operations, one a line. */
void qvl_watch_format_ring(qvl_text *out, const qvl_watch *watch, int rank);

#endif
