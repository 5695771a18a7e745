/* RCPT TO (RFC 5321 section 4.1.1.3) with NOTIFY and ORCPT (RFC 3461). */
#include <string.h>

#include "smtp/server_int.h"
#include "smtp/xtext.h"
#include "wire/envelope.h"

static int notify_bit(struct span word)
{
    static const struct {
        const char *name;
        int bit;
    } names[] = {
        {"NEVER", NOTIFY_NEVER}, {"SUCCESS", NOTIFY_SUCCESS}, {"FAILURE", NOTIFY_FAILURE}, {"DELAY", NOTIFY_DELAY}};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (span_eq_nocase(word, span_str(names[i].name))) {
            return names[i].bit;
        }
    }
    return 0;
}

/* NEVER alone, or a list of the others. */
static enum reply read_notify(const struct smtp_server *s, const struct server_param *param, void *into)
{
    struct smtp_rcpt *rcpt = into;
    struct span rest = param->value;
    (void)s;
    for (bool more = true; more;) {
        const uint8_t *comma = rest.len > 0 ? memchr(rest.ptr, ',', rest.len) : NULL;
        size_t len = comma != NULL ? (size_t)(comma - rest.ptr) : rest.len;
        int bit = notify_bit((struct span){rest.ptr, len});
        if (bit == 0) {
            return REPLY_PARAM_SYNTAX;
        }
        rcpt->notify |= (uint8_t)bit;
        more = comma != NULL;
        rest.ptr += len + more;
        rest.len -= len + more;
    }
    bool mixed = (rcpt->notify & NOTIFY_NEVER) != 0 && rcpt->notify != NOTIFY_NEVER;
    return mixed ? REPLY_PARAM_SYNTAX : REPLY_NONE;
}

static enum reply read_orcpt(const struct smtp_server *s, const struct server_param *param, void *into)
{
    struct smtp_rcpt *rcpt = into;
    struct span type, address;
    rcpt->orcpt = param->value;
    bool good = param->value.len <= ENVELOPE_ORCPT_MAX && smtp_orcpt_parse(param->value, s->mail_utf8, &type, &address);
    return good ? REPLY_NONE : REPLY_PARAM_SYNTAX;
}

static const struct server_param_rule rules[] = {{"NOTIFY", read_notify}, {"ORCPT", read_orcpt}};

enum reply check_rcpt(const struct smtp_server *s, struct span argument, union server_parsed *ret)
{
    struct smtp_rcpt *rcpt = &ret->rcpt;
    unsigned flags = SMTP_PATH_POSTMASTER | (s->mail_utf8 ? SMTP_PATH_UTF8 : 0);
    *rcpt = (struct smtp_rcpt){0};
    enum reply why = server_path_read(&argument, false, flags, &rcpt->recipient);
    if (why == REPLY_NONE) {
        why = server_params_read(s, argument, rules, sizeof(rules) / sizeof(rules[0]), rcpt);
    }
    return why == REPLY_NONE && s->recipients >= s->config->limits.recipients_max ? REPLY_RECIPIENTS_MAX : why;
}

void proceed_rcpt(struct smtp_server *s, const union server_parsed *parsed)
{
    struct smtp_decision decision = s->ops->rcpt(s->arg, &parsed->rcpt);
    if (server_reply_decision(s, &decision, REPLY_RCPT_OK)) {
        s->recipients++;
        s->state = STATE_RCPT;
    }
}
