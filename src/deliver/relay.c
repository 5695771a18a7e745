#include "deliver/relay.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "deliver/relay_int.h"

struct relay *relay_new(struct outcome_sink *sink, struct settings *take, void (*tick)(void *arg, bool wanted),
                        void *arg)
{
    struct relay *r = calloc(1, sizeof(*r));
    struct book *book = book_new();
    if (r == NULL || book == NULL) {
        free(r);
        book_free(&book);
        settings_drop(&take);
        return NULL;
    }
    r->sink = sink;
    r->settings = take;
    r->book = book;
    TAILQ_INIT(&r->idle);
    TAILQ_INIT(&r->hungry);
    r->tick = tick;
    r->tick_arg = arg;
    return r;
}

void relay_free(struct relay **rp)
{
    struct relay *r = *rp;
    *rp = NULL;
    if (r == NULL) {
        return;
    }
    assert(r->connections == 0 && r->destinations == NULL);
    settings_drop(&r->settings);
    book_free(&r->book);
    free(r);
}

const struct settings *relay_settings(const struct relay *r)
{
    return r->settings;
}

/* ---- connections of all ---- */

void relay_tick(struct relay *r)
{
    uint64_t now_ms = clock_mono_ms();
    struct link *l;
    while ((l = TAILQ_FIRST(&r->idle)) != NULL && l->idle_until_ms <= now_ms) {
        link_quit(l);
    }
}

void relay_link_idle(struct relay *r, struct link *l)
{
    l->idle = true;
    l->idle_until_ms = clock_mono_ms() + l->destination->settings->idle_ms;
    TAILQ_INSERT_TAIL(&r->idle, l, in_idle);
    if (r->idle_count++ == 0) {
        r->tick(r->tick_arg, true);
    }
}

void relay_link_unidle(struct relay *r, struct link *l)
{
    if (!l->idle) {
        return;
    }
    l->idle = false;
    TAILQ_REMOVE(&r->idle, l, in_idle);
    if (--r->idle_count == 0) {
        r->tick(r->tick_arg, false);
    }
}

bool relay_has_room(struct relay *r)
{
    if (r->connections < r->settings->connections_max) {
        return true;
    }
    struct link *oldest = TAILQ_FIRST(&r->idle);
    if (oldest != NULL) {
        link_quit(oldest);
    }
    return false;
}

static void done_if_stopped(struct relay *r)
{
    if (r->stopping && r->connections == 0 && r->done != NULL) {
        void (*done)(void *arg) = r->done;
        r->done = NULL;
        done(r->done_arg);
    }
}

void relay_link_gone(struct relay *r)
{
    struct destination *d;
    while (r->connections < r->settings->connections_max && (d = TAILQ_FIRST(&r->hungry)) != NULL) {
        d->hungry = false;
        TAILQ_REMOVE(&r->hungry, d, in_hungry);
        destination_pump(d);
    }
    done_if_stopped(r);
}

/* ---- jobs ---- */

static void refuse(struct relay *r, struct job *j, bool permanent, uint16_t code, uint8_t subject, uint8_t detail,
                   const char *words)
{
    struct refusal why;
    refusal_set(&why, permanent, code, subject, detail, "%s", words);
    outcome_rest_refused(r->sink, j, &why);
    job_free(&j);
}

static struct destination *destination_of(struct relay *r, const struct route *route, const char *name)
{
    char key[DNS_NAME_MAX + 64];
    struct destination *d;
    int len = snprintf(key, sizeof(key), "%llu:%u:%s", (unsigned long long)r->settings->number, route->number, name);
    HASH_FIND(hh, r->destinations, key, (size_t)len, d);
    return d != NULL ? d : destination_new(r, route, name, key);
}

/* The name that is looked up by a route, for a domain; "" for none. ascii: NULL for a literal. */
static const char *name_of(const struct route *route, const char *domain)
{
    if (route->via == VIA_MX) {
        return domain;
    }
    return route->host != NULL ? route->host : "";
}

void relay_job(struct relay *r, struct job *take)
{
    char name[DNS_NAME_MAX + 1];
    struct span domain = take->wire.domain;
    struct net_address ignored;
    if (r->stopping) {
        job_free(&take);
        return;
    }
    int literal = dns_literal_parse(domain, &ignored);
    bool is_name = literal == -ENOENT && dns_domain_to_ascii(domain, name) == 0;
    if (!is_name) {
        (void)snprintf(name, sizeof(name), "%.*s", (int)domain.len, (const char *)domain.ptr);
    }
    const struct route *route = routes_find(r->settings->routes, domain, is_name ? name : NULL);
    if (route->via == VIA_ERROR) {
        refuse(r, take, true, 550, 7, 1, route->words != NULL ? route->words : "Mail for this domain is not taken");
        return;
    }
    if (route->via == VIA_MX && !is_name && literal != 0) {
        refuse(r, take, true, 553, 1, 2, "The domain of this address is none");
        return;
    }
    struct destination *d = destination_of(r, route, name_of(route, name));
    if (d == NULL) {
        refuse(r, take, false, 0, 3, 0, "Out of memory here");
        return;
    }
    if ((take->wire.flags & DELIVER_JOB_ANEW) != 0) {
        destination_try_anew(d);
    }
    destination_add(d, take);
}

/* One that waits keeps its place in a queue until its turn: nothing is left of it to be sent then. */
void relay_cancel(struct relay *r, uint64_t id)
{
    for (struct job *j = job_next(NULL, id); j != NULL; j = job_next(j, id)) {
        j->cancelled = true;
        if (!j->sending) {
            outcome_rest_cancelled(r->sink, j);
        }
    }
}

void relay_reload(struct relay *r, struct settings *take)
{
    struct destination *d, *next;
    struct queue_item *waiting = NULL, **end = &waiting;
    settings_drop(&r->settings);
    r->settings = take;
    HASH_ITER(hh, r->destinations, d, next)
    {
        struct job *j;
        while ((j = destination_take_waiting(d)) != NULL) {
            *end = &j->item;
            end = &j->item.next;
        }
        destination_retire(d);
        hosts_cancel(&d->lookup);
        destination_pump(d);
    }
    while (waiting != NULL) {
        struct job *j = (struct job *)waiting;
        waiting = waiting->next;
        relay_job(r, j);
    }
}

static void drop_waiting(struct relay *r, void (*then)(struct destination *d))
{
    struct destination *d, *next;
    HASH_ITER(hh, r->destinations, d, next)
    {
        struct job *j;
        while ((j = destination_take_waiting(d)) != NULL) {
            job_free(&j);
        }
        hosts_cancel(&d->lookup);
        then(d);
        destination_pump(d);
    }
}

static void abort_all_but_answers(struct destination *d)
{
    destination_abort(d, true);
}

void relay_forget_jobs(struct relay *r)
{
    job_cancel_all(); /* those that are spared end with their transaction, whatever recipients are left */
    drop_waiting(r, abort_all_but_answers);
}

void relay_stop(struct relay *r, void (*done)(void *arg), void *arg)
{
    r->stopping = true;
    r->done = done;
    r->done_arg = arg;
    drop_waiting(r, destination_retire);
    done_if_stopped(r);
}

void relay_figures(const struct relay *r, struct relay_figures *ret)
{
    *ret = (struct relay_figures){
        .destinations = HASH_COUNT(r->destinations), .connections = r->connections, .idle = r->idle_count};
    for (const struct destination *d = r->destinations; d != NULL; d = d->hh.next) {
        ret->waiting += d->queue.count;
    }
}
