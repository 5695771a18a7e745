/*
 * items.h: the prefixes of a policy in the order in which an inner one comes after the outer ones that it overrules,
 * for those that flatten it: compile.c, ranges.c. The reference knows nothing of this.
 */
#ifndef KIDOBAN_POLICY_ITEMS_H
#define KIDOBAN_POLICY_ITEMS_H

#include "policy/policy.h"

/* An address, its first bit the uppermost; IPv4 fills the upper 32. */
typedef unsigned __int128 policy_key;
#define POLICY_KEY_BITS 128U

enum policy_item_kind { ITEM_CLASS, ITEM_EXEMPTION, ITEM_SET };

struct policy_item {
    policy_key key;
    uint8_t bits;
    uint8_t kind;   /* enum policy_item_kind */
    uint32_t value; /* number of a class, index of an exemption + 1, or a set */
};

/* Room for the most that one of the two below gives; free(). NULL: no memory. */
struct policy_item *policy_items_room(const struct policy *p);
/* Sorted. numbers: what stands for each of the policy's classes. They return how many there are. */
size_t policy_items_of_sources(const struct policy *p, bool v6, const uint16_t *numbers, struct policy_item *items);
size_t policy_items_of_destinations(const struct policy *p, bool v6, struct policy_item *items);

/* The leaf (policy/blob.h) beneath one more item: a class, an exemption over it, the last to end; or a set more. */
uint32_t policy_item_under(const struct policy *p, uint32_t leaf, const struct policy_item *i);

#endif
