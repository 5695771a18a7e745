// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* memory.h: what the gate remembers of what it saw: counters, sources, events. No verdict depends on it but a rate. */
#ifndef KIDOBAN_GATE_KERNEL_MEMORY_H
#define KIDOBAN_GATE_KERNEL_MEMORY_H

#include "gate/kernel/lookup.h"

always_inline int is_syn(const struct scan *s)
{
    return s->flags == ~0U || (s->flags & 0x12) == 0x02;
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
                           .ifindex = IFINDEX(j->ctx),
                           .packets = source->packets};
    note_address(&subject->address, subject->v6, e.subject);
    note_address(far_end(s), s->v6, e.far);
    bpf_ringbuf_output(&events, &e, sizeof(e), 0);
    return 0;
}

/* 1: an answer to it is on time. */
no_inline int remember(const struct judge *j)
{
    const struct scan *s = &j->s;
    struct gate_source *source = source_of(&j->subject);
    if (!source) {
        return 0; /* the table is busy; verdicts do not ask it */
    }
    const struct address *far = far_end(s);
    __u32 bit = gate_sketch_bit(far->hi, far->lo);
    __sync_fetch_and_add(&source->packets, 1);
    if (!gate_uplink && s->port == SMTP_PORT && is_syn(s)) {
        __sync_fetch_and_add(&source->connections, 1);
    }
    if (!gate_uplink) {
        __sync_fetch_and_or(&source->sketch[bit >> 6 & 3], 1ULL << (bit & 63));
    }
    source->last_ns = bpf_ktime_get_boot_ns();
    source->row = j->subject.class_.counter;
    source->reason = j->d.reason;
    source->verdict = j->d.verdict;
    source->would = j->d.would;
    source->uplink = gate_uplink;
    tell(j, source);
    __u64 apart = j->h.resets_per_second ? 1000000000ULL / j->h.resets_per_second : 0;
    return apart && j->d.verdict == POLICY_REFUSE && rate_take(&source->answer_ns, apart, 1000000000ULL);
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

#endif
