#include "smtp/reply.h"

#include <stdio.h>
#include <string.h>

#include "common/id.h"

#define LINE_MAX_OCTETS 512 /* RFC 5321 section 4.5.3.1.5, with CRLF */
#define PREFIX_MAX      16  /* "250-5.255.255 " */
#define SENTENCE_MAX    640 /* of the words before the tail, so that the tail is never cut */
/* A line holds at least 400 octets of words even when it is folded early, so the folds add little. */
#define REPLY_MAX (REPLY_TEXT_MAX + 8 * (PREFIX_MAX + 2))

static const struct reply_words words[REPLY_COUNT] = {
    [REPLY_OK] = {250, {2, 0, 0}, false, "OK"},
    [REPLY_BYE] = {221, {2, 0, 0}, false, "Bye"},
    [REPLY_HELP] = {214,
                    {2, 0, 0},
                    false,
                    "This is a mail submission service. Set your mail program to TLS and your name and password"},
    [REPLY_VRFY] = {252, {2, 0, 0}, false, "Addresses are not verified here; send the message and it will be tried"},
    [REPLY_STARTTLS_GO] = {220, {2, 0, 0}, false, "Ready to start TLS"},
    [REPLY_AUTH_OK] = {235, {2, 7, 0}, false, "Authentication successful"},
    [REPLY_RESET] = {250, {2, 0, 0}, false, "Reset"},
    [REPLY_MAIL_OK] = {250, {2, 1, 0}, false, "Sender OK"},
    [REPLY_RCPT_OK] = {250, {2, 1, 5}, false, "Recipient OK"},
    [REPLY_MESSAGE_OK] = {250, {2, 0, 0}, false, "Message accepted"},
    [REPLY_DATA_GO] = {354, {0, 0, 0}, false, "Send the message; end it with CRLF.CRLF"},
    [REPLY_UNKNOWN] = {500, {5, 5, 1}, false, "Command not recognised"},
    [REPLY_NOT_OFFERED] = {502, {5, 5, 1}, false, "Command not offered"},
    [REPLY_EXPN] = {502, {5, 5, 1}, false, "Lists are not expanded here"},
    [REPLY_SYNTAX] = {501, {5, 5, 4}, false, "Malformed argument"},
    [REPLY_NO_ARGUMENT] = {501, {5, 5, 4}, false, "This command takes no argument"},
    [REPLY_ARGUMENT_WANTED] = {501, {5, 5, 4}, false, "This command wants an argument"},
    [REPLY_HELO_NAME] = {501, {5, 5, 4}, false, "The name behind HELO or EHLO is missing or malformed"},
    [REPLY_LINE_LONG] = {500, {5, 5, 2}, false, "Command line is too long"},
    [REPLY_LINE_BARE_LF] = {500, {5, 5, 2}, false, "A bare LF stands in the command; lines end with CRLF"},
    [REPLY_LINE_BARE_CR] = {500, {5, 5, 2}, false, "A bare CR stands in the command; lines end with CRLF"},
    [REPLY_LINE_NUL] = {500, {5, 5, 2}, false, "A NUL stands in the command"},
    [REPLY_LINE_8BIT] = {500, {5, 5, 2}, false, "Octets in the command are not valid UTF-8"},
    [REPLY_EHLO_FIRST] = {503, {5, 5, 1}, false, "Say EHLO first"},
    [REPLY_ESMTP_ONLY] = {503, {5, 5, 1}, false, "Say EHLO first; HELO knows no extensions"},
    [REPLY_MAIL_NESTED] = {503, {5, 5, 1}, false, "The sender was already given; RSET starts again"},
    [REPLY_MAIL_FIRST] = {503, {5, 5, 1}, false, "Say MAIL first"},
    [REPLY_RCPT_FIRST] = {503, {5, 5, 1}, false, "No recipient was accepted"},
    [REPLY_MAIL_WAS_REFUSED] = {503, {5, 5, 1}, false, "MAIL was refused, so nothing can follow it"},
    [REPLY_BDAT_BEGUN] = {503, {5, 5, 1}, false, "The message was begun with BDAT; only BDAT or RSET can follow"},
    [REPLY_IN_TRANSACTION] = {503, {5, 5, 1}, false, "Not within a mail transaction"},
    [REPLY_TLS_ALREADY] = {503, {5, 5, 1}, false, "TLS is already active"},
    [REPLY_TLS_FIRST_AUTH] = {538, {5, 7, 11}, true, "Encryption is required for authentication; say STARTTLS first"},
    [REPLY_TLS_FIRST_MAIL] = {530, {5, 7, 0}, true, "Must issue a STARTTLS command first"},
    [REPLY_TLS_PIPELINED] = {503,
                             {5, 5, 1},
                             true,
                             "Octets stood behind STARTTLS; nothing may be sent before the handshake (RFC 3207)"},
    [REPLY_TLS_NOT_OFFERED] = {502, {5, 5, 1}, false, "STARTTLS is not offered here"},
    [REPLY_AUTH_REQUIRED] = {530,
                             {5, 7, 0},
                             true,
                             "Authentication required: set your mail program to log in with name and password"},
    [REPLY_AUTH_ALREADY] = {503, {5, 5, 1}, false, "Already authenticated"},
    [REPLY_AUTH_NOT_OFFERED] = {502, {5, 5, 1}, false, "AUTH is not offered here"},
    [REPLY_AUTH_MECHANISM] = {504, {5, 5, 4}, false, "Authentication mechanism is not offered"},
    [REPLY_AUTH_BASE64] = {501, {5, 5, 2}, false, "Not valid base64"},
    [REPLY_AUTH_SYNTAX] = {501, {5, 5, 2}, false, "Malformed authentication message"},
    [REPLY_AUTH_LONG] = {500, {5, 5, 6}, false, "Authentication exchange line is too long"},
    [REPLY_AUTH_CANCELLED] = {501, {5, 7, 0}, false, "Authentication cancelled"},
    [REPLY_AUTH_BAD] = {535, {5, 7, 8}, true, "Name or password is wrong"},
    [REPLY_AUTH_BINDING] = {535, {5, 7, 8}, true, "Channel binding does not match this TLS connection"},
    [REPLY_AUTH_AUTHZID] = {535,
                            {5, 7, 8},
                            true,
                            "Acting as another account is not possible; leave the authorisation identity empty"},
    [REPLY_AUTH_UNAVAILABLE] = {454,
                                {4, 7, 0},
                                true,
                                "Logins cannot be checked now; the password may well be right, try again later"},
    [REPLY_MAIL_SYNTAX] = {501, {5, 1, 7}, false, "Syntax: MAIL FROM:<address> [parameters]"},
    [REPLY_RCPT_SYNTAX] = {501, {5, 1, 3}, false, "Syntax: RCPT TO:<address> [parameters]"},
    [REPLY_SENDER_BRACKETS] = {501, {5, 1, 7}, false, "The address must stand in angle brackets"},
    [REPLY_SENDER_SYNTAX] = {501, {5, 1, 7}, false, "The address is malformed"},
    [REPLY_SENDER_LOCAL] = {501, {5, 1, 7}, false, "The address is malformed before the @"},
    [REPLY_SENDER_DOMAIN] = {501, {5, 1, 7}, false, "The address is malformed or incomplete behind the @"},
    [REPLY_SENDER_LONG] = {501, {5, 1, 7}, false, "The address is longer than RFC 5321 allows"},
    [REPLY_SENDER_NEEDS_UTF8] = {553, {5, 6, 7}, true, "The address is not ASCII: MAIL needs the parameter SMTPUTF8"},
    [REPLY_SENDER_INVALID_UTF8] = {501, {5, 1, 7}, false, "The address is not valid UTF-8"},
    [REPLY_SENDER_NULL] = {501, {5, 1, 7}, false, "The null address is not possible here"},
    [REPLY_RCPT_BRACKETS] = {501, {5, 1, 3}, false, "The address must stand in angle brackets"},
    [REPLY_RCPT_MALFORMED] = {501, {5, 1, 3}, false, "The address is malformed"},
    [REPLY_RCPT_LOCAL] = {501, {5, 1, 3}, false, "The address is malformed before the @"},
    [REPLY_RCPT_DOMAIN] = {501, {5, 1, 3}, false, "The address is malformed or incomplete behind the @"},
    [REPLY_RCPT_LONG] = {501, {5, 1, 3}, false, "The address is longer than RFC 5321 allows"},
    [REPLY_RCPT_NEEDS_UTF8] = {553, {5, 6, 7}, true, "The address is not ASCII: MAIL needs the parameter SMTPUTF8"},
    [REPLY_RCPT_INVALID_UTF8] = {501, {5, 1, 3}, false, "The address is not valid UTF-8"},
    [REPLY_RCPT_NULL] = {501, {5, 1, 3}, false, "The null address is not possible here"},
    [REPLY_PARAM_UNKNOWN] = {555, {5, 5, 4}, false, "A parameter is not known here"},
    [REPLY_PARAM_SYNTAX] = {501, {5, 5, 4}, false, "A parameter is malformed"},
    [REPLY_PARAM_TWICE] = {501, {5, 5, 4}, false, "A parameter is given twice"},
    [REPLY_PARAM_ESMTP] = {555, {5, 5, 4}, false, "Parameters are possible only after EHLO"},
    [REPLY_BODY_TYPE] = {504, {5, 5, 4}, false, "BODY= can be 7BIT or 8BITMIME here"},
    [REPLY_SIZE_DECLARED] = {552, {5, 3, 4}, true, "The message is larger than is taken here"},
    [REPLY_RECIPIENTS_MAX] = {452, {4, 5, 3}, true, "Too many recipients for one message; send the rest in another"},
    [REPLY_BDAT_SYNTAX] = {501,
                           {5, 5, 4},
                           true,
                           "Syntax: BDAT octets [LAST]. The end of the chunk is unknown, so the session ends"},
    [REPLY_BDAT_HUGE] = {552, {5, 3, 4}, true, "The chunk is far larger than is taken here, so the session ends"},
    [REPLY_BDAT_SMALL] = {421, {4, 7, 0}, true, "Too many small chunks"},
    [REPLY_TEXT_BARE_CR] = {550, {5, 6, 11}, true, "The message holds a bare CR; lines must end with CRLF"},
    [REPLY_TEXT_BARE_LF] = {550, {5, 6, 11}, true, "The message holds a bare LF; lines must end with CRLF"},
    [REPLY_TEXT_NUL] = {550, {5, 6, 11}, true, "The message holds a NUL octet"},
    [REPLY_TEXT_SMUGGLING] = {550,
                              {5, 6, 11},
                              true,
                              "The message holds a lone dot on a line that does not begin and end with CRLF"},
    [REPLY_TEXT_LINE_LONG] =
        {550, {5, 6, 0}, true, "The message holds a line longer than is taken here (RFC 5321 section 4.5.3.1.6)"},
    [REPLY_TEXT_HEADER_MAX] = {552, {5, 3, 4}, true, "The header of the message is larger than is taken here"},
    [REPLY_TEXT_SIZE_MAX] = {552, {5, 3, 4}, true, "The message is larger than is taken here"},
    [REPLY_COMMANDS_MAX] = {421, {4, 7, 0}, true, "Too many commands in one session"},
    [REPLY_BAD_COMMANDS_MAX] = {421, {4, 7, 0}, true, "Too many bad commands"},
    [REPLY_AUTH_FAILURES_MAX] = {421, {4, 7, 0}, true, "Too many failed logins"},
    [REPLY_MESSAGES_MAX] = {421, {4, 7, 0}, true, "Enough messages for one session; send the rest in another"},
    [REPLY_DATA_PIPELINED] = {421, {4, 5, 0}, true, "The message was sent before it was asked for"},
    [REPLY_MEMORY] = {421, {4, 3, 0}, true, "Out of memory"},
};

