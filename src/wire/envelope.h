/* envelope.h: sender and recipients as submit gives them to spool, spool keeps them and deliver gets them. */
#ifndef KIDOBAN_WIRE_ENVELOPE_H
#define KIDOBAN_WIRE_ENVELOPE_H

#include "wire/address.h"
#include "wire/frame.h"

#define ENVELOPE_RECIPIENTS_MAX 1000
#define ENVELOPE_ADDRESS_MAX    1024 /* UTF-8 octets, without angle brackets */
#define ENVELOPE_ENVID_MAX      100  /* RFC 3461 section 4.4, as on the wire (xtext) */
#define ENVELOPE_ORCPT_MAX      512  /* RFC 3461 section 4.2, as on the wire (addr-type;xtext) */

enum envelope_flag {
    ENVELOPE_8BIT = 1,     /* BODY=8BITMIME, or 8-bit octets seen */
    ENVELOPE_SMTPUTF8 = 2, /* needs SMTPUTF8 at the next hop */
    ENVELOPE_RET_FULL = 4, /* RET=FULL */
    ENVELOPE_RET_HDRS = 8, /* RET=HDRS */
    ENVELOPE_HOLD = 16,    /* the guard wants it held */
    ENVELOPE_DSN = 32,     /* made by the spool itself */
};

enum envelope_notify { NOTIFY_NEVER = 1, NOTIFY_SUCCESS = 2, NOTIFY_FAILURE = 4, NOTIFY_DELAY = 8 }; /* 0: not given */

struct envelope_recipient {
    uint16_t number; /* its place in the message as first accepted; 0 first */
    uint8_t notify;  /* enum envelope_notify */
    struct span address;
    struct span orcpt; /* may be empty */
};

struct envelope {
    uint64_t session;    /* the session that brought it, 0 for our own */
    uint64_t arrived_ms; /* wall clock */
    uint16_t flags;      /* enum envelope_flag */
    struct net_address peer;
    struct span sender;     /* empty: null sender */
    struct span account;    /* empty: none */
    struct span envid;      /* may be empty */
    struct span message_id; /* header Message-ID without brackets, for the logs; may be empty */
    struct span hold_words; /* why it is held, with ENVELOPE_HOLD */
    uint16_t recipients_count;
    struct envelope_recipient *recipients; /* decode: the caller's array of ENVELOPE_RECIPIENTS_MAX */
};

void envelope_encode(struct wire_writer *w, const struct envelope *e);
/* Reads an envelope and leaves r after it; e->recipients must have room for ENVELOPE_RECIPIENTS_MAX. 0 or -EBADMSG. */
int envelope_decode(struct wire_reader *r, struct envelope *e);

#endif
