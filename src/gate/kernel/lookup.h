// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* lookup.h: the compiled policy (policy/blob.h): longest prefixes, classes, exemptions. */
#ifndef KIDOBAN_GATE_KERNEL_LOOKUP_H
#define KIDOBAN_GATE_KERNEL_LOOKUP_H

#include "gate/kernel/frame.h"

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

#define BROKEN (1ULL << 32) /* a cell that is not there: the policy is none, and nothing is let through by it */

always_inline __u64 lane(void *cells, __u32 base, __u32 number)
{
    const union blob_cell *c = cell(cells, base + (number >> 3));
    return c ? c->lanes[number & 7] : BROKEN;
}

/* The answer for an address, without BLOB_LEAF; or BROKEN. */
no_inline __u64 find(void *cells, __u32 root, const struct address *a)
{
    __u64 hi = a->hi, lo = a->lo;
    __u64 entry = lane(cells, root, hi >> 48);
    __u32 bits = BLOB_ROOT_BITS;
    for (int i = 0; i < BLOB_STEPS_MAX && !(entry & (BLOB_LEAF | BROKEN)); i++) {
        hi = bits < 64 ? hi << bits | lo >> (64 - bits) : lo << (bits & 63);
        lo = bits < 64 ? lo << bits : 0;
        const union blob_cell *n = cell(cells, entry);
        if (!n) {
            return BROKEN;
        }
        bits = n->jump.bits;
        if (bits) {
            __u64 differ = hi ^ n->jump.hi, low = bits < 64 ? 0 : (lo ^ n->jump.lo) >> 1 >> (127 - bits);
            differ = bits < 64 ? differ >> (64 - bits) : differ | low;
            entry = differ ? n->jump.outside : n->jump.inside;
            continue;
        }
        bits = BLOB_STEP_BITS;
        __u64 bit = 1ULL << (hi >> 58);
        if (n->node.children & bit) {
            entry = n->node.child_base + bits_in(n->node.children & (bit - 1));
        } else {
            entry = n->node.leaf_base;
            entry = entry & BLOB_LEAF
                        ? entry
                        : lane(cells, 0, entry + bits_in(n->node.leaves & (bit | (bit - 1))) - 1) | BLOB_LEAF;
        }
    }
    return (entry & (BLOB_LEAF | BROKEN)) == BLOB_LEAF ? entry & ~BLOB_LEAF : BROKEN;
}

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
    __u64 leaf = find(cells, s->v6 ? h->source6_at : h->source4_at, &to->address);
    if (leaf == BROKEN) {
        return -1;
    }
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

no_inline __u64 far_sets(struct judge *j)
{
    return find(j->cells, j->s.v6 ? j->h.dest6_at : j->h.dest4_at, far_end(&j->s));
}

#endif
