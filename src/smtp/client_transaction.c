/*
 * From begin() to the last result. The commands are steps 0, 1, 2 ...: RSET if the host still has a transaction open,
 * MAIL, RCPT for each recipient, DATA. `sent` counts commands made, `got` replies read; with PIPELINING `sent` runs
 * ahead as far as the output has room, without it by one. A reply is judged by the step it belongs to, so the same
 * code serves both; what differs is that a pipelined DATA may be taken although no recipient was: then a lone dot
 * follows (RFC 2920 section 3.1), and what comes back is nobody's result.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "smtp/client_int.h"

#define ADDRESS_MAX 1024U
#define ORCPT_MAX   1024U
#define ENVID_MAX   256U

static enum smtp_client_phase step_phase(const struct smtp_client *c, size_t step)
{
    if (c->reset_first && step-- == 0) {
        return SMTP_CLIENT_RSET;
    }
    if (step == 0) {
        return SMTP_CLIENT_MAIL;
    }
    return step <= c->transaction.recipients_count ? SMTP_CLIENT_RCPT : SMTP_CLIENT_DATA;
}

static size_t step_recipient(const struct smtp_client *c, size_t step)
{
    return step - (c->reset_first ? 1 : 0) - 1;
}

static size_t steps_count(const struct smtp_client *c)
{
    return c->transaction.recipients_count + 2 + (c->reset_first ? 1 : 0);
}

static bool offered(const struct smtp_client *c, unsigned flag)
{
    return (c->capabilities.flags & flag) != 0;
}

/* Results. */

static void decide(struct smtp_client *c, size_t i, const struct smtp_client_result *result)
{
    if (c->recipients[i] == CLIENT_RECIPIENT_DECIDED) {
        return;
    }
    c->accepted -= c->recipients[i] == CLIENT_RECIPIENT_ACCEPTED ? 1 : 0;
    c->recipients[i] = CLIENT_RECIPIENT_DECIDED;
    c->transaction.recipient(c->transaction.arg, i, result);
}

void client_transaction_end(struct smtp_client *c)
{
    c->in_transaction = false;
    free(c->recipients);
    c->recipients = NULL;
    if (c->state == SMTP_CLIENT_BUSY) {
        c->state = SMTP_CLIENT_READY;
        c->phase = SMTP_CLIENT_IDLE;
    }
}

static void decide_all(struct smtp_client *c, const struct smtp_client_result *result)
{
    for (size_t i = 0; i < c->transaction.recipients_count; i++) {
        decide(c, i, result);
    }
}

void client_transaction_settle(struct smtp_client *c, const struct smtp_client_result *result)
{
    if (c->in_transaction) {
        decide_all(c, result);
        client_transaction_end(c);
    }
}

/* Commands. */

static int put(struct buf *out, const char *before, struct span s)
{
    int r = buf_append_str(out, before);
    return r < 0 ? r : buf_append(out, s.ptr, s.len);
}

static int put_mail(struct smtp_client *c)
{
    const struct smtp_client_transaction *t = &c->transaction;
    int r = put(&c->out, "MAIL FROM:<", t->sender);
    r = r < 0 ? r : buf_append_byte(&c->out, '>');
    if (r == 0 && offered(c, SMTP_CLIENT_CAP_SIZE) && t->size > 0) {
        r = buf_printf(&c->out, " SIZE=%llu", (unsigned long long)t->size);
    }
    if (r == 0 && offered(c, SMTP_CLIENT_CAP_8BITMIME) && t->body_8bit) {
        r = buf_append_str(&c->out, " BODY=8BITMIME");
    }
    if (r == 0 && t->smtputf8) {
        r = buf_append_str(&c->out, " SMTPUTF8");
    }
    if (r == 0 && offered(c, SMTP_CLIENT_CAP_DSN) && t->ret != SMTP_CLIENT_RET_NONE) {
        r = buf_append_str(&c->out, t->ret == SMTP_CLIENT_RET_FULL ? " RET=FULL" : " RET=HDRS");
    }
    if (r == 0 && offered(c, SMTP_CLIENT_CAP_DSN) && t->envid.len > 0) {
        r = put(&c->out, " ENVID=", t->envid);
    }
    return r;
}

static int put_notify(struct buf *out, uint8_t notify)
{
    static const char *const words[] = {"NEVER", "SUCCESS", "FAILURE", "DELAY"}; /* bit 0 first */
    const char *before = " NOTIFY=";
    int r = 0;
    for (unsigned i = 0; i < 4 && r == 0; i++) {
        if ((notify & (1U << i)) != 0) {
            r = buf_printf(out, "%s%s", before, words[i]);
            before = ",";
            if (i == 0) {
                break; /* NEVER stands alone (RFC 3461 section 4.1) */
            }
        }
    }
    return r;
}

