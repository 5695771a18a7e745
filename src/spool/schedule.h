/*
 * schedule.h: what is tried when. Pure: times are passed in (spool time, ms), nothing is read or written.
 *
 * The unit is a job: the recipients of one message in one domain. Strategies:
 * - a job that failed for now waits, twice as long each time, with jitter;
 * - at most `window` jobs are out. A domain has a cap of its own: small until it has proved to answer, growing with
 * success, one (a probe) while it cannot be reached. Domains that have not proved themselves share half of the window,
 * so that any number of black holes leaves the other half to those that work;
 * - a domain that cannot be reached is left alone for a while, all its jobs with it; when a delivery there works,
 *   those that waited because of that are woken;
 * - accounts take turns, and the domains of an account take turns: nobody's pile delays another's single message.
 */
#ifndef KIDOBAN_SPOOL_SCHEDULE_H
#define KIDOBAN_SPOOL_SCHEDULE_H

#include <stdbool.h>

#include "common/buf.h"
#include "spool/heap.h"

struct schedule_config {
    uint32_t window;                     /* jobs out at once */
    uint32_t cap_start, cap_max;         /* jobs out to one domain */
    uint64_t retry_min_ms, retry_max_ms; /* wait after the first failure; the longest wait */
    uint64_t pause_min_ms, pause_max_ms; /* of a domain that cannot be reached */
    uint64_t seed;                       /* of jitter and tables */
};
struct schedule_config schedule_config_default(void);

struct schedule;
struct schedule_domain;
struct schedule_account;
struct schedule_flow;

enum schedule_job_state {
    JOB_IDLE,    /* not in the schedule */
    JOB_WAITING, /* until next_ms */
    JOB_READY,   /* to be taken */
    JOB_OUT,     /* taken, no result yet */
};

struct schedule_job {
    struct schedule_domain *domain;
    struct schedule_account *account;
    struct schedule_flow *flow; /* while READY */
    struct schedule_job *prev, *next;
    struct heap_node wait; /* key: next try */
    uint32_t attempts;
    uint8_t state;    /* enum schedule_job_state */
    bool unreachable; /* its last failure was the domain's, not its own */
    uint16_t place;   /* the owner's: number of the job in its message */
    uint64_t pinned;  /* the owner's: what is being read while OUT */
    bool anew;        /* the owner's: its next try is the operator's wish */
};

struct schedule *schedule_new(const struct schedule_config *config);
void schedule_free(struct schedule **s);                                           /* every job was removed */
void schedule_configure(struct schedule *s, const struct schedule_config *config); /* all but the seed */

/* Binds a job (zeroed) to its domain (lower case) and account; 0 or -ENOMEM. IDLE afterwards. */
int schedule_job_init(struct schedule *s, struct schedule_job *j, struct span domain, struct span account,
                      bool suspended);
void schedule_job_fini(struct schedule *s, struct schedule_job *j); /* from any state but OUT */

/* IDLE -> WAITING or READY. Cannot fail after init. */
void schedule_add(struct schedule *s, struct schedule_job *j, uint64_t next_ms, uint64_t now_ms);
void schedule_remove(struct schedule *s, struct schedule_job *j); /* WAITING, READY -> IDLE */
/* What waits and is due becomes ready. Returns when to call again (UINT64_MAX: never). */
uint64_t schedule_tick(struct schedule *s, uint64_t now_ms);
/* The next job to be tried (READY -> OUT), or NULL. */
struct schedule_job *schedule_take(struct schedule *s);

enum schedule_result {
    SCHEDULE_ANSWERED,    /* the next hop spoke about the recipients, whatever it said */
    SCHEDULE_UNREACHABLE, /* nobody spoke: no host, no connection, no greeting */
    SCHEDULE_LOST,        /* deliver went away: nobody's fault */
};
struct schedule_job *schedule_first_out(const struct schedule *s); /* any that is OUT, or NULL; ->next: the others */
/* OUT -> IDLE, and what it teaches about the domain. The caller adds it again or ends it. */
void schedule_result(struct schedule *s, struct schedule_job *j, enum schedule_result result, uint64_t now_ms);

void schedule_suspend(struct schedule *s, struct span account, bool suspended);
/* Ends the pause of a domain that cannot be reached (an operator's wish): what is ready for it goes out. */
void schedule_unpause(struct schedule *s, struct schedule_domain *d);

/* How long to wait after the attempt with this number (1 the first). */
uint64_t schedule_backoff(struct schedule *s, uint32_t attempts);

struct span schedule_domain_name(const struct schedule_domain *d);
struct span schedule_account_name(const struct schedule_account *a);
bool schedule_account_suspended(const struct schedule_account *a);

struct schedule_figures {
    uint32_t out, out_unproven;
    uint64_t ready, waiting;
    size_t domains, accounts;
};
void schedule_figures(const struct schedule *s, struct schedule_figures *ret);

#endif
