// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* frame.h: what the parts of the gate in the kernel share: maps, constants, and all that is known of one frame. */
#ifndef KIDOBAN_GATE_KERNEL_FRAME_H
#define KIDOBAN_GATE_KERNEL_FRAME_H

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
#define PROTO_ICMP     1
#define PROTO_IPV4     4
#define PROTO_TCP      6
#define PROTO_IPV6     41
#define PROTO_ROUTING  43
#define PROTO_FRAGMENT 44
#define PROTO_ICMPV6   58
#define PROTO_AH       51
#define PROTO_DSTOPTS  60
#define PROTO_MOBILITY 135
#define PROTO_HIP      139
#define PROTO_SHIM6    140

#ifdef GATE_TC
#define context    __sk_buff
#define load_bytes bpf_skb_load_bytes
#define IFINDEX(c) ((c)->ifindex)
#else
#define context    xdp_md
#define load_bytes bpf_xdp_load_bytes
#define IFINDEX(c) ((c)->ingress_ifindex)
#endif

/* A function of the world, not of this file: the verifier reads it once for all who call it, and knows nothing of what
 * its arguments point to, which keeps its own work small. */
#define read_once     __attribute__((noinline))
#define always_inline static __attribute__((always_inline)) inline
#define no_inline     static __attribute__((noinline))

/* Set before the program is loaded. */
const volatile __u32 gate_uplink = 0;  /* judges the uplink side */
const volatile __u32 gate_egress = 0;  /* TC: sits where packets leave, so that an answer turns back inwards */
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
    FOUND_CHAIN,  /* so far so good: its chain is to be read */
    FOUND_BROKEN, /* the policy does not read */
};

struct scan {
    __u32 at, end;                  /* the packet that is read: from here, until here */
    __u32 next;                     /* the protocol that follows */
    __u32 cut;                      /* octets may be missing at the end */
    __u32 own_cut6;                 /* cut by a fragment header of its own */
    __u32 fragment;                 /* it, or one around it, is a fragment */
    __u32 routed;                   /* source-routed */
    __u32 v6;                       /* of the packet read last */
    __u32 depth;                    /* of tunnels */
    __u32 ip_at, ppp;               /* where the outermost packet begins; octets of the PPP protocol before it */
    __u32 source_port, port, flags; /* flags: of TCP, or ~0: not there */
    struct address source, destination;
};

/* For the verifier: it wants to see that an offset is small. Lengths were checked. */
#define LOAD(ctx, at, to, len) load_bytes(ctx, (at)&LENGTH_MAX, to, len)

/* v & mask, and the verifier sees that: the compiler drops a mask that it can prove to be of no use, and the verifier
 * of an older Linux may not have seen what the compiler did. */
always_inline __u64 seen_within(__u64 v, __u64 mask)
{
    __asm__ volatile("" : "+r"(v));
    return v & mask;
}

struct subject {
    struct address address;
    __u8 v6, listed, exempted;
    __u32 number;
    __u64 exemption;
    struct blob_class class_;
};

struct decision {
    __u32 verdict, would, reason;
};

/* All there is to know of one frame. It is the largest of what stands on the stack, which has 512 octets for all calls,
 * in steps of 32 before Linux 6.7. */
struct judge {
    struct context *ctx;
    void *cells;
    struct blob_header h;
    struct scan s;
    struct subject subject;
    struct decision d;
};

#endif
