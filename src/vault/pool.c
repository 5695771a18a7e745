#include "vault/pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "common/clock.h"

#define STEP_BACK    10 /* nice: a flood of guesses takes what processor is left, not the sessions' share of it */
#define PRICE_OF     4  /* the price follows the last few jobs */
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
    int64_t saved_ns[POOL_BUDGETS]; /* what strangers may use */
    int64_t price_ns;   /* what one job of theirs is taken to cost until it is done: what the last ones did */
    uint64_t earned_ns; /* when saved_ns was right */
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

/* Into each budget, as much of it as there is room for. */
static void save(struct pool *p, unsigned budget, int64_t ns)
{
    int64_t most = (int64_t)p->settings.budgets[budget].saved_ms * 1000000;
    p->saved_ns[budget] = p->saved_ns[budget] + ns < most ? p->saved_ns[budget] + ns : most;
}

/* What a budget gets in a thousand units of time. */
static uint64_t rate(const struct pool *p, unsigned budget)
{
    return (uint64_t)p->settings.budgets[budget].share_permille * p->settings.threads;
}

static void earn(struct pool *p)
{
    uint64_t now_ns = clock_mono_ns();
    for (unsigned b = 0; b < POOL_BUDGETS; b++) {
        save(p, b, (int64_t)((now_ns - p->earned_ns) / 1000 * rate(p, b)));
    }
    p->earned_ns = now_ns;
}

/* How long until strangers may begin a job, after others that cost so much. */
static uint64_t starved_ns(const struct pool *p, int64_t before_ns)
{
    uint64_t longest_ns = 0;
    for (unsigned b = 0; b < POOL_BUDGETS; b++) {
        int64_t lacks_ns = before_ns - p->saved_ns[b] + 1;
        if (lacks_ns > 0 && p->settings.budgets[b].share_permille < 1000) {
            uint64_t wait_ns = (uint64_t)lacks_ns * 1000 / (rate(p, b) > 0 ? rate(p, b) : 1);
            longest_ns = wait_ns > longest_ns ? wait_ns : longest_ns;
        }
    }
    return longest_ns;
}

static void charge(struct pool *p, int64_t ns)
{
    for (unsigned b = 0; b < POOL_BUDGETS; b++) {
        save(p, b, -ns);
    }
}

/* The next one whose turn it is; *ret_charged_ns is what it has paid. NULL: none. A stranger pays before, so that two
 * do not share one's money. */
static struct pool_job *take(struct pool *p, enum pool_lane *ret_lane, int64_t *ret_charged_ns)
{
    struct pool_job *job = take_from(&p->lanes[POOL_KNOWN]);
    *ret_lane = job != NULL ? POOL_KNOWN : POOL_STRANGER;
    if (job == NULL && p->lanes[POOL_STRANGER].first != NULL) {
        earn(p);
        if (starved_ns(p, 0) == 0) {
            job = take_from(&p->lanes[POOL_STRANGER]);
            *ret_charged_ns = p->price_ns;
            charge(p, p->price_ns);
        }
    }
    return job;
}

static void settle_price(struct pool *p, int64_t charged_ns, int64_t cost_ns)
{
    charge(p, cost_ns - charged_ns);
    p->price_ns += (cost_ns - p->price_ns) / PRICE_OF;
}

static void wait_until(struct pool *p, uint64_t ns)
{
    struct timespec until = {.tv_sec = (time_t)(ns / 1000000000U), .tv_nsec = (long)(ns % 1000000000U)};
    (void)pthread_cond_timedwait(&p->work, &p->lock, &until);
}

/* For a job, or for what strangers need before one of theirs may run. since_ns: the thread's last job, 0 once it was
 * told that it is idle. */
static void rest(struct pool *p, uint64_t *since_ns)
{
    uint64_t idle_ns = *since_ns + p->settings.idle_ms * 1000000U;
    if (p->lanes[POOL_STRANGER].first != NULL) {
        wait_until(p, clock_mono_ns() + starved_ns(p, 0) + 1000000U);
    } else if (p->settings.idle == NULL || *since_ns == 0) {
        (void)pthread_cond_wait(&p->work, &p->lock);
    } else if (clock_mono_ns() < idle_ns) {
        wait_until(p, idle_ns);
    } else {
        p->settings.idle();
        *since_ns = 0;
    }
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
    uint64_t since_ns = 0;
    (void)pthread_mutex_lock(&p->lock);
    while (!p->stop) {
        enum pool_lane lane;
        int64_t charged_ns = 0;
        struct pool_job *job = take(p, &lane, &charged_ns);
        if (job == NULL) {
            rest(p, &since_ns);
            continue;
        }
        (void)pthread_mutex_unlock(&p->lock);
        int64_t before_ns = thread_cpu_ns();
        job->run(job);
        int64_t used_ns = thread_cpu_ns() - before_ns;
        since_ns = clock_mono_ns();
        (void)pthread_mutex_lock(&p->lock);
        if (lane == POOL_STRANGER) {
            settle_price(p, charged_ns, job->free ? 0 : used_ns);
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
    if (p->settings.idle != NULL && since_ns != 0) {
        p->settings.idle();
    }
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
    for (unsigned b = 0; b < POOL_BUDGETS; b++) {
        p->saved_ns[b] = (int64_t)settings->budgets[b].saved_ms * 1000000;
    }
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

/* With the lock. */
static bool has_room(struct pool *p, enum pool_lane lane)
{
    size_t count = p->lanes[lane].count;
    if (p->stop || count >= p->settings.lane_max[lane]) {
        return false;
    }
    if (lane == POOL_STRANGER) {
        earn(p);
    }
    return lane == POOL_KNOWN || starved_ns(p, (int64_t)count * p->price_ns) <= p->settings.wait_ms * 1000000U;
}

int pool_submit(struct pool *p, enum pool_lane lane, struct pool_job *job)
{
    struct lane *l = &p->lanes[lane];
    int r = -EAGAIN;
    (void)pthread_mutex_lock(&p->lock);
    if (has_room(p, lane)) {
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