static int put_rcpt(struct smtp_client *c, const struct smtp_client_recipient *rcpt)
{
    int r = put(&c->out, "RCPT TO:<", rcpt->address);
    r = r < 0 ? r : buf_append_byte(&c->out, '>');
    if (offered(c, SMTP_CLIENT_CAP_DSN)) {
        r = r < 0 ? r : put_notify(&c->out, rcpt->notify);
        r = r < 0 || rcpt->orcpt.len == 0 ? r : put(&c->out, " ORCPT=", rcpt->orcpt);
    }
    return r;
}

static int put_step(struct smtp_client *c, size_t step)
{
    int r = 0;
    switch (step_phase(c, step)) {
    case SMTP_CLIENT_RSET:
        r = buf_append_str(&c->out, "RSET");
        break;
    case SMTP_CLIENT_MAIL:
        r = put_mail(c);
        break;
    case SMTP_CLIENT_RCPT:
        r = put_rcpt(c, &c->transaction.recipients[step_recipient(c, step)]);
        break;
    default:
        r = buf_append_str(&c->out, "DATA");
        break;
    }
    return r < 0 ? r : buf_append_str(&c->out, "\r\n");
}

static bool pipelines(const struct smtp_client *c)
{
    return offered(c, SMTP_CLIENT_CAP_PIPELINING) && !c->config.no_pipelining;
}

/* A step that would be of no use is not made: nothing behind a refused MAIL, no DATA when every RCPT was refused. */
static bool step_wanted(const struct smtp_client *c)
{
    if (c->sent == steps_count(c) || c->mail_refused) {
        return false;
    }
    return step_phase(c, c->sent) != SMTP_CLIENT_DATA || c->got < c->sent || c->accepted > 0;
}

static bool in_commands(const struct smtp_client *c)
{
    return c->in_transaction && c->phase != SMTP_CLIENT_BODY && c->phase != SMTP_CLIENT_DOT;
}

void client_transaction_fill(struct smtp_client *c)
{
    while (in_commands(c) && step_wanted(c) && c->out.len < CLIENT_OUT_FULL && (pipelines(c) || c->got == c->sent)) {
        if (put_step(c, c->sent) < 0) {
            client_broken(c, "Out of memory");
            return;
        }
        c->sent++;
    }
}

/* Replies. */

/* Every reply to a command that was made is in, and no other will be made: nothing was sent. */
static void end_if_done(struct smtp_client *c)
{
    if (in_commands(c) && c->got == c->sent && !step_wanted(c)) {
        c->needs_reset = !c->mail_refused;
        client_transaction_end(c);
    }
}

static void on_mail(struct smtp_client *c, const struct smtp_client_result *result)
{
    if (result->code / 100 == 2) {
        c->needs_reset = true;
    } else if (result->code >= 400) {
        c->mail_refused = true;
        decide_all(c, result);
    } else {
        client_broken(c, "The host's answer to MAIL is neither 2xx nor a refusal");
    }
}

static void on_rcpt(struct smtp_client *c, struct smtp_client_result *result)
{
    size_t i = step_recipient(c, c->got - 1);
    if (result->code / 100 == 3) {
        client_broken(c, "The host's answer to RCPT is neither 2xx nor a refusal");
    } else if (result->code / 100 == 2) {
        if (c->recipients[i] == CLIENT_RECIPIENT_OPEN) {
            c->recipients[i] = CLIENT_RECIPIENT_ACCEPTED;
            c->accepted++;
        }
    } else {
        if (result->code == 552) { /* too many recipients (RFC 5321 section 4.5.3.1.10) */
            result->class = SMTP_CLIENT_TEMPORARY;
            result->enhanced[0] = 4;
        }
        decide(c, i, result);
    }
}

/* 354 without a recipient: end an empty message. An LMTP host owes no reply then, and cannot be trusted to know. */
static void lone_dot(struct smtp_client *c)
{
    c->phase = SMTP_CLIENT_DOT;
    if (c->config.lmtp || buf_append_str(&c->out, ".\r\n") < 0) {
        client_broken(c, "The host took DATA without a recipient");
    }
}

static void on_data(struct smtp_client *c, const struct smtp_client_result *result)
{
    if (result->code >= 400) {
        decide_all(c, result);
        client_transaction_end(c);
    } else if (result->code != 354) {
        client_broken(c, "The host's answer to DATA is neither 354 nor a refusal");
    } else if (c->accepted == 0) {
        lone_dot(c);
    } else {
        c->phase = SMTP_CLIENT_BODY;
        client_body_init(&c->body);
    }
}

/* Before the end of data a host can only refuse; where it stands in the octets is not known then: close. */
static void on_body(struct smtp_client *c, const struct smtp_client_result *result)
{
    if (result->code >= 400) {
        client_over(c, result);
    } else {
        client_broken(c, "The host answered before the end of data");
    }
}

static void on_dot(struct smtp_client *c, const struct smtp_client_result *result)
{
    if (result->code / 100 == 3) {
        client_broken(c, "The host's answer to the end of data is neither 2xx nor a refusal");
        return;
    }
    c->needs_reset = false;
    if (!c->config.lmtp) {
        c->messages++;
        decide_all(c, result);
        client_transaction_end(c);
        return;
    }
    while (c->recipients[c->lmtp_next] != CLIENT_RECIPIENT_ACCEPTED) { /* one is left, or the state were READY */
        c->lmtp_next++;
    }
    decide(c, c->lmtp_next++, result);
    if (c->accepted == 0) {
        c->messages++;
        client_transaction_end(c);
    }
}

