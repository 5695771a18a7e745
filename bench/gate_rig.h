/* gate_rig.h: what gate_rig.bpf.c and gate_cost.c both know. */
#ifndef KIDOBAN_BENCH_GATE_RIG_H
#define KIDOBAN_BENCH_GATE_RIG_H

#include <linux/types.h>

#define RIG_SOURCES (1U << 20) /* a power of two */

struct rig_source {
    __u8 address[16]; /* IPv4: the first four */
};

struct rig_prefix {
    __u32 bits;
    __u8 address[16];
};

#endif
