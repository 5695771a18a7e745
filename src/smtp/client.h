/*
 * client.h: the SMTP (RFC 5321) and LMTP (RFC 2033) client as a pure engine: octets in, octets and results out.
 *
 * One struct smtp_client a connection, for any number of transactions. It owns the order of commands, pipelining, dots
 * and the reading of replies; it trusts its owner and nothing that is fed to it. No sockets, clocks, files, TLS.
 *
 * How to drive it:
 *
 *     c = smtp_client_new(&config);
 *     for octets read:          smtp_client_feed(c, octets, len)
 *     after every call into c:  while (out = smtp_client_output(c), out.len > 0) { write; smtp_client_written(c, n); }
 *     then look at              smtp_client_state(c):
 *         BUSY      read on; the clock is smtp_client_timeout_ms(smtp_client_phase(c))
 *         STARTTLS  when the output is written: handshake, then smtp_client_tls_started() or smtp_client_fail()
 *         READY     smtp_client_begin() a transaction, or smtp_client_quit(), or keep the connection for later
 *         OVER      close; smtp_client_failure() says why, if it was not after QUIT
 *     when the peer closes, an error or a time-out comes: smtp_client_fail(c, words)
 *
 * Results. Each recipient of a transaction that smtp_client_begin() took gets exactly one recipient() call, at the
 * latest when the state is READY or OVER again, or in smtp_client_free(). A failure before the first READY is this
 * host's and no recipient's: smtp_client_failure() tells it, and the owner tries the next host.
 *
 * Choices. A reply that breaks the protocol is a temporary failure and ends the connection. An 8-bit body is sent as
 * it is to a host that does not offer 8BITMIME, without BODY=: to convert it would break signatures, to bounce it
 * helps nobody, and hosts that mind are not met any more. A message that needs SMTPUTF8 is never sent without. AUTH
 * that fails is temporary whatever the code: the operator's setting is wrong, not the user's mail. A 552 to RCPT is a
 * 452 (RFC 5321 section 4.5.3.1.10).
 */
#ifndef KIDOBAN_SMTP_CLIENT_H
#define KIDOBAN_SMTP_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

struct smtp_client;

#define SMTP_CLIENT_TEXT_MAX 1000 /* octets of a remote's words that are kept */

enum smtp_client_tls {
    SMTP_CLIENT_TLS_NONE, /* never STARTTLS */
    SMTP_CLIENT_TLS_MAY,  /* STARTTLS when offered; clear text when it is not offered or refused */
    SMTP_CLIENT_TLS_MUST, /* no MAIL without TLS */
};

/* Strings are borrowed for the life of the client. */
struct smtp_client_config {
    const char *hostname; /* of EHLO or LHLO: fully qualified or an address literal */
    bool lmtp;
    enum smtp_client_tls tls;
    bool tls_active;      /* the connection is TLS from its first octet (465) */
    const char *user;     /* NULL: no AUTH. Else AUTH PLAIN or LOGIN, and no MAIL before it was taken */
    const char *password; /* never copied but into the output, which is wiped */
    bool auth_in_clear;   /* AUTH without TLS; default: never */
    bool no_pipelining;
};

enum smtp_client_state { SMTP_CLIENT_BUSY, SMTP_CLIENT_STARTTLS, SMTP_CLIENT_READY, SMTP_CLIENT_OVER };

/* Whose reply is waited for: which clock to set, and where a failure fell. */
enum smtp_client_phase {
    SMTP_CLIENT_GREETING,
    SMTP_CLIENT_HELLO, /* EHLO, HELO, LHLO */
    SMTP_CLIENT_TLS,   /* STARTTLS and the handshake */
    SMTP_CLIENT_AUTH,
    SMTP_CLIENT_IDLE, /* READY */
    SMTP_CLIENT_RSET,
    SMTP_CLIENT_MAIL,
    SMTP_CLIENT_RCPT,
    SMTP_CLIENT_DATA,
    SMTP_CLIENT_BODY, /* octets of the message are going out */
    SMTP_CLIENT_DOT,  /* after the end of data: what was sent may be delivered, whatever happens now (RFC 1047) */
    SMTP_CLIENT_QUIT,
    SMTP_CLIENT_PHASE_COUNT
};
const char *smtp_client_phase_name(enum smtp_client_phase phase); /* "RCPT", "end of data": for sentences */
uint32_t smtp_client_timeout_ms(enum smtp_client_phase phase);    /* RFC 5321 section 4.5.3.2 */

enum smtp_client_class { SMTP_CLIENT_DELIVERED = 1, SMTP_CLIENT_TEMPORARY, SMTP_CLIENT_PERMANENT };

struct smtp_client_result {
    enum smtp_client_class class;
    enum smtp_client_phase phase; /* where it was decided */
    uint16_t code;                /* the remote's, or 0: the words are ours */
    uint8_t enhanced[3];          /* the remote's if of the same class, else {class, 0, 0}; always set */
    struct span text;             /* printable ASCII, one line, without codes; valid during the call */
};

