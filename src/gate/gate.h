/*
 * gate.h: what the program in the kernel (gate.bpf.c) and user space both know. Freestanding.
 */
#ifndef KIDOBAN_GATE_GATE_H
#define KIDOBAN_GATE_GATE_H

#include <linux/types.h>

#define GATE_SOURCES_MAX 262144 /* remembered one by one; the least recent make room, verdicts never ask here */
#define GATE_ROWS_MAX    4096   /* counters: a row a class, kept over reloads */
#define GATE_EVENTS_SIZE (1U << 20)
#define GATE_SKETCH_BITS 256

/* Columns of a row. */
enum gate_column { GATE_PASSED, GATE_REFUSED, GATE_DROPPED, GATE_WOULD_REFUSE, GATE_WOULD_DROP, GATE_COLUMNS };

struct gate_row {
    __u64 count[GATE_COLUMNS];
};

/* An IPv4 address as ::ffff:a.b.c.d; of IPv6 the /64. */
struct gate_source_key {
    __u8 address[16];
};

struct gate_source {
    __u64 first_ns, last_ns;             /* boot clock */
    __u64 packets;                       /* refused, dropped, or would have been; either side */
    __u64 connections;                   /* that the line began: SYNs of the subscriber side among them */
    __u64 event_ns;                      /* of the last event */
    __u64 answer_ns;                     /* GCRA: when answers to it are on time again */
    __u64 rate_ns;                       /* GCRA: of new connections, for classes with a rate */
    __u64 sketch[GATE_SKETCH_BITS / 64]; /* linear counting of the far ends it began to */
    __u32 row;                           /* this and the next: of the last packet */
    __u8 reason, verdict, would, uplink;
};

/* Which bit of a sketch a far end is: its address as two numbers in host order, IPv4 in the upper half of hi. */
static inline __u32 gate_sketch_bit(__u64 hi, __u64 lo)
{
    return ((hi ^ lo * 0x9e3779b97f4a7c15ULL) * 0xff51afd7ed558ccdULL) >> 56;
}

struct gate_event {
    __u64 boot_ns;
    __u8 subject[16], far[16];
    __u16 source_port, port; /* host order; 0: not known */
    __u32 row;
    __u8 verdict, would, reason, uplink;
    __u32 ifindex;
    __u64 packets; /* of this source so far */
};

/* What the judge said last on this processor; written only where gate_explain is set. */
struct gate_judgement {
    __u32 verdict, would, reason, class_;
    __u64 exemption;
    __u32 runs, unused; /* counts up, so that a run that took the short way can be told */
};

#endif
