#include "deliver/hosts.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum family { V6, V4, FAMILIES };

static const enum dns_type types[FAMILIES] = {[V6] = DNS_TYPE_AAAA, [V4] = DNS_TYPE_A};

struct host;

struct host_query {
    struct host *host;
    struct resolver_query *query;
    size_t count;
    struct net_address addresses[DNS_HOST_MAX];
};

struct host {
    struct hosts_lookup *lookup;
    uint16_t preference;
    unsigned waiting; /* families without an answer */
    bool failed;      /* an answer that says nothing */
    const char *name;
    struct host_query families[FAMILIES];
};

struct hosts_lookup {
    struct resolver *resolver;
    const struct hosts_self *self;
    hosts_done done;
    void *arg;
    unsigned flags;
    uint16_t port;
    uint32_t ttl_s;
    bool implicit, looped;
    const char *why; /* of the last failure */
    struct resolver_query *mx;
    struct dns_mx_list list;
    size_t count;
    struct host hosts[DNS_MX_MAX];
    char name[DNS_NAME_MAX + 1];
};

void hosts_cancel(struct hosts_lookup **lp)
{
    struct hosts_lookup *l = *lp;
    *lp = NULL;
    if (l == NULL) {
        return;
    }
    resolver_cancel(&l->mx);
    for (size_t i = 0; i < l->count; i++) {
        resolver_cancel(&l->hosts[i].families[V6].query);
        resolver_cancel(&l->hosts[i].families[V4].query);
    }
    free(l);
}

static void finish(struct hosts_lookup *l, struct mail_hosts *m)
{
    hosts_done done = l->done;
    void *arg = l->arg;
    hosts_cancel(&l);
    done(arg, m); /* NULL when memory is out: the callee says so */
}

__attribute__((format(printf, 6, 7))) static void refuse(struct mail_hosts *m, enum hosts_verdict verdict,
                                                         uint16_t code, uint8_t subject, uint8_t detail,
                                                         const char *fmt, ...)
{
    m->verdict = verdict;
    m->code = code;
    m->enhanced[0] = verdict == HOSTS_PERMANENT ? 5 : 4;
    m->enhanced[1] = subject;
    m->enhanced[2] = detail;
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(m->words, sizeof(m->words), fmt, ap);
    va_end(ap);
}

static void refuse_loop(struct mail_hosts *m, const char *name)
{
    refuse(m, HOSTS_PERMANENT, 554, 4, 6,
           "The mail hosts of %s are this very host: its mail would loop; the operator has to give the domain a route",
           name);
}

static void finish_mx(struct hosts_lookup *l, enum resolver_status status, const char *why)
{
    struct mail_hosts *m = calloc(1, sizeof(*m));
    if (m == NULL) {
        finish(l, NULL);
        return;
    }
    if (status == RESOLVER_NO_NAME) {
        refuse(m, HOSTS_PERMANENT, 550, 1, 2, "The domain %s does not exist", l->name);
    } else if (status == RESOLVER_FOUND && l->list.null_mx) {
        refuse(m, HOSTS_PERMANENT, 556, 1, 10, "The domain %s takes no mail (RFC 7505)", l->name);
    } else if (status == RESOLVER_FOUND && l->looped) {
        refuse_loop(m, l->name);
    } else {
        refuse(m, HOSTS_TEMPORARY, 451, 4, 3, "The mail hosts of %s cannot be looked up: %s", l->name, why);
    }
    finish(l, m);
}

static void add_hops(struct hosts_lookup *l, struct mail_hosts *m, const struct host *h)
{
    struct net_address mixed[DNS_HOST_MAX];
    size_t n = dns_interleave(h->families[V6].addresses, h->families[V6].count, h->families[V4].addresses,
                              h->families[V4].count, mixed, DNS_HOST_MAX);
    size_t host = m->names_count;
    for (size_t i = 0; i < n && m->hops_count < HOSTS_HOPS_MAX; i++) {
        mixed[i].port = l->port;
        m->hops[m->hops_count++] = (struct mail_hop){.host = (uint16_t)host, .address = mixed[i]};
    }
    if (n > 0) {
        (void)snprintf(m->names[m->names_count++], sizeof(m->names[0]), "%s", h->name);
    }
}

