/* A deadline for calls that return only when the GPU has done what was queued.
 *
 * Waits on peers are asked for and have a deadline of their own, but a driver may wait inside a
 * call that does something else (it loads a kernel at its first launch), and behind a sum over GPUs
 * whose peer is stopped it then waits for ever. A thread ends the process when the rank has not
 * been heard of for the world's deadline and a margin.
 */
#ifndef QVL_MPI_STALL_WATCH_H
#define QVL_MPI_STALL_WATCH_H

#include <stdbool.h>

#include "mpi/world.h"
#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_stall_watch qvl_stall_watch;

/* *out belongs to the caller; nothing is awaited yet. margin_s is added to the world's deadline:
 * whoever notices by asking says more, and comes first. world is borrowed. */
qvl_status qvl_stall_watch_open(qvl_stall_watch **out, qvl_world *world, double margin_s,
                                qvl_err *err);

/* Expected: this rank works and will be heard of again within the deadline from now, or the process
 * ends with QVL_EDEVICE, upon which the launcher ends the others. Otherwise nothing is awaited. */
void qvl_stall_watch_expect(qvl_stall_watch *watch, bool is_expected);

/* This rank is heard of. */
void qvl_stall_watch_beat(qvl_stall_watch *watch);

void qvl_stall_watch_close(qvl_stall_watch *watch); /* NULL is fine */

#ifdef __cplusplus
}
#endif
#endif
