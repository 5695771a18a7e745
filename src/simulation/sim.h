/*
 * sim.h: a small world in one thread under one seed: users who submit, the house (the smtp server engine, the spool,
 * deliver's relay with the smtp client engine), the network, the DNS, the mail hosts of others, a disk, two clocks.
 * The same seed, the same life: every event goes into a hash, and two runs of a seed must agree.
 *
 * Real are src/smtp, src/spool and of src/deliver all but resolver.c, settings.c, verify.c and process.c. Ours are what
 * those would give (stream.h, resolver.h, verify.h, settings.h) and what submit's session does around the engine.
 *
 *   time.c    what happens next, the clocks, chance, the trace
 *   net.c     streams, and the mail hosts at their other end
 *   names.c   the DNS
 *   users.c   who submits, and the sessions that take it
 *   house.c   spool and relay, their frames, crashes and starts
 *   stand_in.c  what stands in for the rest of deliver, and for the kernel's descriptors
 *   ledger.c  what was promised to whom, and what came of it
 */
#ifndef KIDOBAN_SIMULATION_SIM_H
#define KIDOBAN_SIMULATION_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "spool/heap.h"
#include "wire/address.h"
#include "wire/deliver.h"
#include "wire/spool.h"

#define SECOND ((uint64_t)1000)
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)

#define SIM_HOSTS       8 /* mail hosts */
#define SIM_DOMAINS     10
#define SIM_RECIPIENTS  3          /* of a message, at most */
#define SIM_HEALED_AT   (8 * DAY)  /* from then on the world is good */
#define SIM_ENDS_AT     (16 * DAY) /* and the queue must be empty long before */
#define SIM_LIFETIME    (5 * DAY)  /* the defaults of the configuration */
#define SIM_DELAY       (4 * HOUR)
#define SIM_LARGE       (32U * 1024U) /* octets from which a message is streamed to the spool */
#define SIM_MESSAGE_MAX (300U * 1024U)

struct house;
struct stream;
struct user;
struct resolver_query;
struct spool_disk;

struct sim_event {
    struct heap_node node;
    void (*fire)(void *arg);
    void *arg;
};

/* How bad the world is: events in a thousand, or counts. */
struct sim_weather {
    const char *name;
    unsigned messages;
    unsigned hosts_bad;   /* of a thousand stretches of time of a host, how many are bad */
    unsigned replies_bad; /* of a thousand replies of a good host, how many are 4xx, lost or never come */
    unsigned dns_bad;     /* of a thousand answers */
    unsigned crashes;     /* of each kind */
    unsigned steps;       /* of the wall clock */
};

struct sim_recipient {
    char address[48];
    bool nobody;                     /* its host says 550 */
    uint8_t notify;                  /* as in NOTIFY= */
    unsigned attempts;               /* jobs that went out with it */
    unsigned accepted;               /* times a host took the message for it ... */
    unsigned pending;                /* ... of those, whose outcome is not yet on our disk */
    unsigned allowed;                /* more copies that are nobody's fault: a crash or a lost reply fell between */
    uint64_t out_at;                 /* true time since when deliver has it; 0: it has not */
    uint64_t taken_first;            /* true time */
    uint64_t turn;                   /* of the log, with the outcome in it; 0: no outcome yet */
    unsigned told[NOTIFY_DELAY + 1]; /* notifications that arrived, by NOTIFY_* */
    uint64_t told_first[NOTIFY_DELAY + 1]; /* true time */
};

struct sim_message {
    uint32_t token;
    uint64_t id; /* the spool's; 0: none yet */
    uint32_t size;
    bool acked, dsn, held;
    uint64_t at; /* true time of the 250 */
    uint8_t count;
    struct sim_recipient recipients[SIM_RECIPIENTS];
};

