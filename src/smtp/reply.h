/*
 * reply.h: every reply of the server is made here: code, enhanced code (RFC 2034, RFC 3463) on each line, words, and
 * for a refusal the operator's help URL and the session's id. Long words are folded into several lines of at most 512
 * octets. What is not printable ASCII becomes '?': nothing a client wrote can move a terminal or start a reply of its
 * own.
 */
#ifndef KIDOBAN_SMTP_REPLY_H
#define KIDOBAN_SMTP_REPLY_H

#include <stdbool.h>

#include "common/buf.h"

#define REPLY_TEXT_MAX 1024 /* octets of words; what is over is cut */

/* The words that are the same in every session. */
enum reply {
    REPLY_NONE,
    REPLY_OK,
    REPLY_BYE,
    REPLY_HELP,
    REPLY_VRFY,
    REPLY_STARTTLS_GO,
    REPLY_AUTH_OK,
    REPLY_RESET,
    REPLY_MAIL_OK,
    REPLY_RCPT_OK,
    REPLY_MESSAGE_OK,
    REPLY_DATA_GO,
    REPLY_UNKNOWN,
    REPLY_NOT_OFFERED,
    REPLY_EXPN,
    REPLY_SYNTAX,
    REPLY_NO_ARGUMENT,
    REPLY_ARGUMENT_WANTED,
    REPLY_HELO_NAME,
    REPLY_LINE_LONG,
    REPLY_LINE_BARE_LF,
    REPLY_LINE_BARE_CR,
    REPLY_LINE_NUL,
    REPLY_LINE_8BIT,
    REPLY_EHLO_FIRST,
    REPLY_ESMTP_ONLY,
    REPLY_MAIL_NESTED,
    REPLY_MAIL_FIRST,
    REPLY_RCPT_FIRST,
    REPLY_MAIL_WAS_REFUSED,
    REPLY_BDAT_BEGUN,
    REPLY_IN_TRANSACTION,
    REPLY_TLS_ALREADY,
    REPLY_TLS_FIRST_AUTH,
    REPLY_TLS_FIRST_MAIL,
    REPLY_TLS_PIPELINED,
    REPLY_TLS_NOT_OFFERED,
    REPLY_AUTH_REQUIRED,
    REPLY_AUTH_ALREADY,
    REPLY_AUTH_NOT_OFFERED,
    REPLY_AUTH_MECHANISM,
    REPLY_AUTH_BASE64,
    REPLY_AUTH_SYNTAX,
    REPLY_AUTH_LONG,
    REPLY_AUTH_CANCELLED,
    REPLY_AUTH_BAD,
    REPLY_AUTH_BINDING,
    REPLY_AUTH_AUTHZID,
    REPLY_AUTH_UNAVAILABLE,
    REPLY_MAIL_SYNTAX,
    REPLY_RCPT_SYNTAX,
    REPLY_SENDER_BRACKETS, /* in the order of enum smtp_path_error, from SMTP_PATH_NO_BRACKETS */
    REPLY_SENDER_SYNTAX,
    REPLY_SENDER_LOCAL,
    REPLY_SENDER_DOMAIN,
    REPLY_SENDER_LONG,
    REPLY_SENDER_NEEDS_UTF8,
    REPLY_SENDER_INVALID_UTF8,
    REPLY_SENDER_NULL,
    REPLY_RCPT_BRACKETS, /* the same */
    REPLY_RCPT_MALFORMED,
    REPLY_RCPT_LOCAL,
    REPLY_RCPT_DOMAIN,
    REPLY_RCPT_LONG,
    REPLY_RCPT_NEEDS_UTF8,
    REPLY_RCPT_INVALID_UTF8,
    REPLY_RCPT_NULL,
    REPLY_PARAM_UNKNOWN,
    REPLY_PARAM_SYNTAX,
    REPLY_PARAM_TWICE,
    REPLY_PARAM_ESMTP,
    REPLY_BODY_TYPE,
    REPLY_SIZE_DECLARED,
    REPLY_RECIPIENTS_MAX,
    REPLY_BDAT_SYNTAX,
    REPLY_BDAT_HUGE,
    REPLY_BDAT_SMALL,
    REPLY_TEXT_BARE_CR,
    REPLY_TEXT_BARE_LF,
    REPLY_TEXT_NUL,
    REPLY_TEXT_SMUGGLING,
    REPLY_TEXT_LINE_LONG,
    REPLY_TEXT_HEADER_MAX,
    REPLY_TEXT_SIZE_MAX,
    REPLY_COMMANDS_MAX,
    REPLY_BAD_COMMANDS_MAX,
    REPLY_AUTH_FAILURES_MAX,
    REPLY_MESSAGES_MAX,
    REPLY_DATA_PIPELINED,
    REPLY_MEMORY,
    REPLY_COUNT
};

struct reply_words {
    uint16_t code;
    uint8_t enhanced[3]; /* all 0: none (220, 250 of EHLO, 334, 354) */
    bool help;           /* the help URL and the session's id follow */
    const char *text;
};
const struct reply_words *reply_words(enum reply reply);

struct reply_tail {
    const char *help_url; /* NULL: none */
    uint64_t session;     /* 0: none */
};

/* Appends a whole reply or nothing: 0 or as buf_append(). text may be empty. tail: NULL for none. */
int reply_append(struct buf *out, uint16_t code, const uint8_t enhanced[static 3], struct span text,
                 const struct reply_tail *tail);

#endif
