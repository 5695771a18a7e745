/*
 * dsn.h: delivery status notifications (RFC 3461, RFC 3464, RFC 6522, RFC 6533), as a message ready to be queued with
 * the null sender. Whether one is owed (NOTIFY, null sender, DSN for a DSN) is the caller's judgement.
 *
 * Words of remote servers are hostile: they are clipped, made printable, folded, and can start neither a field nor a
 * part. The boundary is chosen so that it does not occur in what is returned. Lines end with CRLF.
 */
#ifndef KIDOBAN_MESSAGE_DSN_H
#define KIDOBAN_MESSAGE_DSN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

#define MESSAGE_DSN_DIAGNOSTIC_MAX 1024 /* octets of a remote's words that are quoted */
#define MESSAGE_DSN_LISTED_MAX     100  /* recipients named in the part for people; the other part has all */

enum message_dsn_action {
    MESSAGE_DSN_FAILED,
    MESSAGE_DSN_DELAYED,
    MESSAGE_DSN_DELIVERED, /* by LMTP: final */
    MESSAGE_DSN_RELAYED,   /* to a host that does not speak DSN, or that took the duty (RFC 3461 section 5.2.2) */
    MESSAGE_DSN_EXPANDED,
    MESSAGE_DSN_ACTION_COUNT
};

struct message_dsn_recipient {
    struct span address; /* final recipient, as it was tried */
    struct span orcpt;   /* addr-type;xtext as on the wire; may be empty */
    enum message_dsn_action action;
    uint8_t status[3];        /* enhanced code; {0}: made from action and code */
    struct span remote;       /* host name of the next hop; may be empty */
    uint16_t code;            /* the remote's; 0: the words are ours */
    struct span diagnostic;   /* the words, without code; may be empty */
    int64_t last_attempt;     /* Unix seconds; 0: never tried */
    int64_t will_retry_until; /* Unix seconds; 0: will not */
};

/* Everything is borrowed until the call returns. */
struct message_dsn {
    struct span hostname; /* ours: Reporting-MTA, and MAILER-DAEMON's domain when from_domain is empty */
    struct span from_domain;
    struct span help_url; /* may be empty */
    uint64_t id;          /* of the notification: its Message-ID, its boundary */
    uint64_t original_id; /* of the message it is about; 0: not said */
    int64_t now;          /* Unix seconds */
    int utc_offset_min;   /* minutes east of UTC */
    struct span sender;   /* of the original envelope: whom it goes to; never empty */
    struct span envid;    /* xtext as on the wire; may be empty */
    int64_t arrived;      /* Unix seconds */
    bool smtputf8;        /* the original needed SMTPUTF8 */
    struct span message;  /* octets of the original from its first one, at least its header section; may be empty */
    bool message_full;    /* they are all of it, and are returned whole (RET=FULL); else its header section is */
    const struct message_dsn_recipient *recipients;
    size_t recipients_count; /* at least 1 */
};

struct message_dsn_result {
    bool has_8bit; /* wants BODY=8BITMIME */
    bool smtputf8; /* wants SMTPUTF8: the sender's address does */
};

/* Appends the message to out. 0, or -EMSGSIZE or -ENOMEM with out as it was. A caller that gets -EMSGSIZE with
 * message_full tries again without. */
int message_dsn_compose(const struct message_dsn *dsn, struct buf *out, struct message_dsn_result *ret);

#endif
