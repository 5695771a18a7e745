/* RSET, NOOP, QUIT, HELP, VRFY, EXPN (RFC 5321 sections 4.1.1.5 to 4.1.1.10). */
#include "smtp/server_int.h"

void proceed_rset(struct smtp_server *s, const union server_parsed *parsed)
{
    (void)parsed;
    server_transaction_reset(s);
    s->mail_refused = false;
    server_reply(s, REPLY_RESET);
}

void proceed_noop(struct smtp_server *s, const union server_parsed *parsed)
{
    (void)parsed;
    server_reply(s, REPLY_OK);
}

void proceed_quit(struct smtp_server *s, const union server_parsed *parsed)
{
    (void)parsed;
    server_reply(s, REPLY_BYE);
    server_end(s);
}

void proceed_help(struct smtp_server *s, const union server_parsed *parsed)
{
    (void)parsed;
    const struct reply_words *w = reply_words(REPLY_HELP);
    const struct reply_tail tail = {.help_url = s->config->help_url};
    if (reply_append(&s->out, w->code, w->enhanced, span_str(w->text), &tail) < 0) {
        server_out_of_memory(s);
    }
}

/* Says nothing about who exists here (RFC 5321 section 7.3). */
void proceed_vrfy(struct smtp_server *s, const union server_parsed *parsed)
{
    (void)parsed;
    server_reply(s, REPLY_VRFY);
}

void proceed_expn(struct smtp_server *s, const union server_parsed *parsed)
{
    (void)parsed;
    server_reply(s, REPLY_EXPN);
}
