// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * answer.h: the refused packet turned into the answer to its sender, in place: a reset (RFC 9293 section 3.10.7.1) or
 * an ICMP error. Link, VLAN and PPPoE headers stay, with the addresses of Ethernet exchanged.
 *
 * An sk_buff may say that its TCP checksum is yet to be finished by the device (the field then holds the sum of the
 * pseudo-header), and will stay so: the answer's checksum must be right under the same rule.
 */
#ifndef KIDOBAN_GATE_KERNEL_ANSWER_H
#define KIDOBAN_GATE_KERNEL_ANSWER_H

#include "gate/kernel/frame.h"

#define ICMP4_MAX 576  /* RFC 1812 section 4.3.2.3 */
#define ICMP6_MAX 1280 /* RFC 4443 section 2.4 */
#define TTL       64

#ifdef GATE_TC
#define STORE(ctx, at, from, len) bpf_skb_store_bytes(ctx, (at)&LENGTH_MAX, from, len, BPF_F_INVALIDATE_HASH)
#define LENGTH(ctx)               ((ctx)->len)
always_inline int set_length(struct context *ctx, __u32 len)
{
    return bpf_skb_change_tail(ctx, len, 0);
}
/* Without Ethernet the kernel sends what begins at the IP header as it knows it: that one has to move along, too. */
always_inline int grow_head(struct context *ctx, __u32 link, __u32 len)
{
    return link ? bpf_skb_change_head(ctx, len, 0) : bpf_skb_adjust_room(ctx, (__s32)len, BPF_ADJ_ROOM_MAC, 0);
}
#else
#define STORE(ctx, at, from, len) bpf_xdp_store_bytes(ctx, (at)&LENGTH_MAX, from, len)
#define LENGTH(ctx)               bpf_xdp_get_buff_len(ctx)
always_inline int set_length(struct context *ctx, __u32 len)
{
    return bpf_xdp_adjust_tail(ctx, (int)len - (int)LENGTH(ctx));
}
always_inline int grow_head(struct context *ctx, __u32 link, __u32 len)
{
    (void)link;
    return bpf_xdp_adjust_head(ctx, -(int)len);
}
#endif

always_inline __u32 fold(__u64 sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16);
}

always_inline __u32 sum16(const __u8 *p, __u32 len)
{
    __u32 sum = 0;
    for (__u32 i = 0; i < len; i += 2) {
        sum += p[i] << 8 | p[i + 1];
    }
    return sum;
}

always_inline void put16(__u8 *p, __u32 v)
{
    p[0] = v >> 8;
    p[1] = v;
}

always_inline void put32(__u8 *p, __u32 v)
{
    put16(p, v >> 16);
    put16(p + 2, v);
}

always_inline __u32 get32(const __u8 *p)
{
    return (__u32)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
}

/* Both addresses and protocol and length, whichever way they stand. */
always_inline __u64 pseudo(const struct scan *s, __u32 protocol, __u32 len)
{
    __u64 sum = protocol + len;
    sum += (s->source.hi >> 32) + (s->source.hi & 0xffffffff) + (s->source.lo >> 32) + (s->source.lo & 0xffffffff);
    sum += (s->destination.hi >> 32) + (s->destination.hi & 0xffffffff) + (s->destination.lo >> 32) +
           (s->destination.lo & 0xffffffff);
    return sum;
}

always_inline void put_address(__u8 *p, const struct address *a)
{
    for (int i = 0; i < 8; i++) {
        p[i] = a->hi >> (56 - 8 * i);
        p[8 + i] = a->lo >> (56 - 8 * i);
    }
}

/* An IP header of ours, from the destination back to the source. Its length. h is 0 but for h[1], TOS. */
always_inline __u32 put_ip(const struct scan *s, __u8 h[40], __u32 protocol, __u32 payload)
{
    if (s->v6) {
        h[0] = 0x60;
        put16(h + 4, payload);
        h[6] = protocol;
        h[7] = TTL;
        put_address(h + 8, &s->destination);
        put_address(h + 24, &s->source);
        return 40;
    }
    h[0] = 0x45;
    put16(h + 2, 20 + payload);
    h[6] = 0x40; /* do not fragment; and the id may be 0 (RFC 6864) */
    h[8] = TTL;
    h[9] = protocol;
    put32(h + 12, s->destination.hi >> 32);
    put32(h + 16, s->source.hi >> 32);
    put16(h + 10, ~fold(sum16(h, 20)));
    return 20;
}

