/*
 * BGP FlowSpec (RFC 8955, 8956), as the lines that ExaBGP's text API takes. Routers apply the rule that comes first in
 * the order of section 5.1: more specific prefixes first, and rules with a destination before those without. So rules
 * about sources say the longest match, with accepting rules for the exceptions; rules about destinations only discard,
 * apart from each other, so that none of them lets pass what a rule about the source would not.
 */
#include <errno.h>
#include <stdlib.h>

#include "policy/export_int.h"

struct rules {
    struct export_text *t;
    bool v6;
};

/* Prefixes may be NULL. */
static void say_rule(const struct rules *r, const struct policy_prefix *source, const struct policy_prefix *destination,
                     const char *ports, bool discard)
{
    char text[POLICY_PREFIX_TEXT];
    export_count(r->t);
    export_say(r->t, "announce flow route { match { ");
    if (destination != NULL) {
        policy_prefix_format(destination, text);
        export_say(r->t, "destination %s; ", text);
    }
    if (source != NULL) {
        policy_prefix_format(source, text);
        export_say(r->t, "source %s; ", text);
    }
    export_say(r->t, "%s =tcp; %s; } then { %s; } }\n", r->v6 ? "next-header" : "protocol", ports,
               discard ? "discard" : "accept");
}

static const char from_25[] = "source-port =25", to_25[] = "destination-port =25";
/* Where port 25 of the lines is shut, too, no exception may open it. */
static const char from_25_elsewhere[] = "destination-port !=25; source-port =25";

/* Lists of prefixes, for rules that pair two. */

struct prefixes {
    struct policy_prefix *list;
    size_t count, room;
    bool v6;
    int error;
};

static void keep(void *arg, const struct policy_prefix *prefix, uint32_t leaf)
{
    struct prefixes *p = arg;
    if (leaf == 0 || p->error != 0) {
        return;
    }
    if (p->count == p->room) {
        size_t room = p->room == 0 ? 64 : p->room * 2;
        struct policy_prefix *grown = realloc(p->list, room * sizeof(*grown));
        if (grown == NULL) {
            p->error = -ENOMEM;
            return;
        }
        p->list = grown;
        p->room = room;
    }
    p->list[p->count++] = *prefix;
}

static void keep_range(void *arg, const struct policy_range *r)
{
    struct prefixes *p = arg;
    policy_range_prefixes(r->first, r->last, p->v6, 1, keep, p);
}

struct wanted {
    const struct export_input *in;
    size_t class_;
    unsigned set;
};

static bool exempted(const struct export_input *in, uint32_t leaf)
{
    uint32_t e = BLOB_EXEMPTION(leaf);
    return e != 0 && in->policy->exemptions[e - 1].until_ns > in->now_boot_ns;
}

static uint32_t map_class(const void *arg, uint32_t leaf)
{
    const struct wanted *w = arg;
    return BLOB_CLASS(leaf) == w->class_ && !exempted(w->in, leaf) ? 1 : 0;
}

/* Denied towards everywhere. */
static uint32_t map_denied(const void *arg, uint32_t leaf)
{
    const struct wanted *w = arg;
    const struct policy_class *c = &w->in->policy->classes[BLOB_CLASS(leaf)];
    return BLOB_CLASS(leaf) != 0 && c->rule == BLOB_DENY && c->set == 0 && !exempted(w->in, leaf) ? 1 : 0;
}

static uint32_t map_denied_inbound(const void *arg, uint32_t leaf)
{
    const struct wanted *w = arg;
    return BLOB_CLASS(leaf) != 0 && w->in->policy->classes[BLOB_CLASS(leaf)].rule == BLOB_DENY && !exempted(w->in, leaf)
               ? 1
               : 0;
}

/* In the set, and not always allowed. */
static uint32_t map_set(const void *arg, uint32_t leaf)
{
    const struct wanted *w = arg;
    return (leaf >> w->set & 1) != 0 && (w->set == BLOB_SET_ALLOW_TO || (leaf >> BLOB_SET_ALLOW_TO & 1) == 0) ? 1 : 0;
}

static void collect(const struct rules *r, bool destinations, uint32_t (*map)(const void *arg, uint32_t leaf),
                    const struct wanted *w, struct prefixes *ret)
{
    struct policy_ranges ranges;
    *ret = (struct prefixes){.v6 = r->v6};
    if (r->t->error != 0) {
        return;
    }
    r->t->error = destinations ? policy_ranges_of_destinations(w->in->policy, r->v6, &ranges)
                               : policy_ranges_of_sources(w->in->policy, r->v6, &ranges);
    if (r->t->error != 0) {
        return;
    }
    policy_ranges_map(&ranges, map, w);
    for (size_t i = 0; i < ranges.count; i++) {
        if (ranges.list[i].leaf != 0) {
            keep_range(ret, &ranges.list[i]);
        }
    }
    policy_ranges_fini(&ranges);
    r->t->error = ret->error;
}

/* Every pair of the two lists; either may be NULL for none. */
static void say_pairs(const struct rules *r, const struct prefixes *sources, const struct prefixes *destinations,
                      const char *ports, bool discard)
{
    size_t m = sources != NULL ? sources->count : 1, n = destinations != NULL ? destinations->count : 1;
    for (size_t i = 0; i < m && r->t->error == 0; i++) {
        for (size_t k = 0; k < n && r->t->error == 0; k++) {
            say_rule(r, sources != NULL ? &sources->list[i] : NULL,
                     destinations != NULL ? &destinations->list[k] : NULL, ports, discard);
        }
    }
}

