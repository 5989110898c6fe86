#include "mpi/world_internal.h"

#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mpi/start_watch.h"
#include "src/base/clock.h"
#include "src/base/memory.h"
#include "src/base/stop.h"

qvl_status qvl_world_check(int code, const char *doing, qvl_err *err)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int n = 0;
    if (code == MPI_SUCCESS)
        return QVL_OK;
    MPI_Error_string(code, text, &n);
    return qvl_fail(err, QVL_EDEVICE, "MPI: %s: %s", doing, text);
}

/* The communicators, and who this rank is. None of these calls has a deadline. */
static qvl_status start_mpi(qvl_world *world, qvl_err *err)
{
    int provided = 0, length = 0;
    qvl_status rc = QVL_OK;
    QVL_MPI(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided), "start");
    QVL_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &world->comm), "communicator");
    MPI_Comm_set_errhandler(world->comm, MPI_ERRORS_RETURN);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(world->comm, &world->rank);
    MPI_Comm_size(world->comm, &world->n_ranks);
    QVL_MPI(MPI_Comm_split_type(world->comm, MPI_COMM_TYPE_SHARED, world->rank, MPI_INFO_NULL,
                                &world->local),
            "ranks of this host");
    MPI_Comm_rank(world->local, &world->local_rank);
    MPI_Comm_size(world->local, &world->n_local);
    MPI_Get_processor_name(world->host, &length);
    qvl_watch_open(&world->watch, world->local, world->rank);
out:
    return rc;
}

qvl_status qvl_world_create(qvl_world **out, qvl_log *log, qvl_err *err)
{
    qvl_start_watch *start_watch = NULL;
    qvl_world *world = NULL;
    qvl_err variable = {QVL_OK, ""};
    qvl_status rc = qvl_alloc(&world, 1, sizeof *world, "world", err);
    if (rc != QVL_OK)
        return rc;
    world->failed_rank = -1;
    world->deadline_s = 600.0;
    world->deadline_key = "ddp_timeout";
    world->log = log;
    world->comm = world->local = MPI_COMM_NULL;
    const qvl_status watched = qvl_start_watch_open(&start_watch, log->program, &variable);
    rc = start_mpi(world, err);
    qvl_start_watch_close(start_watch);
    if (rc != QVL_OK) {
        free(world);
        return rc;
    }
    log->rank = world->rank;
    log->n_ranks = world->n_ranks;
    /* A bad variable is told once, by rank 0, which takes ranks that can talk to each other. */
    if (watched != QVL_OK)
        *err = variable;
    rc = qvl_world_agree(world, watched, err);
    if (rc != QVL_OK) {
        qvl_world_destroy(world);
        return rc;
    }
    *out = world;
    return QVL_OK;
}

void qvl_world_destroy(qvl_world *world)
{
    if (!world)
        return;
    if (world->n_ranks > 1) /* MPI_Finalize waits without a deadline */
        qvl_world_barrier(world, NULL);
    qvl_watch_close(&world->watch);
    if (world->local != MPI_COMM_NULL)
        MPI_Comm_free(&world->local);
    if (world->comm != MPI_COMM_NULL)
        MPI_Comm_free(&world->comm);
    MPI_Finalize();
    free(world->scratch);
    free(world);
}

int qvl_world_rank(const qvl_world *world)
{
    return world->rank;
}
int qvl_world_size(const qvl_world *world)
{
    return world->n_ranks;
}
int qvl_world_local_rank(const qvl_world *world)
{
    return world->local_rank;
}
int qvl_world_local_size(const qvl_world *world)
{
    return world->n_local;
}
const char *qvl_world_host(const qvl_world *world)
{
    return world->host;
}
int qvl_world_failed_rank(const qvl_world *world)
{
    return world->failed_rank;
}

void qvl_world_set_phase(qvl_world *world, const char *phase)
{
    qvl_watch_set_phase(&world->watch, phase);
}

void qvl_world_set_step(qvl_world *world, int64_t step)
{
    qvl_watch_set_step(&world->watch, step);
}

void qvl_world_set_deadline(qvl_world *world, double seconds)
{
    world->deadline_s = seconds;
}

void qvl_world_name_deadline(qvl_world *world, const char *key)
{
    world->deadline_key = key;
}

const char *qvl_world_where(char buffer[128], const qvl_world *world)
{
    const int n = snprintf(buffer, 128, "while %.80s", world->watch.phase);
    if (world->watch.step >= 0)
        snprintf(buffer + n, 128 - (size_t)n, ", step %" PRId64, world->watch.step);
    return buffer;
}

void qvl_world_await_stop(qvl_world *world)
{
    world->is_stop_awaited = true;
}

bool qvl_world_is_stopping(const qvl_world *world)
{
    return world->stop != 0;
}

