#include "vault/pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "common/clock.h"

#define STEP_BACK    10 /* nice: a flood of guesses takes what processor is left, not the sessions' share of it */
#define STACK_OCTETS (512U * 1024U) /* the hashes keep their memory on the heap */

struct lane {
    struct pool_job *first, **last;
    size_t count;
};

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct lane lanes[POOL_LANES];
    struct pool_job *finished, **finished_last;
    struct pool_settings settings;
    int64_t saved_ns, price_ns; /* what strangers may use; what one job of theirs is taken to cost until it is done */
    uint64_t earned_ns;         /* when saved_ns was right */
    bool stop;
    unsigned threads_count;
    pthread_t threads[];
};

/* The functions below are called with the lock. */

static struct pool_job *take_from(struct lane *l)
{
    struct pool_job *job = l->first;
    if (job != NULL) {
        l->first = job->next;
        l->last = l->first == NULL ? &l->first : l->last;
        l->count--;
    }
    return job;
}

static int64_t saved_max(const struct pool *p)
{
    return (int64_t)p->settings.saved_ms * 1000000;
}

static uint64_t earned_in(const struct pool *p, uint64_t ns)
{
    return ns / 1000 * p->settings.share_permille * p->settings.threads;
}

static void earn(struct pool *p)
{
    uint64_t now_ns = clock_mono_ns(), most = (uint64_t)(saved_max(p) - p->saved_ns);
    uint64_t earned = earned_in(p, now_ns - p->earned_ns);
    p->saved_ns += (int64_t)(earned < most ? earned : most);
    p->earned_ns = now_ns;
}

static bool starved(const struct pool *p)
{
    return p->saved_ns <= 0 && p->settings.share_permille < 1000;
}

/* The next one whose turn it is; *ret_lane is its lane. NULL: none. A stranger pays before, so that two do not share
 * one's money. */
static struct pool_job *take(struct pool *p, enum pool_lane *ret_lane)
{
    struct pool_job *job = take_from(&p->lanes[POOL_KNOWN]);
    *ret_lane = job != NULL ? POOL_KNOWN : POOL_STRANGER;
    if (job == NULL && p->lanes[POOL_STRANGER].first != NULL) {
        earn(p);
        if (!starved(p)) {
            job = take_from(&p->lanes[POOL_STRANGER]);
            p->saved_ns -= p->price_ns;
        }
    }
    return job;
}

static void settle_price(struct pool *p, const struct pool_job *job, int64_t charged_ns, int64_t used_ns)
{
    int64_t saved = p->saved_ns + charged_ns - (job->free ? 0 : used_ns);
    p->saved_ns = saved < saved_max(p) ? saved : saved_max(p);
    p->price_ns = used_ns;
}

/* For a job, or for what strangers need before one of theirs may run. */
static void rest(struct pool *p)
{
    if (p->lanes[POOL_STRANGER].first == NULL) {
        (void)pthread_cond_wait(&p->work, &p->lock);
        return;
    }
    uint64_t rate = earned_in(p, 1000000); /* in a millisecond */
    uint64_t until_ns = clock_mono_ns() + ((uint64_t)-p->saved_ns / (rate > 0 ? rate : 1) + 1) * 1000000U;
    struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000U), .tv_nsec = (long)(until_ns % 1000000000U)};
    (void)pthread_cond_timedwait(&p->work, &p->lock, &until);
}

static int64_t thread_cpu_ns(void)
{
    struct timespec ts = {0};
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void *work(void *arg)
{
    struct pool *p = arg;
    (void)setpriority(PRIO_PROCESS, 0, STEP_BACK); /* in Linux: of this thread alone */
    (void)pthread_mutex_lock(&p->lock);
    while (!p->stop) {
        enum pool_lane lane;
        struct pool_job *job = take(p, &lane);
        if (job == NULL) {
            rest(p);
            continue;
        }
        int64_t charged_ns = p->price_ns;
        (void)pthread_mutex_unlock(&p->lock);
        int64_t before_ns = thread_cpu_ns();
        job->run(job);
        int64_t used_ns = thread_cpu_ns() - before_ns;
        (void)pthread_mutex_lock(&p->lock);
        if (lane == POOL_STRANGER) {
            settle_price(p, job, charged_ns, used_ns);
        }
        bool first = p->finished == NULL;
        job->next = NULL;
        *p->finished_last = job;
        p->finished_last = &job->next;
        if (first && !p->stop) {
            p->settings.notify(p->settings.arg);
        }
    }
    (void)pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* Signals belong to the loop. */
static bool start_threads(struct pool *p)
{
    pthread_attr_t attr;
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setstacksize(&attr, STACK_OCTETS);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    while (p->threads_count < p->settings.threads &&
           pthread_create(&p->threads[p->threads_count], &attr, work, p) == 0) {
        p->threads_count++;
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)pthread_attr_destroy(&attr);
    return p->threads_count > 0;
}

struct pool *pool_new(const struct pool_settings *settings)
{
    struct pool *p = calloc(1, sizeof(*p) + settings->threads * sizeof(p->threads[0]));
    if (p == NULL) {
        return NULL;
    }
    (void)pthread_mutex_init(&p->lock, NULL);
    pthread_condattr_t monotonic;
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&p->work, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    p->settings = *settings;
    p->saved_ns = saved_max(p);
    p->earned_ns = clock_mono_ns();
    for (size_t i = 0; i < POOL_LANES; i++) {
        p->lanes[i].last = &p->lanes[i].first;
    }
    p->finished_last = &p->finished;
    if (!start_threads(p)) {
        pool_free(&p);
    }
    return p;
}

static void drop_waiting(struct pool *p)
{
    for (size_t i = 0; i < POOL_LANES; i++) {
        struct pool_job *job;
        while ((job = take_from(&p->lanes[i])) != NULL) {
            job->dropped = true;
            job->done(job);
        }
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
    size_t max = p->settings.lane_max[lane];
    if (lane == POOL_STRANGER && max > p->settings.starved_max) {
        earn(p);
        max = starved(p) ? p->settings.starved_max : max;
    }
    if (l->count < max && !p->stop) {
        job->next = NULL;
        job->dropped = job->free = false;
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
