#include "vault/pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>

#define STEP_BACK    10 /* nice: a flood of guesses takes what processor is left, not the sessions' share of it */
#define STACK_OCTETS (512U * 1024U) /* the hashes keep their memory on the heap */

struct lane {
    struct pool_job *first, **last;
    size_t count, max;
};

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct lane lanes[POOL_LANES];
    struct pool_job *finished, **finished_last;
    bool stop;
    void (*notify)(void *arg);
    void *arg;
    unsigned threads_count;
    pthread_t threads[];
};

/* Called with the lock. */
static struct pool_job *take(struct pool *p)
{
    for (size_t i = 0; i < POOL_LANES; i++) {
        struct lane *l = &p->lanes[i];
        struct pool_job *job = l->first;
        if (job != NULL) {
            l->first = job->next;
            l->last = l->first == NULL ? &l->first : l->last;
            l->count--;
            return job;
        }
    }
    return NULL;
}

static void *work(void *arg)
{
    struct pool *p = arg;
    (void)setpriority(PRIO_PROCESS, 0, STEP_BACK); /* in Linux: of this thread alone */
    (void)pthread_mutex_lock(&p->lock);
    while (!p->stop) {
        struct pool_job *job = take(p);
        if (job == NULL) {
            (void)pthread_cond_wait(&p->work, &p->lock);
            continue;
        }
        (void)pthread_mutex_unlock(&p->lock);
        job->run(job);
        (void)pthread_mutex_lock(&p->lock);
        bool first = p->finished == NULL;
        job->next = NULL;
        *p->finished_last = job;
        p->finished_last = &job->next;
        if (first && !p->stop) {
            p->notify(p->arg);
        }
    }
    (void)pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* Signals belong to the loop. */
static bool start_threads(struct pool *p, unsigned threads)
{
    pthread_attr_t attr;
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setstacksize(&attr, STACK_OCTETS);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    while (p->threads_count < threads && pthread_create(&p->threads[p->threads_count], &attr, work, p) == 0) {
        p->threads_count++;
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)pthread_attr_destroy(&attr);
    return p->threads_count > 0;
}

struct pool *pool_new(unsigned threads, const size_t lane_max[static POOL_LANES], void (*notify)(void *arg), void *arg)
{
    struct pool *p = calloc(1, sizeof(*p) + threads * sizeof(p->threads[0]));
    if (p == NULL) {
        return NULL;
    }
    (void)pthread_mutex_init(&p->lock, NULL);
    (void)pthread_cond_init(&p->work, NULL);
    for (size_t i = 0; i < POOL_LANES; i++) {
        p->lanes[i].last = &p->lanes[i].first;
        p->lanes[i].max = lane_max[i];
    }
    p->finished_last = &p->finished;
    p->notify = notify;
    p->arg = arg;
    if (!start_threads(p, threads)) {
        pool_free(&p);
    }
    return p;
}

static void drop_waiting(struct pool *p)
{
    struct pool_job *job;
    while ((job = take(p)) != NULL) {
        job->dropped = true;
        job->done(job);
    }
}

void pool_free(struct pool **pp)
{
    struct pool *p = *pp;
    if (p == NULL) {
        return;
    }
    *pp = NULL;
    (void)pthread_mutex_lock(&p->lock);
    p->stop = true;
    (void)pthread_cond_broadcast(&p->work);
    (void)pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->threads_count; i++) {
        (void)pthread_join(p->threads[i], NULL);
    }
    pool_reap(p);
    drop_waiting(p);
    (void)pthread_cond_destroy(&p->work);
    (void)pthread_mutex_destroy(&p->lock);
    free(p);
}

int pool_submit(struct pool *p, enum pool_lane lane, struct pool_job *job)
{
    struct lane *l = &p->lanes[lane];
    int r = -EAGAIN;
    (void)pthread_mutex_lock(&p->lock);
    if (l->count < l->max && !p->stop) {
        job->next = NULL;
        job->dropped = false;
        *l->last = job;
        l->last = &job->next;
        l->count++;
        (void)pthread_cond_signal(&p->work);
        r = 0;
    }
    (void)pthread_mutex_unlock(&p->lock);
    return r;
}

void pool_reap(struct pool *p)
{
    (void)pthread_mutex_lock(&p->lock);
    struct pool_job *job = p->finished;
    p->finished = NULL;
    p->finished_last = &p->finished;
    (void)pthread_mutex_unlock(&p->lock);
    while (job != NULL) {
        struct pool_job *next = job->next;
        job->done(job);
        job = next;
    }
}

size_t pool_waiting(struct pool *p, enum pool_lane lane)
{
    (void)pthread_mutex_lock(&p->lock);
    size_t count = p->lanes[lane].count;
    (void)pthread_mutex_unlock(&p->lock);
    return count;
}
