/* Faults on purpose: a library for LD_PRELOAD that makes the n-th call of a kind fail, come up
 * short, or be the last thing that the process does.
 *
 *   QVL_FAULT_CALL    open read write fsync close rename mkdir remove truncate malloc, or "any" of
 *                     those that write
 *   QVL_FAULT_NTH     which one, from 1 (0: none, only count)
 *   QVL_FAULT_TIMES   how many in a row (1); -1: all that follow
 *   QVL_FAULT_HOW     kill, short (half of what was asked), or an error: EIO ENOSPC EDQUOT EINTR
 *   QVL_FAULT_PATH    only files whose path contains this
 *   QVL_FAULT_WHILE   only while this file exists
 *   QVL_FAULT_COUNTS  file for the number of calls of each kind, written by qvl_faults_report
 *
 * Without QVL_FAULT_PATH nothing counts before the program calls qvl_faults_arm.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OPEN, READ, WRITE, FSYNC, CLOSE, RENAME, MKDIR, REMOVE, TRUNCATE, MALLOC, N_CALLS };
static const char *const NAMES[N_CALLS] = {"open",   "read",  "write",  "fsync",    "close",
                                           "rename", "mkdir", "remove", "truncate", "malloc"};

enum { MOST_FILES = 4096 };
static atomic_bool is_watched[MOST_FILES];
static atomic_long counts[N_CALLS], n_any;
static atomic_bool is_armed;
static bool is_ready;
static int wanted = -1; /* N_CALLS: any that writes */
static long nth, times = 1;
static const char *how = "", *only, *only_while;

static __attribute__((constructor)) void read_settings(void)
{
    const char *call = getenv("QVL_FAULT_CALL"), *n = getenv("QVL_FAULT_NTH");
    only = getenv("QVL_FAULT_PATH");
    only_while = getenv("QVL_FAULT_WHILE");
    for (int c = 0; call && c < N_CALLS; c++)
        if (strcmp(call, NAMES[c]) == 0)
            wanted = c;
    if (call && strcmp(call, "any") == 0)
        wanted = N_CALLS;
    nth = n ? atol(n) : 0;
    if (getenv("QVL_FAULT_TIMES"))
        times = atol(getenv("QVL_FAULT_TIMES"));
    if (getenv("QVL_FAULT_HOW"))
        how = getenv("QVL_FAULT_HOW");
    atomic_store(&is_armed, only != NULL);
    is_ready = true;
}

void qvl_faults_arm(int on);
void qvl_faults_arm(int on)
{
    atomic_store(&is_armed, on != 0);
}

void qvl_faults_report(void);
void qvl_faults_report(void)
{
    const char *path = getenv("QVL_FAULT_COUNTS");
    atomic_store(&is_armed, false);
    FILE *file = path ? fopen(path, "w") : NULL;
    for (int c = 0; file && c < N_CALLS; c++)
        fprintf(file, "%s %ld\n", NAMES[c], atomic_load(&counts[c]));
    if (file)
        fclose(file);
}

static int error_number(void)
{
    return strcmp(how, "ENOSPC") == 0   ? ENOSPC
           : strcmp(how, "EDQUOT") == 0 ? EDQUOT
           : strcmp(how, "EINTR") == 0  ? EINTR
                                        : EIO;
}

static bool is_writing(int call)
{
    return call != READ && call != CLOSE && call != MALLOC && call != REMOVE;
}

/* Counts the call, and says whether it is to go wrong. Does not return when it is to kill. */
static bool goes_wrong(int call, bool concerns)
{
    if (!is_ready || !concerns || !atomic_load(&is_armed))
        return false;
    if (only_while && syscall(SYS_access, only_while, F_OK) != 0)
        return false;
    long number = atomic_fetch_add(&counts[call], 1) + 1;
    if (wanted == N_CALLS && is_writing(call))
        number = atomic_fetch_add(&n_any, 1) + 1;
    else if (wanted != call)
        return false;
    if (nth < 1 || number < nth || (times >= 0 && number >= nth + times))
        return false;
    if (strcmp(how, "kill") == 0) {
        syscall(SYS_kill, getpid(), SIGKILL);
        for (;;)
            pause();
    }
    if (strcmp(how, "short") != 0)
        errno = error_number();
    return true;
}

