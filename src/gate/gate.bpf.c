// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * gate.bpf.c: the gate in the kernel. The law it follows is docs/gate.md; the compiled policy it reads is
 * policy/blob.h.
 *
 * It is built twice: for XDP, and with GATE_TC for TC. Two ways through. The short one looks at the octets in place and
 * lets everything go that is certainly not of TCP port 25: it touches no map. Whatever it cannot be certain of goes the
 * long way: loads by offset, every header by the law. Every octet of a frame is a stranger's.
 */
#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "gate/gate.h"
#include "policy/blob.h"

#define SMTP_PORT   25
#define TAGS_MAX    4
#define HEADERS_MAX 32
#define PACKETS_MAX 3 /* one, and two tunnels */
#define LENGTH_MAX  0x3ffff

#define ETHER_IPV4  0x0800
#define ETHER_IPV6  0x86dd
#define ETHER_PPPOE 0x8864

#define PROTO_HOPOPTS  0
#define PROTO_IPV4     4
#define PROTO_TCP      6
#define PROTO_IPV6     41
#define PROTO_ROUTING  43
#define PROTO_FRAGMENT 44
#define PROTO_AH       51
#define PROTO_DSTOPTS  60
#define PROTO_MOBILITY 135
#define PROTO_HIP      139
#define PROTO_SHIM6    140

#ifdef GATE_TC
#define context    __sk_buff
#define load_bytes bpf_skb_load_bytes
#else
#define context    xdp_md
#define load_bytes bpf_xdp_load_bytes
#endif

/* A function of the world, not of this file: the verifier reads it once for all who call it, and knows nothing of what
 * its arguments point to, which keeps its own work small. */
#define read_once     __attribute__((noinline))
#define always_inline static __attribute__((always_inline)) inline
#define no_inline     static __attribute__((noinline))

/* Set before the program is loaded. */
const volatile __u32 gate_uplink = 0;  /* judges the uplink side */
const volatile __u32 gate_explain = 0; /* a test: leaves its judgement in `judgement` */

struct cells {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_INNER_MAP | BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __uint(key_size, sizeof(__u32));
    __uint(value_size, sizeof(union blob_cell));
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
    __uint(max_entries, 1);
    __type(key, __u32);
    __array(values, struct cells);
} policy SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, GATE_ROWS_MAX);
    __type(key, __u32);
    __type(value, struct gate_row);
} rows SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, REASON_COUNT);
    __type(key, __u32);
    __type(value, __u64);
} reasons SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, GATE_SOURCES_MAX);
    __type(key, struct gate_source_key);
    __type(value, struct gate_source);
} sources SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, GATE_EVENTS_SIZE);
} events SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct gate_judgement);
} judgement SEC(".maps");

/* An address as two numbers; IPv4 stands in the uppermost 32 bits of hi. */
struct address {
    __u64 hi, lo;
};

/* Where a scan of a packet ended. */
enum found {
    FOUND_OTHER,
    FOUND_TAIL,
    FOUND_UNPARSED,
    FOUND_MALFORMED,
    FOUND_FIRST_FRAGMENT,
    FOUND_OVERWRITE,
    FOUND_TCP,
    FOUND_INNER4,
    FOUND_INNER6,
    FOUND_CHAIN, /* so far so good: its chain is to be read */
};

struct scan {
    __u32 at, end;                  /* the packet that is read: from here, until here */
    __u32 next;                     /* the protocol that follows */
    __u32 cut;                      /* octets may be missing at the end */
    __u32 own_cut6;                 /* cut by a fragment header of its own */
    __u32 fragment;                 /* it, or one around it, is a fragment */
    __u32 routed;                   /* source-routed */
    __u32 v6;                       /* of the packet read last */
    __u32 source_port, port, flags; /* flags: of TCP, or ~0: not there */
    struct address source, destination;
};

