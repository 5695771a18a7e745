/*
 * ranges.h: the policy flattened: every address of a family once, in order, with the leaf (policy/blob.h) that holds
 * for it. From there to lists of prefixes for machines that look up the longest match, and for those that cannot.
 */
#ifndef KIDOBAN_POLICY_RANGES_H
#define KIDOBAN_POLICY_RANGES_H

#include "policy/items.h"

struct policy_range {
    policy_key first, last; /* both within */
    uint32_t leaf; /* sources: class in policy->classes, index of an exemption + 1; destinations: bits of sets */
};

struct policy_ranges {
    struct policy_range *list; /* from the first address of the family to the last, without a gap */
    size_t count;
    bool v6;
};

/* 0 or -ENOMEM. */
int policy_ranges_of_sources(const struct policy *p, bool v6, struct policy_ranges *ret);
int policy_ranges_of_destinations(const struct policy *p, bool v6, struct policy_ranges *ret);
void policy_ranges_fini(struct policy_ranges *r);

/* Gives each leaf what `map` makes of it, and joins neighbours that have become the same. */
void policy_ranges_map(struct policy_ranges *r, uint32_t (*map)(const void *arg, uint32_t leaf), const void *arg);

typedef void policy_prefix_seen(void *arg, const struct policy_prefix *prefix, uint32_t leaf);
/* The fewest prefixes that cover first to last, and nothing else. */
void policy_range_prefixes(policy_key first, policy_key last, bool v6, uint32_t leaf, policy_prefix_seen *seen,
                           void *arg);
/* The fewest prefixes that give each address its leaf by the longest match, where no prefix gives 0 (Draves and others,
 * INFOCOM 1999). Leaves are below 8. */
void policy_ranges_longest_match(const struct policy_ranges *r, policy_prefix_seen *seen, void *arg);

#endif
