/* Memory of this host. */
#ifndef QVL_SRC_BASE_HOST_MEMORY_H
#define QVL_SRC_BASE_HOST_MEMORY_H

#include <stdint.h>

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes that the kernel says are available, or what the limits of this process' control groups
 * (version 1 or 2, its own and those above) leave if that is less. QVL_EDEVICE where the kernel
 * does not say. */
qvl_status qvl_host_free_bytes(uint64_t *out, qvl_err *err);

/* The same with /proc and /sys of this directory, for tests. */
qvl_status qvl_host_free_bytes_under(uint64_t *out, const char *root, qvl_err *err);

/* What limits of this process alone leave to it (ulimit -v, ulimit -d), after what it has mapped by
 * now. limit: the one that leaves the least, "ulimit -v"; NULL: there is none, and left_bytes is
 * UINT64_MAX. */
typedef struct qvl_process_memory {
    uint64_t left_bytes;
    const char *limit;
} qvl_process_memory;

qvl_process_memory qvl_process_memory_left(void);

/* The same of these limits (UINT64_MAX: none), with /proc of this directory, for tests. */
qvl_process_memory qvl_process_memory_under(uint64_t address_space, uint64_t data,
                                            const char *root);

#ifdef __cplusplus
}
#endif
#endif
