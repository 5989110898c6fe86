#include "src/base/thread.h"

#include <errno.h>
#include <signal.h>
#include <time.h>

#include "src/base/clock.h"

int qvl_thread_start(pthread_t *out, void *(*run)(void *context), void *context)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int failed = pthread_create(out, NULL, run, context);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed;
}

/* One second more, or less once it is over. */
static void wait_a_second(qvl_ticker *t)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec++;
    while (!t->is_over && pthread_cond_timedwait(&t->changed, &t->lock, &until) != ETIMEDOUT)
        ;
}

static void *run(void *ticker)
{
    qvl_ticker *t = ticker;
    qvl_waiting waiting = qvl_waiting_begin();
    pthread_mutex_lock(&t->lock);
    for (double before = 0.0; !t->is_over;) {
        wait_a_second(t);
        const double now = qvl_waiting_s(&waiting);
        if (!t->is_over)
            t->tick(t->context, now - before);
        before = now;
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

int qvl_ticker_start(qvl_ticker *t, void (*tick)(void *context, double seconds), void *context)
{
    pthread_condattr_t attributes;
    *t = (qvl_ticker){.tick = tick, .context = context};
    pthread_mutex_init(&t->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&t->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    const int failed = qvl_thread_start(&t->thread, run, t);
    if (failed) {
        pthread_cond_destroy(&t->changed);
        pthread_mutex_destroy(&t->lock);
    }
    return failed;
}

void qvl_ticker_stop(qvl_ticker *t)
{
    pthread_mutex_lock(&t->lock);
    t->is_over = true;
    pthread_cond_signal(&t->changed);
    pthread_mutex_unlock(&t->lock);
    pthread_join(t->thread, NULL);
    pthread_cond_destroy(&t->changed);
    pthread_mutex_destroy(&t->lock);
}
