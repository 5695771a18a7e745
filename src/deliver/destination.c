#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/clock.h"
#include "common/log.h"
#include "deliver/relay_int.h"

#define TRIES_MAX 1 /* times a job goes back when a new connection breaks under it */

static void on_ready(void *arg, struct connection *c);
static void on_ended(void *arg, struct connection *c, const struct connection_end *end);
static const struct connection_ops connection_ops = {.ready = on_ready, .ended = on_ended};

struct destination *destination_new(struct relay *r, const struct route *route, const char *name, const char *key)
{
    size_t len = strlen(key);
    struct destination *d = calloc(1, sizeof(*d) + len + 1);
    if (d == NULL) {
        return NULL;
    }
    d->relay = r;
    d->route = route;
    memcpy(d->key, key, len + 1);
    (void)snprintf(d->name, sizeof(d->name), "%s", name);
    queue_init(&d->queue);
    pace_init(&d->pace, r->settings->concurrency);
    TAILQ_INIT(&d->links);
    HASH_ADD_KEYPTR(hh, r->destinations, d->key, len, d);
    if (d->hh.tbl == NULL) {
        free(d);
        return NULL;
    }
    d->settings = settings_hold(r->settings);
    return d;
}

static void destination_free(struct destination *d)
{
    struct relay *r = d->relay;
    HASH_DEL(r->destinations, d);
    if (d->hungry) {
        TAILQ_REMOVE(&r->hungry, d, in_hungry);
    }
    hosts_cancel(&d->lookup);
    free(d->hosts);
    queue_fini(&d->queue);
    settings_drop(&d->settings);
    free(d);
}

/* For what only routes like this one mind of a host. */
static uint64_t scope_of(const struct destination *d)
{
    return d->settings->number << 32 | (d->route->number + 1U);
}

/* ---- jobs ---- */

static void job_refuse(struct destination *d, struct job *j, const struct refusal *why)
{
    outcome_rest_refused(d->relay->sink, j, why);
    job_free(&j);
}

static void job_wait(struct destination *d, struct job *j, bool first)
{
    struct span account = j->wire.envelope.account;
    if ((first ? queue_push_front : queue_push)(&d->queue, account, &j->item) < 0) {
        struct refusal why;
        refusal_set(&why, false, 0, 3, 0, "Out of memory here");
        job_refuse(d, j, &why);
    }
}

/* What was cancelled while it waited ends here. */
struct job *destination_take_waiting(struct destination *d)
{
    struct job *j;
    while ((j = (struct job *)queue_pop(&d->queue)) != NULL && j->open == 0) {
        job_free(&j);
    }
    return j;
}

/* All that waits, at once and with the same words: not each after a time-out of its own. */
static void refuse_waiting(struct destination *d, const struct refusal *why)
{
    struct job *j;
    d->tried_count = 0;
    while ((j = destination_take_waiting(d)) != NULL) {
        job_refuse(d, j, why);
    }
}

/* Gives l jobs until it is busy, or not wanted any more: true. false: it is idle, nothing waits. */
static bool link_feed(struct link *l)
{
    struct job *j;
    while ((j = destination_take_waiting(l->destination)) != NULL) {
        if (j->wants_fresh && l->used) {
            job_wait(l->destination, j, true);
            link_quit(l);
            return true;
        }
        l->used = true;
        if (connection_send(l->connection, j)) {
            return true;
        }
    }
    return false;
}

/* ---- hosts ---- */

void destination_try_anew(struct destination *d)
{
    d->anew = true;
    d->tried_count = 0;
    d->hosts_until_ms = 0;
}

static void hosts_take(struct destination *d, struct mail_hosts *take)
{
    free(d->hosts);
    d->hosts = take;
    d->hosts_until_ms = clock_mono_ms() + (uint64_t)take->ttl_s * 1000;
    for (size_t i = 0; d->anew && i < take->hops_count; i++) {
        book_set_up(d->relay->book, &take->hops[i].address, scope_of(d));
    }
    d->anew = false;
}

static void on_hosts(void *arg, struct mail_hosts *take)
{
    struct destination *d = arg;
    struct refusal why;
    d->lookup = NULL;
    if (take == NULL) {
        refusal_set(&why, false, 0, 3, 0, "Out of memory here");
        refuse_waiting(d, &why);
    } else if (take->verdict != HOSTS_FOUND) {
        log_info("delivery.dns.failed", LF_STR("domain", d->name), LF_STR("words", take->words));
        refusal_set(&why, take->verdict == HOSTS_PERMANENT, take->code, take->enhanced[1], take->enhanced[2], "%s",
                    take->words);
        refuse_waiting(d, &why);
        free(take);
        d->hosts_until_ms = 0;
    } else {
        hosts_take(d, take);
    }
    destination_pump(d);
}

static void lookup_start(struct destination *d, unsigned flags)
{
    flags |= d->route->lookup_mx ? (unsigned)HOSTS_MX : 0;
    d->lookup = hosts_find(d->settings->resolver, d->name, d->route->port, flags, &d->settings->self, on_hosts, d);
    if (d->lookup == NULL) {
        struct refusal why;
        refusal_set(&why, false, 0, 4, 3, "The resolver takes no question");
        refuse_waiting(d, &why);
    }
}