static void on_step(struct smtp_client *c, struct smtp_client_result *result)
{
    if (c->got == c->sent) {
        client_broken(c, "The host sent a reply that nobody had asked for");
        return;
    }
    enum smtp_client_phase phase = step_phase(c, c->got++);
    if (phase == SMTP_CLIENT_MAIL) {
        on_mail(c, result);
    } else if (phase == SMTP_CLIENT_RCPT) {
        on_rcpt(c, result);
    } else if (phase == SMTP_CLIENT_DATA) {
        on_data(c, result);
    } else if (result->code / 100 == 2) {
        c->needs_reset = false;
    } else {
        client_broken(c, "The host refused RSET");
    }
    if (in_commands(c) && c->got < steps_count(c)) {
        c->phase = step_phase(c, c->got);
    }
    end_if_done(c);
}

void client_transaction_reply(struct smtp_client *c)
{
    struct smtp_client_result result = client_result_of_reply(c);
    if (c->phase == SMTP_CLIENT_BODY) {
        on_body(c, &result);
    } else if (c->phase == SMTP_CLIENT_DOT) {
        on_dot(c, &result);
    } else {
        on_step(c, &result);
    }
}

/* Begin. */

/* Nothing that could end a command or begin a parameter of its own. */
static bool fits_command(struct span s, size_t max, bool quoted)
{
    bool in_quotes = false;
    for (size_t i = 0; i < s.len; i++) {
        uint8_t o = s.ptr[i];
        if (o < ' ' || o == 127 || (!in_quotes && (o == ' ' || o == '<' || o == '>'))) {
            return false;
        }
        if (quoted && in_quotes && o == '\\') {
            i++; /* what follows is looked at below */
            if (i == s.len || s.ptr[i] < ' ' || s.ptr[i] == 127) {
                return false;
            }
        } else if (quoted && o == '"') {
            in_quotes = !in_quotes;
        }
    }
    return s.len <= max && !in_quotes;
}

static bool has_8bit(struct span s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] >= 0x80) {
            return true;
        }
    }
    return false;
}

/* Checks everything and finds out whether SMTPUTF8 is needed without the envelope having said so. */
static bool envelope_is_good(const struct smtp_client_transaction *t, bool *utf8)
{
    bool good = t->recipients_count > 0 && fits_command(t->sender, ADDRESS_MAX, true) &&
                fits_command(t->envid, ENVID_MAX, false) && !has_8bit(t->envid);
    *utf8 = t->smtputf8 || has_8bit(t->sender);
    for (size_t i = 0; i < t->recipients_count && good; i++) {
        const struct smtp_client_recipient *r = &t->recipients[i];
        good = r->address.len > 0 && fits_command(r->address, ADDRESS_MAX, true) &&
               fits_command(r->orcpt, ORCPT_MAX, false);
        *utf8 = *utf8 || has_8bit(r->address) || has_8bit(r->orcpt);
    }
    return good;
}

/* What the host has said in EHLO that it will not take. */
static bool refused_in_advance(struct smtp_client *c)
{
    const struct smtp_client_transaction *t = &c->transaction;
    struct smtp_client_result r;
    if (t->smtputf8 && !offered(c, SMTP_CLIENT_CAP_SMTPUTF8)) {
        r = client_result_own(c, SMTP_CLIENT_PERMANENT, 6, 7,
                              "The message needs SMTPUTF8, and the next host does not offer it");
    } else if (c->capabilities.size_max > 0 && t->size > c->capabilities.size_max) {
        r = client_result_own(c, SMTP_CLIENT_PERMANENT, 3, 4, "The message is larger than the next host takes");
    } else {
        return false;
    }
    client_transaction_settle(c, &r);
    return true;
}

int smtp_client_begin(struct smtp_client *c, const struct smtp_client_transaction *transaction)
{
    bool utf8 = false;
    if (c->state != SMTP_CLIENT_READY || !envelope_is_good(transaction, &utf8)) {
        return -EINVAL;
    }
    uint8_t *recipients = calloc(transaction->recipients_count, sizeof(*recipients));
    if (recipients == NULL) {
        return -ENOMEM;
    }
    c->transaction = *transaction;
    c->transaction.smtputf8 = utf8;
    c->recipients = recipients;
    c->in_transaction = true;
    c->accepted = c->lmtp_next = c->sent = c->got = 0;
    c->mail_refused = false;
    c->reset_first = c->needs_reset;
    c->state = SMTP_CLIENT_BUSY;
    c->phase = SMTP_CLIENT_MAIL;
    if (refused_in_advance(c)) {
        return 0;
    }
    c->phase = step_phase(c, 0);
    client_transaction_fill(c);
    return 0;
}
