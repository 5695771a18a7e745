/*
 * guard.h (wire): submit asks the guard once a transaction; the guard pushes suspensions to submit, vault and spool.
 * frame.id is the message's id for CHECK and REFUND. Decoders return 0 or -EBADMSG; spans are views into the payload.
 */
#ifndef KIDOBAN_WIRE_GUARD_H
#define KIDOBAN_WIRE_GUARD_H

#include "wire/address.h"
#include "wire/frame.h"

enum guard_type {
    GUARD_CHECK = 1, /* struct guard_check; answered by GUARD_ANSWER. A pass or hold is charged at once */
    GUARD_ANSWER,    /* struct guard_answer */
    GUARD_REFUND,    /* no payload: the message of that id did not come to be; no answer */
    GUARD_SUSPENDED, /* guard -> peers: struct guard_suspension; all of them again when a channel opens */
    GUARD_RESUMED,   /* guard -> peers: struct guard_suspension, words empty */
    GUARD_TOLD_ALL,  /* guard -> peers, no payload: that was all of them; who was not told may send */
};

#define GUARD_NAME_MAX 255
#define GUARD_TEXT_MAX 512

struct guard_check {
    uint64_t session;
    struct net_address peer;
    uint32_t recipients;
    uint64_t octets;     /* declared by SIZE=, or 0 */
    struct span account; /* empty: a network that relays without AUTH */
    struct span network; /* name of that network, else empty */
    struct span sender;  /* envelope sender, may be empty */
};

enum guard_verdict { GUARD_PASS = 1, GUARD_DEFER, GUARD_REJECT, GUARD_HOLD };

struct guard_answer {
    uint8_t verdict;
    struct span limit; /* name of the limit that spoke, else empty */
    struct span text;  /* sentence for the client, without code: limit, its value, when it is free again */
};

struct guard_suspension {
    struct span account;
    struct span words; /* the operator's reason */
};

void guard_check_encode(struct wire_writer *w, const struct guard_check *m);
int guard_check_decode(struct span payload, struct guard_check *m);
void guard_answer_encode(struct wire_writer *w, const struct guard_answer *m);
int guard_answer_decode(struct span payload, struct guard_answer *m);
void guard_suspension_encode(struct wire_writer *w, const struct guard_suspension *m);
int guard_suspension_decode(struct span payload, struct guard_suspension *m);

#endif
