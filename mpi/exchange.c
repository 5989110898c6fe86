#include "mpi/exchange.h"

#include "mpi/world_internal.h"

#ifdef QVL_WITH_NCCL

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <nccl.h>

#include "mpi/stall_watch.h"
#include "src/base/clock.h"
#include "src/base/memory.h"

struct qvl_exchange {
    qvl_world *world;
    ncclComm_t comm;
    cudaStream_t stream;
    bool is_lost; /* of no use any more */
    qvl_stall_watch *stall;
};

static const double STALL_MARGIN_S = 10.0;

static qvl_status fail(const qvl_exchange *exchange, ncclResult_t code, const char *doing,
                       qvl_err *err)
{
    const char *more = ncclGetLastError(exchange->comm);
    return qvl_fail(err, QVL_EDEVICE, "NCCL: %s: %s%s%.200s", doing, ncclGetErrorString(code),
                    more && more[0] ? ": " : "", more ? more : "");
}

/* After a fault. Aborting takes time that this process may not have, as launchers kill what is left
 * of a job within a second: it is left to destroy, so that the fault is told first. */
static void give_up(qvl_exchange *exchange)
{
    exchange->is_lost = true;
}

/* Instead of destroying, which would wait for the others. */
static void abort_now(qvl_exchange *exchange)
{
    if (exchange->comm)
        ncclCommAbort(exchange->comm);
    exchange->comm = NULL;
}

