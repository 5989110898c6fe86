/* Sums and broadcasts between the GPUs of the ranks, through NCCL.
 *
 * The communicator is bootstrapped from MPI and never blocks: what NCCL has not finished is asked
 * for until the world's deadline. Work is queued on the stream that was given; its end is seen by
 * whoever waits for that stream, and a peer's failure by qvl_exchange_poll, which is asked while
 * waiting. After a failure every call fails, and destroy aborts what is under way.
 *
 * Sums have a fixed order for the same ranks on the same hosts: the same bits in every run.
 */
#ifndef QVL_MPI_EXCHANGE_H
#define QVL_MPI_EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpi/world.h"
#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_exchange qvl_exchange;

/* stream: a cudaStream_t of the GPU that is current. shares_gpu: ranks of this host are on the same
 * GPU, which NCCL refuses unless each says that it is a host of its own; slow, for tests.
 * Collective. QVL_EDEVICE when NCCL fails or this build has none. */
qvl_status qvl_exchange_create(qvl_exchange **out, qvl_world *world, void *stream, bool shares_gpu,
                               qvl_err *err);
void qvl_exchange_destroy(qvl_exchange *exchange); /* NULL is fine */

/* GPU memory; queued, not awaited. buffer [n] becomes the sum over ranks; bytes of root's buffer go
 * to all others. */
qvl_status qvl_exchange_sum_f32(qvl_exchange *exchange, float *buffer, int64_t n, qvl_err *err);
qvl_status qvl_exchange_broadcast(qvl_exchange *exchange, void *buffer, size_t bytes, int root,
                                  qvl_err *err);

/* Expected: from now on this rank does nothing but call CUDA and wait for the GPU, and polls, sums
 * or says so again within the world's deadline and a margin, or the process ends (stall_watch.h).
 * NULL is fine. */
void qvl_exchange_expect(qvl_exchange *exchange, bool is_expected);

/* For whoever has waited for the stream for so long: QVL_EDEVICE when NCCL reports a fault or the
 * world's deadline has passed; the communicator is then given up, so that nothing hangs. Has the
 * type of qvl_device.poll (context is the exchange). */
qvl_status qvl_exchange_poll(void *exchange, double waited_s, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
