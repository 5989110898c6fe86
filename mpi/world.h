/* The ranks of a job: who they are, how they agree, how they stop.
 *
 * Rule: a rank that fails carries its status to the next qvl_world_agree, where all ranks learn of
 * it and return the same status with the failing rank's text. So all stop, and one message is
 * printed. A rank that cannot get there calls qvl_world_abort.
 *
 * Every wait on a peer has a deadline; when it passes, or when a rank of the same host is gone, the
 * waiting rank says who is missing, where, and what the last operations were, and ends the job. All
 * functions that talk to peers must be called by all ranks in the same order.
 */
#ifndef QVL_MPI_WORLD_H
#define QVL_MPI_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/log.h"
#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_world qvl_world;

/* Starts MPI (a program started without mpirun is a world of one) and tells log its rank. log is
 * borrowed until destroy. Where MPI does not start in time the process ends (start_watch.h). */
qvl_status qvl_world_create(qvl_world **out, qvl_log *log, qvl_err *err);

/* Ends MPI; a meeting of all ranks. NULL is fine. */
void qvl_world_destroy(qvl_world *world);

int qvl_world_rank(const qvl_world *world);
int qvl_world_size(const qvl_world *world);
int qvl_world_local_rank(const qvl_world *world); /* among the ranks of this host */
int qvl_world_local_size(const qvl_world *world);
const char *qvl_world_host(const qvl_world *world);

/* What the ranks are doing, for messages ("loading the model"); text is borrowed. */
void qvl_world_set_phase(qvl_world *world, const char *phase);
/* The step in work, for messages; -1: none. */
void qvl_world_set_step(qvl_world *world, int64_t step);
void qvl_world_set_deadline(qvl_world *world, double seconds);
/* What the deadline comes from, for messages ("ddp_timeout", which it is from the start); text is
 * borrowed. */
void qvl_world_name_deadline(qvl_world *world, const char *key);

/* All ranks bring their status; all get that of the lowest rank that failed, and its text in err.
 * When any rank was asked to stop (src/base/stop.h) all learn of it here: they get QVL_ESTOPPED,
 * or, once qvl_world_await_stop was called, find it in qvl_world_is_stopping. */
qvl_status qvl_world_agree(qvl_world *world, qvl_status local, qvl_err *err);

/* From now on (all ranks) a stop is no failure of qvl_world_agree. */
void qvl_world_await_stop(qvl_world *world);
/* As of the last agree, so the same on all ranks; and why, "SIGUSR1 on rank 1". */
bool qvl_world_is_stopping(const qvl_world *world);
/* QVL_ESTOPPED on all ranks, when the stop finds nothing that is not saved. */
qvl_status qvl_world_refuse_to_go_on(qvl_world *world, qvl_err *err);
const char *qvl_world_stop_text(char buffer[96], const qvl_world *world);

/* Rank whose failure was agreed on, -1 when none was. */
int qvl_world_failed_rank(const qvl_world *world);

/* For a rank that has waited long for something else than a peer: QVL_EDEVICE when a rank of this
 * host is gone. */
qvl_status qvl_world_look(qvl_world *world, qvl_err *err);

/* Prints the error from this rank and ends the whole job with the status as exit code. */
void qvl_world_abort(qvl_world *world, qvl_status status, const char *text);

qvl_status qvl_world_barrier(qvl_world *world, qvl_err *err);
qvl_status qvl_world_broadcast(qvl_world *world, void *bytes, size_t n_bytes, int root,
                               qvl_err *err);
/* Element-wise over ranks, in place. */
qvl_status qvl_world_sum_i64(qvl_world *world, int64_t *values, int n, qvl_err *err);
qvl_status qvl_world_max_i64(qvl_world *world, int64_t *values, int n, qvl_err *err);
/* In rank order, so the same bits every time. */
qvl_status qvl_world_sum_f64(qvl_world *world, double *values, int n, qvl_err *err);

/* n_bytes of every rank, one after the other, to all ranks: out [size * n_bytes]. */
qvl_status qvl_world_all_gather(qvl_world *world, void *out, const void *bytes, size_t n_bytes,
                                qvl_err *err);

/* Blocking message to / from one rank; both sides know n_bytes. */
qvl_status qvl_world_send(qvl_world *world, const void *bytes, size_t n_bytes, int to,
                          qvl_err *err);
qvl_status qvl_world_receive(qvl_world *world, void *bytes, size_t n_bytes, int from, qvl_err *err);

/* QVL_EDATA on all ranks when text is not the same on all; what names it ("configuration"). A short
 * text is shown. */
qvl_status qvl_world_compare(qvl_world *world, const char *what, const char *text, qvl_err *err);

/* Memory that the ranks of one host share: *out [n_bytes], zeroed. One per call; released by
 * qvl_world_unshare, which all ranks call before the world ends. Writers and readers meet at a
 * barrier in between. */
typedef struct qvl_shared qvl_shared;
qvl_status qvl_world_share(qvl_world *world, qvl_shared **out_shared, void **out, size_t n_bytes,
                           qvl_err *err);
void qvl_world_unshare(qvl_shared *shared);

/* buffer [n] becomes its sum over ranks, added in rank order in double: the same bits on all ranks
 * and in every run. Host memory. */
qvl_status qvl_world_sum_f32(qvl_world *world, float *buffer, int64_t n, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
