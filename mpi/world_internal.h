/* What world.c and collectives.c share. */
#ifndef QVL_MPI_WORLD_INTERNAL_H
#define QVL_MPI_WORLD_INTERNAL_H

#include <mpi.h>

#include "mpi/watch.h"
#include "mpi/world.h"

struct qvl_world {
    MPI_Comm comm;  /* all ranks */
    MPI_Comm local; /* those of this host */
    qvl_log *log;
    int rank, n_ranks, local_rank, n_local;
    int failed_rank;
    double deadline_s;
    const char *deadline_key; /* borrowed */
    int stop;                 /* agreed on: reason of src/base/stop.h, 0 for none */
    int stop_rank;            /* who was asked */
    bool is_stop_awaited;     /* the program looks for itself */
    qvl_watch watch;
    char host[MPI_MAX_PROCESSOR_NAME];
    char *scratch; /* of qvl_world_sum_f32 */
};

/* Waits for the request until the deadline; past it, or when a rank is gone, the job ends (the
 * function then does not return). doing names the operation for the message, bytes go into the ring
 * of operations. */
qvl_status qvl_world_wait(qvl_world *world, MPI_Request *request, const char *doing, size_t bytes,
                          qvl_err *err);

/* "while training, step 37" */
const char *qvl_world_where(char buffer[128], const qvl_world *world);

/* Turns an MPI return code into a status. */
qvl_status qvl_world_check(int code, const char *doing, qvl_err *err);

#define QVL_MPI(call, doing) QVL_TRY(qvl_world_check((call), (doing), err))

#endif
