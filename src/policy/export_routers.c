/*
 * The dialects of export_acl.h: Junos, IOS XR, RouterOS.
 */
#include <string.h>

#include "policy/export_acl.h"

static int suffix(bool v6)
{
    return v6 ? 6 : 4;
}

static void say_prefix(struct export_text *t, const char *before, const struct policy_prefix *p)
{
    char text[POLICY_PREFIX_TEXT];
    policy_prefix_format(p, text);
    export_say(t, "%s%s", before, text);
}

static void nothing(struct export_text *t, const char *name, bool v6)
{
    (void)t;
    (void)name;
    (void)v6;
}

/* Junos, as set commands. */

static void junos_notes(struct export_text *t)
{
    export_note(t, "Delete the old kidoban filters and prefix-lists in the same commit. Apply kidoban-from-lines-4 and "
                   "-6 as input "
                   "filters of the lines, kidoban-to-lines-4 and -6 as their output filters.");
    export_note(t, "not said: fragments: a term with ports matches no fragment but the first; a first one without its "
                   "ports passes.");
}

static void junos_prefix(struct export_text *t, const char *name, const struct policy_prefix *p, uint64_t left_s)
{
    (void)left_s;
    export_say(t, "set policy-options prefix-list kidoban-%s-%d ", name, suffix(p->v6));
    say_prefix(t, "", p);
    export_say(t, "\n");
}

static void junos_begin_chain(struct export_text *t, enum acl_chain chain, bool v6)
{
    (void)t;
    (void)chain;
    (void)v6;
}

static void junos_term(struct export_text *t, enum acl_chain chain, bool v6, unsigned number)
{
    export_say(t, "set firewall family %s filter kidoban-%s-%d term %u ", v6 ? "inet6" : "inet", acl_chain_name(chain),
               suffix(v6), number);
}

static void junos_rule(struct export_text *t, enum acl_chain chain, bool v6, const struct acl_rule *r)
{
    static const char *const refusals[] = {[BLOB_RESET] = "reject tcp-reset",
                                           [BLOB_PROHIBITED] = "reject administratively-prohibited",
                                           [BLOB_SILENT] = "discard"};
    if (r->source != NULL) {
        junos_term(t, chain, v6, r->number);
        export_say(t, "from source-prefix-list kidoban-%s-%d\n", r->source, suffix(v6));
    }
    if (r->destination != NULL) {
        junos_term(t, chain, v6, r->number);
        export_say(t, "from destination-prefix-list kidoban-%s-%d\n", r->destination, suffix(v6));
    }
    junos_term(t, chain, v6, r->number);
    export_say(t, "from %s tcp\n", v6 ? "payload-protocol" : "protocol");
    junos_term(t, chain, v6, r->number);
    export_say(t, "from %s-port 25\n", r->from_25 ? "source" : "destination");
    junos_term(t, chain, v6, r->number);
    export_say(t, "then %s\n",
               r->action == ACL_ACCEPT ? "accept"
               : r->action == ACL_DROP ? "discard"
                                       : refusals[t->in->policy->refuse_with]);
}

static void junos_end_chain(struct export_text *t, enum acl_chain chain, bool v6, unsigned number)
{
    junos_term(t, chain, v6, number);
    export_say(t, "then accept\n");
}

int export_junos(const struct export_input *in, struct buf *out, size_t budget)
{
    static const struct acl_dialect junos = {.title = "Kidoban's policy for Junos, as set commands.",
                                             .comment = "# ",
                                             .notes = junos_notes,
                                             .begin_list = nothing,
                                             .prefix = junos_prefix,
                                             .begin_chain = junos_begin_chain,
                                             .rule = junos_rule,
                                             .end_chain = junos_end_chain};
    return export_acl(&junos, in, out, budget);
}

/* IOS XR. */

static void iosxr_notes(struct export_text *t)
{
    export_note(
        t,
        "Remove the old kidoban access-lists and object-groups in the same commit. Apply kidoban-from-lines-4 and -6 "
        "ingress on the lines' interfaces, kidoban-to-lines-4 and -6 egress.");
    export_note(
        t,
        "not said: refuse_with: the router sends ICMP administratively prohibited, or nothing where unreachables are "
        "disabled; it never sends a reset.");
    export_note(
        t, "not said: fragments: an entry with ports matches no fragment but the first; a first one without its ports "
           "passes. not said: IPv6 extension headers: ports behind them are seen only as far as the platform reads.");
}

static void iosxr_begin_list(struct export_text *t, const char *name, bool v6)
{
    export_say(t, "object-group network ipv%d kidoban-%s-%d\n", suffix(v6), name, suffix(v6));
}

static void iosxr_prefix(struct export_text *t, const char *name, const struct policy_prefix *p, uint64_t left_s)
{
    (void)name;
    (void)left_s;
    say_prefix(t, " ", p);
    export_say(t, "\n");
}

static void iosxr_end_list(struct export_text *t, bool v6)
{
    (void)v6;
    export_say(t, "!\n");
}

static void iosxr_begin_chain(struct export_text *t, enum acl_chain chain, bool v6)
{
    export_say(t, "ipv%d access-list kidoban-%s-%d\n", suffix(v6), acl_chain_name(chain), suffix(v6));
}