static bool is_short(void)
{
    return strcmp(how, "short") == 0;
}

static bool concerns_path(const char *path)
{
    return !only || strstr(path, only);
}

static bool concerns_fd(int fd)
{
    return !only || (fd >= 0 && fd < MOST_FILES && atomic_load(&is_watched[fd]));
}

static void note(int fd, const char *path)
{
    if (fd >= 0 && fd < MOST_FILES)
        atomic_store(&is_watched[fd], only && strstr(path, only));
}

/* ---- calls -------------------------------------------------------------------------------------
 */

static int open_file(int directory, const char *path, int flags, mode_t mode)
{
    if (goes_wrong(OPEN, concerns_path(path)) && !is_short())
        return -1;
    const int fd = (int)syscall(SYS_openat, directory, path, flags, mode);
    note(fd, path);
    return fd;
}

#define OPEN_MODE(last)                                                                            \
    mode_t mode = 0;                                                                               \
    va_list args;                                                                                  \
    va_start(args, last);                                                                          \
    if (last & (O_CREAT | O_TMPFILE))                                                              \
        mode = va_arg(args, mode_t);                                                               \
    va_end(args)

int open(const char *path, int flags, ...)
{
    OPEN_MODE(flags);
    return open_file(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    OPEN_MODE(flags);
    return open_file(AT_FDCWD, path, flags, mode);
}

int openat(int directory, const char *path, int flags, ...)
{
    OPEN_MODE(flags);
    return open_file(directory, path, flags, mode);
}

ssize_t read(int fd, void *to, size_t n)
{
    if (goes_wrong(READ, concerns_fd(fd))) {
        if (!is_short())
            return -1;
        n = n > 1 ? n / 2 : n;
    }
    return syscall(SYS_read, fd, to, n);
}

ssize_t pread(int fd, void *to, size_t n, off_t offset)
{
    if (goes_wrong(READ, concerns_fd(fd))) {
        if (!is_short())
            return -1;
        n = n > 1 ? n / 2 : n;
    }
    return syscall(SYS_pread64, fd, to, n, offset);
}

ssize_t write(int fd, const void *from, size_t n)
{
    if (goes_wrong(WRITE, fd > 2 && concerns_fd(fd))) {
        if (!is_short())
            return -1;
        n = n > 1 ? n / 2 : n;
    }
    return syscall(SYS_write, fd, from, n);
}

int fsync(int fd)
{
    return goes_wrong(FSYNC, concerns_fd(fd)) && !is_short() ? -1 : (int)syscall(SYS_fsync, fd);
}

int close(int fd)
{
    const bool fails = goes_wrong(CLOSE, concerns_fd(fd)) && !is_short();
    const int code = (int)syscall(SYS_close, fd);
    if (fails)
        errno = error_number();
    return fails ? -1 : code;
}

int rename(const char *from, const char *to)
{
    return goes_wrong(RENAME, concerns_path(to)) && !is_short()
               ? -1
               : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int mkdir(const char *path, mode_t mode)
{
    return goes_wrong(MKDIR, concerns_path(path)) && !is_short()
               ? -1
               : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

int unlink(const char *path)
{
    return goes_wrong(REMOVE, concerns_path(path)) && !is_short()
               ? -1
               : (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int remove(const char *path)
{
    if (goes_wrong(REMOVE, concerns_path(path)) && !is_short())
        return -1;
    const int code = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    return code != 0 && errno == EISDIR ? (int)syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR)
                                        : code;
}

int ftruncate(int fd, off_t n)
{
    return goes_wrong(TRUNCATE, concerns_fd(fd)) && !is_short()
               ? -1
               : (int)syscall(SYS_ftruncate, fd, n);
}

/* ---- memory ------------------------------------------------------------------------------------
 */

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t count, size_t n);
void *__libc_realloc(void *old, size_t n);

void *malloc(size_t n)
{
    if (goes_wrong(MALLOC, wanted == MALLOC || nth == 0) && !is_short()) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_malloc(n);
}

void *calloc(size_t count, size_t n)
{
    if (goes_wrong(MALLOC, wanted == MALLOC || nth == 0) && !is_short()) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_calloc(count, n);
}

void *realloc(void *old, size_t n)
{
    if (goes_wrong(MALLOC, wanted == MALLOC || nth == 0) && !is_short()) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_realloc(old, n);
}
