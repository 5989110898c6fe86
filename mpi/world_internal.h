/* What world.c and collectives.c share. */
#ifndef QVL_MPI_WORLD_INTERNAL_H
#define QVL_MPI_WORLD_INTERNAL_H

#include <mpi.h>

#include "mpi/world.h"

struct qvl_world {
    MPI_Comm comm;  /* all ranks */
    MPI_Comm local; /* those of this host */
    qvl_log *log;
    int rank, n_ranks, local_rank, n_local;
    int failed_rank;
    double deadline_s;
    const char *phase;
    char host[MPI_MAX_PROCESSOR_NAME];
    char *scratch; /* of qvl_world_sum_f32 */
};

/* Waits for the request until the deadline; past it the job ends (the function then does not
 * return). doing names the operation for the message. */
qvl_status qvl_world_wait(qvl_world *world, MPI_Request *request, const char *doing, qvl_err *err);

/* Turns an MPI return code into a status. */
qvl_status qvl_world_check(int code, const char *doing, qvl_err *err);

#define QVL_MPI(call, doing) QVL_TRY(qvl_world_check((call), (doing), err))

#endif
