/* names.c: the DNS, in place of deliver/resolver.c. Each domain has one or two mail hosts, which may change. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "deliver/resolver.h"
#include "simulation/sim.h"

#define ANSWER_MAX_MS 400
#define GONE          (SIM_DOMAINS - 1) /* a domain that does not exist */

struct resolver_query {
    struct resolver_query *prev, *next;
    struct sim_event event;
    char name[DNS_NAME_MAX + 1];
    enum dns_type type;
    resolver_done done;
    void *arg;
};

/* "d3.example" has host 3 and, if even, host 4; from day 4 on d3's mail goes elsewhere. */
unsigned names_domain_hosts(const struct sim *s, unsigned domain, int hosts[2])
{
    if (domain == GONE) {
        return 0;
    }
    unsigned shift = domain == 3 && s->now_ms > 4 * DAY ? 2 : 0;
    hosts[0] = (int)((domain + shift) % SIM_HOSTS);
    hosts[1] = (int)((domain + 1) % SIM_HOSTS);
    return domain % 2 == 0 ? 2 : 1;
}

static size_t name_write(uint8_t *to, const char *name)
{
    size_t len = 0;
    while (*name != '\0') {
        size_t label = strcspn(name, ".");
        to[len++] = (uint8_t)label;
        memcpy(to + len, name, label);
        len += label;
        name += label + (name[label] == '.');
    }
    to[len++] = 0;
    return len;
}

/* The number in "d7.example", when the letter is asked for; -1: it is none, or not below bound. */
static int number_in(const char *name, char letter, unsigned bound)
{
    char *end;
    if (name[0] != letter || name[1] < '0' || name[1] > '9') {
        return -1;
    }
    unsigned long n = strtoul(name + 1, &end, 10);
    return strcmp(end, ".example") == 0 && n < bound ? (int)n : -1;
}

/* "d7.example", "origin.example" */
static int domain_parse(const char *name)
{
    return strcmp(name, "origin.example") == 0 ? SIM_DOMAINS : number_in(name, 'd', SIM_DOMAINS);
}

static unsigned mx_write(const struct sim *s, int domain, uint8_t rdata[2][64], struct span views[2])
{
    int hosts[2] = {SIM_HOSTS, 0};
    unsigned count = domain == SIM_DOMAINS ? 1 : names_domain_hosts(s, (unsigned)domain, hosts);
    for (unsigned i = 0; i < count; i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "h%d.example", hosts[i]);
        rdata[i][0] = 0;
        rdata[i][1] = (uint8_t)(10 + 10 * i);
        views[i] = (struct span){rdata[i], 2 + name_write(rdata[i] + 2, name)};
    }
    return count;
}

static struct resolver_answer answer_for(struct sim *s, const struct resolver_query *q, uint8_t rdata[2][64],
                                         struct span views[2])
{
    struct resolver_answer a = {.ttl_s = 30 + (uint32_t)sim_below(s, 3000), .rdata = views, .status = RESOLVER_NO_NAME};
    int domain = domain_parse(q->name), host = number_in(q->name, 'h', SIM_HOSTS + 1);
    if (!sim_healed(s) && sim_chance(s, s->weather.dns_bad)) {
        a.status = RESOLVER_FAILED;
        a.why = "the name servers failed to answer";
    } else if (q->type == DNS_TYPE_MX && domain >= 0) {
        a.count = mx_write(s, domain, rdata, views);
        a.status = a.count > 0 ? RESOLVER_FOUND : RESOLVER_NO_NAME;
    } else if (q->type == DNS_TYPE_A && host >= 0) {
        struct net_address address;
        net_address_of(host, &address);
        memcpy(rdata[0], address.bytes + 12, 4);
        views[0] = (struct span){rdata[0], 4};
        a.count = 1;
        a.status = RESOLVER_FOUND;
    } else if (q->type == DNS_TYPE_AAAA) {
        a.status = RESOLVER_NO_DATA;
    }
    return a;
}

static void on_answer(void *arg)
{
    struct resolver_query q = *(struct resolver_query *)arg;
    uint8_t rdata[2][64];
    struct span views[2];
    struct resolver_answer a = answer_for(sim_now, &q, rdata, views);
    struct resolver_query *own = arg;
    DL_DELETE(sim_now->queries, own);
    free(own);
    sim_trace(sim_now, "dns", (uint64_t)q.type, (uint64_t)a.status);
    q.done(q.arg, &a);
}

struct resolver_query *resolver_ask(struct resolver *r, const char *name, enum dns_type type, resolver_done done,
                                    void *arg)
{
    struct resolver_query *q = calloc(1, sizeof(*q));
    (void)r;
    if (q == NULL) {
        abort();
    }
    (void)snprintf(q->name, sizeof(q->name), "%s", name);
    q->type = type;
    q->done = done;
    q->arg = arg;
    DL_APPEND(sim_now->queries, q);
    sim_in(sim_now, &q->event, 1 + sim_below(sim_now, ANSWER_MAX_MS), on_answer, q);
    return q;
}

void resolver_cancel(struct resolver_query **qp)
{
    struct resolver_query *q = *qp;
    *qp = NULL;
    if (q != NULL) {
        sim_cancel(sim_now, &q->event);
        DL_DELETE(sim_now->queries, q);
        free(q);
    }
}

void names_fini(struct sim *s)
{
    while (s->queries != NULL) {
        struct resolver_query *q = s->queries;
        resolver_cancel(&q);
    }
}
