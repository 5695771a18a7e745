/*
 * nftables: a table of its own, for a router that forwards the lines' packets. Sets are disjoint, so the order of
 * classes does not matter; connection tracking is asked, because it is what puts fragments together before they are
 * judged.
 */
#include <stdio.h>
#include <string.h>

#include "policy/export_int.h"

#define PER_LINE 4

static const char *family(bool v6)
{
    return v6 ? "ip6" : "ip";
}

static int suffix(bool v6)
{
    return v6 ? 6 : 4;
}

/* Sets */

struct elements {
    struct export_text *t;
    bool v6;
    bool exemptions;
    size_t count;
};

static void write_element(void *arg, const struct policy_range *r)
{
    struct elements *e = arg;
    char first[POLICY_ADDRESS_TEXT], last[POLICY_ADDRESS_TEXT];
    const struct policy_address a = export_address(r->first, e->v6), b = export_address(r->last, e->v6);
    policy_address_format(&a, first);
    policy_address_format(&b, last);
    export_count(e->t);
    export_say(e->t, "%s%s",
               e->count == 0              ? "        elements = { "
               : e->count % PER_LINE == 0 ? ",\n            "
                                          : ", ",
               first);
    if (strcmp(first, last) != 0) {
        export_say(e->t, "-%s", last);
    }
    if (e->exemptions) {
        uint64_t left = export_left_s(e->t, &e->t->in->policy->exemptions[r->leaf - 1]);
        if (left > 0) {
            export_say(e->t, " timeout %llus", (unsigned long long)left);
        }
    }
    e->count++;
}

static struct elements begin_set(struct export_text *t, const char *name, bool v6, const char *flags)
{
    export_say(t, "    set %s-%d {\n        type %s\n        flags %s\n", name, suffix(v6),
               v6 ? "ipv6_addr" : "ipv4_addr", flags);
    return (struct elements){.t = t, .v6 = v6};
}

static void end_set(const struct elements *e)
{
    export_say(e->t, "%s    }\n", e->count > 0 ? " }\n" : "");
}

static void write_set(struct export_text *t, const char *name, unsigned set)
{
    for (int v6 = 0; v6 <= 1; v6++) {
        struct elements e = begin_set(t, name, v6 != 0, "interval");
        export_set_ranges(t, set, v6 != 0, write_element, &e);
        end_set(&e);
    }
}

static void write_class_sets(struct export_text *t, size_t class_)
{
    const struct policy_class *c = &t->in->policy->classes[class_];
    char name[EXPORT_NAME], scope[EXPORT_NAME + 8];
    export_name(t, class_, name);
    for (int v6 = 0; v6 <= 1; v6++) {
        struct elements e = begin_set(t, name, v6 != 0, "interval");
        export_class_ranges(t, class_, v6 != 0, write_element, &e);
        end_set(&e);
        if (c->rule == BLOB_RATE) {
            export_say(t,
                       "    set %s-rate-%d {\n        type %s\n        flags dynamic, timeout\n        timeout %llus\n"
                       "        size 65536\n    }\n",
                       name, suffix(v6 != 0), v6 != 0 ? "ipv6_addr" : "ipv4_addr",
                       (unsigned long long)c->rate_window_ms / 1000 + 1);
        }
    }
    if (c->set != 0) {
        (void)snprintf(scope, sizeof(scope), "%s-to", name);
        write_set(t, scope, c->set);
    }
}

static void write_exempt_sets(struct export_text *t)
{
    for (int v6 = 0; v6 <= 1; v6++) {
        struct elements e = begin_set(t, "exempt", v6 != 0, "interval, timeout");
        e.exemptions = true;
        export_exempt_ranges(t, v6 != 0, write_element, &e);
        end_set(&e);
    }
}

/* Rules */

/* A packet with a source route has more destinations than one: it gains nothing by the one that is written first. The
 * words that follow family()'s are those of one rule each. */
static const char *const unrouted[2][2] = {
    {"ip option lsrr missing ip option ssrr missing ", NULL},
    {"exthdr rt missing ", "rt seg-left 0 "},
};

static void say_unrouted(struct export_text *t, bool v6, const char *indent, const char *match, const char *what)
{
    for (size_t i = 0; i < 2 && unrouted[v6][i] != NULL; i++) {
        export_say(t, "%s%s%s%s\n", indent, unrouted[v6][i], match, what);
    }
}

static bool monitored(const struct export_text *t, size_t class_)
{
    return t->in->policy->classes[class_].rule == BLOB_MONITOR || (t->in->policy->flags & BLOB_MODE_MONITOR) != 0;
}

/* What a class comes to, once its packets are known to be its, and towards where it is restricted. */
static void say_fate(struct export_text *t, size_t class_, const char *otherwise)
{
    char name[EXPORT_NAME];
    export_name(t, class_, name);
    export_say(t, "        counter %s comment \"%s: %s\"\n", monitored(t, class_) ? "accept" : otherwise, name,
               monitored(t, class_) ? "only watched: would be refused" : "refused");
}

