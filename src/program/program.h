/* What all MPI programs share: arguments, the configuration, and one error line at the end. */
#ifndef QVL_SRC_PROGRAM_PROGRAM_H
#define QVL_SRC_PROGRAM_PROGRAM_H

#include <stdbool.h>

#include "mpi/world.h"
#include "src/base/log.h"
#include "src/base/status.h"
#include "src/config/config.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_program {
    const char *name;    /* "qvl_sft" */
    const char *summary; /* the text of --help before the keys */
    const char *flag;    /* an option of its own with which it only prints, "--check"; NULL: none */
    bool only_prints;    /* also without it: standard output that is lost is then a failure */
    /* The work, on all ranks. */
    qvl_status (*run)(const qvl_config *config, bool has_flag, qvl_world *world, qvl_log *log,
                      qvl_err *err);
} qvl_program;

/* main() of the program; returns its exit code. */
int qvl_program_main(const qvl_program *program, int argc, char **argv);

/* The answers to --version. */
void qvl_program_print_version(const char *name);

#ifdef __cplusplus
}
#endif
#endif
