/* server_int.h: the inside of the server engine, for src/smtp/ and its tests. */
#ifndef KIDOBAN_SMTP_SERVER_INT_H
#define KIDOBAN_SMTP_SERVER_INT_H

#include "smtp/lines.h"
#include "smtp/reply.h"
#include "smtp/sasl.h"
#include "smtp/server.h"

/* How far the session is. Columns of the command table. */
enum server_state {
    STATE_CONNECTED, /* no HELO or EHLO since the greeting or STARTTLS */
    STATE_READY,
    STATE_MAIL,  /* sender accepted */
    STATE_RCPT,  /* a recipient accepted */
    STATE_CHUNK, /* a BDAT was accepted */
    STATE_COUNT,
};

/* What the next octets are. */
enum server_input {
    INPUT_COMMAND,
    INPUT_SKIP_LINE, /* the rest of a line that was refused */
    INPUT_AUTH,      /* a response of SASL */
    INPUT_DATA,
    INPUT_CHUNK,
    INPUT_TLS,   /* none: the handshake is due */
    INPUT_ENDED, /* dropped */
};

enum server_wait {
    WAIT_NONE,
    WAIT_SALT,
    WAIT_VERDICT,
    WAIT_DATA,
    WAIT_BODY,
    WAIT_RESULT,
};

enum server_verb {
    VERB_HELO,
    VERB_EHLO,
    VERB_STARTTLS,
    VERB_AUTH,
    VERB_MAIL,
    VERB_RCPT,
    VERB_DATA,
    VERB_BDAT,
    VERB_RSET,
    VERB_NOOP,
    VERB_QUIT,
    VERB_HELP,
    VERB_VRFY,
    VERB_EXPN,
    VERB_COUNT,
};

struct smtp_server {
    const struct smtp_server_config *config;
    const struct smtp_server_ops *ops;
    void *arg;
    uint64_t session;
    struct sasl *sasl;
    struct buf line;     /* a command or response that came in pieces */
    struct buf out;      /* replies not yet written */
    struct buf deferred; /* the reply for when the octets that must be read first were read */
    struct smtp_text text;
    uint64_t declared;     /* SIZE= */
    uint64_t chunk_octets; /* of this BDAT */
    uint64_t chunk_left;   /* of it, still to come */
    uint64_t dropped;      /* octets read after the message was lost */
    size_t behind;         /* octets that stood behind the command line in the same feed */
    uint32_t commands, bad_commands, auth_failures, auth_tries, messages, recipients, small_chunks;
    uint8_t state, input, wait;
    bool greeted : 1;
    bool feeding : 1; /* within smtp_server_feed(): answers leave the work to its loop */
    bool tls : 1;
    bool client_certificate : 1;
    bool binding : 1;
    bool extended : 1;
    bool may_relay : 1;
    bool authenticated : 1;
    bool sasl_over : 1;    /* the exchange ended; freed when no callback can hold a view into it */
    bool in_mail : 1;      /* mail() was accepted and transaction_end() not yet called */
    bool begun : 1;        /* data_begin() was called, neither body_end() nor abort() was */
    bool mail_refused : 1; /* what was pipelined behind a refused MAIL is not the client's mistake */
    bool mail_utf8 : 1;
    bool mail_8bit : 1;
    bool data_behind : 1; /* octets stood behind DATA */
    bool chunk_last : 1;
    bool chunk_dropped : 1; /* these octets belong to no message: drop, then the deferred reply */
    bool chunk_done : 1;    /* all octets of the chunk were read; its reply is due */
    bool skip_cr : 1;
    uint8_t random[18];
};

/* --- what check functions read out of an argument --- */

struct server_bdat {
    uint64_t octets;
    bool last;
};

struct server_auth {
    enum smtp_mechanism mechanism;
    bool has_initial;
    struct span initial; /* base64, or "=" */
};

union server_parsed {
    struct smtp_mail mail;
    struct smtp_rcpt rcpt;
    struct server_bdat bdat;
    struct server_auth auth;
    struct span name;
};

/* --- the command table --- */

enum server_argument { ARGUMENT_ANY, ARGUMENT_NONE, ARGUMENT_WANTED };

struct server_command {
    const char *name;
    enum reply state_reply[STATE_COUNT]; /* REPLY_NONE: allowed in that state */
    enum server_argument argument;
    bool esmtp; /* wants EHLO, not HELO */
    /* REPLY_NONE, or why not. Changes nothing. NULL: nothing to check. */
    enum reply (*check)(const struct smtp_server *s, struct span argument, union server_parsed *ret);
    void (*proceed)(struct smtp_server *s, const union server_parsed *parsed);
    /* In place of server_refuse(), for a command that drags others or octets behind it. */
    void (*refuse)(struct smtp_server *s, struct span argument, enum reply why);
};
extern const struct server_command server_commands[VERB_COUNT];

void server_command_run(struct smtp_server *s, struct span line);

