#include "smtp/server_fake.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static bool begins(struct span s, const char *with)
{
    size_t len = strlen(with);
    return s.len >= len && memcmp(s.ptr, with, len) == 0;
}

static void touch(struct fake *f)
{
    const struct smtp_decision gone = {421, {4, 3, 2}, SPAN_LIT("Going down")};
    if (++f->callbacks == f->close_at) {
        f->asked = FAKE_NONE;
        smtp_server_close(f->s, &gone);
    }
}

static void on_event(void *arg, enum smtp_event event)
{
    struct fake *f = arg;
    assert(event < SMTP_EVENT_COUNT && smtp_event_name(event) != NULL);
    f->events[event]++;
    touch(f);
}

static void on_starttls(void *arg)
{
    struct fake *f = arg;
    f->tls_wanted = true;
    touch(f);
}

static size_t on_binding(void *arg, enum smtp_binding type, uint8_t octets[static SMTP_BINDING_MAX])
{
    (void)arg;
    if (type == SMTP_BINDING_TLS_UNIQUE) {
        return 0;
    }
    memcpy(octets, FAKE_BINDING, 32);
    return 32;
}

static void ask(struct fake *f, enum fake_question question)
{
    assert(f->asked == FAKE_NONE);
    f->asked = question;
    touch(f);
    if (!f->later) {
        fake_answer(f);
    }
}

static void on_password(void *arg, const struct smtp_auth_password *q)
{
    struct fake *f = arg;
    f->logins++;
    f->verdict = SMTP_AUTH_BAD_CREDENTIALS;
    if (span_eq(q->name, SPAN_LIT("down"))) {
        f->verdict = SMTP_AUTH_UNAVAILABLE;
    } else if (span_eq(q->name, SPAN_LIT("gone"))) {
        f->verdict = SMTP_AUTH_SUSPENDED;
    } else if (span_eq(q->name, SPAN_LIT("user")) && span_eq(q->password, SPAN_LIT("pass"))) {
        f->verdict = SMTP_AUTH_OK;
    }
    ask(f, FAKE_PASSWORD);
    assert(q->name.len > 0 && q->password.len > 0 && q->name.ptr[0] != 0); /* still readable after an answer */
}

static void on_salt(void *arg, const struct smtp_auth_salt *q)
{
    struct fake *f = arg;
    f->verdict = span_eq(q->name, SPAN_LIT("down")) ? SMTP_AUTH_UNAVAILABLE : SMTP_AUTH_OK;
    ask(f, FAKE_SALT);
    assert(q->name.len > 0);
}

static void on_proof(void *arg, const struct smtp_auth_proof *q)
{
    struct fake *f = arg;
    f->logins++;
    f->verdict = q->proof.ptr[0] == 'p' ? SMTP_AUTH_OK : SMTP_AUTH_BAD_CREDENTIALS;
    ask(f, FAKE_PROOF);
    assert(q->auth_message.len > 0);
}

static void on_external(void *arg, struct span authzid)
{
    struct fake *f = arg;
    f->logins++;
    f->verdict = authzid.len == 0 || span_eq(authzid, SPAN_LIT("user")) ? SMTP_AUTH_OK : SMTP_AUTH_BAD_CREDENTIALS;
    ask(f, FAKE_EXTERNAL);
}

static struct smtp_decision decide(struct span local)
{
    if (begins(local, "no")) {
        return (struct smtp_decision){550, {5, 1, 1}, SPAN_LIT("No such address")};
    }
    if (begins(local, "later")) {
        return (struct smtp_decision){450, {4, 2, 1}, SPAN_LIT("Try again later")};
    }
    return SMTP_ACCEPT;
}

static struct smtp_decision on_mail(void *arg, const struct smtp_mail *mail)
{
    struct fake *f = arg;
    struct smtp_decision d = decide(mail->sender.local);
    assert(!f->in_mail);
    f->in_mail = d.code == 0;
    if (f->in_mail) {
        buf_clear(&f->senders);
        (void)buf_append(&f->senders, mail->sender.mailbox.ptr, mail->sender.mailbox.len);
    }
    touch(f);
    return d;
}

