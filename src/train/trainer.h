/* The whole of qvl_sft. */
#ifndef QVL_SRC_TRAIN_TRAINER_H
#define QVL_SRC_TRAIN_TRAINER_H

#include <stdbool.h>

#include "mpi/world.h"
#include "src/base/log.h"
#include "src/base/status.h"
#include "src/config/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Collective. is_check: validates configuration, model files and every sample, prints the plan and
 * returns; nothing is written. Otherwise trains and leaves everything in output_dir. */
qvl_status qvl_train(const qvl_config *config, bool is_check, qvl_world *world, qvl_log *log,
                     qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
