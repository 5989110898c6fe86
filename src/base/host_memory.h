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

#ifdef __cplusplus
}
#endif
#endif