const char *qvl_world_stop_text(char buffer[96], const qvl_world *world)
{
    const int n = snprintf(buffer, 96, "%s", qvl_stop_name(world->stop));
    if (world->stop < QVL_STOP_MAX_HOURS && world->n_ranks > 1)
        snprintf(buffer + n, 96 - (size_t)n, " on rank %d", world->stop_rank);
    return buffer;
}

qvl_status qvl_world_look(qvl_world *world, qvl_err *err)
{
    return qvl_watch_look(&world->watch, err);
}

void qvl_world_abort(qvl_world *world, qvl_status status, const char *text)
{
    qvl_watch_announce_end(&world->watch);
    qvl_log_error(world->log, world->rank, text);
    MPI_Abort(world->comm, (int)status);
    _Exit((int)status);
}

/* A peer does not come: says so with the last operations, and ends the job. */
static void give_up(qvl_world *world, const char *text)
{
    qvl_text ring = {0};
    qvl_watch_announce_end(&world->watch);
    qvl_watch_format_ring(&ring, &world->watch, world->rank);
    if (ring.data)
        fputs(ring.data, stderr);
    qvl_world_abort(world, QVL_EDEVICE, text);
}

static void end_late(qvl_world *world, double waited, const char *doing)
{
    char where[128];
    qvl_text who = {0};
    qvl_err late = {QVL_OK, ""};
    qvl_watch_describe(&who, &world->watch);
    qvl_fail(&late, QVL_EDEVICE, "%s: waited %.0f s for the other ranks (%s); %s is %.0f s%s",
             qvl_world_where(where, world), waited, doing, world->deadline_key, world->deadline_s,
             who.data ? who.data : "");
    give_up(world, late.text);
}

qvl_status qvl_world_wait(qvl_world *world, MPI_Request *request, const char *doing, size_t bytes,
                          qvl_err *err)
{
    qvl_waiting waiting = qvl_waiting_begin();
    qvl_watch_begin(&world->watch, doing, bytes);
    for (long tries = 0;; tries++) {
        int done = 0;
        qvl_err gone = {QVL_OK, ""};
        const qvl_status rc =
            qvl_world_check(MPI_Test(request, &done, MPI_STATUS_IGNORE), doing, err);
        if (rc == QVL_OK && done)
            qvl_watch_end(&world->watch);
        if (rc != QVL_OK || done)
            return rc;
        /* Peers that share our cores need them; after 20 ms nobody is about to answer. */
        sched_yield();
        if (tries < 64)
            continue;
        const double waited = qvl_waiting_s(&waiting);
        if (waited > 0.02)
            nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
        if (waited > 0.2 && qvl_watch_look(&world->watch, &gone) != QVL_OK)
            give_up(world, gone.text);
        if (waited > world->deadline_s)
            end_late(world, waited, doing);
    }
}

qvl_status qvl_world_barrier(qvl_world *world, qvl_err *err)
{
    MPI_Request request;
    qvl_status rc = QVL_OK;
    QVL_MPI(MPI_Ibarrier(world->comm, &request), "barrier");
    QVL_TRY(qvl_world_wait(world, &request, "barrier", 0, err));
out:
    return rc;
}

qvl_status qvl_world_broadcast(qvl_world *world, void *bytes, size_t n_bytes, int root,
                               qvl_err *err)
{
    const size_t limit = (size_t)1 << 30;
    qvl_status rc = QVL_OK;
    for (size_t at = 0; at < n_bytes; at += limit) {
        MPI_Request request;
        const size_t n = n_bytes - at < limit ? n_bytes - at : limit;
        QVL_MPI(MPI_Ibcast((char *)bytes + at, (int)n, MPI_BYTE, root, world->comm, &request),
                "broadcast");
        QVL_TRY(qvl_world_wait(world, &request, "broadcast", n, err));
    }
out:
    return rc;
}

static qvl_status reduce_i64(qvl_world *world, int64_t *values, int n, MPI_Op op, qvl_err *err)
{
    MPI_Request request;
    qvl_status rc = QVL_OK;
    QVL_MPI(MPI_Iallreduce(MPI_IN_PLACE, values, n, MPI_INT64_T, op, world->comm, &request),
            "reduction");
    QVL_TRY(qvl_world_wait(world, &request, "reduction", (size_t)n * sizeof *values, err));
out:
    return rc;
}

qvl_status qvl_world_sum_i64(qvl_world *world, int64_t *values, int n, qvl_err *err)
{
    return reduce_i64(world, values, n, MPI_SUM, err);
}

qvl_status qvl_world_max_i64(qvl_world *world, int64_t *values, int n, qvl_err *err)
{
    return reduce_i64(world, values, n, MPI_MAX, err);
}