struct smtp_client_recipient {
    struct span address; /* local@domain as it goes between < and > */
    uint8_t notify; /* enum envelope_notify of wire/envelope.h (1 never, 2 success, 4 failure, 8 delay); 0: not said */
    struct span orcpt; /* addr-type;xtext as on the wire; may be empty */
};

enum smtp_client_ret { SMTP_CLIENT_RET_NONE, SMTP_CLIENT_RET_FULL, SMTP_CLIENT_RET_HDRS };

/* Borrowed, with all it points to, until every recipient has its result. */
struct smtp_client_transaction {
    struct span sender; /* empty: <> */
    uint64_t size;      /* octets of the message as body_next() will give them; 0: not known */
    bool body_8bit;
    bool smtputf8;
    enum smtp_client_ret ret;
    struct span envid; /* xtext as on the wire; may be empty */
    const struct smtp_client_recipient *recipients;
    size_t recipients_count; /* at least 1 */
    void *arg;
    /*
     * The next octets of the message, lines ended with CRLF, no bare CR or LF, dots as they are: 1 and *ret (not empty,
     * valid until the next call), 0 at the end, -errno: they cannot be had or are damaged, and the transaction is cut
     * off before the end of data, so that nothing torn is delivered. Called from smtp_client_output().
     */
    int (*body_next)(void *arg, struct span *ret);
    /* Once for each recipient, in any order. Must not call into the client. */
    void (*recipient)(void *arg, size_t index, const struct smtp_client_result *result);
};

enum smtp_client_capability {
    SMTP_CLIENT_CAP_EXTENDED = 1, /* EHLO or LHLO was taken */
    SMTP_CLIENT_CAP_PIPELINING = 2,
    SMTP_CLIENT_CAP_8BITMIME = 4,
    SMTP_CLIENT_CAP_SMTPUTF8 = 8,
    SMTP_CLIENT_CAP_DSN = 16, /* not offered: a success notification is ours to send, as "relayed" */
    SMTP_CLIENT_CAP_SIZE = 32,
    SMTP_CLIENT_CAP_STARTTLS = 64,
    SMTP_CLIENT_CAP_AUTH_PLAIN = 128,
    SMTP_CLIENT_CAP_AUTH_LOGIN = 256,
    SMTP_CLIENT_CAP_ENHANCED = 512,
    SMTP_CLIENT_CAP_CHUNKING = 1024,
    SMTP_CLIENT_CAP_REQUIRETLS = 2048,
};
struct smtp_client_capabilities {
    unsigned flags;          /* enum smtp_client_capability */
    uint64_t size_max;       /* 0: no limit told */
    uint32_t messages_max;   /* LIMITS MAILMAX (RFC 9422); 0: not told */
    uint32_t recipients_max; /* LIMITS RCPTMAX: the owner keeps to it */
};

struct smtp_client *smtp_client_new(const struct smtp_client_config *config); /* NULL: out of memory */
/* A transaction under way fails temporarily. *c becomes NULL. NULL is taken. */
void smtp_client_free(struct smtp_client **c);

/* Takes everything. Octets behind the 220 of STARTTLS are an attack and are dropped. */
void smtp_client_feed(struct smtp_client *c, const uint8_t *octets, size_t len);
/* What to write now; a view, valid until the next call into c. During a body it is a run of the body itself. */
struct span smtp_client_output(struct smtp_client *c);
void smtp_client_written(struct smtp_client *c, size_t len);

enum smtp_client_state smtp_client_state(const struct smtp_client *c);
enum smtp_client_phase smtp_client_phase(const struct smtp_client *c);
const struct smtp_client_capabilities *smtp_client_capabilities(const struct smtp_client *c);
bool smtp_client_tls_active(const struct smtp_client *c);
bool smtp_client_reusable(const struct smtp_client *c); /* READY, and another transaction would be welcome */

void smtp_client_tls_started(struct smtp_client *c); /* state STARTTLS only */
/* State READY only. 0; else nothing was begun: -EINVAL (not READY, no recipients, an octet in an address, ENVID or
 * ORCPT that would break a command), -ENOMEM. */
int smtp_client_begin(struct smtp_client *c, const struct smtp_client_transaction *transaction);
void smtp_client_quit(struct smtp_client *c); /* READY only, else it does nothing. OVER after 221 or fail() */
/* The connection is lost or given up. words: a sentence, borrowed until the call returns. No failure is recorded in
 * QUIT. */
void smtp_client_fail(struct smtp_client *c, const char *words);

/* Why it is OVER: of the session, or of its last transaction; NULL: nothing went wrong. Valid until the next call. */
const struct smtp_client_result *smtp_client_failure(const struct smtp_client *c);

#endif
