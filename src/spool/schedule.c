#include "spool/schedule.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* Domain and account names are strangers' choice: their table is keyed so that nobody can aim at one bucket. */
static uint64_t table_seed;
#define HASH_FUNCTION(key, len, value)                                                                                 \
    do {                                                                                                               \
        (value) = (unsigned)XXH3_64bits_withSeed((key), (len), table_seed);                                            \
    } while (0)
#include "common/hash.h"
#include <utlist.h>

#define IDLE_DOMAINS_MAX 1024 /* remembered without a job, for what is known about them */
#define WAKE_MAX         256  /* jobs woken by one success */

enum flow_place { FLOW_RING, FLOW_DOMAIN, FLOW_UNPROVEN, FLOW_SUSPENDED };

/* The ready jobs of one account to one domain. */
struct schedule_flow {
    struct {
        struct schedule_account *account;
        struct schedule_domain *domain;
    } key;
    struct schedule_job *jobs; /* in order */
    struct schedule_flow *prev, *next;
    uint8_t place; /* enum flow_place: whose list it is in */
    UT_hash_handle hh;
};

struct schedule_account {
    UT_hash_handle hh;
    size_t jobs; /* bound to it */
    struct schedule_flow *ring, *suspended_flows;
    struct schedule_account *prev, *next; /* in schedule.turns while ring is not empty */
    bool suspended;
    size_t name_length;
    char name[];
};

struct schedule_domain {
    UT_hash_handle hh;
    size_t jobs;
    struct schedule_flow *parked;
    struct schedule_job *waiting;        /* the stranded first */
    size_t stranded;                     /* of them, those that wait because it could not be reached */
    struct schedule_domain *prev, *next; /* in schedule.idle while it has no job */
    struct heap_node pause;              /* until when it is left alone */
    uint32_t out, cap, failures;
    bool proven;
    size_t name_length;
    char name[];
};

struct schedule {
    struct schedule_config config;
    uint64_t random;
    struct schedule_account *accounts, *turns;
    struct schedule_domain *domains, *idle;
    struct schedule_flow *flows;
    struct schedule_flow *unproven; /* flows that wait for room in the unproven half */
    struct heap waits, pauses;
    struct schedule_job *outs;
    size_t jobs, idle_count;
    uint64_t ready;
    uint32_t out, out_unproven;
};

struct schedule_config schedule_config_default(void)
{
    return (struct schedule_config){.window = 4000,
                                    .cap_start = 20,
                                    .cap_max = 1000,
                                    .retry_min_ms = 5 * 60 * 1000,
                                    .retry_max_ms = 4 * 60 * 60 * 1000,
                                    .pause_min_ms = 30 * 1000,
                                    .pause_max_ms = 15 * 60 * 1000};
}

struct schedule *schedule_new(const struct schedule_config *config)
{
    struct schedule *s = calloc(1, sizeof(*s));
    if (s != NULL) {
        s->config = *config;
        s->random = config->seed | 1;
        if (table_seed == 0) { /* one for all: tables of several schedules live side by side */
            table_seed = config->seed;
        }
    }
    return s;
}

void schedule_configure(struct schedule *s, const struct schedule_config *config)
{
    uint64_t seed = s->config.seed;
    s->config = *config;
    s->config.seed = seed;
}

/* xorshift64*: jitter needs no more. */
static uint64_t random_next(struct schedule *s)
{
    s->random ^= s->random >> 12;
    s->random ^= s->random << 25;
    s->random ^= s->random >> 27;
    return s->random * UINT64_C(0x2545f4914f6cdd1d);
}

static uint64_t doubled(uint64_t start, uint32_t times, uint64_t max)
{
    uint64_t v = start;
    for (uint32_t i = 0; i < times && v < max; i++) {
        v *= 2;
    }
    return v < max ? v : max;
}

uint64_t schedule_backoff(struct schedule *s, uint32_t attempts)
{
    uint64_t base = doubled(s->config.retry_min_ms, attempts > 0 ? attempts - 1 : 0, s->config.retry_max_ms);
    return base - base / 8 + random_next(s) % (base / 4 + 1); /* +- one eighth */
}

