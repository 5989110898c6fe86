/* What threads of this program share: which signals they get, which clock they wait by. */
#ifndef QVL_SRC_BASE_THREAD_H
#define QVL_SRC_BASE_THREAD_H

#include <pthread.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Starts a thread that no signal reaches: they are for the threads that look at what they ask for.
 * 0, or the errno of pthread_create. */
int qvl_thread_start(pthread_t *out, void *(*run)(void *context), void *context);

/* A thread that does something each second until it is told to end. */
typedef struct qvl_ticker {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool is_over;
    void (*tick)(void *context, double seconds);
    void *context;
} qvl_ticker;

/* tick gets the seconds since the last one, as qvl_waiting_s counts them. 0, or an errno; the
 * ticker must stay where it is until stop. */
int qvl_ticker_start(qvl_ticker *ticker, void (*tick)(void *context, double seconds),
                     void *context);
/* The thread has ended when this returns. */
void qvl_ticker_stop(qvl_ticker *ticker);

#ifdef __cplusplus
}
#endif
#endif