const struct reply_words *reply_words(enum reply reply)
{
    return &words[reply];
}

struct words_buffer {
    char text[REPLY_TEXT_MAX + 1];
    size_t len;
};

static void add_words(struct words_buffer *w, struct span text, size_t max)
{
    for (size_t i = 0; i < text.len && w->len < max; i++) {
        uint8_t c = text.ptr[i];
        w->text[w->len++] = c >= 32 && c <= 126 ? (char)c : '?';
    }
}

static void add_tail(struct words_buffer *w, const struct reply_tail *tail)
{
    char id[ID_TEXT_LEN + 1];
    bool told = tail->help_url != NULL && memmem(w->text, w->len, tail->help_url, strlen(tail->help_url)) != NULL;
    if (tail->help_url != NULL && !told) { /* a limit's sentence may have it already */
        bool stopped = w->len > 0 && w->text[w->len - 1] == '.';
        add_words(w, stopped ? SPAN_LIT(" See ") : SPAN_LIT(". See "), REPLY_TEXT_MAX);
        add_words(w, span_str(tail->help_url), REPLY_TEXT_MAX);
    }
    if (tail->session != 0) {
        id_format(tail->session, id);
        add_words(w, SPAN_LIT(" ("), REPLY_TEXT_MAX);
        add_words(w, span_str(id), REPLY_TEXT_MAX);
        add_words(w, SPAN_LIT(")"), REPLY_TEXT_MAX);
    }
}

