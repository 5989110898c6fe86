/* The step and its parts beside what this machine could do, in one run. */
#ifndef QVL_SRC_TRAIN_BENCH_H
#define QVL_SRC_TRAIN_BENCH_H

#include <stdbool.h>

#include "mpi/world.h"
#include "src/base/log.h"
#include "src/config/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Runs optimiser steps of the configuration and, between them, their frozen products alone; prints
 * a table, or one JSON object (is_json). Writes no file but tokenized_path, when it is missing. */
qvl_status qvl_bench(const qvl_config *config, bool is_json, qvl_world *world, qvl_log *log,
                     qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
