/*
 * gcra.h: the arithmetic of a limit, "amount in window_ns", as the generic cell rate algorithm. Pure; 64-bit
 * nanoseconds.
 *
 * All that a subject has used is one number, tat: the time at which its account is clear again. From idle exactly
 * `amount` units pass, however they are grouped; after that one unit comes free every interval_ns. A burst of the whole
 * amount followed by what has come free meanwhile is what the limit means: up to twice the amount, less one, may fall
 * into one window, never more.
 */
#ifndef KIDOBAN_GUARD_GCRA_H
#define KIDOBAN_GUARD_GCRA_H

#include <stdbool.h>
#include <stdint.h>

#define GCRA_AMOUNT_MAX    UINT64_C(1000000000)
#define GCRA_WINDOW_MAX_NS (UINT64_C(400) * 86400 * 1000000000) /* 400 days */

struct gcra {
    uint64_t amount;
    uint64_t interval_ns; /* window / amount, rounded up: never faster than was asked */
};

struct gcra_answer {
    bool allowed;
    bool never;          /* more at once than the limit has: it will not pass later either */
    uint64_t tat_ns;     /* to be stored when the units are charged */
    uint64_t free_at_ns; /* when not allowed and not never: the first time at which it would be */
};

/* 0 or -EINVAL: amount 0 or over the maximum, window 0 or over the maximum. */
int gcra_init(struct gcra *g, uint64_t amount, uint64_t window_ns);
/* Would cost units pass at now? Charges nothing: the caller stores tat_ns if it wants to. */
struct gcra_answer gcra_try(const struct gcra *g, uint64_t tat_ns, uint64_t now_ns, uint64_t cost);
uint64_t gcra_refund(const struct gcra *g, uint64_t tat_ns, uint64_t cost);
uint64_t gcra_used(const struct gcra *g, uint64_t tat_ns, uint64_t now_ns); /* units, rounded up; 0..amount */
/* A stored tat as it counts now: never further ahead than a full limit, and, when it was stored under another interval
 * (the operator changed the limit), the same number of units used. */
uint64_t gcra_adopt(const struct gcra *g, uint64_t tat_ns, uint64_t interval_ns, uint64_t now_ns);

#endif