static struct smtp_decision on_rcpt(void *arg, const struct smtp_rcpt *rcpt)
{
    struct fake *f = arg;
    assert(f->in_mail && !f->open);
    struct smtp_decision d = decide(rcpt->recipient.local);
    if (d.code == 0) {
        (void)buf_append_byte(&f->senders, '>');
        (void)buf_append(&f->senders, rcpt->recipient.mailbox.ptr, rcpt->recipient.mailbox.len);
    }
    touch(f);
    return d;
}

static void on_begin(void *arg, const struct smtp_data_begin *begin)
{
    struct fake *f = arg;
    assert(f->in_mail && !f->open && begin->recipients > 0);
    f->begins++;
    f->open = true;
    buf_clear(&f->body);
    ask(f, FAKE_BEGIN);
}

static const struct smtp_decision fake_later = {450, {4, 7, 1}, {(const uint8_t *)"Too much", 8}};

static enum smtp_body_verdict on_body(void *arg, struct span octets)
{
    struct fake *f = arg;
    assert(f->open && octets.len > 0 && f->asked == FAKE_NONE);
    (void)buf_append(&f->body, octets.ptr, octets.len);
    assert(f->body.len <= f->config.limits.size_max);
    f->body_calls++;
    touch(f);
    if (!f->open) {
        return SMTP_BODY_MORE; /* aborted just now */
    }
    if (f->refuse_after > 0 && f->body.len >= f->refuse_after) {
        f->open = false;
        smtp_server_message_refuse(f->s, &fake_later);
        return SMTP_BODY_MORE;
    }
    if (f->pause_every > 0 && f->body_calls % f->pause_every == 0) {
        if (f->later) {
            f->asked = FAKE_BODY;
            return SMTP_BODY_PAUSE;
        }
    }
    return SMTP_BODY_MORE;
}

static void on_end(void *arg, const struct smtp_body_end *end)
{
    struct fake *f = arg;
    assert(f->open && end->octets == f->body.len);
    f->asked = FAKE_NONE; /* a pause at the last octets is over */
    f->open = false;
    f->end = *end;
    ask(f, FAKE_END);
}

static void on_abort(void *arg)
{
    struct fake *f = arg;
    assert(f->open);
    f->open = false;
    f->asked = FAKE_NONE;
    f->aborts++;
    touch(f);
}

static void on_transaction_end(void *arg)
{
    struct fake *f = arg;
    assert(f->in_mail && !f->open);
    f->in_mail = false;
    f->ends++;
    touch(f);
}

void fake_init(struct fake *f)
{
    *f = (struct fake){
        .config = {.hostname = "mail.example.net",
                   .help_url = "https://help.example.net/",
                   .tls = SMTP_SERVER_STARTTLS,
                   .mechanisms = 127,
                   .require_auth = true,
                   .smtputf8 = true,
                   .limits = smtp_server_limits_default},
        .ops = {.event = on_event,
                .starttls = on_starttls,
                .channel_binding = on_binding,
                .auth_password = on_password,
                .auth_salt = on_salt,
                .auth_proof = on_proof,
                .auth_external = on_external,
                .mail = on_mail,
                .rcpt = on_rcpt,
                .data_begin = on_begin,
                .body = on_body,
                .body_end = on_end,
                .abort = on_abort,
                .transaction_end = on_transaction_end},
        .start = {.session = 1, .random = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18}},
    };
    buf_init(&f->out, 1U << 26);
    buf_init(&f->body, 1U << 26);
    buf_init(&f->message, 1U << 26);
    buf_init(&f->senders, 1U << 20);
}

void fake_open(struct fake *f)
{
    f->s = smtp_server_new(&f->config, &f->ops, f, &f->start);
    assert(f->s != NULL);
    if (f->config.tls == SMTP_SERVER_IMPLICIT) {
        fake_tls(f);
    }
    smtp_server_greet(f->s);
    fake_collect(f);
}

void fake_fini(struct fake *f)
{
    smtp_server_free(&f->s);
    assert(!f->open && !f->in_mail);
    buf_fini(&f->out);
    buf_fini(&f->body);
    buf_fini(&f->message);
    buf_fini(&f->senders);
}

