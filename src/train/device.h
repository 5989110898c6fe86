/* The device of a rank. */
#ifndef QVL_SRC_TRAIN_DEVICE_H
#define QVL_SRC_TRAIN_DEVICE_H

#include "kernels/ops.h"
#include "mpi/exchange.h"
#include "mpi/world.h"
#include "src/base/log.h"
#include "src/base/status.h"
#include "src/config/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Opens what config->device asks for and prints who computes where. *out_exchange: how the GPUs of
 * several ranks talk, tried out; left alone (NULL) otherwise. *out_threads: host threads that this
 * rank may use. Collective. QVL_EDEVICE when the device is not there. */
qvl_status qvl_device_choose(qvl_device **out, qvl_exchange **out_exchange, int *out_threads,
                             const qvl_config *config, qvl_world *world, qvl_log *log,
                             qvl_err *err);

/* Host threads for this rank: OMP_NUM_THREADS, or the cores it is bound to; ranks of a host that
 * are bound to the same cores share them evenly. Collective. */
qvl_status qvl_threads_choose(int *out_threads, qvl_world *world, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