static void say_rate(struct export_text *t, size_t class_)
{
    const struct policy_class *c = &t->in->policy->classes[class_];
    const char *unit = c->rate_window_ms == 1000      ? "second"
                       : c->rate_window_ms == 60000   ? "minute"
                       : c->rate_window_ms < 86400000 ? "hour"
                                                      : "day";
    bool watched = (t->in->policy->flags & BLOB_MODE_MONITOR) != 0;
    char name[EXPORT_NAME];
    export_name(t, class_, name);
    for (int v6 = 0; v6 <= 1; v6++) {
        export_say(t,
                   "        tcp flags & (syn | ack) == syn update @%s-rate-%d { %s saddr%s limit rate over %u/%s burst "
                   "%u packets } "
                   "counter %s\n",
                   name, suffix(v6 != 0), family(v6 != 0), v6 != 0 ? " & ffff:ffff:ffff:ffff::" : "", c->rate, unit,
                   c->rate, watched ? "accept" : "goto refuse");
    }
    export_say(t, "        accept\n");
}

/* The chain of a restricted class, for packets from its lines to port 25. */
static void write_class_chain(struct export_text *t, size_t class_)
{
    const struct policy_class *c = &t->in->policy->classes[class_];
    char name[EXPORT_NAME], match[EXPORT_NAME + 32];
    export_name(t, class_, name);
    export_say(t, "    chain %s {\n", name);
    for (int v6 = 0; c->set != 0 && v6 <= 1; v6++) {
        (void)snprintf(match, sizeof(match), "%s daddr != @%s-to-%d ", family(v6 != 0), name, suffix(v6 != 0));
        say_unrouted(t, v6 != 0, "        ", match, "accept");
    }
    if (c->rule == BLOB_RATE) {
        say_rate(t, class_);
    } else {
        say_fate(t, class_, "goto refuse");
    }
    export_say(t, "    }\n");
}

static void write_from_lines(struct export_text *t)
{
    const struct policy *p = t->in->policy;
    char name[EXPORT_NAME], match[64];
    export_say(t, "    chain from-lines {\n");
    for (int v6 = 0; v6 <= 1; v6++) {
        const char *f = family(v6 != 0);
        int n = suffix(v6 != 0);
        export_say(t, "        %s saddr @exempt-%d counter accept\n", f, n);
        for (size_t i = 1; i < p->classes_count; i++) {
            if (!export_restricts(t, i)) {
                export_name(t, i, name);
                export_say(t, "        %s saddr @%s-%d counter accept\n", f, name, n);
            }
        }
        (void)snprintf(match, sizeof(match), "%s daddr @allow-to-%d ", f, n);
        say_unrouted(t, v6 != 0, "        ", match, "counter accept");
        for (size_t i = 1; i < p->classes_count; i++) {
            if (export_restricts(t, i)) {
                export_name(t, i, name);
                export_say(t, "        %s saddr @%s-%d goto %s\n", f, name, n, name);
            }
        }
    }
    if (export_restricts(t, 0)) {
        say_fate(t, 0, "goto refuse");
    }
    export_say(t, "        accept\n    }\n");
}

/* Towards the lines: classes with rule deny or monitor, one rule each, others go back. */
static void say_denied_lines(struct export_text *t, bool v6, const char *reason, const char *fate, bool scoped)
{
    const struct policy *p = t->in->policy;
    char name[EXPORT_NAME];
    for (size_t i = 1; i < p->classes_count; i++) {
        bool deny = p->classes[i].rule == BLOB_DENY || p->classes[i].rule == BLOB_MONITOR;
        export_name(t, i, name);
        export_say(t, "        %s daddr @%s-%d ", family(v6), name, suffix(v6));
        if (deny && scoped && p->classes[i].set != 0) {
            export_say(t, "%s saddr @%s-to-%d ", family(v6), name, suffix(v6));
        }
        if (deny) {
            export_say(t, "counter %s comment \"%s: %s\"\n", monitored(t, i) ? "return" : fate, name, reason);
        } else {
            export_say(t, "return\n");
        }
        if (deny && scoped && p->classes[i].set != 0) {
            export_say(t, "        %s daddr @%s-%d return\n", family(v6), name, suffix(v6));
        }
    }
}

static void say_default_lines(struct export_text *t, const char *reason, const char *fate)
{
    if (export_restricts(t, 0)) {
        export_say(t, "        counter %s comment \"default: %s\"\n", monitored(t, 0) ? "return" : fate, reason);
    }
}

static void write_return_path(struct export_text *t)
{
    export_say(t, "    chain return-path {\n");
    for (int v6 = 0; v6 <= 1; v6++) {
        export_say(t, "        %s daddr @exempt-%d return\n        %s saddr @allow-to-%d return\n", family(v6 != 0),
                   suffix(v6 != 0), family(v6 != 0), suffix(v6 != 0));
        say_denied_lines(t, v6 != 0, "return path", "drop", true);
    }
    say_default_lines(t, "return path", "drop");
    export_say(t, "    }\n");
}

