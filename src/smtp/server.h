/*
 * server.h: the SMTP submission server (RFC 6409, RFC 5321) as a pure engine: octets in, replies and events out.
 *
 * What it is. One struct smtp_server a connection. It owns syntax, order, pipelining, line ends, dots, SASL wire syntax
 * and the limits of the protocol; it asks its owner (ops) for every judgement. No sockets, clocks, files, randomness.
 * It trusts its owner and nothing that is fed to it.
 *
 * How to drive it:
 *
 *     s = smtp_server_new(&config, &ops, arg, &start);
 *     (implicit TLS: handshake first, then smtp_server_tls_started(s, &tls);)
 *     smtp_server_greet(s);
 *     for octets read:        taken = smtp_server_feed(s, octets, len);   keep what was not taken
 *     after every call into s: out = smtp_server_output(s); write; smtp_server_written(s, n);
 *                              if (smtp_server_wants_close(s)) close when everything is written
 *     after smtp_server_*_result, _go, _refuse, _resume, _tls_started, _written: feed what was not taken again
 *
 * Asking and answering. An asynchronous question (auth_*, data_begin, body_end, and body when it says pause) stops the
 * engine: smtp_server_feed() takes nothing until the answer. The answer may be given inside the callback or any time
 * later. Inside a callback an answer makes no other callback; given later it may make abort(), body(), body_end(),
 * transaction_end() and event() before it returns. After smtp_server_close() no answer is wanted, and one that comes
 * all the same is dropped.
 *
 * Memory. An idle session is the structure (see smtp_server_size) and nothing else: a line that is not complete, a SASL
 * exchange and replies not yet written are on the heap while they last. Nothing grows with the number of commands,
 * recipients or chunks. When memory runs out the session ends with 421 4.3.0.
 *
 * A message's life: mail() and rcpt() say yes; data_begin() asks; after smtp_server_data_go() body() brings its octets
 * in large runs, lines ended with CRLF and dots undone; then exactly one of
 *     body_end()  it is whole: smtp_server_message_result() is its reply
 *     abort()     it will not come to be (fault in it, RSET, EHLO, disconnect, close)
 * After body_end() there is no abort(): when the client goes away before the result, the message stands or falls with
 * the owner alone. abort() is also called when a transaction that has seen data_begin() ends before its first octet;
 * never for a transaction that has not seen data_begin() (transaction_end() tells of those too).
 */
#ifndef KIDOBAN_SMTP_SERVER_H
#define KIDOBAN_SMTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "smtp/address.h"

struct smtp_server;

enum smtp_server_tls_mode {
    SMTP_SERVER_STARTTLS, /* 587: EHLO offers STARTTLS; AUTH and MAIL want it first */
    SMTP_SERVER_IMPLICIT, /* 465: TLS from the first octet (RFC 8314) */
    SMTP_SERVER_CLEAR,    /* no TLS at all: AUTH is never offered. For networks that relay without AUTH, and tests */
};

/* Bits of smtp_server_config.mechanisms; one of them names the mechanism of an exchange. */
enum smtp_mechanism {
    SMTP_MECHANISM_PLAIN = 1,
    SMTP_MECHANISM_LOGIN = 2,
    SMTP_MECHANISM_SCRAM_SHA_1 = 4,
    SMTP_MECHANISM_SCRAM_SHA_1_PLUS = 8,
    SMTP_MECHANISM_SCRAM_SHA_256 = 16,
    SMTP_MECHANISM_SCRAM_SHA_256_PLUS = 32,
    SMTP_MECHANISM_EXTERNAL = 64, /* offered only when the TLS client showed a certificate */
};
const char *smtp_mechanism_name(enum smtp_mechanism mechanism); /* "SCRAM-SHA-256-PLUS"; "" for none */

struct smtp_server_limits {
    uint64_t size_max;          /* octets of a message, CRLFs counted, dots undone (RFC 1870); never 0 */
    uint32_t recipients_max;    /* a transaction */
    uint32_t messages_max;      /* a session; 0: no limit */
    uint32_t command_line_max;  /* octets with CRLF; RFC 5321 4.5.3.1.4 plus extensions: 2048 */
    uint32_t auth_line_max;     /* octets with CRLF; RFC 4954 section 4.5: 12288 */
    uint32_t text_line_max;     /* octets without CRLF; RFC 5321 4.5.3.1.6: 998; 0: no limit */
    uint32_t header_max;        /* octets before the first empty line */
    uint32_t commands_max;      /* since the session began or its last accepted message; 421 after */
    uint32_t bad_commands_max;  /* a session: unknown, malformed or out of order; 421 after */
    uint32_t auth_failures_max; /* a session; 421 after */
    uint32_t bdat_small;        /* a chunk of fewer octets that is not LAST is small */
    uint32_t bdat_small_max;    /* small chunks a message; 421 after */
};
/* The values above with size_max 50 MiB, recipients_max 1000 and the rest as the manual says. */
extern const struct smtp_server_limits smtp_server_limits_default;

