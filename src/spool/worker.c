#include "spool/worker.h"

#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>

struct queue {
    struct task *head, **end;
};

struct worker {
    bool threaded, stop;
    void (*wake)(void *arg);
    void *arg;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t work, finished;
    struct queue todo, ready;
    size_t running; /* taken by the thread, not yet in ready */
    size_t open;    /* submitted and not collected; the loop's thread only */
};

static void queue_init(struct queue *q)
{
    q->head = NULL;
    q->end = &q->head;
}

static void queue_put(struct queue *q, struct task *t)
{
    t->next = NULL;
    *q->end = t;
    q->end = &t->next;
}

static struct task *queue_take(struct queue *q)
{
    struct task *t = q->head;
    if (t != NULL) {
        q->head = t->next;
        q->end = q->head == NULL ? &q->head : q->end;
    }
    return t;
}

static void *thread_main(void *arg)
{
    struct worker *w = arg;
    (void)pthread_mutex_lock(&w->lock);
    for (;;) {
        struct task *t = queue_take(&w->todo);
        if (t == NULL && w->stop) {
            break;
        }
        if (t == NULL) {
            (void)pthread_cond_wait(&w->work, &w->lock);
            continue;
        }
        w->running++;
        (void)pthread_mutex_unlock(&w->lock);
        t->run(t);
        (void)pthread_mutex_lock(&w->lock);
        w->running--;
        bool first = w->ready.head == NULL;
        queue_put(&w->ready, t);
        (void)pthread_cond_signal(&w->finished);
        if (first) {
            w->wake(w->arg);
        }
    }
    (void)pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* Signals belong to the loop. */
static int thread_start(struct worker *w)
{
    sigset_t all, old;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(&w->thread, NULL, thread_main, w);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -r;
}

struct worker *worker_new(bool threaded, void (*wake)(void *arg), void *arg)
{
    struct worker *w = calloc(1, sizeof(*w));
    if (w == NULL) {
        return NULL;
    }
    w->threaded = threaded;
    w->wake = wake;
    w->arg = arg;
    queue_init(&w->todo);
    queue_init(&w->ready);
    (void)pthread_mutex_init(&w->lock, NULL);
    (void)pthread_cond_init(&w->work, NULL);
    (void)pthread_cond_init(&w->finished, NULL);
    if (threaded && thread_start(w) < 0) {
        free(w);
        return NULL;
    }
    return w;
}

void worker_submit(struct worker *w, struct task *t)
{
    w->open++;
    (void)pthread_mutex_lock(&w->lock);
    queue_put(&w->todo, t);
    (void)pthread_cond_signal(&w->work);
    (void)pthread_mutex_unlock(&w->lock);
}

/* Everything that is ready, as a list; without a thread, the next task is run first. */
static struct task *ready_take(struct worker *w)
{
    if (!w->threaded) {
        struct task *t = queue_take(&w->todo);
        if (t != NULL) {
            t->run(t);
            t->next = NULL;
        }
        return t;
    }
    (void)pthread_mutex_lock(&w->lock);
    struct task *list = w->ready.head;
    queue_init(&w->ready);
    (void)pthread_mutex_unlock(&w->lock);
    return list;
}

bool worker_collect(struct worker *w)
{
    struct task *list = ready_take(w);
    bool any = list != NULL;
    while (list != NULL) {
        struct task *t = list;
        list = t->next;
        w->open--;
        t->done(t);
    }
    return any;
}

bool worker_is_idle(struct worker *w)
{
    return w->open == 0;
}

void worker_wait(struct worker *w)
{
    if (!w->threaded) {
        return;
    }
    (void)pthread_mutex_lock(&w->lock);
    while (w->todo.head != NULL || w->running > 0) {
        (void)pthread_cond_wait(&w->finished, &w->lock);
    }
    (void)pthread_mutex_unlock(&w->lock);
}

void worker_free(struct worker **wp)
{
    struct worker *w = *wp;
    if (w == NULL) {
        return;
    }
    if (w->threaded) {
        (void)pthread_mutex_lock(&w->lock);
        w->stop = true;
        (void)pthread_cond_signal(&w->work);
        (void)pthread_mutex_unlock(&w->lock);
        (void)pthread_join(w->thread, NULL);
    }
    while (worker_collect(w)) {
    }
    (void)pthread_mutex_destroy(&w->lock);
    (void)pthread_cond_destroy(&w->work);
    (void)pthread_cond_destroy(&w->finished);
    free(w);
    *wp = NULL;
}