static void iosxr_side(struct export_text *t, const char *name, bool v6, bool is_25)
{
    if (name != NULL) {
        export_say(t, " net-group kidoban-%s-%d", name, suffix(v6));
    } else {
        export_say(t, " any");
    }
    export_say(t, "%s", is_25 ? " eq 25" : "");
}

static void iosxr_rule(struct export_text *t, enum acl_chain chain, bool v6, const struct acl_rule *r)
{
    (void)chain;
    export_say(t, " %u %s tcp", r->number, r->action == ACL_ACCEPT ? "permit" : "deny");
    iosxr_side(t, r->source, v6, r->from_25);
    iosxr_side(t, r->destination, v6, !r->from_25);
    export_say(t, "\n");
}

static void iosxr_end_chain(struct export_text *t, enum acl_chain chain, bool v6, unsigned number)
{
    (void)chain;
    export_say(t, " %u permit ipv%d any any\n!\n", number, suffix(v6));
}

int export_iosxr(const struct export_input *in, struct buf *out, size_t budget)
{
    static const struct acl_dialect iosxr = {.title = "Kidoban's policy for IOS XR.",
                                             .comment = "! ",
                                             .notes = iosxr_notes,
                                             .begin_list = iosxr_begin_list,
                                             .prefix = iosxr_prefix,
                                             .end_list = iosxr_end_list,
                                             .begin_chain = iosxr_begin_chain,
                                             .rule = iosxr_rule,
                                             .end_chain = iosxr_end_chain};
    return export_acl(&iosxr, in, out, budget);
}

/* RouterOS. */

static void say_jumps(struct export_text *t, bool v6, const struct config_strings *names, const char *direction,
                      enum acl_chain chain)
{
    for (size_t i = 0; i < names->count; i++) {
        if (strchr(names->list[i], '*') != NULL) {
            export_note(t, "not said: interfaces %s: name them, or use an interface list.", names->list[i]);
        } else {
            export_say(t,
                       "/ip%s firewall filter add chain=forward %s-interface=\"%s\" protocol=tcp action=jump "
                       "jump-target=kidoban-%s\n",
                       v6 ? "v6" : "", direction, names->list[i], acl_chain_name(chain));
        }
    }
}

static void routeros_notes(struct export_text *t)
{
    export_note(
        t,
        "Remove the old kidoban lists and chains first. The jumps below go to the end of the forward chain: move them "
        "before what accepts established connections.");
    export_note(
        t,
        "not said: fragments, where connection tracking is off: with it they are put together before they are judged.");
}

static void routeros_prefix(struct export_text *t, const char *name, const struct policy_prefix *p, uint64_t left_s)
{
    export_say(t, "/ip%s firewall address-list add list=kidoban-%s ", p->v6 ? "v6" : "", name);
    say_prefix(t, "address=", p);
    if (left_s > 0) {
        export_say(t, " timeout=%llus", (unsigned long long)left_s);
    }
    export_say(t, "\n");
}

static void routeros_begin_chain(struct export_text *t, enum acl_chain chain, bool v6)
{
    bool from = chain == ACL_FROM_LINES;
    say_jumps(t, v6, t->in->subscriber_interfaces, from ? "in" : "out", chain);
    say_jumps(t, v6, t->in->uplink_interfaces, from ? "out" : "in", chain);
}

static void routeros_rule(struct export_text *t, enum acl_chain chain, bool v6, const struct acl_rule *r)
{
    static const char *const refusals[] = {[BLOB_RESET] = "reject reject-with=tcp-reset",
                                           [BLOB_PROHIBITED] = "reject reject-with=icmp-admin-prohibited",
                                           [BLOB_SILENT] = "drop"};
    export_say(t, "/ip%s firewall filter add chain=kidoban-%s protocol=tcp", v6 ? "v6" : "", acl_chain_name(chain));
    if (r->source != NULL) {
        export_say(t, " src-address-list=kidoban-%s", r->source);
    }
    if (r->destination != NULL) {
        export_say(t, " dst-address-list=kidoban-%s", r->destination);
    }
    export_say(t, " %s-port=25 action=%s\n", r->from_25 ? "src" : "dst",
               r->action == ACL_ACCEPT ? "return"
               : r->action == ACL_DROP ? "drop"
                                       : refusals[t->in->policy->refuse_with]);
}

static void routeros_end_chain(struct export_text *t, enum acl_chain chain, bool v6, unsigned number)
{
    (void)number;
    export_say(t, "/ip%s firewall filter add chain=kidoban-%s action=return\n", v6 ? "v6" : "", acl_chain_name(chain));
}

int export_routeros(const struct export_input *in, struct buf *out, size_t budget)
{
    static const struct acl_dialect routeros = {.title = "Kidoban's policy for RouterOS.",
                                                .comment = "# ",
                                                .notes = routeros_notes,
                                                .begin_list = nothing,
                                                .prefix = routeros_prefix,
                                                .begin_chain = routeros_begin_chain,
                                                .rule = routeros_rule,
                                                .end_chain = routeros_end_chain};
    return export_acl(&routeros, in, out, budget);
}