static void keep_message(struct fake *f)
{
    buf_clear(&f->message);
    (void)buf_append(&f->message, f->body.data, f->body.len);
    f->messages++;
}

static void answer_end(struct fake *f)
{
    struct smtp_decision no = {451, {4, 3, 0}, SPAN_LIT("Cannot be stored")};
    struct smtp_decision yes = SMTP_ACCEPT;
    if (!f->refuse_result) {
        keep_message(f);
    }
    smtp_server_message_result(f->s, f->refuse_result ? &no : &yes);
}

void fake_answer(struct fake *f)
{
    enum fake_question asked = f->asked;
    struct span none = {NULL, 0};
    f->asked = FAKE_NONE;
    switch (asked) {
    case FAKE_PASSWORD:
    case FAKE_EXTERNAL:
        smtp_server_auth_result(f->s, f->verdict, none, none);
        break;
    case FAKE_SALT:
        smtp_server_auth_salt(f->s, f->verdict, SPAN_LIT("saltsaltsalt"), 4096);
        break;
    case FAKE_PROOF:
        smtp_server_auth_result(f->s, f->verdict, none, SPAN_LIT("signature"));
        break;
    case FAKE_BEGIN:
        f->open = !f->refuse_begin;
        if (f->refuse_begin) {
            smtp_server_data_refuse(f->s, &fake_later);
        } else {
            smtp_server_data_go(f->s);
        }
        break;
    case FAKE_END:
        answer_end(f);
        break;
    case FAKE_BODY:
        smtp_server_resume(f->s);
        break;
    case FAKE_NONE:
        break;
    }
}

void fake_tls(struct fake *f)
{
    const struct smtp_server_tls tls = {.client_certificate = f->certificate, .binding = !f->no_binding};
    f->tls_wanted = false;
    smtp_server_tls_started(f->s, &tls);
}

bool fake_replies_well_formed(struct span out)
{
    while (out.len > 0) {
        const uint8_t *lf = memchr(out.ptr, '\n', out.len);
        size_t len = lf != NULL ? (size_t)(lf - out.ptr) + 1 : 0;
        if (len < 5 || len > 512 || out.ptr[len - 2] != '\r' || out.ptr[0] < '2' || out.ptr[0] > '5' ||
            (out.ptr[3] != ' ' && out.ptr[3] != '-')) {
            bool challenge = len > 512 && memcmp(out.ptr, "334 ", 4) == 0;
            if (!challenge) {
                return false;
            }
        }
        for (size_t i = 0; i + 2 < len; i++) {
            if (out.ptr[i] < 32 || out.ptr[i] > 126) {
                return false;
            }
        }
        out.ptr += len;
        out.len -= len;
    }
    return true;
}

void fake_collect(struct fake *f)
{
    struct span out = smtp_server_output(f->s);
    assert(fake_replies_well_formed(out));
    (void)buf_append(&f->out, out.ptr, out.len);
    smtp_server_written(f->s, out.len);
}

/* One piece, until it is all taken. */
static void send_piece(struct fake *f, struct span piece)
{
    for (unsigned stuck = 0; piece.len > 0 || smtp_server_waiting(f->s);) {
        size_t n = smtp_server_feed(f->s, piece.ptr, piece.len);
        assert(n <= piece.len);
        piece.ptr += n;
        piece.len -= n;
        fake_collect(f);
        stuck = n > 0 ? 0 : stuck + 1;
        assert(stuck < 4);
        if (f->asked != FAKE_NONE) {
            fake_answer(f);
            fake_collect(f);
            stuck = 0;
        } else if (f->tls_wanted && piece.len == 0) {
            return;
        }
    }
}

void fake_send(struct fake *f, struct span octets, size_t step)
{
    while (octets.len > 0) {
        size_t n = step == 0 || step > octets.len ? octets.len : step;
        /* A copy of its own, so that a sanitizer sees a read beyond the piece. */
        uint8_t *copy = malloc(n);
        assert(copy != NULL);
        memcpy(copy, octets.ptr, n);
        send_piece(f, (struct span){copy, n});
        free(copy);
        octets.ptr += n;
        octets.len -= n;
    }
}
