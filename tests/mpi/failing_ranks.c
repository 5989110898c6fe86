/* A job whose last rank is late, is killed, or fails: what the others do is the test's to see.
 *
 *   failing_ranks late | killed | failing | stopping
 *
 * And one rank whose call to the GPU does not return, or that is heard of, or of which nothing is
 * expected, all for longer than its deadline:
 *
 *   failing_ranks stalled | beating | resting
 */
#include "mpi/stall_watch.h"
#include "mpi/world.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "mpi_leaks.h"

static void sleep_s(int seconds)
{
    nanosleep(&(struct timespec){.tv_sec = seconds}, NULL);
}

/* What the last rank does before it meets the others. */
static qvl_status misbehave(const char *how, qvl_err *err)
{
    if (strcmp(how, "late") == 0)
        sleep_s(60);
    if (strcmp(how, "killed") == 0)
        raise(SIGKILL);
    if (strcmp(how, "stopping") == 0)
        raise(SIGSTOP);
    return strcmp(how, "failing") == 0 ? qvl_fail(err, QVL_EDATA, "sample 17: this is the reason")
                                       : QVL_OK;
}

static qvl_status work(qvl_world *world, const char *how, qvl_err *err)
{
    qvl_stall_watch *watch = NULL;
    if (strcmp(how, "stalled") && strcmp(how, "beating") && strcmp(how, "resting"))
        return QVL_OK;
    const qvl_status rc = qvl_stall_watch_open(&watch, world, 0.5, err);
    if (rc != QVL_OK)
        return rc;
    qvl_stall_watch_expect(watch, false);
    qvl_stall_watch_expect(watch, true);
    qvl_stall_watch_expect(watch, strcmp(how, "resting") != 0);
    for (int i = 0; i < 25; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
        if (strcmp(how, "stalled") != 0)
            qvl_stall_watch_beat(watch);
    }
    if (strcmp(how, "resting") == 0)
        sleep_s(4);
    qvl_stall_watch_close(watch);
    return QVL_OK;
}

int main(int argc, char **argv)
{
    qvl_world *world = NULL;
    qvl_log log;
    qvl_err err = {QVL_OK, ""};
    qvl_log_init(&log, "failing_ranks");
    qvl_status rc = argc == 2 ? qvl_world_create(&world, &log, &err) : QVL_EUSAGE;
    if (rc != QVL_OK)
        return (int)rc;
    qvl_world_set_phase(world, "waiting in a test");
    qvl_world_set_deadline(world, 1.0);
    if (qvl_world_rank(world) == qvl_world_size(world) - 1)
        rc = misbehave(argv[1], &err);
    if (rc == QVL_OK)
        rc = work(world, argv[1], &err);
    rc = qvl_world_agree(world, rc, &err);
    if (rc != QVL_OK && qvl_world_rank(world) == 0)
        qvl_log_error(&log, qvl_world_failed_rank(world), err.text);
    qvl_world_destroy(world);
    return (int)rc;
}
