/*
 * gate_set.h: sets of prefixes that bench/gate measures with, drawn from a seed.
 */
#ifndef KIDOBAN_BENCH_GATE_SET_H
#define KIDOBAN_BENCH_GATE_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/policy.h"

enum gate_set {
    GATE_SET_HOSTS4, /* single addresses from all of IPv4 */
    GATE_SET_MIXED4, /* /20 to /32, half of them /32; some lie in others */
    GATE_SET_MIXED6, /* /56 and /64 from all of 2000::/3 */
    GATE_SETS
};

extern const char *const gate_set_names[GATE_SETS];

uint64_t gate_set_draw(uint64_t *seed);
/* count prefixes, as the configuration holds them; free(). NULL: no memory. */
struct net_prefix *gate_set_new(enum gate_set which, size_t count, uint64_t *seed);
/* A random address within. */
struct policy_address gate_set_address(const struct net_prefix *p, uint64_t *seed);

#endif
