/* HELO and EHLO (RFC 5321 section 4.1.1.1). Only what is done is offered, and AUTH only where it is safe. */
#include "common/utf8.h"
#include "smtp/server_int.h"

#define NAME_MAX_OCTETS 255

/* Mail programs put all kinds of names here; it is kept for the Received field and judged by nobody (RFC 6409 section
 * 4). */
enum reply check_helo(const struct smtp_server *s, struct span argument, union server_parsed *ret)
{
    (void)s;
    ret->name = argument;
    if (argument.len == 0 || argument.len > NAME_MAX_OCTETS) {
        return REPLY_HELO_NAME;
    }
    for (size_t i = 0; i < argument.len; i++) {
        if (argument.ptr[i] <= ' ' || argument.ptr[i] == 127) {
            return REPLY_HELO_NAME;
        }
    }
    return REPLY_NONE;
}

static void greet(struct smtp_server *s, struct span name, bool extended)
{
    server_transaction_reset(s);
    s->state = STATE_READY;
    s->extended = extended;
    s->mail_refused = false;
    if (s->ops->greeted != NULL && !server_ended(s)) {
        s->ops->greeted(s->arg, name, extended);
    }
}

void proceed_helo(struct smtp_server *s, const union server_parsed *parsed)
{
    static const uint8_t none[3] = {0};
    greet(s, parsed->name, false);
    if (!server_ended(s) && reply_append(&s->out, 250, none, span_str(s->config->hostname), NULL) < 0) {
        server_out_of_memory(s);
    }
}

static int add_auth(struct buf *b, unsigned mechanisms)
{
    int r = mechanisms != 0 ? buf_append_str(b, "250-AUTH") : 0;
    for (unsigned bit = SMTP_MECHANISM_EXTERNAL; r == 0 && bit > 0; bit >>= 1) { /* the stronger first */
        if ((mechanisms & bit) != 0) {
            r = buf_printf(b, " %s", smtp_mechanism_name((enum smtp_mechanism)bit));
        }
    }
    return r == 0 && mechanisms != 0 ? buf_append_str(b, "\r\n") : r;
}

/* RFC 9422: only limits that are enforced. */
static int add_limits(struct buf *b, const struct smtp_server_limits *limits)
{
    int r = buf_printf(b, "250-LIMITS RCPTMAX=%u", (unsigned)limits->recipients_max);
    if (r == 0 && limits->messages_max > 0) {
        r = buf_printf(b, " MAILMAX=%u", (unsigned)limits->messages_max);
    }
    return r == 0 ? buf_append_str(b, "\r\n") : r;
}

static int add_extensions(struct smtp_server *s, struct buf *b)
{
    const struct smtp_server_config *config = s->config;
    int r = buf_printf(b, "250-%.255s\r\n250-PIPELINING\r\n250-SIZE %llu\r\n", config->hostname,
                       (unsigned long long)config->limits.size_max);
    if (r == 0 && config->tls == SMTP_SERVER_STARTTLS && !s->tls) {
        r = buf_append_str(b, "250-STARTTLS\r\n");
    }
    if (r == 0) {
        r = add_auth(b, server_mechanisms(s));
    }
    if (r == 0) {
        r = buf_append_str(b, "250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n");
    }
    if (r == 0 && config->smtputf8) {
        r = buf_append_str(b, "250-SMTPUTF8\r\n");
    }
    if (r == 0) {
        r = buf_append_str(b, "250-CHUNKING\r\n250-DSN\r\n");
    }
    if (r == 0) {
        r = add_limits(b, &config->limits);
    }
    return r == 0 ? buf_append_str(b, "250 HELP\r\n") : r;
}

void proceed_ehlo(struct smtp_server *s, const union server_parsed *parsed)
{
    greet(s, parsed->name, true);
    if (!server_ended(s) && add_extensions(s, &s->out) < 0) {
        server_out_of_memory(s);
    }
}