/* A hop that needs no lookup: a unix socket, or an address where a name could be. NULL: not so. */
static struct mail_hosts *hosts_without_lookup(const struct destination *d)
{
    struct net_address address = {0};
    if (d->route->unix_path != NULL) { /* for the book: an address that no host can have */
        XXH128_hash_t hash = XXH3_128bits(d->route->unix_path, strlen(d->route->unix_path));
        memcpy(address.bytes, &hash, sizeof(address.bytes));
        address.port = 0;
    } else if (dns_literal_parse(span_str(d->name), &address) < 0 && net_address_parse(d->name, &address) < 0) {
        return NULL;
    } else {
        address.port = d->route->port;
    }
    return hosts_of_address(d->name, &address, &d->settings->self);
}

/* true: d->hosts can be used. */
static bool hosts_are_known(struct destination *d)
{
    if (d->hosts != NULL && clock_mono_ms() < d->hosts_until_ms) {
        return true;
    }
    struct mail_hosts *direct = hosts_without_lookup(d);
    if (direct == NULL) {
        lookup_start(d, 0);
        return false;
    }
    if (direct->verdict != HOSTS_FOUND) {
        struct refusal why;
        refusal_set(&why, true, direct->code, direct->enhanced[1], direct->enhanced[2], "%s", direct->words);
        refuse_waiting(d, &why);
        free(direct);
        return false;
    }
    hosts_take(d, direct);
    return true;
}

static bool hop_was_tried(const struct destination *d, const struct net_address *address)
{
    for (size_t i = 0; i < d->tried_count; i++) {
        if (memcmp(&d->tried[i], address, sizeof(*address)) == 0) {
            return true;
        }
    }
    return false;
}

static void hop_note_tried(struct destination *d, const struct net_address *address, const struct refusal *why)
{
    d->tried_why = *why;
    if (d->tried_count < HOSTS_HOPS_MAX && !hop_was_tried(d, address)) {
        d->tried[d->tried_count++] = *address;
    }
}

/* The best hop that is not down and had no turn; else NULL, and why not the last one. */
static const struct mail_hop *hop_choose(const struct destination *d, const struct refusal **ret_why)
{
    uint64_t now_ms = clock_mono_ms();
    *ret_why = NULL;
    for (size_t i = 0; i < d->hosts->hops_count; i++) {
        const struct refusal *why = book_down(d->relay->book, &d->hosts->hops[i].address, scope_of(d), now_ms);
        why = why == NULL && hop_was_tried(d, &d->hosts->hops[i].address) ? &d->tried_why : why;
        if (why == NULL) {
            return &d->hosts->hops[i];
        }
        *ret_why = why;
    }
    return NULL;
}

/* ---- connections ---- */

static bool link_open(struct destination *d, const struct mail_hop *hop)
{
    struct relay *r = d->relay;
    struct link *l = calloc(1, sizeof(*l));
    if (l == NULL) {
        return false;
    }
    l->destination = d;
    l->address = hop->address;
    l->opening = true;
    bool clear = book_tls_broken(r->book, &hop->address, clock_mono_ms());
    l->connection = connection_open(&d->settings->env, d->settings->routes, d->route, d->hosts->names[hop->host],
                                    &hop->address, clear, &connection_ops, l);
    if (l->connection == NULL) {
        free(l);
        return false;
    }
    TAILQ_INSERT_TAIL(&d->links, l, in_destination);
    d->links_count++;
    d->opening++;
    r->connections++;
    return true;
}

/* No hop is worth a try now: look for those behind the best, else tell all that wait. */
static void no_hop(struct destination *d, const struct refusal *why)
{
    if (!d->hosts->complete) {
        lookup_start(d, HOSTS_ALL);
    } else if (d->links_count == 0 && why != NULL) {
        struct refusal copy = *why;
        refuse_waiting(d, &copy);
    }
}

/* true: one more was begun. */
static bool open_one(struct destination *d)
{
    const struct refusal *why;
    struct refusal ours;
    if (!relay_has_room(d->relay)) {
        if (!d->hungry) {
            d->hungry = true;
            TAILQ_INSERT_TAIL(&d->relay->hungry, d, in_hungry);
        }
        return false;
    }
    const struct mail_hop *hop = hop_choose(d, &why);
    if (hop == NULL) {
        no_hop(d, why);
        return false;
    }
    if (!link_open(d, hop)) {
        refusal_set(&ours, false, 0, 3, 0, "No connection can be made here now");
        if (d->links_count == 0) {
            refuse_waiting(d, &ours);
        }
        return false;
    }
    return true;
}

