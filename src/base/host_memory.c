#include "src/base/host_memory.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

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

/* The files of a control group's memory, in both versions of the interface. */
typedef struct group_files {
    const char *line;                  /* what its line in /proc/self/cgroup has before the path */
    const char *mount;                 /* where the paths begin */
    const char *limit, *usage, *cache; /* cache: the key in memory.stat */
} group_files;

static const group_files VERSIONS[] = {
    {"0::", "/sys/fs/cgroup", "memory.max", "memory.current", "\ninactive_file"},
    {":memory:", "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
     "\ntotal_inactive_file"}};

/* What one group leaves: its limit less what it has, of which old cache does not count, as the
 * kernel drops that first. */
static void lower_by_group(uint64_t *out, const char *root, const group_files *files,
                           const char *group)
{
    char path[QVL_PATH_BYTES];
    uint64_t limit = 0, usage = 0, cache = 0;
    snprintf(path, sizeof path, "%s%s%s/%s", root, files->mount, group, files->limit);
    if (!read_kernel_number(path, "", &limit))
        return;
    snprintf(path, sizeof path, "%s%s%s/%s", root, files->mount, group, files->usage);
    if (!read_kernel_number(path, "", &usage))
        return;
    snprintf(path, sizeof path, "%s%s%s/memory.stat", root, files->mount, group);
    if (!read_kernel_number(path, files->cache, &cache))
        cache = 0;
    usage -= cache < usage ? cache : usage;
    const uint64_t left = limit > usage ? limit - usage : 0;
    *out = left < *out ? left : *out;
}

/* A job's limit may be on any group above the process' own (Slurm: on the job's or the step's).
 * Inside a container the path may be the host's, which is not there; the root then has the limit.
 */
static void lower_by_groups(uint64_t *out, const char *root, const group_files *files,
                            const char *groups)
{
    char group[QVL_PATH_BYTES] = "";
    const char *line = strstr(groups, files->line);
    if (line)
        sscanf(line + strlen(files->line), "%1000[^\n]", group);
    for (;;) {
        char *slash = strrchr(group, '/');
        if (slash && slash[1] == '\0') {
            *slash = '\0';
            continue;
        }
        lower_by_group(out, root, files, group);
        if (!slash)
            return;
        *slash = '\0';
    }
}

qvl_status qvl_host_free_bytes_under(uint64_t *out, const char *root, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    qvl_text groups = {0};
    uint64_t kib = 0;
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    if (!read_kernel_number(path, "MemAvailable:", &kib))
        return qvl_fail(err, QVL_EDEVICE, "%s: no line MemAvailable", path);
    *out = kib * 1024;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    const bool has_groups = qvl_file_read(&groups, path, 1 << 16, NULL) == QVL_OK;
    for (size_t i = 0; i < sizeof VERSIONS / sizeof *VERSIONS; i++)
        lower_by_groups(out, root, &VERSIONS[i], has_groups ? groups.data : "");
    qvl_text_fini(&groups);
    return QVL_OK;
}

qvl_status qvl_host_free_bytes(uint64_t *out, qvl_err *err)
{
    return qvl_host_free_bytes_under(out, "", err);
}

/* ---- limits of the process
 * --------------------------------------------------------------------- */

qvl_process_memory qvl_process_memory_under(uint64_t address_space, uint64_t data, const char *root)
{
    qvl_process_memory left = {UINT64_MAX, NULL};
    char path[QVL_PATH_BYTES];
    qvl_text pages = {0};
    uint64_t size = 0, data_size = 0;
    if (address_space == UINT64_MAX && data == UINT64_MAX)
        return left;
    snprintf(path, sizeof path, "%s/proc/self/statm", root);
    if (qvl_file_read(&pages, path, 1 << 12, NULL) == QVL_OK)
        sscanf(pages.data, "%" SCNu64 " %*u %*u %*u %*u %" SCNu64, &size, &data_size);
    qvl_text_fini(&pages);
    const struct {
        const char *name;
        uint64_t limit, used;
    } limits[] = {{"ulimit -v", address_space, size}, {"ulimit -d", data, data_size}};
    for (int i = 0; i < 2; i++) {
        const uint64_t used = limits[i].used * (uint64_t)sysconf(_SC_PAGESIZE);
        const uint64_t rest = limits[i].limit > used ? limits[i].limit - used : 0;
        if (limits[i].limit != UINT64_MAX && rest < left.left_bytes)
            left = (qvl_process_memory){rest, limits[i].name};
    }
    return left;
}

static uint64_t limit_of(int resource)
{
    struct rlimit limit;
    return getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX
                                                                               : limit.rlim_cur;
}

qvl_process_memory qvl_process_memory_left(void)
{
    return qvl_process_memory_under(limit_of(RLIMIT_AS), limit_of(RLIMIT_DATA), "");
}
