/*
 * limits.h: all limits together: does this message pass, and if not, which limit says so and until when.
 *
 * All or nothing: a message that one limit defers or rejects is charged to none. A limit whose action is hold lets the
 * message in to be held; it is charged to the limits that have room. What a message was charged is remembered, for the
 * last LIMITS_REFUNDS messages, so that it can be given back when the message did not come to be; a message older
 * than that, or charged before a restart, stays charged.
 *
 * Only what submit takes in is asked about: our own notices (DSNs) are born in the spool and never come here.
 */
#ifndef KIDOBAN_GUARD_LIMITS_H
#define KIDOBAN_GUARD_LIMITS_H

#include "guard/gcra.h"
#include "guard/table.h"
#include "wire/guard.h"

#define LIMITS_MAX         32U
#define LIMITS_NAME_MAX    64U
#define LIMITS_REFUNDS     65536U
#define LIMITS_SUBJECT_MAX 300U

enum limit_subject {
    LIMIT_ACCOUNT, /* does not apply to a sender without one */
    LIMIT_NETWORK, /* the prefix that the client's address is in */
};
enum limit_unit { LIMIT_MESSAGES, LIMIT_RECIPIENTS };

struct limit {
    char name[LIMITS_NAME_MAX + 1]; /* unique; with the window it names the count: changing either starts at zero */
    enum limit_subject subject;
    enum limit_unit unit;
    uint8_t v4_bits, v6_bits; /* LIMIT_NETWORK: 1..32, 1..128 */
    uint64_t amount;
    uint64_t window_ms;
    enum guard_verdict action; /* GUARD_DEFER, GUARD_REJECT or GUARD_HOLD */
};

struct limits_moment {
    uint64_t table_ns; /* table_now() */
    uint64_t wall_ms;  /* the same moment, for the sentence */
};

struct limits_answer {
    enum guard_verdict verdict;
    const struct limit *limit; /* the one that spoke; NULL when the verdict is pass; valid until the next configure */
    char text[GUARD_TEXT_MAX]; /* for the client: the limit, its value, when it is free again, the help URL */
};

struct limits_usage {
    const struct limit *limit;
    char subject[LIMITS_SUBJECT_MAX];
    uint64_t used;
    uint64_t free_ms; /* wall clock: when nothing is used any more; 0 when nothing is */
};

struct limits;

struct limits *limits_new(struct table *table); /* borrowed; NULL: out of memory */
void limits_free(struct limits **l);
/* Copies. 0; -EINVAL: a limit that cannot be (the old ones stay; *ret_bad is its index); -E2BIG: over LIMITS_MAX. */
int limits_configure(struct limits *l, const struct limit *list, size_t count, const char *help_url, size_t *ret_bad);

/* A repeated id is charged again; the refund gives back the later charge. recipients 0 counts as one. */
void limits_check(struct limits *l, uint64_t message_id, const struct guard_check *q, struct limits_moment now,
                  struct limits_answer *ret);
/* true: something was given back. */
bool limits_refund(struct limits *l, uint64_t message_id, struct limits_moment now);
/* What an account has used now; address may be NULL: then account limits only. Returns how many of out are filled. */
size_t limits_usage(struct limits *l, struct span account, const struct net_address *address, struct limits_moment now,
                    struct limits_usage out[static LIMITS_MAX]);

#endif
