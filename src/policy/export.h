/*
 * export.h: the policy in the languages of other enforcers. Prefixes are flattened and joined so that no address's
 * class changes; what a language cannot say stands in the text as a comment that begins "not said:", and where saying
 * less would let the whole policy down, there is an error instead.
 *
 * Exemptions that have ended are left out; those with an end carry it where the language can.
 */
#ifndef KIDOBAN_POLICY_EXPORT_H
#define KIDOBAN_POLICY_EXPORT_H

#include "policy/policy.h"

struct export_input {
    const struct policy *policy;
    const struct config_strings *subscriber_interfaces, *uplink_interfaces; /* patterns */
    uint64_t now_boot_ns;
    uint64_t now_wall_ms;
    size_t budget; /* the most rules or entries; 0: the target's own limit */
};

struct export_target {
    const char *name; /* "nft" */
    size_t budget;    /* 0: none */
    int (*write)(const struct export_input *in, struct buf *out, size_t budget);
};

extern const struct export_target export_targets[]; /* ended by a NULL name */

/* Text to out, which has a maximum. 0, -ENOENT: there is no such target, -E2BIG: more rules than the budget, -EMSGSIZE,
 * -ENOMEM. */
int export_write(const char *target, const struct export_input *in, struct buf *out);

#endif