/* Borrowed and immutable while any session made from it lives. */
struct smtp_server_config {
    const char *hostname; /* a fully qualified name, ASCII */
    const char *greeting; /* words behind the name in 220; NULL: "ESMTP Kidoban" */
    const char *help_url; /* ends every refusal; NULL: none */
    enum smtp_server_tls_mode tls;
    unsigned mechanisms; /* enum smtp_mechanism */
    bool require_auth;   /* MAIL wants AUTH: 530 5.7.0 */
    bool repair_bare_lf; /* a bare LF in a message becomes CRLF, except where a line is a lone dot */
    bool smtputf8;       /* RFC 6531 offered */
    struct smtp_server_limits limits;
};

/* What differs between connections of one listener. */
struct smtp_server_start {
    uint64_t session;   /* id of the session, written behind refusals; 0: none */
    bool may_relay;     /* the network may relay without AUTH: overrides require_auth, and the need for STARTTLS */
    uint8_t random[18]; /* from the owner's generator: the server's SCRAM nonce is made from it */
};

struct smtp_server_tls {
    bool client_certificate; /* the client showed one that the owner verified: EXTERNAL can be offered */
    bool binding;            /* channel_binding() can give at least one type: -PLUS can be offered */
};

/* Channel binding types (RFC 5929, RFC 9266). */
enum smtp_binding { SMTP_BINDING_TLS_EXPORTER, SMTP_BINDING_TLS_SERVER_END_POINT, SMTP_BINDING_TLS_UNIQUE };
#define SMTP_BINDING_MAX 64

/*
 * A reply. code 0 accepts with the engine's own words. Else code is 2xx, 4xx or 5xx as the place allows, enhanced[0] is
 * code / 100 (a mistake there is mended: X.0.0), text one or more words; octets that are not printable ASCII become
 * '?'. The engine adds the help URL and the session's id to 4xx and 5xx. 421 closes the session behind it.
 */
struct smtp_decision {
    uint16_t code;
    uint8_t enhanced[3];
    struct span text; /* valid until the call that takes it returns */
};
#define SMTP_ACCEPT ((struct smtp_decision){0})

enum smtp_ret { SMTP_RET_NONE, SMTP_RET_FULL, SMTP_RET_HDRS };

/* MAIL FROM. Every span is a view, valid during the callback. */
struct smtp_mail {
    struct smtp_path sender; /* sender.null for <> */
    uint64_t size;           /* SIZE=; 0: not said. Never over size_max */
    bool body_8bit;          /* BODY=8BITMIME */
    bool smtputf8;           /* SMTPUTF8 */
    enum smtp_ret ret;       /* RET= (RFC 3461 section 4.3) */
    struct span envid;       /* ENVID=, xtext as on the wire, checked; empty: none */
    struct span auth;        /* AUTH= (RFC 4954 section 5), xtext as on the wire, checked; empty: none or <> */
};

/* RCPT TO. Views, valid during the callback. */
struct smtp_rcpt {
    struct smtp_path recipient; /* local "postmaster" and an empty domain for <postmaster> */
    uint8_t notify;             /* enum envelope_notify of wire/envelope.h; 0: not said */
    struct span orcpt;          /* addr-type;xtext as on the wire, checked; empty: none */
};

struct smtp_data_begin {
    uint64_t size;       /* SIZE= of MAIL, or of a BDAT LAST that comes first; 0: not known */
    uint32_t recipients; /* accepted ones */
};

struct smtp_body_end {
    uint64_t octets; /* in all body() calls */
    bool has_8bit;   /* an octet over 0x7f, or BODY=8BITMIME was said */
    bool smtputf8;
    bool bdat;
    uint32_t repaired_lf; /* bare LFs that became CRLF */
};

/* PLAIN and LOGIN. The password is wiped when the callback returns. Neither was prepared (RFC 4013): the verifier does.
 */
