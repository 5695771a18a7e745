/*
 * hosts.h: where the mail of a domain goes: its mail hosts and their addresses in the order to try (RFC 5321 section
 * 5.1), or why there are none, in words for the bounce.
 *
 * All addresses are asked for at once. The lookup is done when the best hosts that have an address are known; those
 * behind them may be missing then (complete is false): ask again with HOSTS_ALL when the best ones do not answer. Most
 * mail never waits for a slow backup.
 */
#ifndef KIDOBAN_DELIVER_HOSTS_H
#define KIDOBAN_DELIVER_HOSTS_H

#include "deliver/resolver.h"

#define HOSTS_HOPS_MAX  32
#define HOSTS_WORDS_MAX 512
#define HOSTS_TTL_MIN_S 30
#define HOSTS_TTL_MAX_S 3600

enum hosts_verdict { HOSTS_FOUND, HOSTS_TEMPORARY, HOSTS_PERMANENT };

struct mail_hop {
    uint16_t host; /* index of its name */
    struct net_address address;
};

struct mail_hosts {
    enum hosts_verdict verdict;
    uint16_t code; /* TEMPORARY, PERMANENT: as if a next hop had said it */
    uint8_t enhanced[3];
    char words[HOSTS_WORDS_MAX];
    bool complete;
    uint32_t ttl_s; /* FOUND: within HOSTS_TTL_MIN_S .. HOSTS_TTL_MAX_S */
    size_t names_count, hops_count;
    char names[DNS_MX_MAX][DNS_NAME_MAX + 1];
    struct mail_hop hops[HOSTS_HOPS_MAX];
};

/* What a lookup needs to know of us; borrowed while it runs. */
struct hosts_self {
    const char *name;                                              /* our host name, lower case; NULL: none */
    bool (*is_self)(void *arg, const struct net_address *address); /* would that address, at port, be us */
    uint32_t (*random)(void *arg);
    void *arg;
};

enum hosts_flag {
    HOSTS_MX = 1,  /* by MX; else the name itself is the host, and its absence is temporary: the operator's slip */
    HOSTS_ALL = 2, /* wait for every host */
};

struct hosts_lookup;
/* take: a heap object for the callee to free(). Once, from the loop, never from hosts_find(). */
typedef void (*hosts_done)(void *arg, struct mail_hosts *take);

/* name: ASCII (dns_domain_to_ascii). port goes into every hop. NULL: out of memory. */
struct hosts_lookup *hosts_find(struct resolver *r, const char *name, uint16_t port, unsigned flags,
                                const struct hosts_self *self, hosts_done done, void *arg);
void hosts_cancel(struct hosts_lookup **l);

/* One hop that needs no lookup; also for an address that is ours (5.4.6). NULL: out of memory. */
struct mail_hosts *hosts_of_address(const char *name, const struct net_address *address, const struct hosts_self *self);

#endif