static void write_inbound(struct export_text *t)
{
    const struct policy *p = t->in->policy;
    bool watched = (p->flags & BLOB_MODE_MONITOR) != 0;
    export_say(t, "    chain inbound {\n");
    for (int v6 = 0; v6 <= 1; v6++) {
        if ((p->flags & BLOB_DYNAMIC) != 0) {
            export_say(t, "        %s saddr @dynamic-ranges-%d counter %s comment \"dynamic range\"\n", family(v6 != 0),
                       suffix(v6 != 0), watched ? "return" : "goto refuse");
        }
        if ((p->flags & BLOB_INBOUND) != 0) {
            export_say(t, "        %s daddr @exempt-%d return\n", family(v6 != 0), suffix(v6 != 0));
            say_denied_lines(t, v6 != 0, "inbound", "goto refuse", false);
        }
    }
    if ((p->flags & BLOB_INBOUND) != 0) {
        say_default_lines(t, "inbound", "goto refuse");
    }
    export_say(t, "    }\n");
}

static void write_refuse(struct export_text *t)
{
    static const char *const fates[] = {[BLOB_RESET] = "meta l4proto tcp reject with tcp reset",
                                        [BLOB_PROHIBITED] = "reject with icmpx admin-prohibited",
                                        [BLOB_SILENT] = "drop"};
    export_say(t, "    chain refuse {\n        %s\n        drop\n    }\n", fates[t->in->policy->refuse_with]);
}

/* Who is asked */

/* nft knows a star at the end only. */
static bool can_say(struct export_text *t, const char *pattern)
{
    size_t star = strcspn(pattern, "*");
    if (pattern[star] == '*' && pattern[star + 1] != '\0') {
        export_note(t, "not said: interfaces %s: nft knows a star at the end only; name them.", pattern);
        return false;
    }
    return true;
}

static void say_interfaces(struct export_text *t, const struct config_strings *names, const char *direction,
                           const char *match)
{
    for (size_t i = 0; i < names->count; i++) {
        const char *name = names->list[i];
        if (strcmp(name, "*") == 0) {
            export_say(t, "        %s\n", match);
        } else if (can_say(t, name)) {
            export_say(t, "        %s \"%s\" %s\n", direction, name, match);
        }
    }
}

/* Towards the lines first: those chains come back. */
static void write_forward(struct export_text *t)
{
    const struct policy *p = t->in->policy;
    const struct config_strings *lines = t->in->subscriber_interfaces, *uplinks = t->in->uplink_interfaces;
    static const char to_lines[] = "jump to-lines", from_lines[] = "tcp dport 25 jump from-lines";
    export_say(t, "    chain to-lines {\n");
    if ((p->flags & BLOB_RETURN_PATH) != 0) {
        export_say(t, "        tcp sport 25 jump return-path\n");
    }
    export_say(t, "        tcp dport 25 jump inbound\n    }\n");
    export_say(t, "    chain forward {\n        type filter hook forward priority filter; policy accept;\n"
                  "        ct state invalid,new,established,related,untracked counter\n");
    if (lines->count == 0 && uplinks->count == 0) {
        export_note(t, "No interface is named: whatever is forwarded is judged as from the lines and as towards them.");
        export_say(t, "        %s\n        %s\n", to_lines, from_lines);
    }
    say_interfaces(t, uplinks, "iifname", to_lines);
    say_interfaces(t, lines, "oifname", to_lines);
    say_interfaces(t, lines, "iifname", from_lines);
    say_interfaces(t, uplinks, "oifname", from_lines);
    export_say(t, "    }\n");
}

static void write_notes(struct export_text *t)
{
    export_head(t, "Kidoban's policy for nftables. Load it on the router with: nft -f FILE");
    export_note(t, "It replaces its own table only, as a whole. Packets are judged where they are forwarded.");
    export_note(
        t, "not said: frames that are bridged, and VLAN and PPPoE headers on the way: they are off when a packet is "
           "forwarded.");
    export_note(
        t, "not said: malformed TCP from other lines than these: the kernel forwards or drops it by its own rules.");
    export_note(t, "not said: resets_per_second and events_per_second.");
}

int export_nft(const struct export_input *in, struct buf *out, size_t budget)
{
    struct export_text t = {.out = out, .in = in, .comment = "# ", .budget = budget};
    const struct policy *p = in->policy;
    write_notes(&t);
    export_say(&t, "table inet kidoban\ndelete table inet kidoban\ntable inet kidoban {\n");
    write_exempt_sets(&t);
    write_set(&t, "allow-to", BLOB_SET_ALLOW_TO);
    if ((p->flags & BLOB_DYNAMIC) != 0) {
        write_set(&t, "dynamic-ranges", BLOB_SET_DYNAMIC);
    }
    for (size_t i = 1; i < p->classes_count; i++) {
        write_class_sets(&t, i);
    }
    write_refuse(&t);
    for (size_t i = 1; i < p->classes_count; i++) {
        if (export_restricts(&t, i)) {
            write_class_chain(&t, i);
        }
    }
    write_return_path(&t);
    write_inbound(&t);
    write_from_lines(&t);
    write_forward(&t);
    export_say(&t, "}\n");
    return t.error;
}