struct smtp_auth_password {
    enum smtp_mechanism mechanism;
    struct span name;     /* 1..255 octets of UTF-8, no NUL. An authorisation identity, when given, was the same */
    struct span password; /* 1..1024 octets, no NUL */
};

/* SCRAM (RFC 5802, RFC 7677), first half: the owner answers with smtp_server_auth_salt(). */
struct smtp_auth_salt {
    enum smtp_mechanism mechanism;
    struct span name; /* 1..255 octets, "=2C" and "=3D" undone */
};

/* SCRAM, second half. Nonce, channel binding and syntax are already good; only the proof is left to judge. */
struct smtp_auth_proof {
    enum smtp_mechanism mechanism;
    struct span name;
    struct span auth_message; /* RFC 5802 section 3 */
    struct span proof;        /* ClientProof, 20 or 32 octets */
};

enum smtp_auth_verdict {
    SMTP_AUTH_OK = 1,
    SMTP_AUTH_BAD_CREDENTIALS, /* 535 5.7.8 */
    SMTP_AUTH_SUSPENDED,       /* 535 5.7.8 with the text */
    SMTP_AUTH_UNAVAILABLE,     /* 454 4.7.0: nothing wrong with the client; its program must not drop the password */
};

/* Why the owner is told something: counters and the log. Never carries text from the client. */
enum smtp_event {
    SMTP_EVENT_COMMAND_UNKNOWN,
    SMTP_EVENT_COMMAND_SYNTAX,
    SMTP_EVENT_COMMAND_ORDER,    /* 503 */
    SMTP_EVENT_COMMAND_LINE_MAX, /* limit command_line_max or auth_line_max */
    SMTP_EVENT_COMMAND_OCTETS,   /* bare CR, bare LF or NUL in a command */
    SMTP_EVENT_COMMANDS_MAX,     /* limits of the same name from here ... */
    SMTP_EVENT_BAD_COMMANDS_MAX,
    SMTP_EVENT_AUTH_FAILURES_MAX,
    SMTP_EVENT_MESSAGES_MAX,
    SMTP_EVENT_RECIPIENTS_MAX,
    SMTP_EVENT_SIZE_MAX,
    SMTP_EVENT_HEADER_MAX,
    SMTP_EVENT_TEXT_LINE_MAX,
    SMTP_EVENT_BDAT_SMALL_MAX, /* ... to here */
    SMTP_EVENT_BARE_CR,        /* in a message */
    SMTP_EVENT_BARE_LF,
    SMTP_EVENT_NUL,
    SMTP_EVENT_SMUGGLING, /* a lone dot between line ends that are not both CRLF (CVE-2023-51764) */
    SMTP_EVENT_BARE_LF_REPAIRED,
    SMTP_EVENT_STARTTLS_PIPELINED,
    SMTP_EVENT_DATA_PIPELINED, /* octets stood behind a DATA that was refused */
    SMTP_EVENT_TLS_REQUIRED,   /* AUTH or MAIL in clear text */
    SMTP_EVENT_AUTH_REQUIRED,
    SMTP_EVENT_AUTH_MALFORMED, /* base64 or mechanism syntax */
    SMTP_EVENT_AUTH_CANCELLED, /* by "*" */
    SMTP_EVENT_AUTH_BINDING,   /* channel binding missing, wrong, or downgraded */
    SMTP_EVENT_AUTH_AUTHZID,   /* wanted to act as another account */
    SMTP_EVENT_MEMORY,
    SMTP_EVENT_COUNT
};
const char *smtp_event_name(enum smtp_event event); /* "smtp-bare-lf" */

enum smtp_body_verdict {
    SMTP_BODY_MORE,
    SMTP_BODY_PAUSE, /* these octets were taken; no more until smtp_server_resume() */
};

/* None may be NULL except channel_binding (no -PLUS then) and greeted. None may free the session. */
struct smtp_server_ops {
    void (*event)(void *arg, enum smtp_event event);
    /* HELO or EHLO was accepted; name: a view, printable ASCII or UTF-8 as the client wrote it, at most 255 octets. */
    void (*greeted)(void *arg, struct span name, bool extended);

    /* 220 stands in the output: write it, run the handshake, then smtp_server_tls_started(). Octets that came before
     * the handshake must have been fed; the engine ends the session if there were any behind STARTTLS. */
    void (*starttls)(void *arg);
    /* Writes the binding's octets and returns their number, 0: this connection cannot give that type. */
    size_t (*channel_binding)(void *arg, enum smtp_binding type, uint8_t octets[static SMTP_BINDING_MAX]);