/* Only to one host, from one host. */
always_inline int may_answer(const struct scan *s)
{
    __u32 from = s->source.hi >> 32, to = s->destination.hi >> 32;
    if (s->fragment || s->depth || s->flags == ~0U || (s->flags & 0x04)) {
        return 0;
    }
    if (s->v6) {
        return from >> 24 != 0xff && to >> 24 != 0xff && (s->source.hi || s->source.lo);
    }
    return from >> 24 != 0 && from >> 24 != 127 && from >> 28 < 14 && to >> 28 < 14;
}

/* Exchanges Ethernet's addresses, tells PPPoE the new length. 0, or -1: it may not be answered. */
always_inline int turn_link(struct context *ctx, const struct scan *s, __u32 ether, __u32 ip_len)
{
    __u8 from[12], to[12], len[2];
    if (!ether) {
        return 0;
    }
    if (LOAD(ctx, 0, from, sizeof(from)) < 0 || (from[0] & 1) || (from[6] & 1)) {
        return -1;
    }
    __builtin_memcpy(to, from + 6, 6);
    __builtin_memcpy(to + 6, from, 6);
    if (STORE(ctx, 0, to, sizeof(to)) < 0) {
        return -1;
    }
    put16(len, s->ppp + ip_len);
    return s->ppp ? STORE(ctx, s->ip_at - s->ppp - 2, len, sizeof(len)) : 0;
}

#ifdef GATE_TC
/* Is the checksum yet to be finished? Then its field holds what the pseudo-header sums up to. */
always_inline int is_partial(const struct scan *s, const __u8 *tcp)
{
    return fold(pseudo(s, PROTO_TCP, s->end - s->at)) == ((__u32)tcp[16] << 8 | tcp[17]);
}
#else
always_inline int is_partial(const struct scan *s, const __u8 *tcp)
{
    (void)s;
    (void)tcp;
    return 0;
}
#endif

/* s->at: the TCP header. 1: the frame is the reset now. 0: silence. */
read_once int answer_reset(struct context *ctx, struct scan *s, __u32 ether)
{
    __u8 tcp[20], ip[40] = {}, out[20] = {};
    if (!s || !may_answer(s) || s->end - s->at < 20 || LOAD(ctx, s->at, tcp, sizeof(tcp)) < 0) {
        return 0;
    }
    __u32 offset = (tcp[12] >> 4) * 4, len = s->end - s->at, header = s->v6 ? 40 : 20, partial = is_partial(s, tcp);
    if (offset < 20 || offset > len || (partial && s->at != s->ip_at + header)) {
        return 0;
    }
    __builtin_memcpy(out, tcp + 2, 2);
    __builtin_memcpy(out + 2, tcp, 2);
    out[12] = 0x50;
    if (tcp[13] & 0x10) { /* ACK: its number is our sequence */
        __builtin_memcpy(out + 4, tcp + 8, 4);
        out[13] = 0x04;
    } else {
        __u32 counted = len - offset + !!(tcp[13] & 0x02) + !!(tcp[13] & 0x01);
        put32(out + 8, get32(tcp + 4) + counted);
        out[13] = 0x14;
    }
    __u64 sum = pseudo(s, PROTO_TCP, sizeof(out));
    put16(out + 16, partial ? fold(sum) : ~fold(sum + sum16(out, sizeof(out))));
    put_ip(s, ip, PROTO_TCP, sizeof(out));
    if (turn_link(ctx, s, ether, header + sizeof(out)) < 0 || set_length(ctx, s->ip_at + header + sizeof(out)) < 0) {
        return 0;
    }
    int r = s->v6 ? STORE(ctx, s->ip_at, ip, 40) : STORE(ctx, s->ip_at, ip, 20);
    return r == 0 && STORE(ctx, s->ip_at + header, out, sizeof(out)) == 0;
}

