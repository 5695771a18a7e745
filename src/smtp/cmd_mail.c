/* MAIL FROM (RFC 5321 section 4.1.1.2) with SIZE, BODY, SMTPUTF8, RET, ENVID, AUTH. */
#include "common/utf8.h"
#include "smtp/server_int.h"
#include "smtp/xtext.h"
#include "wire/envelope.h"

#define AUTH_PARAM_MAX 500 /* RFC 4954 section 5 */

static enum reply read_size(const struct smtp_server *s, const struct server_param *param, void *into)
{
    struct smtp_mail *mail = into;
    if (!server_number_read(param->value, &mail->size)) {
        return REPLY_PARAM_SYNTAX;
    }
    return mail->size > s->config->limits.size_max ? REPLY_SIZE_DECLARED : REPLY_NONE;
}

static enum reply read_body(const struct smtp_server *s, const struct server_param *param, void *into)
{
    struct smtp_mail *mail = into;
    (void)s;
    mail->body_8bit = span_eq_nocase(param->value, SPAN_LIT("8BITMIME"));
    return mail->body_8bit || span_eq_nocase(param->value, SPAN_LIT("7BIT")) ? REPLY_NONE : REPLY_BODY_TYPE;
}

static enum reply read_smtputf8(const struct smtp_server *s, const struct server_param *param, void *into)
{
    struct smtp_mail *mail = into;
    mail->smtputf8 = true;
    if (!s->config->smtputf8) {
        return REPLY_PARAM_UNKNOWN;
    }
    return param->has_value ? REPLY_PARAM_SYNTAX : REPLY_NONE;
}

static enum reply read_ret(const struct smtp_server *s, const struct server_param *param, void *into)
{
    struct smtp_mail *mail = into;
    (void)s;
    mail->ret = span_eq_nocase(param->value, SPAN_LIT("FULL"))   ? SMTP_RET_FULL
                : span_eq_nocase(param->value, SPAN_LIT("HDRS")) ? SMTP_RET_HDRS
                                                                 : SMTP_RET_NONE;
    return mail->ret == SMTP_RET_NONE ? REPLY_PARAM_SYNTAX : REPLY_NONE;
}

static enum reply read_envid(const struct smtp_server *s, const struct server_param *param, void *into)
{
    struct smtp_mail *mail = into;
    (void)s;
    mail->envid = param->value;
    bool good =
        param->value.len > 0 && param->value.len <= ENVELOPE_ENVID_MAX && smtp_xtext_decode(param->value, NULL) == 0;
    return good ? REPLY_NONE : REPLY_PARAM_SYNTAX;
}

static enum reply read_auth(const struct smtp_server *s, const struct server_param *param, void *into)
{
    struct smtp_mail *mail = into;
    (void)s;
    if (span_eq(param->value, SPAN_LIT("<>"))) {
        return REPLY_NONE;
    }
    mail->auth = param->value;
    bool good =
        param->value.len > 0 && param->value.len <= AUTH_PARAM_MAX && smtp_xtext_decode(param->value, NULL) == 0;
    return good ? REPLY_NONE : REPLY_PARAM_SYNTAX;
}

static const struct server_param_rule rules[] = {
    {"SIZE", read_size}, {"BODY", read_body},   {"SMTPUTF8", read_smtputf8},
    {"RET", read_ret},   {"ENVID", read_envid}, {"AUTH", read_auth},
};

/* May this connection send at all? */
static enum reply check_rights(const struct smtp_server *s)
{
    if (s->may_relay || s->authenticated) {
        return REPLY_NONE;
    }
    if (!s->tls && s->config->tls == SMTP_SERVER_STARTTLS) {
        return REPLY_TLS_FIRST_MAIL;
    }
    return s->config->require_auth ? REPLY_AUTH_REQUIRED : REPLY_NONE;
}

enum reply check_mail(const struct smtp_server *s, struct span argument, union server_parsed *ret)
{
    struct smtp_mail *mail = &ret->mail;
    enum reply why = check_rights(s);
    if (why == REPLY_NONE && s->config->limits.messages_max > 0 && s->messages >= s->config->limits.messages_max) {
        why = REPLY_MESSAGES_MAX;
    }
    unsigned flags = SMTP_PATH_NULL | (s->config->smtputf8 ? SMTP_PATH_UTF8 : 0);
    *mail = (struct smtp_mail){0};
    if (why == REPLY_NONE) {
        why = server_path_read(&argument, true, flags, &mail->sender);
    }
    if (why == REPLY_NONE) {
        why = server_params_read(s, argument, rules, sizeof(rules) / sizeof(rules[0]), mail);
    }
    /* The parameter stands behind the address, so only now it can be said. */
    return why == REPLY_NONE && mail->sender.utf8 && !mail->smtputf8 ? REPLY_SENDER_NEEDS_UTF8 : why;
}

void proceed_mail(struct smtp_server *s, const union server_parsed *parsed)
{
    const struct smtp_mail *mail = &parsed->mail;
    struct smtp_decision decision = s->ops->mail(s->arg, mail);
    bool accepted = decision.code == 0 || decision.code / 100 == 2;
    /* Before the reply: should that fail, the owner must still hear transaction_end(). */
    s->in_mail = accepted;
    s->mail_refused = !accepted;
    if (accepted) {
        s->state = STATE_MAIL;
        s->declared = mail->size;
        s->mail_utf8 = mail->smtputf8;
        s->mail_8bit = mail->body_8bit;
    }
    if (server_ended(s)) { /* the owner closed the session within mail() */
        server_transaction_reset(s);
    } else {
        (void)server_reply_decision(s, &decision, REPLY_MAIL_OK);
    }
}

void refuse_mail(struct smtp_server *s, struct span argument, enum reply why)
{
    (void)argument;
    s->mail_refused = s->state == STATE_READY;
    server_refuse(s, why);
}
