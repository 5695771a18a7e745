/*
 * resolver.h: questions to the DNS, answered by libunbound in a thread of its own, told in the loop.
 *
 * libunbound validates (DNSSEC) and keeps the cache, by TTL. Its thread is made at the first question, so that it lives
 * within the sandbox. Answers are rdata of strangers: views that are valid during the callback, to be parsed with
 * dns.h. Bogus is a failure and never an absence: a forger must not be able to make mail bounce (RFC 7672 section 2.1).
 */
#ifndef KIDOBAN_DELIVER_RESOLVER_H
#define KIDOBAN_DELIVER_RESOLVER_H

#include <uv.h>

#include "common/buf.h"
#include "deliver/dns.h"

#define RESOLVER_DEADLINE_MS 30000 /* of one question; libunbound's own patience can be longer */

struct resolver;
struct resolver_query;

struct resolver_settings {
    const char *const *forwarders; /* "192.0.2.53", "2001:db8::53@5353"; none: from the root */
    size_t forwarders_count;
    const char *trust_anchor; /* file with DS or DNSKEY records; NULL: answers are not validated */
};

enum resolver_status {
    RESOLVER_FOUND,
    RESOLVER_NO_DATA, /* the name exists, this type does not */
    RESOLVER_NO_NAME, /* NXDOMAIN */
    RESOLVER_FAILED,  /* SERVFAIL, bogus, no answer in time: nothing is known */
};

struct resolver_answer {
    enum resolver_status status;
    const struct span *rdata; /* FOUND */
    size_t count;
    uint32_t ttl_s;
    bool secure;     /* DNSSEC says so; DANE needs it */
    const char *why; /* FAILED: a few words */
};

/* Called once, from the loop, never from resolver_ask(). */
typedef void (*resolver_done)(void *arg, const struct resolver_answer *answer);

/* Reads the trust anchor file: call where it may be read. NULL after *ret_why was set (static words). */
struct resolver *resolver_new(uv_loop_t *loop, const struct resolver_settings *settings, const char **ret_why);
struct resolver *resolver_hold(struct resolver *r);
/* The last holder may ask nothing any more; it goes when the last question has been answered or cancelled. */
void resolver_drop(struct resolver **r);

/* name: text in ASCII. NULL when it cannot be asked (out of memory, or libunbound refuses). */
struct resolver_query *resolver_ask(struct resolver *r, const char *name, enum dns_type type, resolver_done done,
                                    void *arg);
void resolver_cancel(struct resolver_query **q); /* no callback any more; NULL is taken */

#endif