struct sim {
    uint64_t seed;
    struct sim_weather weather;
    /* time.c */
    uint64_t now_ms; /* true time, from 0 */
    uint64_t boot_ms;
    int64_t wall_offset_ms;
    uint64_t random, trace, sequence, events_fired;
    struct heap events;
    /* net.c */
    struct stream *streams;
    struct host *hosts;
    /* names.c */
    struct resolver_query *queries;
    /* users.c */
    struct user *users;
    /* house.c */
    struct house *house;
    unsigned crashes, power_cuts, deliver_deaths, clean_stops;
    uint64_t down_ms; /* all together */
    /* ledger.c */
    struct sim_message *messages;
    size_t messages_count, messages_cap;
    uint64_t accepted, bounced, delayed, expired, duplicates;
    unsigned attempts_most; /* of a recipient */
    bool broken;
    char why[240];
};

/* --- time.c --- */
void sim_init(struct sim *s, uint64_t seed, const struct sim_weather *weather);
void sim_fini(struct sim *s);
void sim_run(struct sim *s, uint64_t until_ms); /* ends early when broken */
void sim_in(struct sim *s, struct sim_event *e, uint64_t ms, void (*fire)(void *arg), void *arg); /* armed: anew */
void sim_cancel(struct sim *s, struct sim_event *e);
uint64_t sim_random(struct sim *s);
uint64_t sim_below(struct sim *s, uint64_t bound);
bool sim_chance(struct sim *s, unsigned per_thousand);
bool sim_healed(const struct sim *s);
void sim_trace(struct sim *s, const char *what, uint64_t a, uint64_t b);
__attribute__((format(printf, 2, 3))) void sim_broken(struct sim *s, const char *fmt, ...);
extern struct sim *sim_now; /* the one that runs: for the functions of others that we stand in for */

/* --- net.c --- */
void net_init(struct sim *s);
void net_fini(struct sim *s);
/* The process with the connections dies: octets on their way still arrive. */
void net_cut_all(struct sim *s);
/* Nobody waits for what these transactions will say: jobs were forgotten. */
void net_orphan_all(struct sim *s);
int net_host_of(const struct net_address *a); /* -1: none */
void net_address_of(int host, struct net_address *ret);

/* --- names.c --- */
void names_fini(struct sim *s);
unsigned names_domain_hosts(const struct sim *s, unsigned domain, int hosts[2]); /* now; 0: it does not exist */

/* --- users.c --- */
void users_init(struct sim *s);
void users_fini(struct sim *s);
void users_disconnect_all(struct sim *s, bool politely); /* the house dies; politely: the spool alone, with 451 */
void users_answer(struct sim *s, uint64_t ticket, uint64_t id, const struct spool_refused *refused);
void users_octets(uint32_t token, uint32_t size, struct buf *out);

/* --- house.c --- */
int house_init(struct sim *s); /* 0 or -errno */
void house_fini(struct sim *s);
bool house_accepts(const struct sim *s);
uint64_t house_mint(struct sim *s);
void house_put(struct sim *s, uint64_t ticket, uint64_t id, const struct envelope *e, struct span octets);
void house_client_gone(struct sim *s, uint64_t ticket);
size_t house_queued(struct sim *s);
const struct spool_disk *house_disk(const struct sim *s);
/* The log: which turn gathers now, and which is durable. */
void house_turns(const struct sim *s, uint64_t *ret_gather, uint64_t *ret_durable);

/* --- ledger.c --- */
struct sim_message *ledger_add(struct sim *s); /* valid until the next call */
struct sim_message *ledger_by_token(struct sim *s, uint32_t token);
struct sim_message *ledger_by_id(struct sim *s, uint64_t id);
void ledger_job(struct sim *s, uint64_t id, const struct deliver_job *job);
/* A host has taken these octets for that recipient. orphan: nobody waits for its answer. */
void ledger_accepted(struct sim *s, struct span sender, struct span recipient, struct span octets, bool orphan);
void ledger_outcome(struct sim *s, uint64_t id, const struct deliver_outcome *o);
void ledger_deliver_died(struct sim *s); /* without the outcomes of what it was at */
void ledger_spool_died(struct sim *s, uint64_t durable_turn);
void ledger_removed(struct sim *s, uint64_t id, int result); /* by the operator, as spool_remove() said */
void ledger_check_end(struct sim *s);

#endif