/* --- names --- */

static struct schedule_account *account_get(struct schedule *s, struct span name, bool suspended)
{
    struct schedule_account *a = NULL;
    const void *key = name.len > 0 ? (const void *)name.ptr : "";
    HASH_FIND(hh, s->accounts, key, name.len, a);
    if (a != NULL) {
        return a;
    }
    a = calloc(1, sizeof(*a) + name.len + 1);
    if (a == NULL) {
        return NULL;
    }
    a->name_length = name.len;
    memcpy(a->name, key, name.len);
    a->suspended = suspended;
    HASH_ADD_KEYPTR(hh, s->accounts, a->name, a->name_length, a);
    if (a->hh.tbl == NULL) {
        free(a);
        return NULL;
    }
    return a;
}

static void account_drop(struct schedule *s, struct schedule_account *a)
{
    if (a->jobs == 0) {
        HASH_DELETE(hh, s->accounts, a);
        free(a);
    }
}

static void domain_free(struct schedule *s, struct schedule_domain *d)
{
    heap_remove(&s->pauses, &d->pause);
    HASH_DELETE(hh, s->domains, d);
    free(d);
}

static struct schedule_domain *domain_get(struct schedule *s, struct span name)
{
    struct schedule_domain *d = NULL;
    const void *key = name.len > 0 ? (const void *)name.ptr : "";
    HASH_FIND(hh, s->domains, key, name.len, d);
    if (d != NULL) {
        return d;
    }
    if (heap_reserve(&s->pauses, HASH_COUNT(s->domains) + 1) < 0) {
        return NULL;
    }
    d = calloc(1, sizeof(*d) + name.len + 1);
    if (d == NULL) {
        return NULL;
    }
    d->cap = s->config.cap_start;
    d->name_length = name.len;
    memcpy(d->name, key, name.len);
    HASH_ADD_KEYPTR(hh, s->domains, d->name, d->name_length, d);
    if (d->hh.tbl == NULL) {
        free(d);
        return NULL;
    }
    DL_APPEND(s->idle, d);
    s->idle_count++;
    return d;
}

static void domain_use(struct schedule *s, struct schedule_domain *d)
{
    if (d->jobs++ == 0) {
        DL_DELETE(s->idle, d);
        s->idle_count--;
    }
}

static void domain_drop(struct schedule *s, struct schedule_domain *d)
{
    if (--d->jobs > 0) {
        return;
    }
    DL_APPEND(s->idle, d);
    s->idle_count++;
    if (s->idle_count > IDLE_DOMAINS_MAX) {
        struct schedule_domain *oldest = s->idle;
        DL_DELETE(s->idle, oldest);
        s->idle_count--;
        domain_free(s, oldest);
    }
}

int schedule_job_init(struct schedule *s, struct schedule_job *j, struct span domain, struct span account,
                      bool suspended)
{
    if (heap_reserve(&s->waits, s->jobs + 1) < 0) {
        return -ENOMEM;
    }
    j->account = account_get(s, account, suspended);
    j->domain = j->account != NULL ? domain_get(s, domain) : NULL;
    if (j->domain == NULL) {
        if (j->account != NULL) {
            account_drop(s, j->account);
        }
        j->account = NULL;
        return -ENOMEM;
    }
    j->account->jobs++;
    domain_use(s, j->domain);
    s->jobs++;
    j->state = JOB_IDLE;
    return 0;
}

void schedule_job_fini(struct schedule *s, struct schedule_job *j)
{
    if (j->domain == NULL) {
        return;
    }
    assert(j->state != JOB_OUT);
    schedule_remove(s, j);
    j->account->jobs--;
    account_drop(s, j->account);
    domain_drop(s, j->domain);
    s->jobs--;
    j->domain = NULL;
    j->account = NULL;
}

/* --- flows --- */

