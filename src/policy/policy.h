/*
 * policy.h: who may use TCP port 25, why, until when: the operator's configuration and the exemptions in one structure,
 * as they were written. evaluate.h judges packets by it, compile.h makes the kernel's form of it, and the exports read
 * it. Once made it does not change.
 */
#ifndef KIDOBAN_POLICY_POLICY_H
#define KIDOBAN_POLICY_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/config.h"
#include "policy/blob.h"

/* The families never meet, so an address is not an address without its family. */
struct policy_address {
    uint8_t bytes[16]; /* network order; IPv4: the first four, the rest 0 */
    bool v6;
};

struct policy_prefix {
    uint8_t bytes[16]; /* as policy_address; 0 behind the length */
    bool v6;
    uint8_t bits; /* of its own family: 0..32 or 0..128 */
};

#define POLICY_ADDRESS_TEXT 46
#define POLICY_PREFIX_TEXT  50

bool policy_prefix_contains(const struct policy_prefix *p, const struct policy_address *a);
struct policy_prefix policy_prefix_of(const struct net_prefix *p);
void policy_prefix_format(const struct policy_prefix *p, char text[static POLICY_PREFIX_TEXT]); /* "192.0.2.0/24" */
void policy_address_format(const struct policy_address *a, char text[static POLICY_ADDRESS_TEXT]);
int policy_address_parse(const char *text, struct policy_address *ret); /* 0 or -EINVAL */

struct policy_class {
    char *name; /* of class 0: "default" */
    enum blob_rule rule;
    /* BLOB_RATE, by GCRA: each subject has a time `tat`, at first 0. A new connection is within the rate when
     * max(tat, now) + interval - now <= burst; then, and only then, tat becomes max(tat, now) + interval. */
    uint64_t interval_ns, burst_ns;
    uint32_t rate;           /* as written: so many... */
    uint64_t rate_window_ms; /* ...in so long */
    unsigned set;            /* 0: every destination; else only those of this set (from BLOB_SET_SCOPES) */
};

struct policy_source {
    struct policy_prefix prefix;
    uint16_t class_;
};

struct policy_destination {
    struct policy_prefix prefix;
    uint8_t set;
};

#define POLICY_NO_END UINT64_MAX

struct policy_exemption {
    struct policy_prefix prefix;
    uint64_t until_ns;      /* on the boot clock (CLOCK_BOOTTIME); POLICY_NO_END: without end */
    uint64_t until_wall_ms; /* the same time for people; 0 without end */
    uint64_t id;            /* the keeper's, never 0, never used twice */
    char *reason, *by;      /* or NULL */
};

struct policy {
    uint32_t flags; /* enum blob_flag */
    enum blob_refuse_with refuse_with;
    uint32_t events_per_second, resets_per_second;
    struct policy_class *classes; /* 0: the default; the others in the file's order */
    size_t classes_count;
    struct policy_source *sources; /* a prefix may be there twice, in one class */
    size_t sources_count;
    struct policy_destination *destinations;
    size_t destinations_count;
    struct policy_exemption *exemptions;
    size_t exemptions_count;
};

/* gate: with the prefixes of its files (config_gate_read_files()). exemptions: copied, words too; those that have ended
 * may be among them. 0 and *ret, -ENOMEM, or -E2BIG: more than BLOB_EXEMPTIONS_MAX exemptions. */
int policy_new(const struct config_gate *gate, const struct policy_exemption *exemptions, size_t count,
               struct policy **ret);
void policy_free(struct policy **p);

/* "pass", "refuse", "drop"; "first-fragment", "allow-to", ... */
const char *policy_verdict_name(enum policy_verdict verdict);
const char *policy_reason_name(enum policy_reason reason);
const char *policy_rule_name(enum blob_rule rule); /* "allow", "deny", "monitor", "rate" */

#endif