static bool host_is_self(const struct hosts_lookup *l, const struct host *h)
{
    for (size_t f = 0; f < FAMILIES; f++) {
        for (size_t i = 0; i < h->families[f].count; i++) {
            struct net_address a = h->families[f].addresses[i];
            a.port = l->port;
            if (l->self->is_self(l->self->arg, &a)) {
                return true;
            }
        }
    }
    return false;
}

/* Of the first `ready` hosts, those better than ourselves. */
static size_t cut_by_address(const struct hosts_lookup *l, size_t ready)
{
    uint16_t preference[DNS_MX_MAX];
    for (size_t i = 0; i < ready; i++) {
        preference[i] = l->hosts[i].preference;
    }
    for (size_t i = 0; i < ready; i++) {
        if (host_is_self(l, &l->hosts[i])) {
            return dns_self_cut(preference, ready, i);
        }
    }
    return ready;
}

static void refuse_empty(const struct hosts_lookup *l, struct mail_hosts *m, size_t keep)
{
    bool failed = false;
    for (size_t i = 0; i < l->count; i++) {
        failed |= l->hosts[i].failed;
    }
    if (keep == 0) { /* we are the best of them */
        refuse_loop(m, l->name);
    } else if (failed) {
        refuse(m, HOSTS_TEMPORARY, 451, 4, 3, "The addresses of the mail hosts of %s cannot be looked up: %s", l->name,
               l->why);
    } else if ((l->flags & HOSTS_MX) == 0) {
        refuse(m, HOSTS_TEMPORARY, 451, 4, 4, "The smart host %s has no address", l->name);
    } else if (l->implicit) {
        refuse(m, HOSTS_PERMANENT, 550, 4, 4, "The domain %s has neither a mail host nor an address", l->name);
    } else {
        refuse(m, HOSTS_PERMANENT, 550, 4, 4, "The mail hosts of %s have no address", l->name);
    }
}

static void finish_hosts(struct hosts_lookup *l, size_t ready)
{
    struct mail_hosts *m = calloc(1, sizeof(*m));
    if (m == NULL) {
        finish(l, NULL);
        return;
    }
    size_t keep = cut_by_address(l, ready);
    for (size_t i = 0; i < keep; i++) {
        add_hops(l, m, &l->hosts[i]);
    }
    m->complete = ready == l->count || keep < ready; /* what is behind us does not count */
    m->ttl_s = l->ttl_s < HOSTS_TTL_MIN_S ? HOSTS_TTL_MIN_S : l->ttl_s;
    if (m->hops_count == 0) {
        refuse_empty(l, m, keep);
    }
    finish(l, m);
}

static size_t host_addresses(const struct host *h)
{
    return h->families[V6].count + h->families[V4].count;
}

/* Done as soon as all hosts up to the end of a preference are known and one of them has an address. */
static void finish_when_ready(struct hosts_lookup *l)
{
    size_t ready = 0, addresses = 0;
    while (ready < l->count && l->hosts[ready].waiting == 0) {
        addresses += host_addresses(&l->hosts[ready]);
        ready++;
    }
    if (ready == l->count) {
        finish_hosts(l, ready);
        return;
    }
    if ((l->flags & HOSTS_ALL) != 0 || addresses == 0) {
        return;
    }
    while (ready > 0 && l->hosts[ready - 1].preference == l->hosts[ready].preference) {
        ready--; /* its equals are not all known */
        addresses -= host_addresses(&l->hosts[ready]);
    }
    if (addresses > 0) {
        finish_hosts(l, ready);
    }
}

static void take_addresses(struct hosts_lookup *l, struct host_query *hq, enum dns_type type,
                           const struct resolver_answer *a)
{
    for (size_t i = 0; i < a->count && hq->count < DNS_HOST_MAX; i++) {
        if (dns_address_parse(type, a->rdata[i], &hq->addresses[hq->count]) == 0) {
            hq->count++;
        }
    }
    l->ttl_s = a->ttl_s < l->ttl_s ? a->ttl_s : l->ttl_s;
}

static void on_address(struct host_query *hq, enum family family, const struct resolver_answer *a)
{
    struct host *h = hq->host;
    struct hosts_lookup *l = h->lookup;
    hq->query = NULL;
    h->waiting--;
    if (a->status == RESOLVER_FOUND) {
        take_addresses(l, hq, types[family], a);
    } else if (a->status == RESOLVER_FAILED) {
        h->failed = true;
        l->why = a->why;
    }
    finish_when_ready(l);
}