static void flow_unlink(struct schedule *s, struct schedule_flow *f)
{
    struct schedule_account *a = f->key.account;
    switch ((enum flow_place)f->place) {
    case FLOW_RING:
        DL_DELETE(a->ring, f);
        if (a->ring == NULL) {
            DL_DELETE(s->turns, a);
        }
        break;
    case FLOW_DOMAIN:
        DL_DELETE(f->key.domain->parked, f);
        break;
    case FLOW_UNPROVEN:
        DL_DELETE(s->unproven, f);
        break;
    case FLOW_SUSPENDED:
        DL_DELETE(a->suspended_flows, f);
        break;
    }
}

static void flow_link(struct schedule *s, struct schedule_flow *f, enum flow_place place)
{
    struct schedule_account *a = f->key.account;
    f->place = (uint8_t)place;
    switch (place) {
    case FLOW_RING:
        if (a->ring == NULL) {
            DL_APPEND(s->turns, a);
        }
        DL_APPEND(a->ring, f);
        break;
    case FLOW_DOMAIN:
        DL_APPEND(f->key.domain->parked, f);
        break;
    case FLOW_UNPROVEN:
        DL_APPEND(s->unproven, f);
        break;
    case FLOW_SUSPENDED:
        DL_APPEND(a->suspended_flows, f);
        break;
    }
}

static void flow_move(struct schedule *s, struct schedule_flow *f, enum flow_place place)
{
    flow_unlink(s, f);
    flow_link(s, f, place);
}

static struct schedule_flow *flow_get(struct schedule *s, struct schedule_job *j)
{
    struct schedule_flow *f = NULL;
    struct schedule_flow probe = {.key = {j->account, j->domain}};
    HASH_FIND(hh, s->flows, &probe.key, sizeof(probe.key), f);
    if (f != NULL) {
        return f;
    }
    f = calloc(1, sizeof(*f));
    if (f == NULL) {
        return NULL;
    }
    f->key = probe.key;
    HASH_ADD(hh, s->flows, key, sizeof(f->key), f);
    if (f->hh.tbl == NULL) {
        free(f);
        return NULL;
    }
    flow_link(s, f, j->account->suspended ? FLOW_SUSPENDED : FLOW_RING);
    return f;
}

/*
 * There is room in a domain: as many of its parked flows take turns again. To be called whenever room appears or a flow
 * that was let out for it goes away unused; else the parked would wait for a result that never comes.
 */
static void domain_unpark(struct schedule *s, struct schedule_domain *d)
{
    if (d->pause.at == 0) {
        for (uint32_t room = d->cap > d->out ? d->cap - d->out : 0; room > 0 && d->parked != NULL; room--) {
            flow_move(s, d->parked, FLOW_RING);
        }
    }
}

static void flow_job_remove(struct schedule *s, struct schedule_job *j)
{
    struct schedule_flow *f = j->flow;
    DL_DELETE(f->jobs, j);
    j->flow = NULL;
    s->ready--;
    if (f->jobs == NULL) {
        flow_unlink(s, f);
        HASH_DELETE(hh, s->flows, f);
        free(f);
    }
}

static bool job_ready(struct schedule *s, struct schedule_job *j)
{
    struct schedule_flow *f = flow_get(s, j);
    if (f == NULL) {
        return false;
    }
    DL_APPEND(f->jobs, j);
    j->flow = f;
    j->state = JOB_READY;
    s->ready++;
    return true;
}

static void job_wait(struct schedule *s, struct schedule_job *j, uint64_t next_ms)
{
    if (j->unreachable) {
        DL_PREPEND(j->domain->waiting, j);
        j->domain->stranded++;
    } else {
        DL_APPEND(j->domain->waiting, j);
    }
    heap_add(&s->waits, &j->wait, next_ms);
    j->state = JOB_WAITING;
}

void schedule_add(struct schedule *s, struct schedule_job *j, uint64_t next_ms, uint64_t now_ms)
{
    assert(j->state == JOB_IDLE);
    if (next_ms > now_ms || !job_ready(s, j)) {
        job_wait(s, j, next_ms > now_ms ? next_ms : now_ms + 1000); /* no memory for a flow: in a second */
    }
}

