#include "policy/policy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/large.h"

#define NS_PER_MS UINT64_C(1000000)

bool policy_prefix_contains(const struct policy_prefix *p, const struct policy_address *a)
{
    if (p->v6 != a->v6) {
        return false;
    }
    for (unsigned bit = 0; bit < p->bits; bit++) {
        uint8_t mask = (uint8_t)(0x80U >> bit % 8);
        if ((p->bytes[bit / 8] & mask) != (a->bytes[bit / 8] & mask)) {
            return false;
        }
    }
    return true;
}

struct policy_prefix policy_prefix_of(const struct net_prefix *p)
{
    struct policy_prefix r = {.v6 = !config_gate_prefix_is_v4(p)};
    r.bits = r.v6 ? p->bits : (uint8_t)(p->bits - 96);
    memcpy(r.bytes, r.v6 ? p->bytes : p->bytes + 12, r.v6 ? 16 : 4);
    return r;
}

void policy_address_format(const struct policy_address *a, char text[static POLICY_ADDRESS_TEXT])
{
    if (inet_ntop(a->v6 ? AF_INET6 : AF_INET, a->bytes, text, POLICY_ADDRESS_TEXT) == NULL) {
        text[0] = '\0';
    }
}

void policy_prefix_format(const struct policy_prefix *p, char text[static POLICY_PREFIX_TEXT])
{
    struct policy_address a = {.v6 = p->v6};
    memcpy(a.bytes, p->bytes, sizeof(a.bytes));
    policy_address_format(&a, text);
    size_t len = strlen(text);
    (void)snprintf(text + len, POLICY_PREFIX_TEXT - len, "/%u", p->bits);
}

int policy_address_parse(const char *text, struct policy_address *ret)
{
    struct policy_address a = {.v6 = strchr(text, ':') != NULL};
    if (inet_pton(a.v6 ? AF_INET6 : AF_INET, text, a.bytes) != 1) {
        return -EINVAL;
    }
    *ret = a;
    return 0;
}

static const enum blob_rule rules[] = {
    [PORT25_ALLOW] = BLOB_ALLOW,
    [PORT25_DENY] = BLOB_DENY,
    [PORT25_MONITOR] = BLOB_MONITOR,
    [PORT25_RATE] = BLOB_RATE,
};

static const enum blob_refuse_with refusals[] = {
    [GATE_TCP_RESET] = BLOB_RESET,
    [GATE_ICMP_PROHIBITED] = BLOB_PROHIBITED,
    [GATE_DROP] = BLOB_SILENT,
};

static void set_switches(struct policy *p, const struct config_gate *g)
{
    p->flags = (g->monitor ? BLOB_MODE_MONITOR : 0U) | (g->return_path_allow ? 0U : BLOB_RETURN_PATH) |
               (g->inbound_deny ? BLOB_INBOUND : 0U) | (g->dynamic_ranges.count > 0 ? BLOB_DYNAMIC : 0U) |
               (g->tunnel_endpoints.count > 0 ? BLOB_TUNNELS : 0U);
    p->refuse_with = refusals[g->refuse_with];
    p->events_per_second = g->events_per_second;
    p->resets_per_second = g->resets_per_second;
}

static void add_sources(struct policy *p, const struct config_prefixes *from, size_t class_)
{
    for (size_t i = 0; i < from->count; i++) {
        p->sources[p->sources_count++] =
            (struct policy_source){.prefix = policy_prefix_of(&from->list[i]), .class_ = (uint16_t)class_};
    }
}

static void add_destinations(struct policy *p, const struct config_prefixes *from, unsigned set)
{
    for (size_t i = 0; i < from->count; i++) {
        p->destinations[p->destinations_count++] =
            (struct policy_destination){.prefix = policy_prefix_of(&from->list[i]), .set = (uint8_t)set};
    }
}

static int set_class(struct policy_class *to, const struct config_gate_class *from)
{
    to->name = strdup(from->name);
    to->rule = rules[from->port25];
    to->rate = from->rate;
    to->rate_window_ms = from->rate_window_ms;
    if (to->rule == BLOB_RATE) {
        /* Rounded up, and the burst by the same: rate connections fit, and not one more. */
        to->interval_ns = (from->rate_window_ms * NS_PER_MS + from->rate - 1) / from->rate;
        to->burst_ns = to->interval_ns * from->rate;
    }
    return to->name != NULL ? 0 : -ENOMEM;
}