static void say_longest(void *arg, const struct policy_prefix *prefix, uint32_t leaf)
{
    say_rule(arg, prefix, NULL, to_25, leaf != 0);
}

static void write_from_lines(struct rules *r, const struct wanted *w, const struct prefixes *allow_to)
{
    struct policy_ranges ranges;
    say_pairs(r, NULL, allow_to, to_25, false);
    if (r->t->error != 0 || (r->t->error = policy_ranges_of_sources(w->in->policy, r->v6, &ranges)) != 0) {
        return;
    }
    policy_ranges_map(&ranges, map_denied, w);
    policy_ranges_longest_match(&ranges, say_longest, r);
    policy_ranges_fini(&ranges);
}

static void write_return_path(const struct rules *r, const struct wanted *w, const struct prefixes *allow_to)
{
    struct prefixes denied;
    bool inbound = (w->in->policy->flags & BLOB_INBOUND) != 0;
    collect(r, false, map_denied, w, &denied);
    say_pairs(r, allow_to, &denied, inbound ? from_25_elsewhere : from_25, false);
    say_pairs(r, NULL, &denied, from_25, true);
    free(denied.list);
}

/* A class that is denied towards some destinations only. */
static void write_scoped(const struct rules *r, const struct wanted *w)
{
    struct prefixes lines, scope;
    collect(r, false, map_class, w, &lines);
    collect(r, true, map_set, w, &scope);
    say_pairs(r, &lines, &scope, to_25, true);
    if ((w->in->policy->flags & BLOB_RETURN_PATH) != 0) {
        say_pairs(r, &scope, &lines, from_25, true);
    }
    free(lines.list);
    free(scope.list);
}

static void write_inbound(const struct rules *r, const struct wanted *w)
{
    struct prefixes denied;
    collect(r, false, map_denied_inbound, w, &denied);
    say_pairs(r, NULL, &denied, to_25, true);
    free(denied.list);
}

static void write_dynamic(const struct rules *r, const struct export_input *in)
{
    struct prefixes ranges;
    const struct wanted w = {.in = in, .set = BLOB_SET_DYNAMIC};
    collect(r, true, map_set, &w, &ranges);
    say_pairs(r, &ranges, NULL, to_25, true);
    free(ranges.list);
}

static void write_family(struct export_text *t, bool v6)
{
    const struct export_input *in = t->in;
    struct rules r = {.t = t, .v6 = v6};
    struct prefixes allow_to;
    const struct wanted all = {.in = in, .set = BLOB_SET_ALLOW_TO};
    collect(&r, true, map_set, &all, &allow_to);
    write_from_lines(&r, &all, &allow_to);
    if ((in->policy->flags & BLOB_RETURN_PATH) != 0) {
        write_return_path(&r, &all, &allow_to);
    }
    for (size_t i = 1; i < in->policy->classes_count; i++) {
        const struct policy_class *c = &in->policy->classes[i];
        if (c->rule == BLOB_DENY && c->set != 0) {
            const struct wanted w = {.in = in, .class_ = i, .set = c->set};
            write_scoped(&r, &w);
        }
    }
    if ((in->policy->flags & BLOB_INBOUND) != 0) {
        write_inbound(&r, &all);
    }
    if ((in->policy->flags & BLOB_DYNAMIC) != 0) {
        write_dynamic(&r, in);
    }
    free(allow_to.list);
}

static void write_notes(struct export_text *t)
{
    const struct policy *p = t->in->policy;
    export_head(t, "Kidoban's policy as BGP FlowSpec (RFC 8955, 8956), lines of ExaBGP's text API.");
    export_note(
        t, "Rules without a destination prefix do not validate (RFC 8955, section 6): the routers must be told to take "
           "them from this peer (RFC 9117).");
    export_note(t,
                "not said: interfaces: a rule holds on all that the router applies FlowSpec to, in both directions.");
    export_note(t, "not said: refuse_with: what is denied is discarded in silence.");
    export_note(
        t, "not said: fragments: a rule with ports does not match one that has none, so what is cut before its ports "
           "passes.");
    export_note(t, "not said: source-routed packets towards allow_to or outside of a class's \"to\" pass; routers "
                   "should refuse all "
                   "of them.");
    if (p->classes[0].rule != BLOB_ALLOW) {
        export_note(
            t, "not said: default: %s: without interfaces it would be everybody's packets. List the lines in a class.",
            policy_rule_name(p->classes[0].rule));
    }
    for (size_t i = 1; i < p->classes_count; i++) {
        if (p->classes[i].rule == BLOB_RATE || p->classes[i].rule == BLOB_MONITOR) {
            char name[EXPORT_NAME];
            export_name(t, i, name);
            export_note(t, "not said: class %s: %s: it passes.", name, policy_rule_name(p->classes[i].rule));
        }
    }
}

int export_flowspec(const struct export_input *in, struct buf *out, size_t budget)
{
    struct export_text t = {.out = out, .in = in, .comment = "# ", .budget = budget};
    write_notes(&t);
    if ((in->policy->flags & BLOB_MODE_MONITOR) == 0) {
        write_family(&t, false);
        write_family(&t, true);
    }
    return t.error;
}
