#include "policy/evaluate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"

#define SMTP_PORT 25

/* Rates */

struct rate {
    struct policy_address subject; /* the key; no padding */
    uint64_t tat_ns;
    UT_hash_handle hh;
};
_Static_assert(sizeof(struct policy_address) == 17, "a key is compared octet by octet");

struct policy_rates {
    struct rate *table;
};

struct policy_rates *policy_rates_new(void)
{
    return calloc(1, sizeof(struct policy_rates));
}

void policy_rates_free(struct policy_rates **rp)
{
    struct policy_rates *r = *rp;
    *rp = NULL;
    if (r == NULL) {
        return;
    }
    struct rate *one, *next;
    HASH_ITER(hh, r->table, one, next)
    {
        HASH_DEL(r->table, one);
        free(one);
    }
    free(r);
}

static void forget_one(struct policy_rates *r)
{
    struct rate *least = r->table; /* of a full table: there is one */
    for (struct rate *one = r->table; one != NULL; one = one->hh.next) {
        least = one->tat_ns < least->tat_ns ? one : least;
    }
    HASH_DEL(r->table, least);
    free(least);
}

/* Without memory the subject begins anew: the reference is no enforcer. */
static void rate_set(struct policy_rates *r, const struct policy_address *subject, uint64_t tat_ns)
{
    struct rate *one = NULL;
    HASH_FIND(hh, r->table, subject, sizeof(*subject), one);
    if (one == NULL) {
        if (HASH_COUNT(r->table) >= POLICY_RATES_MAX) {
            forget_one(r);
        }
        one = calloc(1, sizeof(*one));
        if (one == NULL) {
            return;
        }
        one->subject = *subject;
        HASH_ADD(hh, r->table, subject, sizeof(*subject), one);
        if (!hash_added(one->hh)) {
            free(one);
            return;
        }
    }
    one->tat_ns = tat_ns;
}

static bool rate_allows(struct policy_rates *r, const struct policy_class *c, const struct policy_address *subject,
                        uint64_t now)
{
    struct rate *one = NULL;
    if (r == NULL) {
        return true;
    }
    HASH_FIND(hh, r->table, subject, sizeof(*subject), one);
    uint64_t tat = one != NULL && one->tat_ns > now ? one->tat_ns : now;
    if (tat + c->interval_ns - now > c->burst_ns) {
        return false;
    }
    rate_set(r, subject, tat + c->interval_ns);
    return true;
}

/* Prefixes */

struct policy_standing policy_standing_of(const struct policy *p, const struct policy_address *a, uint64_t now_boot_ns)
{
    struct policy_standing s = {0};
    int class_bits = -1, exemption_bits = -1;
    for (size_t i = 0; i < p->sources_count; i++) {
        if ((int)p->sources[i].prefix.bits > class_bits && policy_prefix_contains(&p->sources[i].prefix, a)) {
            class_bits = p->sources[i].prefix.bits;
            s.class_ = p->sources[i].class_;
        }
    }
    for (size_t i = 0; i < p->exemptions_count; i++) {
        const struct policy_exemption *e = &p->exemptions[i];
        if (e->until_ns > now_boot_ns && (int)e->prefix.bits > exemption_bits &&
            policy_prefix_contains(&e->prefix, a)) {
            exemption_bits = e->prefix.bits;
            s.exemption = e;
        }
    }
    if (exemption_bits < class_bits) {
        s.exemption = NULL;
    }
    s.listed = s.class_ != 0 || s.exemption != NULL;
    return s;
}

bool policy_set_holds(const struct policy *p, unsigned set, const struct policy_address *a)
{
    for (size_t i = 0; i < p->destinations_count; i++) {
        if (p->destinations[i].set == set && policy_prefix_contains(&p->destinations[i].prefix, a)) {
            return true;
        }
    }
    return false;
}

static bool tunnel_end(const void *arg, const struct policy_address *far)
{
    return policy_set_holds(arg, BLOB_SET_TUNNELS, far);
}

/* The law */

struct hearing {
    const struct policy *p;
    const struct policy_question *q;
    struct packet packet;
    struct policy_judgement *ret;
    /* Of the subject, once it was asked. */
    const struct policy_class *class_;
    bool exempted;
};

static void rule(struct hearing *h, enum policy_verdict would, enum policy_reason reason)
{
    h->ret->verdict = h->ret->would = would;
    h->ret->reason = reason;
}

