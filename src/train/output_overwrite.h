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

/* *resume (given as "") becomes the checkpoint of this very run, if it was stopped: published
 * examples overwrite, which would take a stopped job's work away when it is started again. Keys
 * that do not change what is learned may differ. Else the earlier run's checkpoints, results and
 * logs will go (qvl_output_dir_begin), and the log says so. QVL_ECONFIG when the adapter to start
 * from is one of them, or a checkpoint is not qvl's. */
qvl_status qvl_output_dir_overwrite(char resume[QVL_PATH_BYTES], const qvl_config *config,
                                    qvl_log *log, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
