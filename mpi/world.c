#include "mpi/world_internal.h"

#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/base/clock.h"
#include "src/base/memory.h"

qvl_status qvl_world_check(int code, const char *doing, qvl_err *err)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int n = 0;
    if (code == MPI_SUCCESS)
        return QVL_OK;
    MPI_Error_string(code, text, &n);
    return qvl_fail(err, QVL_EDEVICE, "MPI: %s: %s", doing, text);
}

qvl_status qvl_world_create(qvl_world **out, qvl_log *log, qvl_err *err)
{
    int provided = 0, length = 0;
    qvl_world *world = NULL;
    qvl_status rc = qvl_alloc(&world, 1, sizeof *world, "world", err);
    if (rc != QVL_OK)
        return rc;
    world->failed_rank = -1;
    world->deadline_s = 600.0;
    world->phase = "starting";
    world->log = log;
    world->comm = world->local = MPI_COMM_NULL;
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
    log->rank = world->rank;
    log->n_ranks = world->n_ranks;
    *out = world;
    return QVL_OK;
out:
    free(world);
    return rc;
}

void qvl_world_destroy(qvl_world *world)
{
    if (!world)
        return;
    if (world->n_ranks > 1) /* MPI_Finalize waits without a deadline */
        qvl_world_barrier(world, NULL);
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
    world->phase = phase;
}

void qvl_world_set_deadline(qvl_world *world, double seconds)
{
    world->deadline_s = seconds;
}

void qvl_world_abort(qvl_world *world, qvl_status status, const char *text)
{
    qvl_log_error(world->log, world->rank, text);
    MPI_Abort(world->comm, (int)status);
    _Exit((int)status);
}

qvl_status qvl_world_wait(qvl_world *world, MPI_Request *request, const char *doing, qvl_err *err)
{
    const double start = qvl_clock_s();
    for (long tries = 0;; tries++) {
        int done = 0;
        const qvl_status rc =
            qvl_world_check(MPI_Test(request, &done, MPI_STATUS_IGNORE), doing, err);
        if (rc != QVL_OK || done)
            return rc;
        /* Peers that share our cores need them; after 20 ms nobody is about to answer. */
        sched_yield();
        if (tries < 64)
            continue;
        const double waited = qvl_clock_s() - start;
        if (waited > 0.02)
            nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
        if (waited > world->deadline_s) {
            qvl_err late = {QVL_OK, ""};
            qvl_fail(&late, QVL_EDEVICE,
                     "while %s: waited %.0f s for the other ranks (%s); ddp_timeout is %.0f s",
                     world->phase, waited, doing, world->deadline_s);
            qvl_world_abort(world, QVL_EDEVICE, late.text);
        }
    }
}

qvl_status qvl_world_barrier(qvl_world *world, qvl_err *err)
{
    MPI_Request request;
    qvl_status rc = QVL_OK;
    QVL_MPI(MPI_Ibarrier(world->comm, &request), "barrier");
    QVL_TRY(qvl_world_wait(world, &request, "barrier", err));
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
        QVL_TRY(qvl_world_wait(world, &request, "broadcast", err));
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
    QVL_TRY(qvl_world_wait(world, &request, "reduction", err));
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

qvl_status qvl_world_agree(qvl_world *world, qvl_status local, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    int64_t first_failed = local == QVL_OK ? INT64_MAX : world->rank;
    qvl_err reason = {QVL_OK, ""};
    if (world->n_ranks == 1) {
        world->failed_rank = local == QVL_OK ? world->failed_rank : 0;
        return local;
    }
    QVL_TRY(reduce_i64(world, &first_failed, 1, MPI_MIN, &reason));
    if (first_failed == INT64_MAX)
        return QVL_OK;
    if (world->rank == (int)first_failed) {
        reason.status = local;
        memcpy(reason.text, err->text, sizeof reason.text);
    }
    QVL_TRY(qvl_world_broadcast(world, &reason, sizeof reason, (int)first_failed, err));
    world->failed_rank = (int)first_failed;
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
    QVL_TRY(qvl_world_wait(world, &request, "gather", err));
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
        QVL_TRY(qvl_world_wait(world, &request, "send", err));
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
        QVL_TRY(qvl_world_wait(world, &request, "receive", err));
    }
out:
    return rc;
}
