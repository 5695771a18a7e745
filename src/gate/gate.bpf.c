// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * gate.bpf.c: the gate in the kernel. The law it follows is docs/gate.md; the compiled policy it reads is
 * policy/blob.h.
 *
 * It is built twice: for XDP, and with GATE_TC for TC. Two ways through. The short one looks at the octets in place and
 * lets everything go that is certainly not of TCP port 25: it touches no map. Whatever it cannot be certain of goes the
 * long way: loads by offset, every header by the law. Every octet of a frame is a stranger's.
 */
#include "gate/kernel/answer.h"
#include "gate/kernel/memory.h"
#include "gate/kernel/scan.h"
#include "gate/kernel/sight.h"

/* What a restricted class says to an evasion. */
always_inline void restrict_(const struct subject *subject, __u32 reason, __u32 otherwise, struct decision *d)
{
    __u32 rule = subject->exempted ? BLOB_ALLOW : subject->class_.rule;
    d->reason = rule == BLOB_ALLOW ? otherwise : reason;
    d->would = rule == BLOB_ALLOW ? POLICY_PASS : POLICY_DROP;
    d->verdict = rule == BLOB_MONITOR ? POLICY_PASS : d->would;
}

always_inline __u32 named(const struct subject *subject)
{
    return subject->number ? REASON_CLASS : REASON_DEFAULT;
}

no_inline int decide_subscriber(struct judge *j)
{
    const struct scan *s = &j->s;
    const struct subject *subject = &j->subject;
    struct decision *d = &j->d;
    __u32 rule = subject->class_.rule;
    __u64 sets;
    d->reason = named(subject);
    if (subject->exempted) {
        d->reason = REASON_EXEMPTION;
        return 0;
    }
    if (rule == BLOB_ALLOW) {
        return 0;
    }
    sets = s->routed ? 0 : far_sets(j);
    if (sets == BROKEN) {
        return -1;
    }
    if (sets & 1U << BLOB_SET_ALLOW_TO) {
        d->reason = REASON_ALLOW_TO;
        return 0;
    }
    if (subject->class_.set && !s->routed && !(sets >> (subject->class_.set & 31) & 1)) {
        d->reason = REASON_SCOPE;
        return 0;
    }
    if (rule == BLOB_RATE) {
        struct gate_source *source = is_syn(s) ? source_of(subject) : 0;
        if (!is_syn(s) ||
            (source && rate_take(&source->rate_ns, subject->class_.interval_ns, subject->class_.burst_ns))) {
            d->reason = REASON_RATE;
            return 0;
        }
    }
    d->would = POLICY_REFUSE;
    d->verdict = rule == BLOB_MONITOR ? POLICY_PASS : POLICY_REFUSE;
    return 0;
}

no_inline int decide_uplink(struct judge *j)
{
    const struct blob_header *h = &j->h;
    const struct scan *s = &j->s;
    const struct subject *subject = &j->subject;
    struct decision *d = &j->d;
    __u32 rule = subject->exempted ? BLOB_ALLOW : subject->class_.rule;
    __u64 sets = far_sets(j);
    int restricted = rule == BLOB_DENY || rule == BLOB_MONITOR;
    if (sets == BROKEN) {
        return -1;
    }
    int outside = subject->class_.set && !(sets >> (subject->class_.set & 31) & 1);
    if (s->source_port == SMTP_PORT && (h->flags & BLOB_RETURN_PATH)) {
        d->reason = subject->exempted                  ? REASON_EXEMPTION
                    : (sets & 1U << BLOB_SET_ALLOW_TO) ? REASON_ALLOW_TO
                    : outside                          ? REASON_SCOPE
                                                       : named(subject);
        if (restricted && !outside && !(sets & 1U << BLOB_SET_ALLOW_TO)) {
            d->reason = REASON_RETURN_PATH;
            d->would = POLICY_DROP;
            if (rule == BLOB_DENY) {
                d->verdict = POLICY_DROP;
                return 0;
            }
        }
    }
    /* What a monitored line would not get stands until something really refuses it. */
    if (s->port == SMTP_PORT && (h->flags & BLOB_DYNAMIC) && (sets & 1U << BLOB_SET_DYNAMIC)) {
        d->reason = REASON_DYNAMIC;
        d->verdict = d->would = POLICY_REFUSE;
    } else if (s->port == SMTP_PORT && (h->flags & BLOB_INBOUND) && restricted && d->would == POLICY_PASS) {
        d->reason = REASON_INBOUND;
        d->would = POLICY_REFUSE;
        d->verdict = rule == BLOB_DENY ? POLICY_REFUSE : POLICY_PASS;
    }
    return 0;
}

