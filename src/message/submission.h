/*
 * submission.h: what a submission server does to a header section (RFC 6409 section 8), and when it refuses one.
 *
 * Puts Received in front (RFC 5321 section 4.4; keywords of RFC 3848 and RFC 6531), leaves out Bcc and Resent-Bcc, adds
 * Date and Message-ID behind the last field when they are missing. Every other octet stays as and where it was, so
 * the user's own DKIM signature stays good. Checks that every mailbox in From and in Sender is an identity.
 *
 * A message that is sent again (RFC 5322 section 3.6.6) is no exception: From is what the receiver is shown, and a
 * Resent-From that would excuse a foreign one could be put into any message. So a foreign message is refused, with the
 * advice to forward it; and the latest Resent-From and Resent-Sender must be identities too. Older blocks belong to
 * those who wrote them.
 *
 * The message's form (a line that is no field, 8-bit octets without SMTPUTF8, a loop) is always refused. What has to
 * do with authorship (a foreign, missing, doubled or unreadable From or Sender,
 * a foreign or unreadable Resent-From or Resent-Sender) is refused when enforce is set and
 * otherwise only reported.
 */
#ifndef KIDOBAN_MESSAGE_SUBMISSION_H
#define KIDOBAN_MESSAGE_SUBMISSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "message/address.h"

#define MESSAGE_RECEIVED_MAX     100  /* RFC 5321 section 6.3: more is a loop */
#define MESSAGE_SUBMISSION_ADDED 2048 /* the most that prepare adds to a header section */
#define MESSAGE_REFUSAL_TEXT_MAX 1024
#define MESSAGE_ID_TEXT_MAX      255

/* The facts of the session. Everything is borrowed until the call returns. */
struct message_submission {
    struct span hostname;       /* ours */
    uint64_t id;                /* the message's: in Received, and in the Message-ID that is minted */
    struct span client_name;    /* of EHLO, as the client wrote it: may be anything */
    struct span client_address; /* "192.0.2.1", "2001:db8::1" */
    bool hide_client;           /* no "from" in Received */
    struct span tls;            /* "TLSv1.3 TLS_AES_256_GCM_SHA384"; empty: clear text */
    bool extended;              /* EHLO, not HELO */
    bool authenticated;
    bool smtputf8;      /* MAIL said SMTPUTF8 */
    int64_t now;        /* Unix time, seconds */
    int utc_offset_min; /* minutes east of UTC, for the dates written */
    const struct span *identities;
    size_t identities_count;
    bool check_identities; /* false: a network that relays without AUTH; From need not be anybody's */
    bool enforce;          /* false: report */
    bool plus_addressing;
};

struct message_submission_result {
    uint16_t code; /* 0: prepared; else the refusal */
    uint8_t enhanced[3];
    char text[MESSAGE_REFUSAL_TEXT_MAX + 1];  /* why; with code 0 and reported: what would have been refused */
    bool reported;                            /* mode report: something about the author was wrong */
    char address[MESSAGE_ADDRESS_MAX + 1];    /* the mailbox that is no identity; may be empty */
    char message_id[MESSAGE_ID_TEXT_MAX + 1]; /* found or minted, without brackets, printable */
};

/*
 * header: the whole section with its empty line, or a message that is nothing but header. The new section is appended
 * to out, with the empty line if there was one. 0, or -EMSGSIZE, -ENOMEM as buf_append(); with a refusal nothing is
 * appended.
 */
int message_submission_prepare(struct span header, const struct message_submission *m, struct buf *out,
                               struct message_submission_result *ret);

#endif
