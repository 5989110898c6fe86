/* Memory of this host. */
#ifndef QVL_SRC_BASE_HOST_MEMORY_H
#define QVL_SRC_BASE_HOST_MEMORY_H

#include <stdint.h>

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes that the kernel says are available, or the rest of the control group's limit if that is
 * less. QVL_EDEVICE where the kernel does not say. */
qvl_status qvl_host_free_bytes(uint64_t *out, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