qvl_status qvl_world_refuse_to_go_on(qvl_world *world, qvl_err *err)
{
    char where[128], why[96];
    world->failed_rank = 0;
    qvl_err_clear(err);
    return qvl_fail(
        err, QVL_ESTOPPED,
        "stopped on request (%s) %s: nothing was to be saved; run the same command again",
        qvl_world_stop_text(why, world), qvl_world_where(where, world));
}

/* All ranks are told to stop, and nobody failed. */
static qvl_status be_stopped(qvl_world *world, qvl_err *err)
{
    return world->is_stop_awaited ? QVL_OK : qvl_world_refuse_to_go_on(world, err);
}

qvl_status qvl_world_agree(qvl_world *world, qvl_status local, qvl_err *err)
{
    enum { RANKS = 1 << 24 };
    qvl_status rc = QVL_OK;
    const int asked = qvl_stop_reason();
    /* The lowest rank that failed, and the lowest that was asked to stop with its reason. */
    int64_t firsts[2] = {local == QVL_OK ? INT64_MAX : world->rank,
                         asked ? world->rank + (int64_t)RANKS * asked : INT64_MAX};
    qvl_err reason = {QVL_OK, ""};
    if (world->n_ranks == 1) {
        world->stop = asked;
        world->failed_rank = local == QVL_OK ? world->failed_rank : 0;
        return local == QVL_OK && asked ? be_stopped(world, err) : local;
    }
    QVL_TRY(reduce_i64(world, firsts, 2, MPI_MIN, &reason));
    if (firsts[1] != INT64_MAX) {
        world->stop = (int)(firsts[1] / RANKS);
        world->stop_rank = (int)(firsts[1] % RANKS);
    }
    if (firsts[0] == INT64_MAX)
        return world->stop ? be_stopped(world, err) : QVL_OK;
    if (world->rank == (int)firsts[0]) {
        reason.status = local;
        memcpy(reason.text, err->text, sizeof reason.text);
    }
    QVL_TRY(qvl_world_broadcast(world, &reason, sizeof reason, (int)firsts[0], err));
    world->failed_rank = (int)firsts[0];
    *err = reason;
    return reason.status;
out:
    if (err->status == QVL_OK)
        *err = reason;
    return rc;
}

qvl_status qvl_world_all_gather(qvl_world *world, void *out, const void *bytes, size_t n_bytes,
                                qvl_err *err)
{
    MPI_Request request;
    qvl_status rc = QVL_OK;
    if (n_bytes > INT_MAX)
        return qvl_fail(err, QVL_EINTERNAL, "all_gather of %zu bytes", n_bytes);
    QVL_MPI(MPI_Iallgather(bytes, (int)n_bytes, MPI_BYTE, out, (int)n_bytes, MPI_BYTE, world->comm,
                           &request),
            "gather");
    QVL_TRY(qvl_world_wait(world, &request, "gather", n_bytes, err));
out:
    return rc;
}

qvl_status qvl_world_sum_f64(qvl_world *world, double *values, int n, qvl_err *err)
{
    double *all = NULL;
    qvl_status rc = QVL_OK;
    if (world->n_ranks == 1)
        return QVL_OK;
    QVL_TRY(qvl_alloc(&all, (size_t)world->n_ranks * (size_t)n, sizeof *all, "sums", err));
    QVL_TRY(qvl_world_all_gather(world, all, values, (size_t)n * sizeof *values, err));
    for (int i = 0; i < n; i++) {
        values[i] = 0.0;
        for (int r = 0; r < world->n_ranks; r++)
            values[i] += all[r * n + i];
    }
out:
    free(all);
    return rc;
}

qvl_status qvl_world_send(qvl_world *world, const void *bytes, size_t n_bytes, int to, qvl_err *err)
{
    const size_t limit = (size_t)1 << 30;
    qvl_status rc = QVL_OK;
    for (size_t at = 0; at < n_bytes; at += limit) {
        MPI_Request request;
        const size_t n = n_bytes - at < limit ? n_bytes - at : limit;
        QVL_MPI(MPI_Isend((const char *)bytes + at, (int)n, MPI_BYTE, to, 0, world->comm, &request),
                "send");
        QVL_TRY(qvl_world_wait(world, &request, "send", n, err));
    }
out:
    return rc;
}

qvl_status qvl_world_receive(qvl_world *world, void *bytes, size_t n_bytes, int from, qvl_err *err)
{
    const size_t limit = (size_t)1 << 30;
    qvl_status rc = QVL_OK;
    for (size_t at = 0; at < n_bytes; at += limit) {
        MPI_Request request;
        const size_t n = n_bytes - at < limit ? n_bytes - at : limit;
        QVL_MPI(MPI_Irecv((char *)bytes + at, (int)n, MPI_BYTE, from, 0, world->comm, &request),
                "receive");
        QVL_TRY(qvl_world_wait(world, &request, "receive", n, err));
    }
out:
    return rc;
}
