/*
 * behaviour.h: what kind of sender a line looks like, from what the gate counted of it, and why.
 *
 * It is a judgement, not a proof: it looks at numbers only (how many connections, to how many places, how fast, at how
 * many hours), since the gate reads headers and keeps nothing else. Pure.
 */
#ifndef KIDOBAN_POLICY_BEHAVIOUR_H
#define KIDOBAN_POLICY_BEHAVIOUR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum behaviour_kind {
    BEHAVIOUR_UNCLEAR, /* too little, or it speaks for both */
    BEHAVIOUR_PROGRAM, /* a mail program, or a device, that hands its mail to one provider */
    BEHAVIOUR_SERVER,  /* a mail server that delivers to many by itself */
    BEHAVIOUR_BOT,     /* sends to everywhere as fast as it can */
    BEHAVIOUR_TARGET,  /* it began nothing: answers from elsewhere, or connections from outside, came towards it */
    BEHAVIOUR_KINDS
};

/* Each with the number that it is about (see behaviour_number()). */
enum behaviour_reason {
    BEHAVIOUR_LITTLE,      /* connections */
    BEHAVIOUR_ONE_NETWORK, /* destinations, all of one network or provider */
    BEHAVIOUR_FEW,         /* destinations */
    BEHAVIOUR_MANY,        /* destinations */
    BEHAVIOUR_FAST,        /* connections in the busiest minute */
    BEHAVIOUR_SLOW,        /* connections in the busiest minute */
    BEHAVIOUR_AGAIN,       /* connections for each destination, in tenths: it tries again, as mail servers do */
    BEHAVIOUR_ONCE,        /* the same: it hardly comes back */
    BEHAVIOUR_BURST,       /* hours with any connection, of which there were few */
    BEHAVIOUR_STEADY,      /* the same, many */
    BEHAVIOUR_TOWARDS,     /* packets that came towards it */
    BEHAVIOUR_REASONS
};
#define BEHAVIOUR_REASONS_MAX 6

struct behaviour {
    uint64_t packets, connections; /* connections: begun by the line */
    uint32_t destinations;         /* different ones */
    uint32_t networks;             /* that they are in; 1: all of one provider; 0: not known */
    uint32_t peak;                 /* connections in the busiest minute */
    uint32_t hours, days;          /* in which there was any; an hour of two days counts twice */
};

struct behaviour_judgement {
    enum behaviour_kind kind;
    struct {
        enum behaviour_reason reason;
        uint64_t number;
    } why[BEHAVIOUR_REASONS_MAX];
    size_t count;
};

void behaviour_judge(const struct behaviour *b, struct behaviour_judgement *ret);
const char *behaviour_kind_name(enum behaviour_kind kind);       /* "mail-program", for programs that read */
const char *behaviour_reason_name(enum behaviour_reason reason); /* "few-destinations" */

/* How many different far ends left their bits in a sketch of `bits` bits (linear counting): an estimate, some percent
 * off; when it is full: the most it can tell. */
uint32_t behaviour_estimate(const uint64_t *sketch, size_t bits);

#endif
