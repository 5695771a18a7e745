/*
 * STARTTLS (RFC 3207). A client need not have said EHLO: GNU SASL's program does not, nothing would be learned there
 * that can be trusted, and Postfix and Dovecot take it so too. Octets that stand behind the command came in clear text;
 * run after the handshake they would be a stranger's words in a protected session (CVE-2011-0411). They end the
 * session. Everything said before the handshake is forgotten.
 */
#include "smtp/server_int.h"

enum reply check_starttls(const struct smtp_server *s, struct span argument, union server_parsed *ret)
{
    (void)argument;
    (void)ret;
    if (s->tls) {
        return REPLY_TLS_ALREADY;
    }
    return s->config->tls == SMTP_SERVER_STARTTLS ? REPLY_NONE : REPLY_TLS_NOT_OFFERED;
}

void proceed_starttls(struct smtp_server *s, const union server_parsed *parsed)
{
    (void)parsed;
    if (s->behind > 0) {
        server_event(s, SMTP_EVENT_STARTTLS_PIPELINED);
        server_reply(s, REPLY_TLS_PIPELINED);
        server_end(s);
        return;
    }
    server_reply(s, REPLY_STARTTLS_GO);
    if (server_ended(s)) {
        return;
    }
    s->state = STATE_CONNECTED;
    s->extended = false;
    s->mail_refused = false;
    server_expect(s, INPUT_TLS);
    s->ops->starttls(s->arg);
}

void smtp_server_tls_started(struct smtp_server *s, const struct smtp_server_tls *tls)
{
    if (server_ended(s)) {
        return;
    }
    s->tls = true;
    s->client_certificate = tls->client_certificate;
    s->binding = tls->binding;
    if (s->input == INPUT_TLS) {
        server_expect(s, INPUT_COMMAND);
    }
}
