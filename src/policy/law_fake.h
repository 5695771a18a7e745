/*
 * law_fake.h: docs/gate.md as a table: policies, frames in the words of frame_fake.h, and what is said of each. For the
 * reference and for the kernel's program alike.
 */
#ifndef KIDOBAN_POLICY_LAW_FAKE_H
#define KIDOBAN_POLICY_LAW_FAKE_H

#include "policy/frame_fake.h"

enum law_policy {
    LAW_PLAIN,     /* return_path: drop; the rest off */
    LAW_STRICT,    /* inbound: deny, dynamic_ranges */
    LAW_OPEN_BACK, /* return_path: allow */
    LAW_MONITOR,   /* mode: monitor, the rest as LAW_STRICT */
    LAW_DEFAULT_DENY,
    LAW_DEFAULT_MONITOR,
    LAW_NO_TUNNELS,
    LAW_POLICIES,
};

#define LAW_NOW_NS UINT64_C(1000000000) /* when rows are judged: an exemption of `lapsing` has just ended */

struct law_row {
    enum law_policy policy;
    char side;     /* 's' subscriber, 'u' uplink */
    char families; /* '4', '6', 'b' for both */
    const char *frame;
    const char
        *says; /* "refuse class", "pass other", "pass class (refuse)": the verdict, the reason, what it would be */
};

extern const struct law_row law_rows[];
extern const size_t law_rows_count;

/* A policy of the table; policy_free(). Fails the program where it cannot be made. */
struct policy *law_policy_new(enum law_policy which);

#endif