void schedule_remove(struct schedule *s, struct schedule_job *j)
{
    if (j->state == JOB_WAITING) {
        heap_remove(&s->waits, &j->wait);
        DL_DELETE(j->domain->waiting, j);
        j->domain->stranded -= j->unreachable;
        j->state = JOB_IDLE;
    } else if (j->state == JOB_READY) {
        flow_job_remove(s, j);
        j->state = JOB_IDLE;
        domain_unpark(s, j->domain);
    }
}

static void unproven_unpark(struct schedule *s)
{
    if (s->unproven != NULL && s->out_unproven < s->config.window / 2) {
        flow_move(s, s->unproven, FLOW_RING);
    }
}

static void job_wake(struct schedule *s, struct schedule_job *j, uint64_t now_ms)
{
    schedule_remove(s, j);
    j->unreachable = false;
    schedule_add(s, j, now_ms, now_ms);
}

static struct schedule_job *job_of_wait(struct heap_node *n)
{
    return (struct schedule_job *)((char *)n - offsetof(struct schedule_job, wait));
}

static struct schedule_domain *domain_of_pause(struct heap_node *n)
{
    return (struct schedule_domain *)((char *)n - offsetof(struct schedule_domain, pause));
}

uint64_t schedule_tick(struct schedule *s, uint64_t now_ms)
{
    struct heap_node *n;
    while ((n = heap_first(&s->pauses)) != NULL && n->key <= now_ms) {
        struct schedule_domain *d = domain_of_pause(n);
        heap_remove(&s->pauses, n);
        domain_unpark(s, d);
    }
    while ((n = heap_first(&s->waits)) != NULL && n->key <= now_ms) {
        job_wake(s, job_of_wait(n), now_ms);
    }
    const struct heap_node *pause = heap_first(&s->pauses), *wait = heap_first(&s->waits);
    uint64_t at = pause != NULL ? pause->key : UINT64_MAX;
    return wait != NULL && wait->key < at ? wait->key : at;
}

/* Where a flow belongs now; FLOW_RING: its next job may go out. */
static enum flow_place flow_place_now(const struct schedule *s, const struct schedule_flow *f)
{
    const struct schedule_domain *d = f->key.domain;
    if (f->key.account->suspended) {
        return FLOW_SUSPENDED;
    }
    if (d->pause.at != 0 || d->out >= d->cap) {
        return FLOW_DOMAIN;
    }
    return !d->proven && s->out_unproven >= (s->config.window + 1) / 2 ? FLOW_UNPROVEN : FLOW_RING;
}

struct schedule_job *schedule_take(struct schedule *s)
{
    while (s->out < s->config.window) {
        if (s->turns == NULL) {
            unproven_unpark(s);
        }
        if (s->turns == NULL) {
            break;
        }
        struct schedule_account *a = s->turns;
        struct schedule_flow *f = a->ring;
        enum flow_place place = flow_place_now(s, f);
        if (place != FLOW_RING) {
            flow_move(s, f, place);
            if (place == FLOW_SUSPENDED) {
                domain_unpark(s, f->key.domain);
            }
            continue;
        }
        struct schedule_job *j = f->jobs;
        flow_move(s, f, FLOW_RING); /* its account's next domain is next */
        if (s->turns == a && a->next != NULL) {
            DL_DELETE(s->turns, a);
            DL_APPEND(s->turns, a);
        }
        flow_job_remove(s, j);
        j->state = JOB_OUT;
        DL_APPEND(s->outs, j);
        j->domain->out++;
        s->out++;
        s->out_unproven += !j->domain->proven;
        return j;
    }
    return NULL;
}

struct schedule_job *schedule_first_out(const struct schedule *s)
{
    return s->outs;
}

static void domain_prove(struct schedule *s, struct schedule_domain *d, bool proven)
{
    if (d->proven && !proven) {
        s->out_unproven += d->out;
    } else if (!d->proven && proven) {
        s->out_unproven -= d->out;
    }
    d->proven = proven;
}