/* How many octets of text go on a line of at most max; *ret_skip: with the space where it was folded. */
static size_t fold(const char *text, size_t len, size_t max, size_t *ret_skip)
{
    *ret_skip = len;
    if (len <= max) {
        return len;
    }
    for (size_t i = max; i > max - 100; i--) {
        if (text[i] == ' ') {
            *ret_skip = i + 1;
            return i;
        }
    }
    *ret_skip = max;
    return max;
}

static size_t prefix(char out[static PREFIX_MAX], uint16_t code, const uint8_t enhanced[static 3], bool last)
{
    char sep = last ? ' ' : '-';
    int n = enhanced[0] != 0
                ? snprintf(out, PREFIX_MAX, "%03u%c%u.%u.%u ", code % 1000U, sep, enhanced[0], enhanced[1], enhanced[2])
                : snprintf(out, PREFIX_MAX, "%03u%c", code % 1000U, sep);
    return n > 0 ? (size_t)n : 0;
}

int reply_append(struct buf *out, uint16_t code, const uint8_t enhanced[static 3], struct span text,
                 const struct reply_tail *tail)
{
    struct words_buffer w = {.len = 0};
    char reply[REPLY_MAX];
    size_t used = 0, at = 0;
    add_words(&w, text, tail != NULL ? SENTENCE_MAX : REPLY_TEXT_MAX);
    if (tail != NULL) {
        add_tail(&w, tail);
    }
    do {
        char pre[PREFIX_MAX];
        size_t skip;
        size_t n = fold(w.text + at, w.len - at, LINE_MAX_OCTETS - 2 - PREFIX_MAX, &skip);
        size_t pre_len = prefix(pre, code, enhanced, at + skip == w.len);
        memcpy(reply + used, pre, pre_len);
        memcpy(reply + used + pre_len, w.text + at, n);
        used += pre_len + n;
        reply[used++] = '\r';
        reply[used++] = '\n';
        at += skip;
    } while (at < w.len);
    return buf_append(out, reply, used);
}
