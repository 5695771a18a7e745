// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* scan.h: the long way through a frame, header by header, by the law (docs/gate.md). */
#ifndef KIDOBAN_GATE_KERNEL_SCAN_H
#define KIDOBAN_GATE_KERNEL_SCAN_H

#include "gate/kernel/frame.h"

#define OPTIONS_MAX 40

always_inline int is_tag(__u32 type)
{
    return type == 0x8100 || type == 0x88a8 || type == 0x9100 || type == 0x9200 || type == 0x9300;
}

/* Is there an option that routes, or one that does not parse? Sets s->routed. */
read_once int scan_options(struct context *ctx, struct scan *s, __u32 len)
{
    __u8 options[OPTIONS_MAX + 4] = {}; /* 4: one may look behind the last */
    if (!s || len > OPTIONS_MAX) {
        return -1;
    }
    /* Four octets at a time: the length is a multiple of it, and a constant is what the verifier wants. */
    for (__u32 i = 0; i < OPTIONS_MAX; i += 4) {
        if (i < len && LOAD(ctx, s->at + 20 + i, options + i, 4) < 0) {
            return -1;
        }
    }
    s->next = 0;
    for (__u32 i = 0; i < OPTIONS_MAX; i++) {
        __u32 at = s->next;
        if (at >= len || at >= OPTIONS_MAX || options[at] == 0) {
            return 0;
        }
        __u32 type = options[at], size = options[at + 1];
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

/* Reads the header s->next at s->at: FOUND_CHAIN and s is at the next one, or where the chain ended. */
read_once int scan_header(struct context *ctx, struct scan *s)
{
    __u8 head[8];
    if (!s) {
        return FOUND_OTHER;
    }
    __u32 next = s->next, rest = s->end - s->at;
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
    return FOUND_CHAIN;
}

/* From the header s->next at s->at on. */
read_once int scan_chain(struct context *ctx, struct scan *s)
{
    if (!s) {
        return FOUND_OTHER;
    }
    for (int i = 0; i <= HEADERS_MAX; i++) {
        __u32 next = s->next;
        if (chain_has(s, next) == CHAIN_END) {
            return next == PROTO_TCP    ? FOUND_TCP
                   : next == PROTO_IPV4 ? FOUND_INNER4
                   : next == PROTO_IPV6 ? FOUND_INNER6
                                        : FOUND_OTHER;
        }
        int found = i < HEADERS_MAX ? scan_header(ctx, s) : FOUND_MALFORMED;
        if (found != FOUND_CHAIN) {
            return found;
        }
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
    s->ppp = size;
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

#endif