static int set_classes(struct policy *p, const struct config_gate *g)
{
    unsigned set = BLOB_SET_SCOPES;
    p->classes_count = 1;
    p->classes[0] = (struct policy_class){.name = strdup("default"), .rule = rules[g->default_]};
    int r = p->classes[0].name != NULL ? 0 : -ENOMEM;
    for (size_t i = 0; i < g->classes_count && r == 0; i++) {
        const struct config_gate_class *from = &g->classes[i];
        struct policy_class *to = &p->classes[p->classes_count++];
        r = set_class(to, from);
        add_sources(p, &from->prefixes, i + 1);
        if (from->to.count > 0) {
            to->set = set++;
            add_destinations(p, &from->to, to->set);
        }
    }
    add_destinations(p, &g->allow_to, BLOB_SET_ALLOW_TO);
    add_destinations(p, &g->dynamic_ranges, BLOB_SET_DYNAMIC);
    add_destinations(p, &g->tunnel_endpoints, BLOB_SET_TUNNELS);
    return r;
}

static int set_exemptions(struct policy *p, const struct policy_exemption *from, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct policy_exemption *to = &p->exemptions[p->exemptions_count++];
        *to = from[i];
        to->reason = from[i].reason != NULL ? strdup(from[i].reason) : NULL;
        to->by = from[i].by != NULL ? strdup(from[i].by) : NULL;
        if ((from[i].reason != NULL && to->reason == NULL) || (from[i].by != NULL && to->by == NULL)) {
            return -ENOMEM;
        }
    }
    return 0;
}

/* Room for all there is to come. */
static struct policy *new_empty(const struct config_gate *g, size_t exemptions)
{
    size_t sources = 0, destinations = g->allow_to.count + g->dynamic_ranges.count + g->tunnel_endpoints.count;
    for (size_t i = 0; i < g->classes_count; i++) {
        sources += g->classes[i].prefixes.count;
        destinations += g->classes[i].to.count;
    }
    struct policy *p = calloc(1, sizeof(*p));
    if (p == NULL) {
        return NULL;
    }
    p->classes = calloc(g->classes_count + 1, sizeof(*p->classes));
    p->sources = large_alloc(sources, sizeof(*p->sources));
    p->destinations = calloc(destinations + 1, sizeof(*p->destinations));
    p->exemptions = calloc(exemptions + 1, sizeof(*p->exemptions));
    if (p->classes == NULL || p->sources == NULL || p->destinations == NULL || p->exemptions == NULL) {
        policy_free(&p);
    }
    return p;
}

int policy_new(const struct config_gate *gate, const struct policy_exemption *exemptions, size_t count,
               struct policy **ret)
{
    if (count > BLOB_EXEMPTIONS_MAX || gate->classes_count >= BLOB_CLASSES_MAX) {
        return -E2BIG;
    }
    struct policy *p = new_empty(gate, count);
    if (p == NULL) {
        return -ENOMEM;
    }
    set_switches(p, gate);
    int r = set_classes(p, gate);
    r = r < 0 ? r : set_exemptions(p, exemptions, count);
    if (r < 0) {
        policy_free(&p);
        return r;
    }
    *ret = p;
    return 0;
}

void policy_free(struct policy **pp)
{
    struct policy *p = *pp;
    *pp = NULL;
    if (p == NULL) {
        return;
    }
    for (size_t i = 0; i < p->classes_count; i++) {
        free(p->classes[i].name);
    }
    for (size_t i = 0; i < p->exemptions_count; i++) {
        free(p->exemptions[i].reason);
        free(p->exemptions[i].by);
    }
    free(p->classes);
    free(p->sources);
    free(p->destinations);
    free(p->exemptions);
    free(p);
}

const char *policy_verdict_name(enum policy_verdict verdict)
{
    static const char *const names[] = {[POLICY_PASS] = "pass", [POLICY_REFUSE] = "refuse", [POLICY_DROP] = "drop"};
    return names[verdict];
}

const char *policy_reason_name(enum policy_reason reason)
{
    static const char *const names[REASON_COUNT] = {
        [REASON_OTHER] = "other",
        [REASON_TAIL] = "tail",
        [REASON_UNPARSED] = "unparsed",
        [REASON_CLASS] = "class",
        [REASON_DEFAULT] = "default",
        [REASON_EXEMPTION] = "exemption",
        [REASON_ALLOW_TO] = "allow-to",
        [REASON_SCOPE] = "scope",
        [REASON_RATE] = "rate",
        [REASON_RETURN_PATH] = "return-path",
        [REASON_INBOUND] = "inbound",
        [REASON_DYNAMIC] = "dynamic-range",
        [REASON_FIRST_FRAGMENT] = "first-fragment",
        [REASON_OVERWRITE] = "overwrite",
        [REASON_MALFORMED] = "malformed",
    };
    return names[reason];
}

const char *policy_rule_name(enum blob_rule rule)
{
    static const char *const names[] = {
        [BLOB_ALLOW] = "allow", [BLOB_DENY] = "deny", [BLOB_MONITOR] = "monitor", [BLOB_RATE] = "rate"};
    return names[rule];
}