/* For the verifier: it wants to see that an offset is small. Lengths were checked. */
#define LOAD(ctx, at, to, len) load_bytes(ctx, (at)&LENGTH_MAX, to, len)

/* --- the compiled policy --- */

always_inline const union blob_cell *cell(void *cells, __u32 number)
{
    return bpf_map_lookup_elem(cells, &number);
}

always_inline __u32 bits_in(__u64 v)
{
    v -= (v >> 1) & 0x5555555555555555ULL;
    v = (v & 0x3333333333333333ULL) + ((v >> 2) & 0x3333333333333333ULL);
    v = (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
    return (v * 0x0101010101010101ULL) >> 56;
}

always_inline __u32 lane(void *cells, __u32 base, __u32 number)
{
    const union blob_cell *c = cell(cells, base + (number >> 3));
    return c ? c->lanes[number & 7] : BLOB_LEAF;
}

/* The answer for an address, without BLOB_LEAF. */
no_inline __u32 find(void *cells, __u32 root, const struct address *a)
{
    __u64 hi = a->hi, lo = a->lo;
    __u32 entry = lane(cells, root, hi >> 48);
    hi = hi << 16 | lo >> 48;
    lo <<= 16;
    for (int i = 0; i < 19; i++) {
        if (entry & BLOB_LEAF) {
            return entry & ~BLOB_LEAF;
        }
        const union blob_cell *n = cell(cells, entry);
        if (!n) {
            return 0;
        }
        __u64 bit = 1ULL << (hi >> 58);
        if (n->node.children & bit) {
            entry = n->node.child_base + bits_in(n->node.children & (bit - 1));
        } else {
            return lane(cells, 0, n->node.leaf_base + bits_in(n->node.leaves & (bit | (bit - 1))) - 1) & ~BLOB_LEAF;
        }
        hi = hi << 6 | lo >> 58;
        lo <<= 6;
    }
    return 0;
}

/* --- the scan --- */

/* Is there an option that routes, or one that does not parse? Sets s->routed. */
read_once int scan_options(struct context *ctx, struct scan *s, __u32 len)
{
    __u8 options[40] = {};
    if (!s || len > sizeof(options)) {
        return -1;
    }
    /* Four octets at a time: the length is a multiple of it, and a constant is what the verifier wants. */
    for (__u32 i = 0; i < sizeof(options); i += 4) {
        if (i < len && LOAD(ctx, s->at + 20 + i, options + i, 4) < 0) {
            return -1;
        }
    }
    s->next = 0;
    for (__u32 i = 0; i < sizeof(options); i++) {
        __u32 at = s->next;
        if (at >= len || at >= sizeof(options) || options[at] == 0) {
            return 0;
        }
        __u32 type = options[at], size = at + 1 < sizeof(options) ? options[at + 1] : 0;
        if (type == 1) {
            size = 1;
        } else if (at + 1 >= len || size < 2 || at + size > len || type == 131 || type == 137) {
            s->routed = 1;
            return 0;
        }
        s->next = at + size;
    }
    return 0;
}

read_once int scan4(struct context *ctx, struct scan *s)
{
    __u8 h[20];
    if (!s) {
        return FOUND_OTHER;
    }
    s->v6 = s->routed = s->own_cut6 = 0;
    if (s->end < s->at || s->end - s->at < 20 || LOAD(ctx, s->at, h, sizeof(h)) < 0) {
        return s->cut ? FOUND_FIRST_FRAGMENT : FOUND_UNPARSED;
    }
    __u32 avail = s->end - s->at, header = (h[0] & 15) * 4, total = h[2] << 8 | h[3], word = h[6] << 8 | h[7];
    if (h[0] >> 4 != 4) {
        return FOUND_UNPARSED;
    }
    s->source.hi = (__u64)((__u32)h[12] << 24 | h[13] << 16 | h[14] << 8 | h[15]) << 32;
    s->destination.hi = (__u64)((__u32)h[16] << 24 | h[17] << 16 | h[18] << 8 | h[19]) << 32;
    s->source.lo = s->destination.lo = 0;
    if (header < 20 || total < header || (!s->cut && total > avail)) {
        return h[9] == PROTO_TCP ? FOUND_MALFORMED : FOUND_UNPARSED;
    }
    if (header > avail) {
        return FOUND_FIRST_FRAGMENT;
    }
    if (total < avail) {
        s->end = s->at + total;
    }
    if (header > 20 && scan_options(ctx, s, header - 20) < 0) {
        return FOUND_UNPARSED;
    }
    if (word & 0x1fff) {
        return h[9] == PROTO_TCP && (word & 0x1fff) == 1 ? FOUND_OVERWRITE : FOUND_TAIL;
    }
    if (word & 0x2000) {
        s->cut = s->fragment = 1;
    }
    s->at += header;
    s->next = h[9];
    return FOUND_CHAIN;
}

read_once int scan6(struct context *ctx, struct scan *s)
{
    __u8 h[40];
    __u64 words[4];
    if (!s) {
        return FOUND_OTHER;
    }
    s->v6 = 1;
    s->routed = s->own_cut6 = 0;
    if (s->end < s->at || s->end - s->at < 40 || LOAD(ctx, s->at, h, sizeof(h)) < 0) {
        return s->cut ? FOUND_FIRST_FRAGMENT : FOUND_UNPARSED;
    }
    __u32 avail = s->end - s->at, payload = h[4] << 8 | h[5];
    if (h[0] >> 4 != 6) {
        return FOUND_UNPARSED;
    }
    __builtin_memcpy(words, h + 8, 32);
    s->source.hi = bpf_be64_to_cpu(words[0]);
    s->source.lo = bpf_be64_to_cpu(words[1]);
    s->destination.hi = bpf_be64_to_cpu(words[2]);
    s->destination.lo = bpf_be64_to_cpu(words[3]);
    if (payload > 0 || h[6] != PROTO_HOPOPTS) {
        if (40 + payload > avail && !s->cut) {
            return h[6] == PROTO_TCP ? FOUND_MALFORMED : FOUND_UNPARSED;
        }
        if (40 + payload < avail) {
            s->end = s->at + 40 + payload;
        }
    }
    s->at += 40;
    s->next = h[6];
    return FOUND_CHAIN;
}

enum { CHAIN_END, CHAIN_HEADER };

/* Does a header stand here that leads on, or the end of the chain? */
always_inline int chain_has(const struct scan *s, __u32 next)
{
    switch (next) {
    case PROTO_AH:
        return CHAIN_HEADER;
    case PROTO_HOPOPTS:
    case PROTO_ROUTING:
    case PROTO_FRAGMENT:
    case PROTO_DSTOPTS:
    case PROTO_MOBILITY:
    case PROTO_HIP:
    case PROTO_SHIM6:
        return s->v6 ? CHAIN_HEADER : CHAIN_END;
    default:
        return CHAIN_END;
    }
}

/* From the header s->next at s->at on. */
read_once int scan_chain(struct context *ctx, struct scan *s)
{
    __u8 head[8];
    if (!s) {
        return FOUND_OTHER;
    }
    for (int i = 0; i <= HEADERS_MAX; i++) {
        __u32 next = s->next, rest = s->end - s->at;
        if (chain_has(s, next) == CHAIN_END) {
            return next == PROTO_TCP    ? FOUND_TCP
                   : next == PROTO_IPV4 ? FOUND_INNER4
                   : next == PROTO_IPV6 ? FOUND_INNER6
                                        : FOUND_OTHER;
        }
        if (i == HEADERS_MAX) {
            break;
        }
        if (s->at > s->end || rest < 8 || LOAD(ctx, s->at, head, sizeof(head)) < 0) {
            return s->cut ? FOUND_FIRST_FRAGMENT : FOUND_UNPARSED;
        }
        __u32 size = next == PROTO_FRAGMENT ? 8 : next == PROTO_AH ? (head[1] + 2) * 4 : (head[1] + 1) * 8;
        if (size > rest) {
            return s->cut ? FOUND_FIRST_FRAGMENT : FOUND_UNPARSED;
        }
        __u32 word = head[2] << 8 | head[3];
        if (next == PROTO_FRAGMENT && word >> 3) {
            return head[0] == PROTO_TCP && word >> 3 == 1 ? FOUND_OVERWRITE : FOUND_TAIL;
        }
        if (next == PROTO_FRAGMENT && (word & 1)) {
            s->cut = s->own_cut6 = s->fragment = 1;
        }
        if (next == PROTO_ROUTING && head[3]) {
            s->routed = 1;
        }
        s->at += size;
        s->next = head[0];
    }
    return FOUND_MALFORMED;
}

read_once int scan_tcp(struct context *ctx, struct scan *s)
{
    __u8 head[4], flags;
    if (!s) {
        return FOUND_OTHER;
    }
    __u32 rest = s->end - s->at;
    if (s->end < s->at || rest < 4 || LOAD(ctx, s->at, head, sizeof(head)) < 0) {
        return s->cut ? FOUND_FIRST_FRAGMENT : FOUND_MALFORMED;
    }
    if (s->own_cut6 && rest < 20) {
        return FOUND_FIRST_FRAGMENT;
    }
    s->source_port = head[0] << 8 | head[1];
    s->port = head[2] << 8 | head[3];
    s->flags = ~0U;
    if (rest >= 14 && LOAD(ctx, s->at + 13, &flags, 1) == 0) {
        s->flags = flags;
    }
    return FOUND_TCP;
}

/* --- the decision --- */

struct subject {
    struct address address;
    __u32 v6, listed, exempted, number;
    __u64 exemption;
    struct blob_class class_;
};

struct decision {
    __u32 verdict, would, reason;
};

/* All there is to know of one frame. */
struct judge {
    struct context *ctx;
    void *cells;
    struct blob_header h;
    struct scan s;
    struct subject subject;
    struct decision d;
    __u32 ether, ifindex;
};

/* Fills the subject's class unless an outer packet's was listed. 0, or -1: the policy does not read. */
no_inline int find_subject(struct judge *j)
{
    void *cells = j->cells;
    const struct blob_header *h = &j->h;
    const struct scan *s = &j->s;
    struct subject *to = &j->subject;
    if (to->listed) {
        return 0;
    }
    to->address = gate_uplink ? s->destination : s->source;
    to->v6 = s->v6;
    __u32 leaf = find(cells, s->v6 ? h->source6_at : h->source4_at, &to->address);
    to->number = BLOB_CLASS(leaf);
    to->exempted = 0;
    if (BLOB_EXEMPTION(leaf)) {
        const union blob_cell *e = cell(cells, h->exempt_at + BLOB_EXEMPTION(leaf));
        if (!e) {
            return -1;
        }
        to->exempted = e->exemption.until_ns > bpf_ktime_get_boot_ns();
        to->exemption = e->exemption.id;
    }
    to->listed = to->number || to->exempted;
    const union blob_cell *c = cell(cells, h->classes_at + to->number);
    if (!c) {
        return -1;
    }
    to->class_ = c->class_;
    return 0;
}

always_inline const struct address *far_end(const struct scan *s)
{
    return gate_uplink ? &s->source : &s->destination;
}

no_inline __u32 far_sets(struct judge *j)
{
    return find(j->cells, j->s.v6 ? j->h.dest6_at : j->h.dest4_at, far_end(&j->s));
}

always_inline void source_key(const struct address *a, __u32 v6, struct gate_source_key *key)
{
    __u64 hi = bpf_cpu_to_be64(a->hi);
    __builtin_memset(key, 0, sizeof(*key));
    if (v6) {
        __builtin_memcpy(key->address, &hi, 8);
    } else {
        key->address[10] = key->address[11] = 0xff;
        __builtin_memcpy(key->address + 12, &hi, 4);
    }
}

no_inline struct gate_source *source_of(const struct subject *subject)
{
    struct gate_source_key key;
    source_key(&subject->address, subject->v6, &key);
    struct gate_source *source = bpf_map_lookup_elem(&sources, &key);
    if (!source) {
        struct gate_source fresh = {};
        fresh.first_ns = bpf_ktime_get_boot_ns();
        bpf_map_update_elem(&sources, &key, &fresh, BPF_NOEXIST);
        source = bpf_map_lookup_elem(&sources, &key);
    }
    return source;
}

/* May one more pass? A generic cell rate: each costs interval, and the clock may be outrun by burst. */
always_inline int rate_take(__u64 *until_ns, __u64 interval_ns, __u64 burst_ns)
{
    __u64 now = bpf_ktime_get_boot_ns(), at = *until_ns > now ? *until_ns : now;
    if (at + interval_ns > now + burst_ns) {
        return 0;
    }
    *until_ns = at + interval_ns;
    return 1;
}

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

always_inline int is_syn(const struct scan *s)
{
    return s->flags == ~0U || (s->flags & 0x12) == 0x02;
}

no_inline int decide_subscriber(struct judge *j)
{
    const struct scan *s = &j->s;
    const struct subject *subject = &j->subject;
    struct decision *d = &j->d;
    __u32 rule = subject->class_.rule, sets;
    d->reason = named(subject);
    if (subject->exempted) {
        d->reason = REASON_EXEMPTION;
        return 0;
    }
    if (rule == BLOB_ALLOW) {
        return 0;
    }
    sets = s->routed ? 0 : far_sets(j);
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
    __u32 rule = subject->exempted ? BLOB_ALLOW : subject->class_.rule, sets = far_sets(j);
    int restricted = rule == BLOB_DENY || rule == BLOB_MONITOR;
    if (s->source_port == SMTP_PORT && (h->flags & BLOB_RETURN_PATH)) {
        if (subject->exempted) {
            d->reason = REASON_EXEMPTION;
        } else if (restricted && (sets & 1U << BLOB_SET_ALLOW_TO)) {
            d->reason = REASON_ALLOW_TO;
        } else if (restricted && subject->class_.set && !(sets >> (subject->class_.set & 31) & 1)) {
            d->reason = REASON_SCOPE;
        } else if (restricted) {
            d->reason = REASON_RETURN_PATH;
            d->would = POLICY_DROP;
            d->verdict = rule == BLOB_DENY ? POLICY_DROP : POLICY_PASS;
            return 0;
        } else {
            d->reason = named(subject);
        }
    }
    if (s->port == SMTP_PORT && (h->flags & BLOB_DYNAMIC) && (sets & 1U << BLOB_SET_DYNAMIC)) {
        d->reason = REASON_DYNAMIC;
        d->verdict = d->would = POLICY_REFUSE;
    } else if (s->port == SMTP_PORT && (h->flags & BLOB_INBOUND) && restricted) {
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

/* Reads packet and tunnels, as far as they go. */
no_inline int scan_all(struct judge *j, __u32 v6)
{
    struct scan *s = &j->s;
    int found = FOUND_OTHER;
    for (int i = 0; i < PACKETS_MAX; i++) {
        found = v6 ? scan6(j->ctx, s) : scan4(j->ctx, s);
        found = found == FOUND_CHAIN ? scan_chain(j->ctx, s) : found;
        found = found == FOUND_TCP ? scan_tcp(j->ctx, s) : found;
        if (found != FOUND_INNER4 && found != FOUND_INNER6) {
            return found;
        }
        if (i == PACKETS_MAX - 1 || !(j->h.flags & BLOB_TUNNELS) || !(far_sets(j) & 1U << BLOB_SET_TUNNELS) ||
            find_subject(j) < 0) {
            return FOUND_OTHER;
        }
        v6 = found == FOUND_INNER6;
    }
    return FOUND_OTHER;
}

no_inline int decide(struct judge *j, __u32 v6)
{
    struct decision *d = &j->d;
    int found = scan_all(j, v6);
    switch (found) {
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

/* --- what is remembered --- */

no_inline int count(const struct judge *j)
{
    const struct decision *d = &j->d;
    __u32 row = j->subject.class_.counter, reason = d->reason;
    struct gate_row *r = bpf_map_lookup_elem(&rows, &row);
    __u64 *n = bpf_map_lookup_elem(&reasons, &reason);
    if (r) {
        __u32 column = d->verdict == POLICY_REFUSE ? GATE_REFUSED
                       : d->verdict == POLICY_DROP ? GATE_DROPPED
                       : d->would == POLICY_REFUSE ? GATE_WOULD_REFUSE
                       : d->would == POLICY_DROP   ? GATE_WOULD_DROP
                                                   : GATE_PASSED;
        r->count[column]++;
    }
    if (n) {
        (*n)++;
    }
    return 0;
}

always_inline void note_address(const struct address *a, __u32 v6, __u8 *to)
{
    __u64 hi = bpf_cpu_to_be64(a->hi), lo = bpf_cpu_to_be64(a->lo);
    if (v6) {
        __builtin_memcpy(to, &hi, 8);
        __builtin_memcpy(to + 8, &lo, 8);
    } else {
        to[10] = to[11] = 0xff;
        __builtin_memcpy(to + 12, &hi, 4);
    }
}

no_inline int tell(const struct judge *j, struct gate_source *source)
{
    const struct blob_header *h = &j->h;
    const struct scan *s = &j->s;
    const struct subject *subject = &j->subject;
    const struct decision *d = &j->d;
    __u64 now = bpf_ktime_get_boot_ns();
    if (!h->events_per_second || now - source->event_ns < 1000000000ULL / h->events_per_second) {
        return 0;
    }
    source->event_ns = now;
    struct gate_event e = {.boot_ns = now,
                           .source_port = s->source_port,
                           .port = s->port,
                           .row = subject->class_.counter,
                           .verdict = d->verdict,
                           .would = d->would,
                           .reason = d->reason,
                           .uplink = gate_uplink,
                           .ifindex = j->ifindex,
                           .packets = source->packets};
    note_address(&subject->address, subject->v6, e.subject);
    note_address(far_end(s), s->v6, e.far);
    bpf_ringbuf_output(&events, &e, sizeof(e), 0);
    return 0;
}

no_inline int remember(const struct judge *j)
{
    const struct scan *s = &j->s;
    struct gate_source *source = source_of(&j->subject);
    if (!source) {
        return 0; /* the table is busy; verdicts do not ask it */
    }
    const struct address *far = far_end(s);
    __u32 hash = ((far->hi ^ far->lo * 0x9e3779b97f4a7c15ULL) * 0xff51afd7ed558ccdULL) >> 56;
    __sync_fetch_and_add(&source->packets, 1);
    if (s->port == SMTP_PORT && is_syn(s)) {
        __sync_fetch_and_add(&source->connections, 1);
    }
    __sync_fetch_and_or(&source->sketch[hash >> 6 & 3], 1ULL << (hash & 63));
    source->last_ns = bpf_ktime_get_boot_ns();
    source->row = j->subject.class_.counter;
    source->reason = j->d.reason;
    return tell(j, source);
}

always_inline void explain(const struct judge *j)
{
    __u32 zero = 0;
    struct gate_judgement *to = gate_explain ? bpf_map_lookup_elem(&judgement, &zero) : 0;
    if (to) {
        to->verdict = j->d.verdict;
        to->would = j->d.would;
        to->reason = j->d.reason;
        to->class_ = j->subject.number;
        to->exemption = j->subject.exempted ? j->subject.exemption : 0;
        to->runs++;
    }
}

/* --- the short way --- */

enum sight { SIGHT_PASS, SIGHT_LOOK };

/* The ports of a TCP segment at p. */
always_inline enum sight sight_ports(const __u8 *p, const void *data_end)
{
    if ((void *)(p + 4) > data_end) {
        return SIGHT_LOOK;
    }
    int smtp = (p[2] == 0 && p[3] == SMTP_PORT) || (gate_uplink && p[0] == 0 && p[1] == SMTP_PORT);
    return smtp ? SIGHT_LOOK : SIGHT_PASS;
}

always_inline enum sight sight4(const __u8 *p, const void *data_end)
{
    if ((void *)(p + 20) > data_end) {
        return SIGHT_LOOK;
    }
    if (p[9] != PROTO_TCP) {
        return p[9] == PROTO_AH || p[9] == PROTO_IPV4 || p[9] == PROTO_IPV6 ? SIGHT_LOOK : SIGHT_PASS;
    }
    __u32 total = p[2] << 8 | p[3];
    if (p[0] != 0x45 || (p[6] & 0x3f) || p[7] || total < 24 || (void *)(p + total) > data_end) {
        return SIGHT_LOOK;
    }
    return sight_ports(p + 20, data_end);
}

always_inline enum sight sight6(const __u8 *p, const void *data_end)
{
    if ((void *)(p + 40) > data_end) {
        return SIGHT_LOOK;
    }
    switch (p[6]) {
    case PROTO_TCP:
        break;
    case PROTO_HOPOPTS:
    case PROTO_ROUTING:
    case PROTO_FRAGMENT:
    case PROTO_DSTOPTS:
    case PROTO_AH:
    case PROTO_MOBILITY:
    case PROTO_HIP:
    case PROTO_SHIM6:
    case PROTO_IPV4:
    case PROTO_IPV6:
        return SIGHT_LOOK;
    default:
        return SIGHT_PASS;
    }
    __u32 payload = p[4] << 8 | p[5];
    if (p[0] >> 4 != 6 || payload < 4 || (void *)(p + 40 + payload) > data_end) {
        return SIGHT_LOOK;
    }
    return sight_ports(p + 40, data_end);
}

/* --- link --- */

always_inline int is_tag(__u32 type)
{
    return type == 0x8100 || type == 0x88a8 || type == 0x9100 || type == 0x9200 || type == 0x9300;
}

/* Finds the IP packet of an Ethernet frame: s->at, s->end. 4 or 6, or 0: none. */
read_once int scan_ether(struct context *ctx, struct scan *s)
{
    __u8 h[8];
    if (!s) {
        return 0;
    }
    if (s->end < 14 || LOAD(ctx, 12, h, 2) < 0) {
        return 0;
    }
    __u32 at = 14, type = h[0] << 8 | h[1];
    for (int i = 0; i < TAGS_MAX; i++) {
        if (!is_tag(type)) {
            break;
        }
        if (at + 4 > s->end || LOAD(ctx, at, h, 4) < 0) {
            return 0;
        }
        type = h[2] << 8 | h[3];
        at += 4;
    }
    s->at = at;
    if (type == ETHER_IPV4 || type == ETHER_IPV6) {
        return type == ETHER_IPV4 ? 4 : 6;
    }
    if (type != ETHER_PPPOE || at + 7 > s->end || LOAD(ctx, at, h, 7) < 0) {
        return 0;
    }
    __u32 len = h[4] << 8 | h[5], first = h[6], protocol = first, size = 1;
    at += 6;
    if (h[0] != 0x11 || h[1] != 0 || len < 1 || len > s->end - at) {
        return 0;
    }
    s->end = at + len;
    if (!(first & 1)) {
        __u8 second;
        if (len < 2 || LOAD(ctx, at + 1, &second, 1) < 0) {
            return 0;
        }
        protocol = first << 8 | second;
        size = 2;
    }
    s->at = at + size;
    return protocol == 0x21 ? 4 : protocol == 0x57 ? 6 : 0;
}

read_once int scan_bare(struct context *ctx, struct scan *s)
{
    __u8 first;
    if (!s) {
        return 0;
    }
    if (s->end < 1 || LOAD(ctx, 0, &first, 1) < 0) {
        return 0;
    }
    return first >> 4 == 4 ? 4 : first >> 4 == 6 ? 6 : 0;
}

/* The long way. The verdict. */
always_inline int judge(struct judge *j)
{
    __u32 zero = 0;
    int kind = j->ether ? scan_ether(j->ctx, &j->s) : scan_bare(j->ctx, &j->s);
    if (!kind) {
        explain(j);
        return POLICY_PASS;
    }
    j->cells = bpf_map_lookup_elem(&policy, &zero);
    if (!j->cells) {
        return POLICY_DROP; /* no policy: it was never loaded, and this never attached */
    }
    const union blob_cell *one = cell(j->cells, 0), *two = cell(j->cells, 1);
    if (!one || !two) {
        return POLICY_DROP;
    }
    __builtin_memcpy(&j->h, one, 32);
    __builtin_memcpy((char *)&j->h + 32, two, 32);
    if (decide(j, kind == 6) < 0) {
        return POLICY_DROP;
    }
    if (j->h.flags & BLOB_MODE_MONITOR) {
        j->d.verdict = POLICY_PASS;
    }
    if (j->d.reason != REASON_OTHER) {
        count(j);
    }
    if (j->d.would != POLICY_PASS) {
        remember(j);
    }
    explain(j);
    return j->d.verdict;
}

/* --- the programs --- */

/* Over the tags to the IP header, in place. */
always_inline enum sight sight_ether(const __u8 *p, const void *data_end)
{
    if ((void *)(p + 14) > data_end) {
        return SIGHT_PASS; /* no header, no packet */
    }
    __u32 type = p[12] << 8 | p[13];
    p += 14;
    for (int i = 0; i < TAGS_MAX; i++) {
        if (!is_tag(type)) {
            break;
        }
        if ((void *)(p + 4) > data_end) {
            return SIGHT_LOOK;
        }
        type = p[2] << 8 | p[3];
        p += 4;
    }
    return type == ETHER_IPV4    ? sight4(p, data_end)
           : type == ETHER_IPV6  ? sight6(p, data_end)
           : type == ETHER_PPPOE ? SIGHT_LOOK
                                 : SIGHT_PASS;
}

always_inline enum sight sight_bare(const __u8 *p, const void *data_end)
{
    if ((void *)(p + 1) > data_end) {
        return SIGHT_LOOK;
    }
    return p[0] >> 4 == 4 ? sight4(p, data_end) : p[0] >> 4 == 6 ? sight6(p, data_end) : SIGHT_PASS;
}

#ifdef GATE_TC
#define PASS       (-1) /* TC_ACT_UNSPEC: whoever else sits on the device has its say */
#define DROP       2    /* TC_ACT_SHOT */
#define LENGTH(c)  ((c)->len)
#define IFINDEX(c) ((c)->ifindex)
#define SECTION    SEC("tc")
#else
#define PASS       XDP_PASS
#define DROP       XDP_DROP
#define LENGTH(c)  bpf_xdp_get_buff_len(c)
#define IFINDEX(c) ((c)->ingress_ifindex)
#define SECTION    SEC("xdp.frags")
#endif

always_inline int run(struct context *ctx, __u32 ether)
{
    const __u8 *data = (void *)(long)ctx->data;
    const void *data_end = (void *)(long)ctx->data_end;
    if ((ether ? sight_ether(data, data_end) : sight_bare(data, data_end)) == SIGHT_PASS) {
        return PASS;
    }
    struct judge j = {.ctx = ctx, .ether = ether, .ifindex = IFINDEX(ctx)};
    j.s.end = LENGTH(ctx);
    return judge(&j) == POLICY_PASS ? PASS : DROP;
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
