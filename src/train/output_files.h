/* The files that a run writes into output_dir by name: which they are, and that none takes the
 * place of something that qvl did not write. */
#ifndef QVL_SRC_TRAIN_OUTPUT_FILES_H
#define QVL_SRC_TRAIN_OUTPUT_FILES_H

#include <stdbool.h>

#include "src/base/files.h"
#include "src/base/log.h"
#include "src/base/status.h"
#include "src/config/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Written when the first step begins: what is in force. Earlier runs are known by it. */
#define QVL_CONFIG_FILE "config.yaml"

/* Looks only. QVL_ECONFIG when the configuration's own file, tokenized_path or the adapter to start
 * from would be replaced or removed; when a directory or the like stands where a file is going to
 * be; when there is a config.yaml that qvl did not write, or any of the files where no run of qvl
 * has been; when output_dir is too long a path. QVL_EIO when it is there and no directory. */
qvl_status qvl_output_files_check(const qvl_config *config, qvl_err *err);

/* QVL_ECONFIG when the results of a run are there. */
qvl_status qvl_output_files_refuse_results(const char *directory, qvl_err *err);

/* Removes logs and plots, and with them the results, where they are there and are files. */
qvl_status qvl_output_files_remove(const char *directory, bool with_results, qvl_err *err);

/* A name under which qvl writes before it renames: X.PID.tmp, where digits may follow PID. */
bool qvl_output_file_is_leftover(const char *name);

/* Copies the tokenizer's and processor's files of the model directory that are there; what is there
 * under their names but is no file is warned of. */
qvl_status qvl_output_dir_copy_tokenizer(const char *output_dir, const char *model_dir,
                                         qvl_log *log, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
