/*
 * client_int.h: the inside of the client engine. client.c is the session up to READY, client_transaction.c what is
 * between READY and READY, client_body.c the octets between 354 and the end of data, client_reply.c reads replies.
 */
#ifndef KIDOBAN_SMTP_CLIENT_INT_H
#define KIDOBAN_SMTP_CLIENT_INT_H

#include "smtp/client.h"

#define CLIENT_LINE_MAX   2048U   /* octets of a reply line that are kept; the rest of the line is dropped */
#define CLIENT_LINES_MAX  256U    /* of one reply */
#define CLIENT_OCTETS_MAX 65536U  /* of one reply, dropped ones too */
#define CLIENT_OUT_MAX    131072U /* commands not yet written */
#define CLIENT_OUT_FULL   16384U  /* more is made when less than this is left */

/* One reply. Lines end with CRLF or, from careless hosts, LF. */
struct client_reply {
    uint16_t code;
    uint8_t enhanced[3]; /* of the first line that has one, or made from code */
    bool has_enhanced;
    size_t lines;
    size_t octets;
    char text[SMTP_CLIENT_TEXT_MAX + 1]; /* the lines' words, printable, one space between lines */
    size_t text_len;
    uint8_t line[CLIENT_LINE_MAX];
    size_t line_len;
    bool began;         /* the fields above are of a reply that is not complete */
    const char *broken; /* after -1: how */
    void (*each)(void *arg, size_t number, struct span words); /* every line, 0 first; may be NULL */
    void *arg;
};
void client_reply_init(struct client_reply *r, void (*each)(void *, size_t, struct span), void *arg);
/* Takes octets up to the end of one reply; *ret_used of them. 1: it is complete; 0: more is wanted; -1: not a reply. */
int client_reply_feed(struct client_reply *r, const uint8_t *octets, size_t len, size_t *ret_used);

/* The octets between 354 and the reply: views into the message, with dots put in between (RFC 5321 section 4.5.2). */
struct client_body {
    struct span run;  /* of the message, not yet written */
    struct span view; /* what was handed out last and is not yet written; empty: look again */
    bool dot;         /* view is the dot that is put in, not a part of run */
    bool dotted;      /* it was written */
    bool line_start;
    uint8_t last[2]; /* octets of the message written before, for its last CRLF */
    bool ended;      /* the end of data was handed out */
};
void client_body_init(struct client_body *b);
/* 1 and *ret what to write next; 0: it was all written, the end of data too; -errno of next(). */
int client_body_next(struct client_body *b, int (*next)(void *arg, struct span *ret), void *arg, struct span *ret);
void client_body_written(struct client_body *b, size_t len); /* at most what client_body_next() gave */

enum client_recipient_state { CLIENT_RECIPIENT_OPEN, CLIENT_RECIPIENT_ACCEPTED, CLIENT_RECIPIENT_DECIDED };

struct smtp_client {
    struct smtp_client_config config;
    enum smtp_client_state state;
    enum smtp_client_phase phase;
    struct smtp_client_capabilities capabilities;
    bool extended; /* EHLO or LHLO was the last hello, not HELO */
    bool tls_active;
    unsigned auth_step; /* parts of the secret that were sent */
    bool auth_plain;
    struct client_reply reply;
    struct buf out;
    bool out_secret; /* out holds a password: wipe what was written */
    uint32_t messages;
    bool needs_reset; /* the host still has the last transaction open */

    struct smtp_client_transaction transaction;
    bool in_transaction;
    uint8_t *recipients; /* enum client_recipient_state */
    size_t accepted;     /* in state ACCEPTED */
    size_t lmtp_next;    /* from where the next accepted one is looked for */
    bool reset_first;    /* step 0 is RSET */
    bool mail_refused;
    size_t sent, got; /* commands made, replies read; see client_transaction.c */
    struct client_body body;

    bool failed;
    struct smtp_client_result failure;
    char failure_text[SMTP_CLIENT_TEXT_MAX + 1];
};

/* client.c */
struct smtp_client_result client_result_of_reply(const struct smtp_client *c);
struct smtp_client_result client_result_own(const struct smtp_client *c, enum smtp_client_class class, uint8_t subject,
                                            uint8_t detail, const char *text);
/* OVER, with this result for the session and every recipient that has none. */
void client_over(struct smtp_client *c, const struct smtp_client_result *result);
void client_broken(struct smtp_client *c, const char *how); /* the host broke the protocol */

/* client_transaction.c */
void client_transaction_reply(struct smtp_client *c);
void client_transaction_fill(struct smtp_client *c); /* makes commands while out has room */
void client_transaction_settle(struct smtp_client *c, const struct smtp_client_result *result); /* all without result */
void client_transaction_end(struct smtp_client *c);

#endif
