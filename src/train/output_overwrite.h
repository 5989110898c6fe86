/* overwrite_output_dir: true, and what is in output_dir. */
#ifndef QVL_SRC_TRAIN_OUTPUT_OVERWRITE_H
#define QVL_SRC_TRAIN_OUTPUT_OVERWRITE_H

#include "src/base/files.h"
#include "src/base/log.h"
#include "src/base/status.h"
#include "src/config/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Of output_dir, written when a run begins. */
#define QVL_CONFIG_FILE "config.yaml"

/* *resume (given as "") becomes the checkpoint of this very run, if it was stopped: published
 * examples overwrite, which would take a stopped job's work away when it is started again. Keys
 * that do not change what is learned may differ. Else the earlier run's checkpoints, results and
 * logs go, and the log says so. QVL_ECONFIG, and nothing is removed, when the adapter to start from
 * is one of them, or a checkpoint is not qvl's. */
qvl_status qvl_output_dir_overwrite(char resume[QVL_PATH_BYTES], const qvl_config *config,
                                    qvl_log *log, qvl_err *err);

/* output_dir.c: removes checkpoints, results and logs. */
qvl_status qvl_output_dir_empty(const char *directory, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