/* Subscriber side: all of them; uplink side: a first fragment of IPv6 only. */
no_inline int decide_evasion(struct judge *j, __u32 found)
{
    const struct blob_header *h = &j->h;
    const struct scan *s = &j->s;
    const struct subject *subject = &j->subject;
    struct decision *d = &j->d;
    __u32 otherwise = found == FOUND_OVERWRITE ? REASON_TAIL : REASON_UNPARSED;
    __u32 reason = found == FOUND_OVERWRITE        ? REASON_OVERWRITE
                   : found == FOUND_FIRST_FRAGMENT ? REASON_FIRST_FRAGMENT
                                                   : REASON_MALFORMED;
    d->reason = otherwise;
    if (!gate_uplink) {
        restrict_(subject, reason, otherwise, d);
    } else if (found == FOUND_FIRST_FRAGMENT && s->v6 && (h->flags & (BLOB_RETURN_PATH | BLOB_INBOUND)) &&
               subject->class_.rule != BLOB_RATE) {
        restrict_(subject, reason, otherwise, d);
    }
    return 0;
}

always_inline int is_smtp(const struct scan *s)
{
    return s->port == SMTP_PORT || (gate_uplink && s->source_port == SMTP_PORT);
}

/* Reads one packet, until its TCP header or as far as it goes. A function of its own for Linux before 6.8, whose
 * verifier takes no loop in which a call is the last of one way of two. */
no_inline int scan_packet(struct judge *j, __u32 v6)
{
    struct scan *s = &j->s;
    int found = v6 ? scan6(j->ctx, s) : scan4(j->ctx, s);
    found = found == FOUND_CHAIN ? scan_chain(j->ctx, s) : found;
    return found == FOUND_TCP ? scan_tcp(j->ctx, s) : found;
}

/* Reads packet and tunnels, as far as they go. */
no_inline int scan_all(struct judge *j, __u32 v6)
{
    int found = FOUND_OTHER;
    for (int i = 0; i < PACKETS_MAX; i++) {
        found = scan_packet(j, v6);
        if (found != FOUND_INNER4 && found != FOUND_INNER6) {
            return found;
        }
        if (i == PACKETS_MAX - 1 || !(j->h.flags & BLOB_TUNNELS)) {
            return FOUND_OTHER;
        }
        __u64 sets = far_sets(j);
        if (sets != BROKEN && !(sets & 1U << BLOB_SET_TUNNELS)) {
            return FOUND_OTHER;
        }
        if (sets == BROKEN || find_subject(j) < 0) {
            return FOUND_BROKEN;
        }
        j->s.depth++;
        v6 = found == FOUND_INNER6;
    }
    return FOUND_OTHER;
}

no_inline int decide(struct judge *j, __u32 v6)
{
    struct decision *d = &j->d;
    int found = scan_all(j, v6);
    switch (found) {
    case FOUND_BROKEN:
        return -1;
    case FOUND_OTHER:
        d->reason = REASON_OTHER;
        return 0;
    case FOUND_TAIL:
        d->reason = REASON_TAIL;
        return 0;
    case FOUND_UNPARSED:
        d->reason = REASON_UNPARSED;
        return 0;
    case FOUND_TCP:
        d->reason = REASON_OTHER;
        if (!is_smtp(&j->s)) {
            return 0;
        }
        break;
    default:
        break;
    }
    if (find_subject(j) < 0) {
        return -1;
    }
    if (found == FOUND_TCP) {
        return gate_uplink ? decide_uplink(j) : decide_subscriber(j);
    }
    return decide_evasion(j, found);
}

