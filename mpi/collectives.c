/* Sums over ranks that give the same bits every time, memory shared by a host, and comparing. */
#include "mpi/world_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/memory.h"
#include "src/base/sha256.h"

/* Floats that are exchanged at a time: 8 MiB, so the scratch is small beside the gradients. */
enum { SUM_CHUNK = 2 << 20 };

/* Each rank sums one piece of the chunk for all, in rank order, and hands it back. */
static qvl_status sum_chunk(qvl_world *world, float *chunk, int n, float *received, int *counts,
                            int *starts, qvl_err *err)
{
    const int n_ranks = world->n_ranks, piece = (n + n_ranks - 1) / n_ranks;
    int *own_counts = counts + n_ranks, *own_starts = starts + n_ranks;
    MPI_Request request;
    qvl_status rc = QVL_OK;
    for (int r = 0; r < n_ranks; r++) {
        starts[r] = r * piece < n ? r * piece : n;
        counts[r] = n - starts[r] < piece ? n - starts[r] : piece;
    }
    const int mine = counts[world->rank];
    for (int r = 0; r < n_ranks; r++) {
        own_counts[r] = mine;
        own_starts[r] = r * mine;
    }
    QVL_MPI(MPI_Ialltoallv(chunk, counts, starts, MPI_FLOAT, received, own_counts, own_starts,
                           MPI_FLOAT, world->comm, &request),
            "gradient exchange");
    QVL_TRY(qvl_world_wait(world, &request, "gradient exchange", (size_t)n * sizeof *chunk, err));
    float *own = chunk + starts[world->rank];
    for (int i = 0; i < mine; i++) {
        double sum = 0.0;
        for (int r = 0; r < n_ranks; r++)
            sum += received[r * mine + i];
        own[i] = (float)sum;
    }
    QVL_MPI(MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_FLOAT, chunk, counts, starts, MPI_FLOAT,
                            world->comm, &request),
            "gradient gather");
    QVL_TRY(qvl_world_wait(world, &request, "gradient gather", (size_t)n * sizeof *chunk, err));
out:
    return rc;
}

qvl_status qvl_world_sum_f32(qvl_world *world, float *buffer, int64_t n, qvl_err *err)
{
    const size_t n_ranks = (size_t)world->n_ranks;
    const size_t float_bytes = (SUM_CHUNK + n_ranks) * sizeof(float);
    qvl_status rc = QVL_OK;
    if (n_ranks == 1)
        return QVL_OK;
    if (!world->scratch) {
        rc = qvl_alloc(&world->scratch, 1, float_bytes + 4 * n_ranks * sizeof(int),
                       "gradient exchange", err);
        QVL_TRY(qvl_world_agree(world, rc, err));
    }
    float *received = (float *)(void *)world->scratch;
    int *counts = (int *)(void *)(world->scratch + float_bytes);
    for (int64_t at = 0; at < n; at += SUM_CHUNK) {
        const int length = n - at < SUM_CHUNK ? (int)(n - at) : SUM_CHUNK;
        QVL_TRY(sum_chunk(world, buffer + at, length, received, counts, counts + 2 * n_ranks, err));
    }
out:
    return rc;
}

/* The lowest rank that differs from rank 0 says so, as it has the text. What is exchanged is the
 * same whatever is compared, since this is how programs of other versions are found out. */
qvl_status qvl_world_compare(qvl_world *world, const char *what, const char *text, qvl_err *err)
{
    enum { SHORT = 120 }; /* of a text that is worth showing */
    char digest[QVL_SHA256_TEXT_BYTES] = "", shown[SHORT + 16] = "", *all = NULL;
    qvl_status rc = QVL_OK;
    rc = qvl_sha256_bytes(digest, text, strlen(text), err);
    if (rc == QVL_OK)
        rc = qvl_alloc(&all, (size_t)world->n_ranks, sizeof digest, "comparison", err);
    QVL_TRY(qvl_world_agree(world, rc, err));
    QVL_TRY(qvl_world_all_gather(world, all, digest, sizeof digest, err));
    if (strlen(text) <= SHORT)
        snprintf(shown, sizeof shown, ": it has '%s'", text);
    if (strcmp(digest, all) != 0)
        rc = qvl_fail(err, QVL_EDATA,
                      "ranks 0 and %d do not have the same %s (SHA-256 %.12s... and %.12s...)%s",
                      world->rank, what, all, digest, shown);
    rc = qvl_world_agree(world, rc, err);
out:
    free(all);
    return rc;
}

struct qvl_shared {
    qvl_world *world;
    MPI_Win window;
};

qvl_status qvl_world_share(qvl_world *world, qvl_shared **out_shared, void **out, size_t n_bytes,
                           qvl_err *err)
{
    qvl_shared *shared = NULL;
    void *memory = NULL;
    MPI_Aint size = 0;
    int unit = 0;
    qvl_status rc = QVL_OK;
    rc = qvl_alloc(&shared, 1, sizeof *shared, "shared memory", err);
    QVL_TRY(qvl_world_agree(world, rc, err)); /* all are here: what follows has no deadline */
    shared->world = world;
    shared->window = MPI_WIN_NULL;
    rc = qvl_world_check(MPI_Win_allocate_shared(world->local_rank == 0 ? (MPI_Aint)n_bytes : 0, 1,
                                                 MPI_INFO_NULL, world->local, &memory,
                                                 &shared->window),
                         "shared memory", err);
    if (rc == QVL_OK)
        rc = qvl_world_check(MPI_Win_shared_query(shared->window, 0, &size, &unit, &memory),
                             "shared memory", err);
    QVL_TRY(qvl_world_agree(world, rc, err));
    if (world->local_rank == 0 && n_bytes)
        memset(memory, 0, n_bytes);
    QVL_TRY(qvl_world_barrier(world, err));
    *out_shared = shared;
    *out = memory;
    return QVL_OK;
out:
    free(shared);
    return rc;
}

void qvl_world_unshare(qvl_shared *shared)
{
    if (!shared)
        return;
    qvl_world_barrier(shared->world, NULL); /* MPI_Win_free waits without a deadline */
    if (shared->window != MPI_WIN_NULL)
        MPI_Win_free(&shared->window);
    free(shared);
}
