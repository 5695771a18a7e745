/*
 * submit_int.h: the inside of the submit process. process.c owns the peers, door.c the listeners, session.c a
 * connection, intake.c a transaction: from MAIL to the spool's answer.
 */
#ifndef KIDOBAN_SUBMIT_INT_H
#define KIDOBAN_SUBMIT_INT_H

#include "common/hash.h"
#include "common/id.h"
#include "process/stream.h"
#include "submit/crowd.h"
#include "submit/familiar.h"
#include "submit/settings.h"
#include "wire/guard.h"
#include "wire/spool.h"
#include "wire/vault.h"

struct submit_counters {
    uint64_t sessions, sessions_refused, tls_failed, messages, refused, auth_ok, auth_failed;
    uint64_t events[SMTP_EVENT_COUNT];
};

struct submit {
    struct child *child;
    struct submit_settings *settings;
    struct channel *vault, *guard, *spool;
    struct spool_state spool_state; /* text: points into spool_words */
    char spool_words[SPOOL_TEXT_MAX + 1];
    struct acceptor *acceptors;
    struct session *sessions; /* all, a list */
    size_t sessions_count;
    struct session *asked;    /* by vault question, a hash */
    struct transaction *sent; /* by message id, a hash: with guard or spool */
    struct crowd *crowd;
    struct familiar *familiar;
    struct turns turns; /* rank 0: sessions of strangers; 1: the door */
    size_t guests_count;
    struct id_minter minter;
    uint64_t questions;
    uint64_t held; /* octets of all messages in memory */
    struct submit_counters counters;
    bool stopping;
    uv_timer_t stop_timer, accept_timer, look_timer;
};

enum session_phase { PHASE_PROXY, PHASE_HANDSHAKE, PHASE_DIALOGUE };

/* What the client owes us, and so which limit of time runs. */
enum session_clock { CLOCK_STOPPED, CLOCK_HANDSHAKE, CLOCK_COMMAND, CLOCK_DATA };

struct session {
    struct submit *submit;
    struct submit_settings *settings;
    const struct submit_listener *listener;
    struct stream *stream;
    struct smtp_server *smtp;
    uint64_t id;
    struct net_address peer;
    enum session_phase phase;
    enum session_clock clock;
    size_t unsent; /* octets of replies that were in the engine when it was last left */
    bool wants_tls, over;
    const char *over_why;
    char *account;       /* NULL before AUTH */
    const char *network; /* name of a relay network, or NULL */
    struct span *identities;
    size_t identities_count;
    char *greeted_as;
    uint32_t messages;
    bool counted;                    /* in the crowd, under peer */
    bool familiar;                   /* its network: met at once, not in its turn */
    struct transaction *transaction; /* the one that the dialogue is in, or NULL */
    uint64_t question;               /* to the vault, 0: none */
    UT_hash_handle asked_hh;
    struct session *next, **link;
};

/* door.c: listeners and who waits at them. */
void door_init(struct submit *sb);
void door_open(struct child *c, uint32_t index, int fd); /* takes the listening socket */
void door_close(struct submit *sb);

/* session.c */
void session_open(struct submit *sb, uint32_t listener, int fd, const struct net_address *peer);
/* A line, where one can be read, and the end. */
void session_turn_away(struct submit *sb, uint32_t listener, int fd, const struct net_address *peer);
void session_continue(struct session *s); /* an answer was given to the engine: write, read on */
void session_verdict(struct session *s, const struct vault_verdict *v);
void session_salt(struct session *s, const struct vault_salt *v);
void session_vault_lost(struct session *s);
void session_becomes_familiar(struct session *s); /* a login or a message was taken */
/* Ends it with a reply (421 or so); in the middle of a message too. */
void session_cut(struct session *s, uint16_t code, const uint8_t enhanced[3], const char *text, const char *why);

/* intake.c: the engine's callbacks for a transaction, and the answers of guard and spool to it. */
struct smtp_decision intake_mail(struct session *s, const struct smtp_mail *mail);
struct smtp_decision intake_rcpt(struct session *s, const struct smtp_rcpt *rcpt);
void intake_data_begin(struct session *s, const struct smtp_data_begin *begin);
enum smtp_body_verdict intake_body(struct session *s, struct span octets);
void intake_body_end(struct session *s, const struct smtp_body_end *end);
void intake_abort(struct session *s);
void intake_end(struct session *s);
void intake_guard_answer(struct submit *sb, uint64_t id, const struct guard_answer *answer);
void intake_guard_lost(struct submit *sb);
void intake_stored(struct submit *sb, uint64_t id);
void intake_refused(struct submit *sb, uint64_t id, const struct spool_refused *refused);
void intake_spool_lost(struct submit *sb);
void intake_spool_drained(struct submit *sb);

#endif