    /* Answered by smtp_server_auth_result(), or _salt() where said. */
    void (*auth_password)(void *arg, const struct smtp_auth_password *question);
    void (*auth_salt)(void *arg, const struct smtp_auth_salt *question);
    void (*auth_proof)(void *arg, const struct smtp_auth_proof *question);
    void (*auth_external)(void *arg, struct span authzid); /* may be empty */

    struct smtp_decision (*mail)(void *arg, const struct smtp_mail *mail);
    struct smtp_decision (*rcpt)(void *arg, const struct smtp_rcpt *rcpt);
    /* Answered by smtp_server_data_go() or smtp_server_data_refuse(). Called once a message, before 354 or the first
     * chunk. */
    void (*data_begin)(void *arg, const struct smtp_data_begin *begin);
    enum smtp_body_verdict (*body)(void *arg, struct span octets); /* never empty */
    void (*body_end)(void *arg, const struct smtp_body_end *end);  /* answered by smtp_server_message_result() */
    void (*abort)(void *arg); /* the message since data_begin() is void; see the head of this file */
    /* The transaction is over, by whatever end: forget sender and recipients. Called once for each mail() that was
     * accepted, after abort() or the message's result. */
    void (*transaction_end)(void *arg);
};

/* NULL: out of memory. */
struct smtp_server *smtp_server_new(const struct smtp_server_config *config, const struct smtp_server_ops *ops,
                                    void *arg, const struct smtp_server_start *start);
/* A message under way is aborted, a transaction ended: those callbacks are made. *s becomes NULL. NULL is taken. */
void smtp_server_free(struct smtp_server **s);
size_t smtp_server_size(void); /* octets of an idle session */

void smtp_server_greet(struct smtp_server *s); /* 220; once, before the first feed */
/* How many octets were taken; 0..len. Fewer than len: a question is open, the output is full, or the session is over.
 */
size_t smtp_server_feed(struct smtp_server *s, const uint8_t *octets, size_t len);

struct span smtp_server_output(const struct smtp_server *s); /* replies to write; valid until the next call into s */
void smtp_server_written(struct smtp_server *s,
                         size_t len); /* so many of them left; the memory is given back when none is left */
bool smtp_server_wants_close(const struct smtp_server *s); /* write the output, then close */
/* True while the engine cannot take input: a question is open (the client owes nothing: stop its clock). */
bool smtp_server_waiting(const struct smtp_server *s);
bool smtp_server_in_message(
    const struct smtp_server *s); /* between 354 (or BDAT) and the end of data: which clock to set */
bool smtp_server_in_transaction(const struct smtp_server *s);
bool smtp_server_authenticated(const struct smtp_server *s);
bool smtp_server_extended(const struct smtp_server *s); /* EHLO, not HELO: "with ESMTP..." */

/* The handshake is done. Everything before it is forgotten (RFC 3207 section 4.2): the client must say EHLO again. */
void smtp_server_tls_started(struct smtp_server *s, const struct smtp_server_tls *tls);

/* text: the sentence for the client, may be empty; server_signature: only for a proof that was good. */
void smtp_server_auth_result(struct smtp_server *s, enum smtp_auth_verdict verdict, struct span text,
                             struct span server_signature);
/* salt: octets, 1..64; iterations > 0. verdict other than SMTP_AUTH_OK: the exchange ends with it. */
void smtp_server_auth_salt(struct smtp_server *s, enum smtp_auth_verdict verdict, struct span salt,
                           uint32_t iterations);

void smtp_server_data_go(struct smtp_server *s);
void smtp_server_data_refuse(struct smtp_server *s,
                             const struct smtp_decision *refusal); /* 4xx or 5xx; abort() is not called */
void smtp_server_resume(struct smtp_server *s);
/* The owner cannot take the message after all (between data_go and body_end): the rest is read and dropped, then this
 * is the reply. No further callback for this message but transaction_end(). */
void smtp_server_message_refuse(struct smtp_server *s, const struct smtp_decision *refusal);
/* The reply to the whole message, after body_end(): 250 (or code 0) or a refusal. */
void smtp_server_message_result(struct smtp_server *s, const struct smtp_decision *result);

/* Ends the session from outside at any time: time-out, shutdown, suspension (421 4.x.x), or in place of the greeting
 * (554 5.x.x). Aborts what is under way. The reply is dropped when the client is in the middle of a TLS handshake. */
void smtp_server_close(struct smtp_server *s, const struct smtp_decision *reply);

#endif
