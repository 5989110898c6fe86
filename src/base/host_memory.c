#include "src/base/host_memory.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "src/base/files.h"
#include "src/base/text.h"

/* First number after key in a file of the kernel, or false. */
static bool read_kernel_number(const char *path, const char *key, uint64_t *out)
{
    qvl_text content = {0};
    bool found = false;
    if (qvl_file_read(&content, path, 1 << 20, NULL) == QVL_OK) {
        const char *at = strstr(content.data, key);
        found = at && sscanf(at + strlen(key), " %" SCNu64, out) == 1;
    }
    qvl_text_fini(&content);
    return found;
}

qvl_status qvl_host_free_bytes(uint64_t *out, qvl_err *err)
{
    uint64_t kib = 0, limit = 0, current = 0;
    if (!read_kernel_number("/proc/meminfo", "MemAvailable:", &kib))
        return qvl_fail(err, QVL_EDEVICE, "/proc/meminfo: no line MemAvailable");
    *out = kib * 1024;
    if (read_kernel_number("/sys/fs/cgroup/memory.max", "", &limit) &&
        read_kernel_number("/sys/fs/cgroup/memory.current", "", &current) && limit > current &&
        limit - current < *out)
        *out = limit - current;
    return QVL_OK;
}
