#include "deliver/resolver.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unbound.h>

#include "common/clock.h"

#define CLASS_IN      1
#define RCODE_SERVER  2
#define RCODE_NAME    3
#define RCODE_REFUSED 5
#define TICK_MS       1000

/* Lives until libunbound has called back, or the context is gone; done is NULL once nobody listens. */
struct resolver_query {
    struct resolver *resolver;
    struct resolver_query *prev, *next; /* in the order of their deadlines */
    resolver_done done;
    void *arg;
    uint64_t deadline_ms;
};

struct resolver {
    struct ub_ctx *ctx;
    uv_poll_t poll;
    uv_timer_t tick;
    struct resolver_query *first, *last;
    size_t holders;
    size_t listening; /* queries with done */
    bool closing;
    int handles;
};

static void handle_closed(uv_handle_t *h)
{
    struct resolver *r = h->data;
    if (--r->handles > 0) {
        return;
    }
    ub_ctx_delete(r->ctx); /* joins its thread; what it still worked on is forgotten */
    while (r->first != NULL) {
        struct resolver_query *q = r->first;
        r->first = q->next;
        free(q);
    }
    free(r);
}

static void close_if_unused(struct resolver *r)
{
    if (r->holders > 0 || r->listening > 0 || r->closing) {
        return;
    }
    r->closing = true;
    uv_close((uv_handle_t *)&r->poll, handle_closed);
    uv_close((uv_handle_t *)&r->tick, handle_closed);
}

struct resolver *resolver_hold(struct resolver *r)
{
    r->holders++;
    return r;
}

void resolver_drop(struct resolver **rp)
{
    struct resolver *r = *rp;
    *rp = NULL;
    if (r != NULL) {
        r->holders--;
        close_if_unused(r);
    }
}

static void query_free(struct resolver_query *q)
{
    struct resolver *r = q->resolver;
    *(q->prev != NULL ? &q->prev->next : &r->first) = q->next;
    *(q->next != NULL ? &q->next->prev : &r->last) = q->prev;
    free(q);
}

/* Whoever listens hears it, once. */
static void tell(struct resolver_query *q, const struct resolver_answer *answer)
{
    if (q->done == NULL) {
        return;
    }
    resolver_done done = q->done;
    q->done = NULL;
    q->resolver->listening--;
    if (q->resolver->listening == 0) {
        (void)uv_timer_stop(&q->resolver->tick);
    }
    done(q->arg, answer);
}

static void tell_failure(struct resolver_query *q, const char *why)
{
    tell(q, &(struct resolver_answer){.status = RESOLVER_FAILED, .why = why});
}

static const char *failure_words(const struct ub_result *u)
{
    if (u->bogus) {
        return "DNSSEC validation failed";
    }
    switch (u->rcode) {
    case RCODE_SERVER:
        return "the name servers failed to answer";
    case RCODE_REFUSED:
        return "the name servers refused to answer";
    default:
        return "the name servers answered with an error";
    }
}

static void tell_result(struct resolver_query *q, const struct ub_result *u)
{
    if (u->bogus || (u->rcode != 0 && u->rcode != RCODE_NAME)) {
        tell_failure(q, failure_words(u));
        return;
    }
    struct span rdata[DNS_MX_READ_MAX];
    struct resolver_answer answer = {
        .rdata = rdata, .ttl_s = u->ttl > 0 ? (uint32_t)u->ttl : 0, .secure = u->secure != 0};
    while (u->havedata && answer.count < DNS_MX_READ_MAX && u->data[answer.count] != NULL) {
        int len = u->len[answer.count];
        rdata[answer.count] = (struct span){(const uint8_t *)u->data[answer.count], len > 0 ? (size_t)len : 0};
        answer.count++;
    }
    answer.status = answer.count > 0 ? RESOLVER_FOUND : u->nxdomain ? RESOLVER_NO_NAME : RESOLVER_NO_DATA;
    tell(q, &answer);
}

static void on_answer(void *arg, int err, struct ub_result *result)
{
    struct resolver_query *q = arg;
    if (err != 0 || result == NULL) {
        tell_failure(q, "the resolver failed");
    } else {
        tell_result(q, result);
    }
    ub_resolve_free(result);
    query_free(q);
}

static void on_poll(uv_poll_t *h, int status, int events)
{
    struct resolver *r = h->data;
    (void)events;
    if (status == 0) {
        (void)ub_process(r->ctx);
    }
    close_if_unused(r);
}