enum reply check_helo(const struct smtp_server *s, struct span argument, union server_parsed *ret);
enum reply check_starttls(const struct smtp_server *s, struct span argument, union server_parsed *ret);
enum reply check_auth(const struct smtp_server *s, struct span argument, union server_parsed *ret);
enum reply check_mail(const struct smtp_server *s, struct span argument, union server_parsed *ret);
enum reply check_rcpt(const struct smtp_server *s, struct span argument, union server_parsed *ret);
enum reply check_bdat(const struct smtp_server *s, struct span argument, union server_parsed *ret);
void proceed_helo(struct smtp_server *s, const union server_parsed *parsed);
void proceed_ehlo(struct smtp_server *s, const union server_parsed *parsed);
void proceed_starttls(struct smtp_server *s, const union server_parsed *parsed);
void proceed_auth(struct smtp_server *s, const union server_parsed *parsed);
void proceed_mail(struct smtp_server *s, const union server_parsed *parsed);
void proceed_rcpt(struct smtp_server *s, const union server_parsed *parsed);
void proceed_data(struct smtp_server *s, const union server_parsed *parsed);
void proceed_bdat(struct smtp_server *s, const union server_parsed *parsed);
void proceed_rset(struct smtp_server *s, const union server_parsed *parsed);
void proceed_noop(struct smtp_server *s, const union server_parsed *parsed);
void proceed_quit(struct smtp_server *s, const union server_parsed *parsed);
void proceed_help(struct smtp_server *s, const union server_parsed *parsed);
void proceed_vrfy(struct smtp_server *s, const union server_parsed *parsed);
void proceed_expn(struct smtp_server *s, const union server_parsed *parsed);
void refuse_mail(struct smtp_server *s, struct span argument, enum reply why);
void refuse_bdat(struct smtp_server *s, struct span argument, enum reply why);

/* --- replies and ends (server.c) --- */

void server_event(struct smtp_server *s, enum smtp_event event);
void server_reply(struct smtp_server *s, enum reply reply); /* 421 ends the session behind it */
/* The owner's words; accepted ones of code 0 are `accepted`. True: a 2xx. After an end: false, nothing is written. */
bool server_reply_decision(struct smtp_server *s, const struct smtp_decision *decision, enum reply accepted);
/* The same into s->deferred. */
void server_defer(struct smtp_server *s, enum reply reply);
void server_defer_decision(struct smtp_server *s, const struct smtp_decision *refusal);
void server_send_deferred(struct smtp_server *s);
/* A command that cannot be: counts it, says so, or ends the session when there were too many. */
void server_refuse(struct smtp_server *s, enum reply why);
bool server_count_bad(struct smtp_server *s,
                      enum reply why); /* true: that was one too many and the session has ended */
void server_raw(struct smtp_server *s, struct span octets);
void server_out_of_memory(struct smtp_server *s);
void server_end(struct smtp_server *s); /* no more input; aborts what is under way */
bool server_ended(const struct smtp_server *s);
void server_expect(struct smtp_server *s, enum server_input input); /* nothing once the session has ended */
/* Every way out of a transaction: sender, recipients, message, chunks are forgotten together. */
void server_transaction_reset(struct smtp_server *s);

/* --- the parts of feed: octets taken --- */

size_t server_take_auth(struct smtp_server *s, struct span in);  /* cmd_auth.c */
size_t server_take_data(struct smtp_server *s, struct span in);  /* cmd_data.c */
size_t server_take_chunk(struct smtp_server *s, struct span in); /* cmd_bdat.c */
void server_chunk_finish(struct smtp_server *s);                 /* cmd_bdat.c: the reply to a chunk */

/* --- a message (message.c) --- */

void server_message_begin(struct smtp_server *s, uint64_t declared); /* asks data_begin() */
void server_message_go(struct smtp_server *s);
void server_message_no_go(struct smtp_server *s, const struct smtp_decision *refusal);
void server_message_lose(struct smtp_server *s, enum smtp_line_fault fault);
void server_message_give_up(struct smtp_server *s, const struct smtp_decision *refusal);
void server_message_settle(struct smtp_server *s, const struct smtp_decision *result);
size_t server_message_text(struct smtp_server *s, struct span in, bool *ret_end);
void server_message_pad(struct smtp_server *s); /* BDAT LAST: the last CRLF if it is missing */
void server_message_end(struct smtp_server *s); /* asks body_end(), or says what is wrong */
bool server_message_lost(const struct smtp_server *s);
void server_text_rules(const struct smtp_server *s, struct smtp_text_rules *ret);
enum reply server_fault_reply(const struct smtp_text *text);

/* --- SASL (cmd_auth.c) --- */

unsigned server_mechanisms(const struct smtp_server *s); /* those that can be offered on this connection, now */
void server_auth_drop(struct smtp_server *s);            /* frees the exchange */
void server_auth_verdict(struct smtp_server *s, enum smtp_auth_verdict verdict, struct span text,
                         struct span signature);
void server_auth_salt(struct smtp_server *s, enum smtp_auth_verdict verdict, struct span salt, uint32_t iterations);

/* --- ESMTP parameters (params.c) --- */

struct server_param {
    struct span key, value;
    bool has_value;
};

struct server_param_rule {
    const char *key;
    enum reply (*read)(const struct smtp_server *s, const struct server_param *param, void *into);
};

/* Reads "KEY=value KEY ..." to the end of rest; each rule at most once. REPLY_NONE or why not. */
enum reply server_params_read(const struct smtp_server *s, struct span rest, const struct server_param_rule *rules,
                              size_t rules_count, void *into);
/* "FROM:<path>" or "TO:<path>", perhaps with spaces behind the colon. *rest moves behind it. */
enum reply server_path_read(struct span *rest, bool sender, unsigned flags, struct smtp_path *ret);
bool server_number_read(struct span digits, uint64_t *ret); /* 1 to 20 decimal digits; UINT64_MAX when it is more */
struct span server_trim(struct span s);                     /* spaces at both ends */

#endif