void destination_pump(struct destination *d)
{
    struct link *l, *next;
    for (l = TAILQ_FIRST(&d->links); l != NULL && d->queue.count > 0; l = next) {
        next = TAILQ_NEXT(l, in_destination);
        if (l->idle) {
            relay_link_unidle(d->relay, l);
            if (!link_feed(l)) {
                relay_link_idle(d->relay, l);
            }
        }
    }
    if (d->queue.count > 0 && d->lookup == NULL && hosts_are_known(d)) {
        while (d->opening < d->queue.count && d->links_count < d->pace.limit && d->lookup == NULL && open_one(d)) {
        }
    }
    if (d->queue.count == 0 && d->links_count == 0 && d->lookup == NULL) {
        destination_free(d);
    }
}

void destination_add(struct destination *d, struct job *take)
{
    job_wait(d, take, false);
    destination_pump(d);
}

static void on_ready(void *arg, struct connection *c)
{
    struct link *l = arg;
    struct destination *d = l->destination;
    (void)c;
    if (l->opening) {
        l->opening = false;
        d->opening--;
        d->tried_count = 0;
        book_set_up(d->relay->book, &l->address, scope_of(d));
    } else {
        pace_success(&d->pace);
    }
    if (link_feed(l)) {
        destination_pump(d); /* a job may want another connection than this one */
        return;
    }
    if (d->relay->stopping || d->settings != d->relay->settings) {
        link_quit(l);
    } else {
        relay_link_idle(d->relay, l);
    }
}

void link_quit(struct link *l)
{
    relay_link_unidle(l->destination->relay, l);
    l->cut = l->opening;
    connection_quit(l->connection);
}

void destination_retire(struct destination *d)
{
    struct link *l, *next;
    for (l = TAILQ_FIRST(&d->links); l != NULL; l = next) {
        next = TAILQ_NEXT(l, in_destination);
        link_quit(l);
    }
}

void destination_abort(struct destination *d, bool spare_answers)
{
    struct link *l, *next;
    for (l = TAILQ_FIRST(&d->links); l != NULL; l = next) {
        next = TAILQ_NEXT(l, in_destination);
        if (!l->idle) {
            l->cut = connection_abort(l->connection, spare_answers);
        }
    }
}

/* ---- how connections end ---- */

static void host_failed(struct destination *d, const struct link *l, const struct connection_end *end)
{
    log_info("delivery.host.down", LF_STR("domain", d->name), LF_STR("words", end->why->words),
             LF_UINT("code", end->why->code));
    book_set_down(d->relay->book, &l->address, end->policy ? scope_of(d) : 0, end->why,
                  clock_mono_ms() + d->settings->down_ms);
    hop_note_tried(d, &l->address, end->why);
    pace_failure(&d->pace);
}

/* RFC 7435: when TLS only may be, a handshake that fails is worth one try without. */
static void tls_failed(struct destination *d, const struct link *l, const struct connection_end *end)
{
    log_info("delivery.tls.failed", LF_STR("domain", d->name), LF_STR("words", end->why->words));
    if (end->resuming) {
        return; /* says nothing about a full handshake, which is next */
    }
    if (d->route->tls == TLS_MAY && !d->route->implicit_tls) {
        book_set_tls_broken(d->relay->book, &l->address, clock_mono_ms());
    } else {
        host_failed(d, l, end);
    }
}

/* The connection broke before the message was whole at the other side. */
static void transaction_lost(struct destination *d, const struct connection_end *end)
{
    struct job *j = end->job;
    log_info("delivery.connection.lost", LF_ID("id", j->id), LF_STR("domain", d->name),
             LF_STR("words", end->why->words));
    if (j->cancelled) {
        outcome_rest_cancelled(d->relay->sink, j);
        job_free(&j);
    } else if (end->reused ? !j->wants_fresh : j->tries < TRIES_MAX) {
        j->tries += !end->reused;
        j->wants_fresh = true;
        job_wait(d, j, true);
    } else {
        job_refuse(d, j, end->why);
    }
}

static void judge_end(struct destination *d, struct link *l, const struct connection_end *end)
{
    switch (end->phase) {
    case CONNECTION_OPENING:
    case CONNECTION_GREETING:
        host_failed(d, l, end);
        break;
    case CONNECTION_TLS:
        tls_failed(d, l, end);
        break;
    case CONNECTION_BUSY:
    case CONNECTION_ANSWER:
        if (end->why->code == 421 && !end->reused) { /* it takes no mail from us now, and said so */
            host_failed(d, l, end);
        } else if (end->job == NULL && !end->cancelled) {
            pace_failure(&d->pace);
        }
        break;
    case CONNECTION_IDLE:
        break;
    }
}

static void on_ended(void *arg, struct connection *c, const struct connection_end *end)
{
    struct link *l = arg;
    struct destination *d = l->destination;
    struct relay *r = d->relay;
    (void)c;
    relay_link_unidle(r, l);
    TAILQ_REMOVE(&d->links, l, in_destination);
    d->links_count--;
    d->opening -= l->opening;
    r->connections--;
    struct job *j = end->job;
    if (l->cut || r->stopping) {
        job_free(&j);
    } else {
        judge_end(d, l, end);
        if (j != NULL) {
            transaction_lost(d, end);
        }
    }
    free(l);
    destination_pump(d);
    relay_link_gone(r);
}