static void on_tick(uv_timer_t *t)
{
    struct resolver *r = t->data;
    uint64_t now_ms = clock_mono_ms();
    struct resolver_query *q = r->first;
    while (q != NULL && q->deadline_ms <= now_ms) {
        struct resolver_query *next = q->next; /* stays: only on_answer frees, and only from ub_process */
        tell_failure(q, "no answer from the name servers in time");
        q = next;
    }
    close_if_unused(r);
}

/* Each line of the file is a record; libunbound would read the file itself, but later, from within the sandbox. */
static int add_anchors(struct ub_ctx *ctx, const char *path)
{
    FILE *f = fopen(path, "re");
    char line[4096];
    int added = 0, r = f != NULL ? 0 : -1;
    while (r == 0 && fgets(line, sizeof(line), f) != NULL) {
        line[strcspn(line, ";\r\n")] = '\0';
        if (line[strspn(line, " \t")] != '\0') {
            r = ub_ctx_add_ta(ctx, line);
            added++;
        }
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    return r == 0 && added > 0 ? 0 : -1;
}

static bool is_loopback(const char *forwarder)
{
    return strncmp(forwarder, "127.", 4) == 0 || strcmp(forwarder, "::1") == 0 || strncmp(forwarder, "::1@", 4) == 0;
}

static const char *configure(struct ub_ctx *ctx, const struct resolver_settings *settings)
{
    if (ub_ctx_async(ctx, 1) != 0 || ub_ctx_debugout(ctx, NULL) != 0) {
        return "libunbound does not start";
    }
    for (size_t i = 0; i < settings->forwarders_count; i++) {
        if (ub_ctx_set_fwd(ctx, settings->forwarders[i]) != 0) {
            return "libunbound does not take a forwarder";
        }
        if (is_loopback(settings->forwarders[i]) && ub_ctx_set_option(ctx, "do-not-query-localhost:", "no") != 0) {
            return "libunbound does not take a forwarder on the loopback interface";
        }
    }
    if (settings->trust_anchor == NULL && ub_ctx_set_option(ctx, "module-config:", "iterator") != 0) {
        return "libunbound insists on validation";
    }
    if (settings->trust_anchor != NULL && add_anchors(ctx, settings->trust_anchor) != 0) {
        return "the DNSSEC trust anchor cannot be read";
    }
    /* libunbound answers for "test." itself (RFC 6761); an operator's own resolver may know better. This must be the
     * last: it makes the context final. */
    if (settings->forwarders_count > 0 && ub_ctx_zone_remove(ctx, "test.") != 0) {
        return "libunbound does not let go of test.";
    }
    return NULL;
}

struct resolver *resolver_new(uv_loop_t *loop, const struct resolver_settings *settings, const char **ret_why)
{
    struct resolver *r = calloc(1, sizeof(*r));
    struct ub_ctx *ctx = r != NULL ? ub_ctx_create() : NULL;
    const char *why = ctx != NULL ? configure(ctx, settings) : "out of memory";
    if (why == NULL && uv_poll_init(loop, &r->poll, ub_fd(ctx)) != 0) {
        why = "libunbound's descriptor cannot be polled";
    }
    if (why != NULL) {
        ub_ctx_delete(ctx);
        free(r);
        *ret_why = why;
        return NULL;
    }
    r->ctx = ctx;
    r->holders = 1;
    r->handles = 2;
    (void)uv_timer_init(loop, &r->tick);
    r->poll.data = r->tick.data = r;
    (void)uv_poll_start(&r->poll, UV_READABLE, on_poll);
    return r;
}

struct resolver_query *resolver_ask(struct resolver *r, const char *name, enum dns_type type, resolver_done done,
                                    void *arg)
{
    struct resolver_query *q = calloc(1, sizeof(*q));
    if (q == NULL) {
        return NULL;
    }
    *q = (struct resolver_query){.resolver = r,
                                 .prev = r->last,
                                 .done = done,
                                 .arg = arg,
                                 .deadline_ms = clock_mono_ms() + RESOLVER_DEADLINE_MS};
    *(r->last != NULL ? &r->last->next : &r->first) = q;
    r->last = q;
    if (ub_resolve_async(r->ctx, name, (int)type, CLASS_IN, q, on_answer, NULL) != 0) {
        query_free(q);
        return NULL;
    }
    if (r->listening++ == 0) {
        (void)uv_timer_start(&r->tick, on_tick, TICK_MS, TICK_MS);
    }
    return q;
}

void resolver_cancel(struct resolver_query **qp)
{
    struct resolver_query *q = *qp;
    *qp = NULL;
    if (q == NULL || q->done == NULL) {
        return;
    }
    q->done = NULL; /* libunbound still answers; nobody listens */
    if (--q->resolver->listening == 0) {
        (void)uv_timer_stop(&q->resolver->tick);
        close_if_unused(q->resolver);
    }
}
