/* relay_int.h: what relay.c (all destinations) and destination.c (one) share. */
#ifndef KIDOBAN_DELIVER_RELAY_INT_H
#define KIDOBAN_DELIVER_RELAY_INT_H

#include <sys/queue.h>

#include "deliver/pace.h"
#include "deliver/relay.h"

#include "common/hash.h"

/* A connection and whom it serves. */
struct link {
    struct destination *destination;
    struct connection *connection;
    struct net_address address; /* as the book knows it */
    bool opening;               /* not ready yet */
    bool cut;                   /* by us: its end says nothing about the host */
    bool idle;
    bool used; /* had a job */
    uint64_t idle_until_ms;
    TAILQ_ENTRY(link) in_destination, in_idle;
};
TAILQ_HEAD(links, link);

struct destination {
    struct relay *relay;
    UT_hash_handle hh;
    struct settings *settings; /* held */
    const struct route *route;
    char name[DNS_NAME_MAX + 1]; /* what is looked up; or a literal */
    struct queue queue;
    struct pace pace;
    struct links links;
    size_t links_count, opening;
    struct hosts_lookup *lookup;
    struct mail_hosts *hosts; /* NULL: not known */
    uint64_t hosts_until_ms;
    /* Hops that have failed since one was ready, or since all that waited was told: they had their turn, though the
     * book may call them up again by the time the last one has failed. */
    struct net_address tried[HOSTS_HOPS_MAX];
    size_t tried_count;
    struct refusal tried_why; /* of the last */
    bool anew;                /* when its hosts are known, what the book says of them is forgotten */
    bool hungry;              /* waits for its share of connections_max */
    TAILQ_ENTRY(destination) in_hungry;
    char key[];
};

struct relay {
    void (*tick)(void *arg, bool wanted); /* while something is idle */
    void *tick_arg;
    struct outcome_sink *sink;
    struct settings *settings;
    struct book *book;
    struct destination *destinations; /* by key */
    struct links idle;                /* the longest idle first */
    size_t idle_count, connections;
    TAILQ_HEAD(hungry, destination) hungry;
    bool stopping;
    void (*done)(void *arg);
    void *done_arg;
};

/* A room in connections_max: false, and an idle connection elsewhere is sent home. */
bool relay_has_room(struct relay *r);
void relay_link_idle(struct relay *r, struct link *l);   /* nothing to do for it */
void relay_link_unidle(struct relay *r, struct link *l); /* no-op when it is not */
/* A connection is gone: whoever waited for room goes on; may end the relay's stopping. */
void relay_link_gone(struct relay *r);

/* NULL: out of memory. */
struct destination *destination_new(struct relay *r, const struct route *route, const char *name, const char *key);
/* Nothing that is remembered of its hosts holds back what comes now: they are looked up and tried again. */
void destination_try_anew(struct destination *d);
/* Takes the job. d may be gone afterwards. */
void destination_add(struct destination *d, struct job *take);
/* Does what can be done now: hands out jobs, opens connections, or is gone when nothing is left of it. */
void destination_pump(struct destination *d);
/* Takes all that waits. NULL when nothing does. */
struct job *destination_take_waiting(struct destination *d);
/* Idle connections quit, the others after their job; those not ready are cut. */
void destination_retire(struct destination *d);
void destination_abort(struct destination *d, bool spare_answers);
void link_quit(struct link *l);

#endif
