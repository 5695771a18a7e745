// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * gate_rig.bpf.c: what bench/gate measures the gate with: a program that does nothing, one that gives each run another
 * source before it goes on to the program under test, and one that asks a longest-prefix trie of the kernel's own.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "gate_rig.h"

const volatile __u32 rig_v6 = 0;

__u32 rig_turn;

struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} rig_next SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, RIG_SOURCES);
    __type(key, __u32);
    __type(value, struct rig_source);
} rig_sources SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, RIG_SOURCES);
    __type(key, struct rig_prefix);
    __type(value, __u32);
} rig_trie SEC(".maps");

SEC("xdp.frags") int rig_empty(struct xdp_md *ctx)
{
    (void)ctx;
    return XDP_PASS;
}

/* The frames have 14 octets of Ethernet and no tags. */
SEC("xdp.frags") int rig_feed(struct xdp_md *ctx)
{
    __u8 *data = (void *)(long)ctx->data;
    void *data_end = (void *)(long)ctx->data_end;
    __u32 turn = rig_turn++ & (RIG_SOURCES - 1);
    const struct rig_source *source = bpf_map_lookup_elem(&rig_sources, &turn);
    if (!source || (void *)(data + 54) > data_end) {
        return XDP_ABORTED;
    }
    if (rig_v6) {
        __builtin_memcpy(data + 22, source->address, 16);
    } else {
        __builtin_memcpy(data + 26, source->address, 4);
    }
    bpf_tail_call(ctx, &rig_next, 0);
    return XDP_ABORTED;
}

/* The least that a filter with such a trie does: IPv4 or IPv6 without options, TCP, the port, the source. */
SEC("xdp.frags") int rig_lpm(struct xdp_md *ctx)
{
    const __u8 *data = (void *)(long)ctx->data;
    const void *data_end = (void *)(long)ctx->data_end;
    __u32 header = rig_v6 ? 40 : 20;
    struct rig_prefix key = {.bits = rig_v6 ? 128 : 32};
    if ((void *)(data + 14 + header + 4) > data_end || data[14 + (rig_v6 ? 6 : 9)] != 6 || data[14 + header + 2] != 0 ||
        data[14 + header + 3] != 25) {
        return XDP_PASS;
    }
    if (rig_v6) {
        __builtin_memcpy(key.address, data + 22, 16);
    } else {
        __builtin_memcpy(key.address, data + 26, 4);
    }
    return bpf_map_lookup_elem(&rig_trie, &key) ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
