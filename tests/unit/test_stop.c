/* Signals ask for a stop; the launcher's second copy of one is none; a second one ends the process.
 */
#include "src/base/stop.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* Runs f in a process of its own; its exit code. */
static int in_child(int (*f)(int), int argument)
{
    int status = 0;
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        close(STDERR_FILENO);
        _exit(f(argument));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static int one_signal(int number)
{
    qvl_err err = {QVL_OK, ""};
    qvl_stop_install();
    if (qvl_stop_reason() != 0 || qvl_stop_check("working", &err) != QVL_OK)
        return 1;
    raise(number);
    raise(number); /* at once: the same one again */
    if (qvl_stop_reason() != number || qvl_stop_check("working", &err) != QVL_ESTOPPED)
        return 2;
    return strstr(err.text, qvl_stop_name(number)) && strstr(err.text, "while working") ? 0 : 3;
}

static int two_signals(int number)
{
    qvl_stop_install();
    raise(SIGUSR1);
    nanosleep(&(struct timespec){.tv_sec = 2, .tv_nsec = 100000000}, NULL);
    raise(number);
    return 1;
}

static int ignored_before(int number)
{
    signal(number, SIG_IGN);
    qvl_stop_install();
    raise(number);
    return qvl_stop_reason() != 0;
}

/* The kernel sends it every second once the limit of CPU time is reached. */
static int out_of_cpu_time(int number)
{
    qvl_stop_install();
    raise(number);
    nanosleep(&(struct timespec){.tv_sec = 2, .tv_nsec = 100000000}, NULL);
    raise(number);
    return qvl_stop_reason() != number;
}

/* A limit of time asks; the first signal after it is a first one. */
static int limit_then_signal(int number)
{
    qvl_stop_install();
    qvl_stop_request(QVL_STOP_MAX_HOURS);
    qvl_stop_request(QVL_STOP_JOB_END);
    if (qvl_stop_reason() != QVL_STOP_MAX_HOURS)
        return 1;
    raise(number);
    return qvl_stop_reason() != number;
}

static void each_signal(void **state)
{
    static const int SIGNALS[] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGHUP, SIGXCPU};
    (void)state;
    for (size_t i = 0; i < sizeof SIGNALS / sizeof *SIGNALS; i++) {
        assert_int_equal(in_child(one_signal, SIGNALS[i]), 0);
        assert_int_equal(in_child(limit_then_signal, SIGNALS[i]), 0);
    }
}

static void a_second_one_ends_the_process(void **state)
{
    (void)state;
    assert_int_equal(in_child(two_signals, SIGTERM), 128 + SIGTERM);
    assert_int_equal(in_child(two_signals, SIGUSR1), 128 + SIGUSR1);
    assert_int_equal(in_child(out_of_cpu_time, SIGXCPU), 0);
}

static void nohup_is_respected(void **state)
{
    (void)state;
    assert_int_equal(in_child(ignored_before, SIGHUP), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_signal),
        cmocka_unit_test(a_second_one_ends_the_process),
        cmocka_unit_test(nohup_is_respected),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