static void rule_if_enforced(struct hearing *h, enum policy_verdict would, enum policy_reason reason)
{
    rule(h, would, reason);
    h->ret->verdict = POLICY_PASS;
}

/* The outermost subject that is listed; if none is, it is in no class whichever it is. */
static void ask_subject(struct hearing *h)
{
    struct policy_standing s = {0};
    for (size_t i = 0; i < h->packet.layers_count && !s.listed; i++) {
        const struct packet_layer *l = &h->packet.layers[i];
        h->ret->subject = h->q->side == PACKET_SUBSCRIBER ? l->source : l->destination;
        s = policy_standing_of(h->p, &h->ret->subject, h->q->now_boot_ns);
    }
    h->class_ = &h->p->classes[s.class_];
    h->exempted = s.exemption != NULL;
    h->ret->asked = true;
    h->ret->class_ = s.class_;
    h->ret->class_name = h->class_->name;
    h->ret->exemption = h->exempted ? s.exemption->id : 0;
}

static bool rule_is(const struct hearing *h, enum blob_rule rule_)
{
    return h->class_->rule == rule_ && !h->exempted;
}

static const struct policy_address *far_end(const struct hearing *h)
{
    const struct packet_layer *l = &h->packet.layers[h->packet.layers_count - 1];
    return h->q->side == PACKET_SUBSCRIBER ? &l->destination : &l->source;
}

static bool far_in(const struct hearing *h, unsigned set)
{
    return policy_set_holds(h->p, set, far_end(h));
}

static enum policy_reason own_reason(const struct hearing *h)
{
    return h->ret->class_ != 0 ? REASON_CLASS : REASON_DEFAULT;
}

static enum policy_reason broken_reason(const struct hearing *h)
{
    return h->packet.kind == PACKET_FIRST_FRAGMENT ? REASON_FIRST_FRAGMENT
           : h->packet.kind == PACKET_OVERWRITE    ? REASON_OVERWRITE
                                                   : REASON_MALFORMED;
}

static void pass_broken(struct hearing *h)
{
    rule(h, POLICY_PASS, h->packet.kind == PACKET_OVERWRITE ? REASON_TAIL : REASON_UNPARSED);
}

/* Subscriber side */

static void judge_broken_from_subscriber(struct hearing *h)
{
    ask_subject(h);
    if (rule_is(h, BLOB_DENY) || rule_is(h, BLOB_RATE)) {
        rule(h, POLICY_DROP, broken_reason(h));
    } else if (rule_is(h, BLOB_MONITOR)) {
        rule_if_enforced(h, POLICY_DROP, broken_reason(h));
    } else {
        pass_broken(h);
    }
}

static void judge_rate(struct hearing *h)
{
    const struct packet *k = &h->packet;
    bool begins = !k->flags_present || (k->syn && !k->ack);
    struct policy_address line = h->ret->subject;
    if (line.v6) {
        memset(line.bytes + 8, 0, 8); /* a line has a whole /64, and may take another address of it each time */
    }
    if (begins && !rate_allows(h->q->rates, h->class_, &line, h->q->now_boot_ns)) {
        rule(h, POLICY_REFUSE, REASON_CLASS);
    } else {
        rule(h, POLICY_PASS, REASON_RATE);
    }
}

static void judge_tcp_from_subscriber(struct hearing *h)
{
    if (h->packet.destination_port != SMTP_PORT) {
        rule(h, POLICY_PASS, REASON_OTHER);
        return;
    }
    ask_subject(h);
    if (h->exempted) {
        rule(h, POLICY_PASS, REASON_EXEMPTION);
    } else if (rule_is(h, BLOB_ALLOW)) {
        rule(h, POLICY_PASS, own_reason(h));
    } else if (!h->packet.source_routed && far_in(h, BLOB_SET_ALLOW_TO)) {
        rule(h, POLICY_PASS, REASON_ALLOW_TO);
    } else if (!h->packet.source_routed && h->class_->set != 0 && !far_in(h, h->class_->set)) {
        rule(h, POLICY_PASS, REASON_SCOPE);
    } else if (rule_is(h, BLOB_DENY)) {
        rule(h, POLICY_REFUSE, own_reason(h));
    } else if (rule_is(h, BLOB_MONITOR)) {
        rule_if_enforced(h, POLICY_REFUSE, own_reason(h));
    } else {
        judge_rate(h);
    }
}

