/* output_dir: what is in it when a run begins, and what it leaves (REFERENCE 7.10, 8.9). */
#ifndef QVL_SRC_TRAIN_OUTPUT_DIR_H
#define QVL_SRC_TRAIN_OUTPUT_DIR_H

#include <stdint.h>

#include "src/base/files.h"
#include "src/base/log.h"
#include "src/base/status.h"
#include "src/config/config.h"
#include "src/train/output_files.h"

#ifdef __cplusplus
extern "C" {
#endif

/* qvl_directory_create_from, whose failures name the key. */
qvl_status qvl_output_dir_make(char first[QVL_PATH_BYTES], const char *directory, qvl_err *err);

/* On rank 0. Makes the directory and checks that needed_bytes can be written to it (QVL_EIO), and
 * that no file is in the way (qvl_output_files_check). *resume is the checkpoint to go on from, or
 * "": resume_from_checkpoint names it (true: the newest); else overwrite_output_dir: true starts
 * anew, unless an earlier run there is this very run and not finished (output_overwrite.h); else
 * the newest whole checkpoint; QVL_ECONFIG when there is none but a finished run's results are, and
 * when there is one and resume_from_checkpoint is false. Removes only what a killed save left. */
qvl_status qvl_output_dir_open(char resume[QVL_PATH_BYTES], const qvl_config *config,
                               uint64_t needed_bytes, qvl_log *log, qvl_err *err);

/* On rank 0, when all that the run reads has been read and the first step is next. What an earlier
 * run left goes, unless this run goes on from a checkpoint: its log; with overwrite_output_dir:
 * true its checkpoints and results as well. Then config.yaml is written. */
qvl_status qvl_output_dir_begin(const qvl_config *config, bool is_resumed, qvl_err *err);

/* --check: what open would refuse and warn of, without leaving a trace. */
qvl_status qvl_output_dir_check(const qvl_config *config, uint64_t needed_bytes, qvl_log *log,
                                qvl_err *err);

/* Takes output_dir for this process, until *out_fd is closed or the process ends; another process
 * that has it is QVL_EIO, after 5 s in which it may end. Where a file system has no locks, -1 and a
 * warning.
 */
qvl_status qvl_output_dir_lock(int *out_fd, const char *output_dir, qvl_log *log, qvl_err *err);

/* Gives it back, and removes the file that was locked. */
void qvl_output_dir_unlock(int *fd, const char *output_dir);

/* Writes config.yaml: what is in force. */
qvl_status qvl_output_dir_write_config(const qvl_config *config, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