/* A rank that died breaks its connections at once; a moment later it is known who it was. */
static qvl_status broken(qvl_exchange *exchange, ncclResult_t code, const char *doing, qvl_err *err)
{
    const double start = qvl_clock_s();
    qvl_err fault = {QVL_OK, ""};
    char where[128];
    give_up(exchange);
    fail(exchange, code, doing, &fault);
    while (qvl_clock_s() - start < 0.6) {
        if (qvl_world_look(exchange->world, err) != QVL_OK)
            return QVL_EDEVICE;
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    return qvl_fail(err, QVL_EDEVICE, "%s, %s", fault.text,
                    qvl_world_where(where, exchange->world));
}

/* Until NCCL has taken the last call in. */
static qvl_status settle(qvl_exchange *exchange, ncclResult_t code, const char *doing, qvl_err *err)
{
    qvl_waiting waiting = qvl_waiting_begin();
    while (code == ncclInProgress) {
        if (ncclCommGetAsyncError(exchange->comm, &code) != ncclSuccess)
            code = ncclInternalError;
        if (code != ncclInProgress)
            break;
        const double waited = qvl_waiting_s(&waiting);
        qvl_stall_watch_beat(exchange->stall);
        if (qvl_world_look(exchange->world, err) != QVL_OK) {
            give_up(exchange);
            return QVL_EDEVICE;
        }
        if (waited > exchange->world->deadline_s) {
            give_up(exchange);
            return qvl_fail(err, QVL_EDEVICE,
                            "NCCL: %s: waited %.0f s for the other ranks; %s is %.0f s", doing,
                            waited, exchange->world->deadline_key, exchange->world->deadline_s);
        }
        if (waited > 0.001)
            nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
        else
            sched_yield();
    }
    if (code == ncclSuccess)
        return QVL_OK;
    return broken(exchange, code, doing, err);
}

/* A name of its own for each rank, for ranks that share a GPU; what the user set stays. */
static void pose_as_a_host(const qvl_world *world)
{
    char name[64];
    snprintf(name, sizeof name, "qvl-rank-%d", world->rank);
    setenv("NCCL_HOSTID", name, 0);
}

qvl_status qvl_exchange_create(qvl_exchange **out, qvl_world *world, void *stream, bool shares_gpu,
                               qvl_err *err)
{
    ncclUniqueId id;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    qvl_exchange *exchange = NULL;
    qvl_status rc = qvl_alloc(&exchange, 1, sizeof *exchange, "communicator", err);
    if (rc == QVL_OK) {
        exchange->world = world;
        exchange->stream = stream;
        rc = qvl_stall_watch_open(&exchange->stall, world, STALL_MARGIN_S, err);
    }
    if (shares_gpu)
        pose_as_a_host(world);
    if (rc == QVL_OK && world->rank == 0) {
        const ncclResult_t code = ncclGetUniqueId(&id);
        if (code != ncclSuccess)
            rc = qvl_fail(err, QVL_EDEVICE, "NCCL: opening: %s", ncclGetErrorString(code));
    }
    QVL_TRY(qvl_world_agree(world, rc, err));
    QVL_TRY(qvl_world_broadcast(world, &id, sizeof id, 0, err));
    config.blocking = 0;
    rc = settle(exchange,
                ncclCommInitRankConfig(&exchange->comm, world->n_ranks, id, world->rank, &config),
                "opening the communicator", err);
    QVL_TRY(qvl_world_agree(world, rc, err));
    *out = exchange;
    return QVL_OK;
out:
    if (exchange) {
        abort_now(exchange);
        qvl_stall_watch_close(exchange->stall);
    }
    free(exchange);
    return rc;
}

void qvl_exchange_destroy(qvl_exchange *exchange)
{
    qvl_err ignored = {QVL_OK, ""};
    if (!exchange)
        return;
    if (exchange->is_lost || exchange->world->failed_rank >= 0)
        abort_now(exchange);
    if (exchange->comm &&
        settle(exchange, ncclCommFinalize(exchange->comm), "closing", &ignored) == QVL_OK)
        ncclCommDestroy(exchange->comm);
    else
        abort_now(exchange);
    qvl_stall_watch_close(exchange->stall);
    free(exchange);
}

static qvl_status lost(qvl_err *err)
{
    return qvl_fail(err, QVL_EDEVICE, "NCCL: the communicator was given up after a fault");
}

qvl_status qvl_exchange_sum_f32(qvl_exchange *exchange, float *buffer, int64_t n, qvl_err *err)
{
    if (exchange->is_lost)
        return lost(err);
    return settle(exchange,
                  ncclAllReduce(buffer, buffer, (size_t)n, ncclFloat32, ncclSum, exchange->comm,
                                exchange->stream),
                  "summing gradients", err);
}

qvl_status qvl_exchange_broadcast(qvl_exchange *exchange, void *buffer, size_t bytes, int root,
                                  qvl_err *err)
{
    if (exchange->is_lost)
        return lost(err);
    return settle(
        exchange,
        ncclBroadcast(buffer, buffer, bytes, ncclUint8, root, exchange->comm, exchange->stream),
        "broadcasting weights", err);
}

void qvl_exchange_expect(qvl_exchange *exchange, bool is_expected)
{
    if (exchange)
        qvl_stall_watch_expect(exchange->stall, is_expected);
}

qvl_status qvl_exchange_poll(void *context, double waited_s, qvl_err *err)
{
    qvl_exchange *exchange = context;
    ncclResult_t code = ncclSuccess;
    char where[128];
    if (exchange->is_lost)
        return lost(err);
    qvl_stall_watch_beat(exchange->stall);
    if (ncclCommGetAsyncError(exchange->comm, &code) != ncclSuccess)
        code = ncclInternalError;
    if (code != ncclSuccess && code != ncclInProgress)
        return broken(exchange, code, exchange->world->watch.phase, err);
    if (waited_s > 0.2 && qvl_world_look(exchange->world, err) != QVL_OK) {
        give_up(exchange);
        return QVL_EDEVICE;
    }
    if (waited_s <= exchange->world->deadline_s)
        return QVL_OK;
    give_up(exchange);
    qvl_text who = {0};
    qvl_watch_describe(&who, &exchange->world->watch);
    const qvl_status rc = qvl_fail(
        err, QVL_EDEVICE, "%s: waited %.0f s for the GPU and the other ranks; %s is %.0f s%s",
        qvl_world_where(where, exchange->world), waited_s, exchange->world->deadline_key,
        exchange->world->deadline_s, who.data ? who.data : "");
    qvl_text_fini(&who);
    return rc;
}

#else

static qvl_status none(qvl_err *err)
{
    return qvl_fail(err, QVL_EDEVICE,
                    "this build has no NCCL, so ranks on GPUs cannot exchange anything: install "
                    "libnccl-dev (or load its module) and build again, or run one rank");
}

qvl_status qvl_exchange_create(qvl_exchange **out, qvl_world *world, void *stream, bool shares_gpu,
                               qvl_err *err)
{
    (void)out;
    (void)world;
    (void)stream;
    (void)shares_gpu;
    return none(err);
}

void qvl_exchange_destroy(qvl_exchange *exchange)
{
    (void)exchange;
}

qvl_status qvl_exchange_sum_f32(qvl_exchange *exchange, float *buffer, int64_t n, qvl_err *err)
{
    (void)exchange;
    (void)buffer;
    (void)n;
    return none(err);
}

qvl_status qvl_exchange_broadcast(qvl_exchange *exchange, void *buffer, size_t bytes, int root,
                                  qvl_err *err)
{
    (void)exchange;
    (void)buffer;
    (void)bytes;
    (void)root;
    return none(err);
}

void qvl_exchange_expect(qvl_exchange *exchange, bool is_expected)
{
    (void)exchange;
    (void)is_expected;
}

qvl_status qvl_exchange_poll(void *exchange, double waited_s, qvl_err *err)
{
    (void)exchange;
    (void)waited_s;
    return none(err);
}

#endif
