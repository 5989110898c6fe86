/* What memory control groups leave, from a /proc and a /sys of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "src/base/host_memory.h"
#include "tests/unit/scratch_files.h"

enum { MIB = 1 << 20 };

/* A file with the directories above it. */
static void put(const char *name, const char *text)
{
    char path[QVL_PATH_BYTES], above[QVL_PATH_BYTES];
    scratch_path(path, name);
    for (char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(above, sizeof above, "%.*s", (int)(slash - path), path);
        mkdir(above, 0700);
    }
    write_text(path, text);
}

static uint64_t free_mib(void)
{
    uint64_t bytes = 0;
    qvl_err err = {0};
    assert_int_equal(qvl_host_free_bytes_under(&bytes, scratch, &err), QVL_OK);
    assert_int_equal(bytes % MIB, 0);
    return bytes / MIB;
}

static void the_kernel_says(void **state)
{
    uint64_t bytes = 0;
    qvl_err err = {0};
    (void)state;
    put("proc/meminfo", "MemTotal:  4194304 kB\n");
    assert_int_equal(qvl_host_free_bytes_under(&bytes, scratch, &err), QVL_EDEVICE);
    assert_non_null(strstr(err.text, "proc/meminfo: no line MemAvailable"));
    put("proc/meminfo", "MemTotal:  4194304 kB\nMemAvailable:  1048576 kB\n");
    assert_int_equal(free_mib(), 1024);
    assert_int_equal(qvl_host_free_bytes(&bytes, &err), QVL_OK);
    assert_true(bytes > 0);
}

/* Slurm's limit is on the job, two groups above the task's. */
static void limits_above_count(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/system.slice/job_7/step_0/task_1\n");
    put("sys/fs/cgroup/system.slice/job_7/step_0/task_1/memory.max", "max\n");
    put("sys/fs/cgroup/system.slice/job_7/step_0/task_1/memory.current", "1048576\n");
    put("sys/fs/cgroup/system.slice/job_7/memory.max", "536870912\n");
    put("sys/fs/cgroup/system.slice/job_7/memory.current", "209715200\n");
    assert_int_equal(free_mib(), 512 - 200);
    /* old cache goes before anything else does */
    put("sys/fs/cgroup/system.slice/job_7/memory.stat",
        "anon 1\nfile 104857600\ninactive_file 104857600\nactive_file 0\n");
    assert_int_equal(free_mib(), 512 - 100);
    /* the least counts */
    put("sys/fs/cgroup/system.slice/job_7/step_0/task_1/memory.max", "3145728\n");
    assert_int_equal(free_mib(), 2);
    put("sys/fs/cgroup/system.slice/job_7/step_0/task_1/memory.max", "1048576\n");
    assert_int_equal(free_mib(), 0);
    /* no line, no group */
    put("proc/self/cgroup", "");
    assert_int_equal(free_mib(), 1024);
}

static void version_1_is_read(void **state)
{
    (void)state;
    put("proc/self/cgroup", "9:cpu,cpuacct:/x\n4:memory:/slurm/uid_0/job_7\n0::/\n");
    put("sys/fs/cgroup/memory/slurm/uid_0/job_7/memory.limit_in_bytes", "314572800\n");
    put("sys/fs/cgroup/memory/slurm/uid_0/job_7/memory.usage_in_bytes", "104857600\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("sys/fs/cgroup/memory/memory.usage_in_bytes", "104857600\n");
    assert_int_equal(free_mib(), 200);
    put("sys/fs/cgroup/memory/slurm/uid_0/job_7/memory.stat",
        "inactive_file 0\ntotal_inactive_file 52428800\n");
    assert_int_equal(free_mib(), 250);
}

/* In a container the path is the host's: the limit is at the root. */
static void a_container_has_its_limit_at_the_root(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/kubepods/pod_1\n");
    put("sys/fs/cgroup/memory.max", "104857600\n");
    put("sys/fs/cgroup/memory.current", "1048576\n");
    assert_int_equal(free_mib(), 99);
}

static void expect_left(uint64_t address_space, uint64_t data, uint64_t left, const char *limit)
{
    const qvl_process_memory got = qvl_process_memory_under(address_space, data, scratch);
    assert_true(got.left_bytes == left);
    if (limit)
        assert_string_equal(got.limit, limit);
    else
        assert_null(got.limit);
}

/* ulimit -v and -d, after what is mapped: 1000 pages in all, 200 of them data. */
static void limits_of_the_process(void **state)
{
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), none = UINT64_MAX;
    struct rlimit before, limit;
    (void)state;
    put("proc/self/statm", "1000 300 100 5 0 200 0\n");
    expect_left(none, none, UINT64_MAX, NULL);
    expect_left(5000 * page, none, 4000 * page, "ulimit -v");
    expect_left(none, 5000 * page, 4800 * page, "ulimit -d");
    expect_left(5000 * page, 5000 * page, 4000 * page, "ulimit -v");
    expect_left(5000 * page, 4100 * page, 3900 * page, "ulimit -d");
    expect_left(999 * page, none, 0, "ulimit -v");
    assert_null(qvl_process_memory_left().limit);
    assert_int_equal(getrlimit(RLIMIT_DATA, &before), 0);
    limit = before;
    limit.rlim_cur = (rlim_t)1 << 50; /* sanitizers map terabytes */
    assert_int_equal(setrlimit(RLIMIT_DATA, &limit), 0);
    const qvl_process_memory left = qvl_process_memory_left();
    qvl_err err = {0};
    assert_string_equal(left.limit, "ulimit -d");
    assert_true(left.left_bytes < (uint64_t)1 << 50 && left.left_bytes > (uint64_t)1 << 44);
    /* memory that such a limit refuses is no fault of the program's */
    assert_int_equal(qvl_fail_memory(&err, 12, "tokens"), QVL_EDEVICE);
    assert_non_null(strstr(err.text, "out of memory: 12 bytes for tokens; ulimit -d allows "));
    assert_int_equal(setrlimit(RLIMIT_DATA, &before), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_kernel_says), cmocka_unit_test(limits_above_count),
        cmocka_unit_test(version_1_is_read), cmocka_unit_test(limits_of_the_process),
        cmocka_unit_test(a_container_has_its_limit_at_the_root)};
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
