/* output_dir: what is in it when a run begins, and what it leaves (REFERENCE 7.10, 8.9). */
#ifndef QVL_SRC_TRAIN_OUTPUT_DIR_H
#define QVL_SRC_TRAIN_OUTPUT_DIR_H

#include <stdint.h>

#include "src/base/files.h"
#include "src/base/log.h"
#include "src/base/status.h"
#include "src/config/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/* On rank 0. Makes the directory and checks that needed_bytes can be written to it (QVL_EIO).
 * *resume is the checkpoint to go on from, or "": resume_from_checkpoint names it (true: the
 * newest); else overwrite_output_dir: true starts anew, and the earlier run's checkpoints and logs
 * go, unless they are of this very run and not finished (output_overwrite.h); else the newest whole
 * checkpoint; QVL_ECONFIG when there is none but a finished run's results are, and when there is
 * one and resume_from_checkpoint is false. The log of a run
 * that left neither is begun anew. */
qvl_status qvl_output_dir_open(char resume[QVL_PATH_BYTES], const qvl_config *config,
                               uint64_t needed_bytes, qvl_log *log, qvl_err *err);

/* --check: what open would refuse, without leaving a trace: a directory that cannot be made or
 * written to, a checkpoint that resume_from_checkpoint asks for and is not there. */
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

/* Copies the tokenizer's and processor's files of the model directory that are there. */
qvl_status qvl_output_dir_copy_tokenizer(const char *output_dir, const char *model_dir,
                                         qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
