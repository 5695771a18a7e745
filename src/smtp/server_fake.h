/*
 * server_fake.h: an owner of a server session for tests and the fuzz target. Accounts: "user" with "pass" is right;
 * "gone" is suspended; "down" cannot be checked; all others are wrong. A sender or recipient whose local part begins
 * with "no" is refused 550, with "later" 450. Everything is answered at once, or by fake_answer() when `later` is set.
 */
#ifndef KIDOBAN_SMTP_SERVER_FAKE_H
#define KIDOBAN_SMTP_SERVER_FAKE_H

#include "smtp/server.h"

#define FAKE_BINDING "0123456789abcdef0123456789abcdef"

enum fake_question { FAKE_NONE, FAKE_PASSWORD, FAKE_SALT, FAKE_PROOF, FAKE_EXTERNAL, FAKE_BEGIN, FAKE_END, FAKE_BODY };

struct fake {
    struct smtp_server_config config;
    struct smtp_server_ops ops;
    struct smtp_server_start start;
    struct smtp_server *s;
    /* how it behaves */
    bool later;
    bool refuse_begin, refuse_result; /* 450 */
    unsigned pause_every;             /* body() pauses at each n-th call; 0: never */
    uint64_t refuse_after;            /* octets of body after which the owner gives up; 0: never */
    bool certificate, no_binding;
    unsigned close_at; /* it closes the session within its n-th callback of any kind; 0: never */
    /* what it saw */
    struct buf out;     /* every reply octet */
    struct buf body;    /* of the message under way */
    struct buf message; /* the last whole message */
    struct buf senders; /* "sender>recipient;" */
    struct smtp_body_end end;
    unsigned events[SMTP_EVENT_COUNT];
    unsigned callbacks;
    unsigned messages, aborts, ends, begins, logins, body_calls;
    bool tls_wanted, open; /* open: between data_begin() and body_end() or abort() */
    bool in_mail;
    enum fake_question asked;
    enum smtp_auth_verdict verdict;
};

void fake_init(struct fake *f); /* a session with STARTTLS, everything offered; change config, then fake_open() */
void fake_open(struct fake *f); /* the greeting is in out */
void fake_fini(struct fake *f);
void fake_answer(struct fake *f);
/* Feeds all of it in pieces of at most step octets (0: whole), answering and starting TLS where asked. */
void fake_send(struct fake *f, struct span octets, size_t step);
void fake_tls(struct fake *f);
void fake_collect(struct fake *f); /* output to f->out; checks that it is well-formed */
bool fake_replies_well_formed(struct span out);

#endif
