#include "deliver/settings.h"

#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

static void settings_free(struct settings *s)
{
    routes_free(&s->routes);
    sessions_free(&s->sessions);
    resolver_drop(&s->resolver);
    config_ref_drop(&s->config);
    free(s->local);
    free(s->sources);
    free(s);
}

struct settings *settings_hold(struct settings *s)
{
    s->holders++;
    return s;
}

void settings_drop(struct settings **sp)
{
    struct settings *s = *sp;
    *sp = NULL;
    if (s != NULL && --s->holders == 0) {
        settings_free(s);
    }
}

static bool address_of(const struct sockaddr *sa, struct net_address *ret)
{
    memset(ret, 0, sizeof(*ret));
    if (sa != NULL && sa->sa_family == AF_INET) {
        ret->bytes[10] = ret->bytes[11] = 0xff;
        memcpy(ret->bytes + 12, &((const struct sockaddr_in *)sa)->sin_addr, 4);
        return true;
    }
    if (sa != NULL && sa->sa_family == AF_INET6) {
        memcpy(ret->bytes, &((const struct sockaddr_in6 *)sa)->sin6_addr, 16);
        return true;
    }
    return false;
}

/* This machine's addresses now; one that comes later is found by the next reload. */
static int local_read(struct settings *s)
{
    struct ifaddrs *list = NULL;
    size_t count = 0;
    if (getifaddrs(&list) != 0) {
        return -errno;
    }
    for (const struct ifaddrs *i = list; i != NULL; i = i->ifa_next) {
        count++;
    }
    s->local = calloc(count + 1, sizeof(*s->local));
    for (const struct ifaddrs *i = list; s->local != NULL && i != NULL; i = i->ifa_next) {
        s->local_count += address_of(i->ifa_addr, &s->local[s->local_count]);
    }
    freeifaddrs(list);
    return s->local != NULL ? 0 : -ENOMEM;
}

static bool same_host(const struct net_address *a, const struct net_address *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

static bool is_any(const struct net_address *a)
{
    static const uint8_t any[16], any_v4[16] = {[10] = 0xff, [11] = 0xff};
    return memcmp(a->bytes, any, 16) == 0 || memcmp(a->bytes, any_v4, 16) == 0;
}

static bool is_local(const struct settings *s, const struct net_address *a)
{
    for (size_t i = 0; i < s->local_count; i++) {
        if (same_host(&s->local[i], a)) {
            return true;
        }
    }
    return net_address_is_v4(a) && a->bytes[12] == 127;
}

/* Would a connection to that address and port reach one of our own listeners? */
static bool is_self(void *arg, const struct net_address *address)
{
    const struct settings *s = arg;
    const struct config *c = s->config->config;
    for (size_t i = 0; i < c->submission.listen_count; i++) {
        const struct net_address *l = &c->submission.listen[i].address;
        if (l->port == address->port && (same_host(l, address) || (is_any(l) && is_local(s, address)))) {
            return true;
        }
    }
    return false;
}

static uint32_t random_bits(void *arg)
{
    (void)arg;
    return arc4random();
}

static int sources_read(struct settings *s)
{
    const struct config_strings *list = &s->config->config->delivery.source_addresses;
    s->sources = calloc(list->count + 1, sizeof(*s->sources));
    if (s->sources == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < list->count; i++) {
        int r = net_address_parse(list->list[i], &s->sources[i]);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static bool strings_alike(const struct config_strings *a, const struct config_strings *b)
{
    for (size_t i = 0; a->count == b->count && i < a->count; i++) {
        if (strcmp(a->list[i], b->list[i]) != 0) {
            return false;
        }
    }
    return a->count == b->count;
}

static int resolver_take(struct settings *s, uv_loop_t *loop, const struct settings *old)
{
    const struct config *c = s->config->config;
    if (old != NULL && old->config->config->delivery.dnssec == c->delivery.dnssec &&
        strings_alike(&old->config->config->delivery.forwarders, &c->delivery.forwarders)) {
        s->resolver = resolver_hold(old->resolver);
        return 0;
    }
    struct resolver_settings rs = {.forwarders = (const char *const *)c->delivery.forwarders.list,
                                   .forwarders_count = c->delivery.forwarders.count,
                                   .trust_anchor = c->delivery.dnssec ? SETTINGS_ANCHOR : NULL};
    const char *why = NULL;
    s->resolver = resolver_new(loop, &rs, &why);
    if (s->resolver == NULL) {
        log_error("delivery.resolver.failed", LF_STR("what", why), LF_STR("anchor", SETTINGS_ANCHOR));
        return -EINVAL;
    }
    return 0;
}

struct settings *settings_new(uv_loop_t *loop, struct outcome_sink *sink, struct config_ref *config,
                              const struct settings *old)
{
    struct settings *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return NULL;
    }
    const struct config *c = config->config;
    s->holders = 1;
    s->number = old != NULL ? old->number + 1 : 1;
    s->config = config_ref_hold(config);
    s->concurrency = c->delivery.concurrency_per_destination;
    s->connections_max = c->delivery.connections;
    s->idle_ms = c->delivery.idle_ms;
    s->down_ms = c->spool.retry_first_ms < BOOK_DOWN_MS ? c->spool.retry_first_ms : BOOK_DOWN_MS;
    s->self = (struct hosts_self){.name = c->submission.hostname, .is_self = is_self, .random = random_bits, .arg = s};
    s->routes = routes_new(c, old != NULL ? old->routes : NULL);
    s->sessions = sessions_new();
    if (s->routes == NULL || s->sessions == NULL || local_read(s) < 0 || sources_read(s) < 0 ||
        resolver_take(s, loop, old) < 0) {
        settings_drop(&s);
        return NULL;
    }
    s->env = (struct connection_env){.loop = loop,
                                     .sink = sink,
                                     .sessions = s->sessions,
                                     .hostname = c->submission.hostname,
                                     .connect_ms = c->delivery.connect_ms,
                                     .command_ms = c->delivery.command_ms,
                                     .data_ms = c->delivery.data_ms,
                                     .messages_max = c->delivery.messages_per_connection,
                                     .sources = s->sources,
                                     .sources_count = c->delivery.source_addresses.count};
    return s;
}