/* size, of 1 to most (a power of two): Linux before 6.8 learns nothing from a check that it is not 0. */
always_inline __u32 size_within(__u32 size, __u32 most)
{
    return seen_within(size - 1, most - 1) + 1;
}

/* The sum of what the error quotes: `at` from the front, len octets. ~0: it cannot be read. */
read_once __u32 sum_quote(struct context *ctx, __u32 at, __u32 len)
{
    __u64 sum = 0;
    for (__u32 done = 0; done < ICMP6_MAX; done += 32) {
        __u8 piece[32] = {};
        if (done >= len) {
            break;
        }
        __u32 n = size_within(len - done < sizeof(piece) ? len - done : sizeof(piece), sizeof(piece));
        if (LOAD(ctx, at + done, piece, n) < 0) {
            return ~0U;
        }
        sum += sum16(piece, sizeof(piece));
    }
    return fold(sum);
}

/* Cuts the frame to len octets, and makes room for so many behind the first `link` of them. What is in that room then
 * is anything. */
read_once int make_room(struct context *ctx, __u32 link, __u32 room, __u32 len)
{
    __u8 octets[40]; /* always as many: an IP and a TCP header are there, and what is behind the link header goes into
                        the room */
    if (room > 64 || (link > 0 && (link + room < sizeof(octets) || LOAD(ctx, 0, octets, sizeof(octets)) < 0)) ||
        set_length(ctx, len) < 0 || grow_head(ctx, link, room) < 0) {
        return -1;
    }
    return link > 0 && STORE(ctx, 0, octets, sizeof(octets)) < 0 ? -1 : 0;
}

/* 1: the frame is the ICMP error now. 0: silence. */
read_once int answer_prohibited(struct context *ctx, struct scan *s, __u32 ether)
{
    __u8 ip[40] = {}, icmp[8] = {}, tcp[20], tos;
    if (!s || !may_answer(s) || s->end - s->at < 20 || LOAD(ctx, s->at, tcp, sizeof(tcp)) < 0 ||
        LOAD(ctx, s->ip_at + 1, &tos, 1) < 0) {
        return 0;
    }
    ip[1] = s->v6 ? 0 : 0xc0 | (tos & 0x1c); /* RFC 1812 section 4.3.2.5 */
    __u32 header = s->v6 ? 40 : 20, room = (s->v6 ? ICMP6_MAX : ICMP4_MAX) - header - 8, quote = s->end - s->ip_at;
    __u32 at = s->ip_at, chain = s->at - s->ip_at;
    quote = quote < room ? quote : room;
    if (chain > quote) {
        return 0;
    }
    __u64 sum;
    if (is_partial(s, tcp)) {
        /* The device makes what begins with the TCP header sum up to the complement of what stands in the field. */
        __u32 head = sum_quote(ctx, at, chain);
        sum = head == ~0U ? ~0ULL : head + (__u64)(0xffff & ~(tcp[16] << 8 | tcp[17]));
    } else {
        __u32 all = sum_quote(ctx, at, quote);
        sum = all == ~0U ? ~0ULL : all;
    }
    if (sum == ~0ULL) {
        return 0;
    }
    icmp[0] = s->v6 ? 1 : 3;
    icmp[1] = s->v6 ? 1 : 13;
    sum += (__u32)icmp[0] << 8 | icmp[1];
    sum += s->v6 ? pseudo(s, PROTO_ICMPV6, quote + 8) : 0;
    put16(icmp + 2, ~fold(sum));
    put_ip(s, ip, s->v6 ? PROTO_ICMPV6 : PROTO_ICMP, quote + 8);
    if (turn_link(ctx, s, ether, header + 8 + quote) < 0) {
        return 0;
    }
    if (make_room(ctx, at, header + 8, at + quote) < 0) {
        return 0;
    }
    int r = s->v6 ? STORE(ctx, at, ip, 40) : STORE(ctx, at, ip, 20);
    return r == 0 && STORE(ctx, at + header, icmp, sizeof(icmp)) == 0;
}

#endif
