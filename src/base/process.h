/* What every program does first. */
#ifndef QVL_SRC_BASE_PROCESS_H
#define QVL_SRC_BASE_PROCESS_H

#ifdef __cplusplus
extern "C" {
#endif

/* Before MPI and before any file is opened.
 *
 * Standard input, output and error are open afterwards: one that was closed would be the number of
 * the next file that is opened, and messages would go into that file. What stands in for it fails
 * when it is used (EBADF), as a closed one does.
 *
 * A file that grows past the limit of a job (ulimit -f) is an error of that write (EFBIG), not the
 * end of the process without a message. */
void qvl_process_init(void);

#ifdef __cplusplus
}
#endif
#endif