static void on_v6(void *arg, const struct resolver_answer *a)
{
    on_address(arg, V6, a);
}

static void on_v4(void *arg, const struct resolver_answer *a)
{
    on_address(arg, V4, a);
}

static void host_ask(struct hosts_lookup *l, const char *name, uint16_t preference)
{
    static const resolver_done done[FAMILIES] = {[V6] = on_v6, [V4] = on_v4};
    struct host *h = &l->hosts[l->count++];
    *h = (struct host){.lookup = l, .preference = preference, .name = name};
    for (size_t f = 0; f < FAMILIES; f++) {
        h->families[f].host = h;
        h->families[f].query = resolver_ask(l->resolver, name, types[f], done[f], &h->families[f]);
        if (h->families[f].query != NULL) {
            h->waiting++;
        } else {
            h->failed = true;
            l->why = "the resolver takes no question";
        }
    }
}

static bool name_is_self(const struct hosts_lookup *l, const char *name)
{
    return l->self->name != NULL && strcasecmp(name, l->self->name) == 0;
}

static size_t cut_by_name(struct hosts_lookup *l)
{
    uint16_t preference[DNS_MX_MAX];
    for (size_t i = 0; i < l->list.count; i++) {
        preference[i] = l->list.entries[i].preference;
    }
    for (size_t i = 0; i < l->list.count; i++) {
        if (name_is_self(l, l->list.entries[i].host)) {
            l->looped = true;
            return dns_self_cut(preference, l->list.count, i);
        }
    }
    return l->list.count;
}

static void on_mx(void *arg, const struct resolver_answer *a)
{
    struct hosts_lookup *l = arg;
    l->mx = NULL;
    l->ttl_s = a->ttl_s < l->ttl_s ? a->ttl_s : l->ttl_s;
    l->implicit = a->status == RESOLVER_NO_DATA;
    size_t keep = 0;
    if (a->status == RESOLVER_FOUND) {
        dns_mx_list_build(&l->list, a->rdata, a->count);
        dns_mx_list_order(&l->list, l->self->random, l->self->arg);
        keep = cut_by_name(l);
    }
    if (!l->implicit && keep == 0) {
        finish_mx(l, a->status, a->why != NULL ? a->why : "the MX records are malformed");
        return;
    }
    if (l->implicit) {
        host_ask(l, l->name, DNS_PREFERENCE_NO);
    }
    for (size_t i = 0; i < keep; i++) {
        host_ask(l, l->list.entries[i].host, l->list.entries[i].preference);
    }
    finish_when_ready(l);
}

struct hosts_lookup *hosts_find(struct resolver *r, const char *name, uint16_t port, unsigned flags,
                                const struct hosts_self *self, hosts_done done, void *arg)
{
    struct hosts_lookup *l = calloc(1, sizeof(*l));
    if (l == NULL) {
        return NULL;
    }
    l->resolver = r;
    l->self = self;
    l->done = done;
    l->arg = arg;
    l->flags = flags;
    l->port = port;
    l->ttl_s = HOSTS_TTL_MAX_S;
    (void)snprintf(l->name, sizeof(l->name), "%s", name);
    bool asked;
    if ((flags & HOSTS_MX) != 0) {
        l->mx = resolver_ask(r, l->name, DNS_TYPE_MX, on_mx, l);
        asked = l->mx != NULL;
    } else {
        host_ask(l, l->name, DNS_PREFERENCE_NO);
        asked = l->hosts[0].waiting > 0;
    }
    if (!asked) {
        hosts_cancel(&l);
    }
    return l;
}

struct mail_hosts *hosts_of_address(const char *name, const struct net_address *address, const struct hosts_self *self)
{
    struct mail_hosts *m = calloc(1, sizeof(*m));
    if (m == NULL) {
        return NULL;
    }
    (void)snprintf(m->names[0], sizeof(m->names[0]), "%s", name);
    m->names_count = m->hops_count = 1;
    m->hops[0] = (struct mail_hop){.host = 0, .address = *address};
    m->complete = true;
    m->ttl_s = HOSTS_TTL_MAX_S;
    if (self->is_self(self->arg, address)) {
        refuse_loop(m, name);
        m->hops_count = 0;
    }
    return m;
}
