/* A world of one rank without MPI: nothing of what it is used for here talks to a peer. */
#ifndef QVL_TESTS_UNIT_WORLD_OF_ONE_H
#define QVL_TESTS_UNIT_WORLD_OF_ONE_H

#include "mpi/world_internal.h"
#include "src/base/log.h"

static inline qvl_world world_of_one(qvl_log *log)
{
    qvl_log_init(log, "test");
    log->is_terminal = false;
    return (qvl_world){.comm = MPI_COMM_NULL,
                       .local = MPI_COMM_NULL,
                       .log = log,
                       .n_ranks = 1,
                       .n_local = 1,
                       .failed_rank = -1,
                       .deadline_s = 60.0,
                       .watch = {.window = MPI_WIN_NULL, .step = -1, .phase = "testing"}};
}

#endif
