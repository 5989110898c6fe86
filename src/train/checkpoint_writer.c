#include "src/train/checkpoint_writer.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "src/base/clock.h"
#include "src/base/memory.h"
#include "src/base/thread.h"

typedef enum stage { IDLE, GIVEN, WRITTEN } stage;

struct qvl_checkpoint_writer {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    const char *output_dir;
    int64_t keep;
    /* under the lock */
    stage stage;
    bool is_ending;
    qvl_checkpoint_image image; /* the thread's own while GIVEN */
    qvl_write_result result;
};

static void write_one(qvl_checkpoint_writer *w, qvl_write_result *result)
{
    const double start = qvl_clock_s();
    *result = (qvl_write_result){.step = w->image.step};
    if (qvl_checkpoint_image_write(&w->image, w->output_dir, &result->err) == QVL_OK)
        qvl_checkpoint_prune(w->output_dir, w->keep, w->image.step, &result->prune);
    result->seconds = qvl_clock_s() - start;
    qvl_checkpoint_image_fini(&w->image);
    w->image = (qvl_checkpoint_image){0};
}

static void *run(void *context)
{
    qvl_checkpoint_writer *w = context;
    pthread_mutex_lock(&w->lock);
    for (;;) {
        while (w->stage != GIVEN && !w->is_ending)
            pthread_cond_wait(&w->changed, &w->lock);
        if (w->stage != GIVEN)
            break;
        qvl_write_result result;
        pthread_mutex_unlock(&w->lock);
        write_one(w, &result);
        pthread_mutex_lock(&w->lock);
        w->result = result;
        w->stage = WRITTEN;
        pthread_cond_broadcast(&w->changed);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

qvl_status qvl_checkpoint_writer_create(qvl_checkpoint_writer **out, const char *output_dir,
                                        int64_t keep, qvl_err *err)
{
    pthread_condattr_t attributes;
    qvl_checkpoint_writer *w = NULL;
    const qvl_status rc = qvl_alloc(&w, 1, sizeof *w, "checkpoint writer", err);
    if (rc != QVL_OK)
        return rc;
    w->output_dir = output_dir;
    w->keep = keep;
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&w->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    const int failed = qvl_thread_start(&w->thread, run, w);
    if (failed) {
        pthread_cond_destroy(&w->changed);
        pthread_mutex_destroy(&w->lock);
        free(w);
        return qvl_fail_errno(err, failed, 1, "start the thread that writes checkpoints");
    }
    *out = w;
    return QVL_OK;
}

void qvl_checkpoint_writer_destroy(qvl_checkpoint_writer *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->is_ending = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    qvl_checkpoint_image_fini(&w->image);
    free(w);
}

qvl_status qvl_checkpoint_writer_submit(qvl_checkpoint_writer *w, qvl_checkpoint_image *image,
                                        qvl_err *err)
{
    qvl_status rc = QVL_OK;
    pthread_mutex_lock(&w->lock);
    if (w->stage == IDLE) {
        w->image = *image;
        *image = (qvl_checkpoint_image){0};
        w->stage = GIVEN;
        pthread_cond_broadcast(&w->changed);
    } else {
        rc = qvl_fail(err, QVL_EINTERNAL, "the checkpoint writer is busy");
    }
    pthread_mutex_unlock(&w->lock);
    return rc;
}

bool qvl_checkpoint_writer_wait(qvl_checkpoint_writer *w, double seconds)
{
    struct timespec until;
    int late = 0;
    clock_gettime(CLOCK_MONOTONIC, &until);
    const double end = (double)until.tv_sec + 1e-9 * (double)until.tv_nsec + seconds;
    until.tv_sec = (time_t)floor(end);
    until.tv_nsec = (long)(1e9 * (end - floor(end)));
    pthread_mutex_lock(&w->lock);
    while (w->stage == GIVEN && late != ETIMEDOUT)
        late = pthread_cond_timedwait(&w->changed, &w->lock, &until);
    const bool is_done = w->stage != GIVEN;
    pthread_mutex_unlock(&w->lock);
    return is_done;
}

bool qvl_checkpoint_writer_poll(qvl_checkpoint_writer *w, qvl_write_result *out)
{
    pthread_mutex_lock(&w->lock);
    const bool is_written = w->stage == WRITTEN;
    if (is_written) {
        *out = w->result;
        w->stage = IDLE;
    }
    pthread_mutex_unlock(&w->lock);
    return is_written;
}