enum judged { JUDGED_PASS, JUDGED_DROP, JUDGED_ANSWER };

/* The long way. */
always_inline enum judged judge(struct judge *j, __u32 ether)
{
    __u32 zero = 0;
    int kind = ether ? scan_ether(j->ctx, &j->s) : scan_bare(j->ctx, &j->s);
    if (!kind) {
        explain(j);
        return JUDGED_PASS;
    }
    j->s.ip_at = j->s.at;
    j->cells = bpf_map_lookup_elem(&policy, &zero);
    if (!j->cells) {
        return JUDGED_DROP; /* no policy: it was never loaded, and this never attached */
    }
    const union blob_cell *one = cell(j->cells, 0), *two = cell(j->cells, 1);
    if (!one || !two) {
        return JUDGED_DROP;
    }
    __builtin_memcpy(&j->h, one, 32);
    __builtin_memcpy((char *)&j->h + 32, two, 32);
    if (j->h.version != BLOB_VERSION || decide(j, kind == 6) < 0) {
        return JUDGED_DROP;
    }
    if (j->h.flags & BLOB_MODE_MONITOR) {
        j->d.verdict = POLICY_PASS;
    }
    if (j->d.reason != REASON_OTHER) {
        count(j);
    }
    explain(j);
    if (j->d.would == POLICY_PASS || !remember(j)) {
        return j->d.verdict == POLICY_PASS ? JUDGED_PASS : JUDGED_DROP;
    }
    int answered = j->h.refuse_with == BLOB_RESET        ? answer_reset(j->ctx, &j->s, ether)
                   : j->h.refuse_with == BLOB_PROHIBITED ? answer_prohibited(j->ctx, &j->s, ether)
                                                         : 0;
    return answered ? JUDGED_ANSWER : JUDGED_DROP;
}

#ifdef GATE_TC
/* An answer leaves by the device it is about, where another of our programs may sit and see TCP from port 25 towards a
 * line that is denied. It is told by its mark, which no packet brings along from another machine or network namespace
 * (tc_index would be carried over from a container's). */
#define OURS 0x4b44424f

always_inline int answer_tc(struct context *ctx)
{
    ctx->mark = OURS;
    return bpf_redirect(ctx->ifindex, gate_egress ? BPF_F_INGRESS : 0); /* TC_ACT_REDIRECT */
}

#define IS_OURS(c) ((c)->mark == OURS)
#define PASS       (-1) /* TC_ACT_UNSPEC: whoever else sits on the device has its say */
#define DROP       2    /* TC_ACT_SHOT */
#define ANSWER(c)  answer_tc(c)
#define SECTION    SEC("tc")
#else
#define IS_OURS(c) 0
#define PASS       XDP_PASS
#define DROP       XDP_DROP
#define ANSWER(c)  XDP_TX
#define SECTION    SEC("xdp.frags")
#endif

always_inline int run(struct context *ctx, __u32 ether)
{
    const __u8 *data = (void *)(long)ctx->data;
    const void *data_end = (void *)(long)ctx->data_end;
    if ((ether ? sight_ether(ctx, data, data_end) : sight_bare(ctx, data, data_end)) == SIGHT_PASS || IS_OURS(ctx)) {
        return PASS;
    }
    struct judge j = {.ctx = ctx};
    j.s.end = LENGTH(ctx);
    enum judged judged = judge(&j, ether);
    return judged == JUDGED_PASS ? PASS : judged == JUDGED_DROP ? DROP : ANSWER(ctx);
}

SECTION int gate_ether(struct context *ctx)
{
    return run(ctx, 1);
}

SECTION int gate_ip(struct context *ctx)
{
    return run(ctx, 0);
}

char _license[] SEC("license") = "Dual BSD/GPL";
