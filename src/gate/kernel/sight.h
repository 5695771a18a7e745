// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * sight.h: the short way: what is certainly not of TCP port 25, told in place and without a map.
 *
 * Headers must lie in the first part of a frame; what they announce may lie behind it, as the data of most frames from
 * a network card and of what GRO has joined does.
 */
#ifndef KIDOBAN_GATE_KERNEL_SIGHT_H
#define KIDOBAN_GATE_KERNEL_SIGHT_H

#include "gate/kernel/scan.h"

enum sight { SIGHT_PASS, SIGHT_LOOK };

/* Are there so many octets from p on? XDP asks the first part only: a frame of several is rare there, and to ask for
 * its length is a call. */
always_inline int is_whole(struct context *ctx, const __u8 *p, __u64 octets)
{
    if ((void *)(p + octets) <= (void *)(long)ctx->data_end) {
        return 1;
    }
#ifdef GATE_TC
    return (__u32)(p - (const __u8 *)(long)ctx->data) + octets <= ctx->len;
#else
    return 0;
#endif
}

/* The ports of a TCP segment at p. */
always_inline enum sight sight_ports(const __u8 *p, const void *data_end)
{
    if ((void *)(p + 4) > data_end) {
        return SIGHT_LOOK;
    }
    int smtp = (p[2] == 0 && p[3] == SMTP_PORT) || (gate_uplink && p[0] == 0 && p[1] == SMTP_PORT);
    return smtp ? SIGHT_LOOK : SIGHT_PASS;
}

always_inline enum sight sight4(struct context *ctx, const __u8 *p, const void *data_end)
{
    if ((void *)(p + 20) > data_end) {
        return SIGHT_LOOK;
    }
    if (p[9] != PROTO_TCP) {
        return p[9] == PROTO_AH || p[9] == PROTO_IPV4 || p[9] == PROTO_IPV6 ? SIGHT_LOOK : SIGHT_PASS;
    }
    __u64 total = seen_within(p[2] << 8 | p[3], 0xffff);
    if (p[0] != 0x45 || (p[6] & 0x3f) || p[7] || total < 24 || !is_whole(ctx, p, total)) {
        return SIGHT_LOOK;
    }
    return sight_ports(p + 20, data_end);
}

always_inline enum sight sight6(struct context *ctx, const __u8 *p, const void *data_end)
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
    __u64 payload = seen_within(p[4] << 8 | p[5], 0xffff);
    if (p[0] >> 4 != 6 || payload < 4 || !is_whole(ctx, p, 40 + payload)) {
        return SIGHT_LOOK;
    }
    return sight_ports(p + 40, data_end);
}

/* Over the tags to the IP header, in place. */
always_inline enum sight sight_ether(struct context *ctx, const __u8 *p, const void *data_end)
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
    return type == ETHER_IPV4    ? sight4(ctx, p, data_end)
           : type == ETHER_IPV6  ? sight6(ctx, p, data_end)
           : type == ETHER_PPPOE ? SIGHT_LOOK
                                 : SIGHT_PASS;
}

always_inline enum sight sight_bare(struct context *ctx, const __u8 *p, const void *data_end)
{
    if ((void *)(p + 1) > data_end) {
        return SIGHT_LOOK;
    }
    return p[0] >> 4 == 4 ? sight4(ctx, p, data_end) : p[0] >> 4 == 6 ? sight6(ctx, p, data_end) : SIGHT_PASS;
}

#endif