static void domain_answered(struct schedule *s, struct schedule_domain *d, uint64_t now_ms)
{
    d->failures = 0;
    domain_prove(s, d, true);
    heap_remove(&s->pauses, &d->pause);
    if (d->cap < s->config.cap_start) {
        d->cap = s->config.cap_start;
    } else if (d->cap < s->config.cap_max) {
        d->cap++;
    }
    for (int left = WAKE_MAX; left > 0 && d->stranded > 0; left--) {
        job_wake(s, d->waiting, now_ms);
    }
}

static void domain_unreachable(struct schedule *s, struct schedule_domain *d, uint64_t now_ms)
{
    domain_prove(s, d, false);
    d->cap = 1;
    if (d->pause.at != 0) { /* others that were out when it failed say nothing new */
        return;
    }
    uint64_t pause = doubled(s->config.pause_min_ms, d->failures, s->config.pause_max_ms);
    d->failures++;
    heap_add(&s->pauses, &d->pause, now_ms + pause - pause / 8 + random_next(s) % (pause / 4 + 1));
}

void schedule_result(struct schedule *s, struct schedule_job *j, enum schedule_result result, uint64_t now_ms)
{
    struct schedule_domain *d = j->domain;
    assert(j->state == JOB_OUT);
    j->state = JOB_IDLE;
    DL_DELETE(s->outs, j);
    d->out--;
    s->out--;
    s->out_unproven -= !d->proven;
    j->unreachable = result == SCHEDULE_UNREACHABLE;
    if (result == SCHEDULE_ANSWERED) {
        domain_answered(s, d, now_ms);
    } else if (result == SCHEDULE_UNREACHABLE) {
        domain_unreachable(s, d, now_ms);
    }
    domain_unpark(s, d);
    unproven_unpark(s);
}

void schedule_suspend(struct schedule *s, struct span account, bool suspended)
{
    struct schedule_account *a = NULL;
    const void *key = account.len > 0 ? (const void *)account.ptr : "";
    HASH_FIND(hh, s->accounts, key, account.len, a);
    if (a == NULL || a->suspended == suspended) {
        return;
    }
    a->suspended = suspended;
    while (suspended && a->ring != NULL) {
        struct schedule_flow *f = a->ring;
        flow_move(s, f, FLOW_SUSPENDED);
        domain_unpark(s, f->key.domain);
    }
    while (!suspended && a->suspended_flows != NULL) {
        flow_move(s, a->suspended_flows, FLOW_RING);
    }
}

void schedule_unpause(struct schedule *s, struct schedule_domain *d)
{
    d->failures = 0;
    d->cap = d->cap < s->config.cap_start ? s->config.cap_start : d->cap;
    heap_remove(&s->pauses, &d->pause);
    domain_unpark(s, d);
}

struct span schedule_domain_name(const struct schedule_domain *d)
{
    return (struct span){(const uint8_t *)d->name, d->name_length};
}

struct span schedule_account_name(const struct schedule_account *a)
{
    return (struct span){(const uint8_t *)a->name, a->name_length};
}

bool schedule_account_suspended(const struct schedule_account *a)
{
    return a->suspended;
}

void schedule_figures(const struct schedule *s, struct schedule_figures *ret)
{
    *ret = (struct schedule_figures){.out = s->out,
                                     .out_unproven = s->out_unproven,
                                     .ready = s->ready,
                                     .waiting = s->waits.count,
                                     .domains = HASH_COUNT(s->domains),
                                     .accounts = HASH_COUNT(s->accounts)};
}

void schedule_free(struct schedule **sp)
{
    struct schedule *s = *sp;
    if (s == NULL) {
        return;
    }
    assert(s->jobs == 0);
    struct schedule_domain *d, *tmp;
    HASH_ITER(hh, s->domains, d, tmp)
    {
        domain_free(s, d);
    }
    heap_fini(&s->waits);
    heap_fini(&s->pauses);
    free(s);
    *sp = NULL;
}
