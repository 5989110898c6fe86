/* Messages: what they quote cannot steer a terminal, and output that is lost is noticed. */
#include "src/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "src/base/process.h"
#include "tests/unit/scratch_files.h"

/* Runs f in a process whose standard files are closed (what: "012") or go to path; its exit code.
 */
static int in_child(int (*f)(const char *), const char *closed, const char *path)
{
    int status = 0;
    fflush(NULL);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        const int fd = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600) : -1;
        if (path && (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0))
            _exit(99);
        for (const char *c = closed; *c; c++)
            close(*c - '0');
        _exit(f(closed));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static int say(const char *unused)
{
    qvl_log log;
    (void)unused;
    qvl_log_init(&log, "test");
    qvl_log_line(&log, "line %s", "\x1b[31m\n\xc2\x9bX\xff");
    qvl_log_warn(&log, "warn %s", "\x1b[31m\nqvl: error");
    log.is_terminal = true;
    qvl_log_live(&log, "live %s", "\x1b[2J");
    return qvl_log_check_output(NULL);
}

static void what_is_quoted_is_harmless(void **state)
{
    (void)state;
    char path[QVL_PATH_BYTES];
    assert_int_equal(in_child(say, "", scratch_path(path, "said")), QVL_OK);
    qvl_text said = read_file(path);
    assert_string_equal(said.data, "line ?[31m???X?\n"
                                   "test: warning: warn ?[31m?qvl: error\n"
                                   "\r\033[Klive ?[2J");
    qvl_text_fini(&said);
}

static void output_that_is_lost_is_noticed(void **state)
{
    (void)state;
    assert_int_equal(in_child(say, "", "/dev/full"), QVL_EIO);
    assert_int_equal(in_child(say, "1", "/dev/null"), QVL_EIO);
    assert_int_equal(in_child(say, "", "/dev/null"), QVL_OK);
}

/* What was closed is held, and fails as it did before; the next file has a number of its own. */
static int hold(const char *closed)
{
    char byte = 0;
    qvl_process_init();
    for (const char *c = closed; *c; c++) {
        const int fd = *c - '0';
        if (fcntl(fd, F_GETFD) < 0)
            return 1;
        if (fd == 0 ? read(fd, &byte, 1) != -1 : write(fd, "", 1) != -1)
            return 2;
        if (errno != EBADF)
            return 3;
    }
    return open("/dev/null", O_RDONLY) > 2 ? 0 : 4;
}

static void standard_files_are_held(void **state)
{
    static const char *const CLOSED[] = {"", "0", "1", "2", "01", "12", "02", "012"};
    (void)state;
    for (size_t i = 0; i < sizeof CLOSED / sizeof *CLOSED; i++)
        assert_int_equal(in_child(hold, CLOSED[i], NULL), 0);
}

/* ulimit -f */
static int outgrow(const char *unused)
{
    static const char BYTES[4096];
    char path[QVL_PATH_BYTES];
    struct rlimit limit = {.rlim_cur = 1024, .rlim_max = RLIM_INFINITY};
    qvl_err err = {QVL_OK, ""};
    (void)unused;
    qvl_process_init();
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0)
        return 1;
    limit.rlim_cur = 1024;
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
        return 2;
    return qvl_file_replace(scratch_path(path, "large"), BYTES, sizeof BYTES, &err) == QVL_EIO &&
                   strstr(err.text, "large: File too large")
               ? 0
               : 3;
}

static void a_limit_of_file_sizes_is_an_error(void **state)
{
    (void)state;
    assert_int_equal(in_child(outgrow, "", NULL), 0);
    assert_false(exists_in(scratch, "large"));
    assert_int_equal(count_in(scratch, ".tmp"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_quoted_is_harmless),
        cmocka_unit_test(output_that_is_lost_is_noticed),
        cmocka_unit_test(standard_files_are_held),
        cmocka_unit_test(a_limit_of_file_sizes_is_an_error),
    };
    return cmocka_run_group_tests_name("log", tests, scratch_make, scratch_remove);
}