/* Uplink side */

static bool return_path(const struct hearing *h)
{
    return (h->p->flags & BLOB_RETURN_PATH) != 0;
}

static bool inbound(const struct hearing *h)
{
    return (h->p->flags & BLOB_INBOUND) != 0;
}

static void judge_broken_from_uplink(struct hearing *h)
{
    pass_broken(h);
    if (h->packet.kind != PACKET_FIRST_FRAGMENT || !h->packet.v6 || !(return_path(h) || inbound(h))) {
        return;
    }
    ask_subject(h);
    if (rule_is(h, BLOB_DENY)) {
        rule(h, POLICY_DROP, REASON_FIRST_FRAGMENT);
    } else if (rule_is(h, BLOB_MONITOR)) {
        rule_if_enforced(h, POLICY_DROP, REASON_FIRST_FRAGMENT);
    }
}

static bool on_return_path(const struct hearing *h)
{
    return (rule_is(h, BLOB_DENY) || rule_is(h, BLOB_MONITOR)) && !far_in(h, BLOB_SET_ALLOW_TO) &&
           (h->class_->set == 0 || far_in(h, h->class_->set));
}

static enum policy_reason return_path_reason(const struct hearing *h)
{
    return h->exempted                                         ? REASON_EXEMPTION
           : far_in(h, BLOB_SET_ALLOW_TO)                      ? REASON_ALLOW_TO
           : h->class_->set != 0 && !far_in(h, h->class_->set) ? REASON_SCOPE
                                                               : own_reason(h);
}

/* What a line that is only monitored would not get stands until something really refuses it. */
static void judge_tcp_from_uplink(struct hearing *h)
{
    bool from_smtp = h->packet.source_port == SMTP_PORT && return_path(h);
    bool to_smtp = h->packet.destination_port == SMTP_PORT;
    rule(h, POLICY_PASS, REASON_OTHER);
    if (from_smtp || (to_smtp && inbound(h))) {
        ask_subject(h);
    }
    if (from_smtp) {
        rule(h, POLICY_PASS, return_path_reason(h));
    }
    if (from_smtp && on_return_path(h)) {
        rule(h, POLICY_DROP, REASON_RETURN_PATH);
        if (rule_is(h, BLOB_DENY)) {
            return;
        }
        h->ret->verdict = POLICY_PASS;
    }
    if (to_smtp && far_in(h, BLOB_SET_DYNAMIC)) {
        rule(h, POLICY_REFUSE, REASON_DYNAMIC);
    } else if (to_smtp && inbound(h) && rule_is(h, BLOB_DENY)) {
        rule(h, POLICY_REFUSE, REASON_INBOUND);
    } else if (to_smtp && inbound(h) && rule_is(h, BLOB_MONITOR) && h->ret->would == POLICY_PASS) {
        rule_if_enforced(h, POLICY_REFUSE, REASON_INBOUND);
    }
}

static void judge(struct hearing *h)
{
    bool up = h->q->side == PACKET_UPLINK;
    switch (h->packet.kind) {
    case PACKET_OTHER:
        rule(h, POLICY_PASS, REASON_OTHER);
        break;
    case PACKET_TAIL:
        rule(h, POLICY_PASS, REASON_TAIL);
        break;
    case PACKET_UNPARSED:
        rule(h, POLICY_PASS, REASON_UNPARSED);
        break;
    case PACKET_TCP:
        if (up) {
            judge_tcp_from_uplink(h);
        } else {
            judge_tcp_from_subscriber(h);
        }
        break;
    case PACKET_FIRST_FRAGMENT:
    case PACKET_OVERWRITE:
    case PACKET_MALFORMED:
        if (up) {
            judge_broken_from_uplink(h);
        } else {
            judge_broken_from_subscriber(h);
        }
        break;
    }
}

void policy_evaluate(const struct policy *p, const struct policy_question *q, struct policy_judgement *ret)
{
    struct hearing h = {.p = p, .q = q, .ret = ret};
    *ret = (struct policy_judgement){0};
    packet_read(q->frame, q->link, q->side, tunnel_end, p, &h.packet);
    judge(&h);
    if ((p->flags & BLOB_MODE_MONITOR) != 0) {
        ret->verdict = POLICY_PASS;
    }
}
