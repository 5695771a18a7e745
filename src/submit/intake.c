/*
 * A transaction, from MAIL to the spool's answer. The header section is held back until its end (bounded by the
 * engine), prepared (message/submission.h), and then goes on before the octets that follow. A message of up to
 * SPOOL_INLINE_MAX octets is handed to the spool whole, in one frame; a larger one streams, and the client is slowed
 * down to the speed of the disk.
 *
 * A transaction that waits for guard or spool is found by its message's id. It outlives neither the session nor the
 * answer: when the session goes first, the answer finds nothing. A message that the spool then stores all the same was
 * never acknowledged, and is whole.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "message/identity.h"
#include "message/submission.h"
#include "submit/submit_int.h"

#define HEADER_ADDED_MAX   8192U
#define SPOOL_PENDING_HIGH (512U * 1024U)
#define CHUNK_DIRECT       (16U * 1024U) /* a run of so many octets is a chunk of its own */
/* Octets of messages in this process: from here on even small ones stream to the disk; at twice that, no more is taken.
 */
#define HELD_HIGH (64U * 1024U * 1024U)

enum intake_stage {
    INTAKE_ENVELOPE, /* MAIL and RCPT */
    INTAKE_CHECK,    /* the guard is asked */
    INTAKE_HEADER,   /* octets are held back */
    INTAKE_SMALL,    /* octets gather for one PUT */
    INTAKE_LARGE,    /* BEGIN was sent */
    INTAKE_STORING,  /* the spool has it all; STORED or REFUSED to come */
    INTAKE_VOID,     /* refused: what still comes is dropped by the engine */
};

struct transaction {
    uint64_t id; /* the message's, from data_begin on */
    struct session *session;
    enum intake_stage stage;
    bool charged; /* the guard counted it: refund when it does not come to be */
    bool ended;   /* the engine waits for the result: a refusal is one */
    char *sender, *envid, *hold_words, *message_id;
    uint16_t flags; /* enum envelope_flag */
    uint64_t declared, streamed;
    struct envelope_recipient *recipients;
    size_t recipients_count, recipients_room;
    struct buf octets; /* header until done, then the message so far */
    uint64_t held;     /* of submit.held, for octets */
    bool waits_for_spool;
    UT_hash_handle hh;
};

static struct transaction *find(struct submit *sb, uint64_t id)
{
    struct transaction *t = NULL;
    HASH_FIND(hh, sb->sent, &id, sizeof(id), t);
    return t;
}

/* After octets has grown or shrunk. */
static void count_held(struct submit *sb, struct transaction *t)
{
    sb->held += t->octets.cap - t->held;
    t->held = t->octets.cap;
}

static void transaction_free(struct session *s)
{
    struct transaction *t = s->transaction;
    s->transaction = NULL;
    if (t == NULL) {
        return;
    }
    if (t->id != 0) {
        HASH_DEL(s->submit->sent, t);
    }
    for (size_t i = 0; i < t->recipients_count; i++) {
        free((void *)t->recipients[i].address.ptr);
        free((void *)t->recipients[i].orcpt.ptr);
    }
    free(t->recipients);
    free(t->sender);
    free(t->envid);
    free(t->hold_words);
    free(t->message_id);
    buf_fini(&t->octets);
    count_held(s->submit, t);
    free(t);
}

static struct smtp_decision decision(uint16_t code, uint8_t subject, uint8_t detail, const char *text)
{
    return (struct smtp_decision){
        .code = code, .enhanced = {(uint8_t)(code / 100), subject, detail}, .text = span_str(text)};
}

static struct smtp_decision no_memory(void)
{
    return decision(451, 3, 0, "Out of memory just now; try again later");
}

/* The one place where a refusal of ours is counted and logged, so that `kidoban trace` finds it by the session. */
static struct smtp_decision refuse(struct session *s, struct smtp_decision d, const char *rule, struct span address)
{
    s->submit->counters.refused++;
    log_info("message.refused", LF_ID("session", s->id), LF_ID("id", s->transaction != NULL ? s->transaction->id : 0),
             LF_STR("account", s->account), LF_STR("rule", rule), LF_UINT("code", d.code), LF_SPAN("address", address),
             LF_SPAN("text", d.text));
    return d;
}

static bool may_send_as(const struct session *s, struct span mailbox)
{
    const struct config *c = s->settings->config->config;
    return message_identity_matches_any(mailbox, s->identities, s->identities_count,
                                        c->submission.senders.plus_addressing);
}

/* Promise 3: nobody sends as someone else. The null sender is anybody's: the header is still checked. */
static bool sender_refused(struct session *s, const struct smtp_mail *mail)
{
    if (s->account == NULL || mail->sender.null || may_send_as(s, mail->sender.mailbox)) {
        return false;
    }
    if (s->settings->config->config->submission.senders.enforce) {
        return true;
    }
    log_warn("sender.reported", LF_ID("session", s->id), LF_STR("account", s->account), LF_STR("where", "MAIL FROM"),
             LF_SPAN("address", mail->sender.mailbox));
    return false;
}

struct smtp_decision intake_mail(struct session *s, const struct smtp_mail *mail)
{
    const struct spool_state *state = &s->submit->spool_state;
    if (s->submit->spool == NULL) {
        return refuse(s, decision(451, 3, 0, "The spool is not ready; try again in a moment"), "spool-away",
                      mail->sender.mailbox);
    }
    if (!state->accepting) {
        struct smtp_decision d = {
            .code = state->code, .enhanced = {4, 3, state->code == 452 ? 1 : 0}, .text = state->text};
        return refuse(s, d, "spool-state", mail->sender.mailbox);
    }
    if (sender_refused(s, mail)) {
        return refuse(
            s,
            decision(550, 7, 1,
                     "This account may not send as that address; use one of its own, or ask for it to be added"),
            "sender", mail->sender.mailbox);
    }
    struct transaction *t = calloc(1, sizeof(*t));
    if (t == NULL) {
        return no_memory();
    }
    s->transaction = t;
    t->session = s;
    t->sender = span_dup(mail->sender.mailbox);
    t->envid = span_dup(mail->envid);
    t->declared = mail->size;
    t->flags = (uint16_t)((mail->body_8bit ? ENVELOPE_8BIT : 0) | (mail->smtputf8 ? ENVELOPE_SMTPUTF8 : 0) |
                          (mail->ret == SMTP_RET_FULL ? ENVELOPE_RET_FULL : 0) |
                          (mail->ret == SMTP_RET_HDRS ? ENVELOPE_RET_HDRS : 0));
    buf_init(&t->octets, SPOOL_INLINE_MAX + s->listener->smtp.limits.header_max + HEADER_ADDED_MAX);
    if (t->sender == NULL || t->envid == NULL) {
        transaction_free(s);
        return no_memory();
    }
    return SMTP_ACCEPT;
}

struct smtp_decision intake_rcpt(struct session *s, const struct smtp_rcpt *rcpt)
{
    struct transaction *t = s->transaction;
    const struct config *c = s->settings->config->config;
    struct span mailbox = rcpt->recipient.mailbox;
    char *address = NULL;
    if (rcpt->recipient.kind == SMTP_DOMAIN_NONE) { /* <postmaster>: ours (RFC 5321 section 4.5.1) */
        struct buf b;
        buf_init(&b, ENVELOPE_ADDRESS_MAX);
        (void)buf_printf(&b, "postmaster@%s",
                         c->operator_.domains.count > 0 ? c->operator_.domains.list[0] : c->submission.hostname);
        address = span_dup(buf_span(&b));
        buf_fini(&b);
    } else {
        address = span_dup(mailbox);
    }
    if (t->recipients_count == t->recipients_room) {
        size_t room = t->recipients_room == 0 ? 4 : t->recipients_room * 2;
        struct envelope_recipient *grown = realloc(t->recipients, room * sizeof(*grown));
        if (grown == NULL) {
            free(address);
            return no_memory();
        }
        t->recipients = grown;
        t->recipients_room = room;
    }
    char *orcpt = rcpt->orcpt.len > 0 ? span_dup(rcpt->orcpt) : NULL;
    if (address == NULL || (orcpt == NULL && rcpt->orcpt.len > 0)) {
        free(address);
        free(orcpt);
        return no_memory();
    }
    t->recipients[t->recipients_count] = (struct envelope_recipient){.number = (uint16_t)t->recipients_count,
                                                                     .notify = rcpt->notify,
                                                                     .address = span_str(address),
                                                                     .orcpt = span_str(orcpt)};
    t->recipients_count++;
    return SMTP_ACCEPT;
}

/* The guard's question. */

static void data_refuse(struct session *s, struct smtp_decision d, const char *rule)
{
    struct smtp_decision logged = refuse(s, d, rule, span_str(s->transaction->sender));
    s->transaction->stage = INTAKE_VOID;
    smtp_server_data_refuse(s->smtp, &logged);
}

void intake_data_begin(struct session *s, const struct smtp_data_begin *begin)
{
    struct submit *sb = s->submit;
    struct transaction *t = s->transaction;
    t->id = id_mint(&sb->minter, clock_wall_ms());
    t->declared = begin->size > t->declared ? begin->size : t->declared;
    HASH_ADD(hh, sb->sent, id, sizeof(t->id), t);
    if (!hash_added(t->hh)) {
        t->id = 0;
        data_refuse(s, no_memory(), "memory");
        return;
    }
    if (sb->guard == NULL) {
        data_refuse(s, decision(451, 3, 0, "The limits cannot be checked just now; try again in a moment"),
                    "guard-away");
        return;
    }
    t->stage = INTAKE_CHECK;
    struct guard_check check = {.session = s->id,
                                .peer = s->peer,
                                .recipients = (uint32_t)t->recipients_count,
                                .octets = t->declared,
                                .account = span_str(s->account),
                                .network = span_str(s->account == NULL ? s->network : NULL),
                                .sender = span_str(t->sender)};
    struct wire_writer w = channel_begin(sb->guard, GUARD_CHECK, t->id);
    guard_check_encode(&w, &check);
    (void)channel_end(sb->guard, &w);
    (void)FAULT_POINT("submit.check");
}

static bool guard_go(struct transaction *t, const struct guard_answer *answer)
{
    t->charged = true;
    if (answer->verdict == GUARD_HOLD) {
        t->flags |= ENVELOPE_HOLD;
        t->hold_words = span_dup(answer->text);
        return t->hold_words != NULL;
    }
    return true;
}

void intake_guard_answer(struct submit *sb, uint64_t id, const struct guard_answer *answer)
{
    struct transaction *t = find(sb, id);
    if (t == NULL || t->stage != INTAKE_CHECK) {
        return;
    }
    struct session *s = t->session;
    struct smtp_decision d = {.code = answer->verdict == GUARD_REJECT ? 550 : 450, .text = answer->text};
    d.enhanced[0] = (uint8_t)(d.code / 100);
    d.enhanced[1] = 7;
    d.enhanced[2] = 1;
    if (answer->verdict == GUARD_DEFER || answer->verdict == GUARD_REJECT) {
        data_refuse(s, d, "limit");
    } else if (guard_go(t, answer)) {
        t->stage = INTAKE_HEADER;
        smtp_server_data_go(s->smtp);
    } else {
        data_refuse(s, no_memory(), "memory");
    }
    session_continue(s);
}

void intake_guard_lost(struct submit *sb)
{
    struct transaction *t, *next;
    HASH_ITER(hh, sb->sent, t, next)
    {
        if (t->stage == INTAKE_CHECK) {
            struct session *s = t->session;
            data_refuse(s, decision(451, 3, 0, "The limits cannot be checked just now; try again in a moment"),
                        "guard-away");
            session_continue(s);
        }
    }
}

static void refund(struct session *s, struct transaction *t)
{
    if (t->charged && s->submit->guard != NULL) {
        (void)channel_send(s->submit->guard, GUARD_REFUND, t->id, (struct span){0}, -1);
    }
    t->charged = false;
}

/* The message will not come to be: give back, tell the spool if it has begun. The engine drops the rest. */
static void make_void(struct session *s, struct transaction *t)
{
    if (t->stage == INTAKE_LARGE && s->submit->spool != NULL) {
        (void)channel_send(s->submit->spool, SPOOL_ABORT, t->id, (struct span){0}, -1);
    }
    if (t->stage != INTAKE_STORING) {
        refund(s, t);
    }
    t->stage = INTAKE_VOID;
    t->waits_for_spool = false;
    buf_fini(&t->octets);
    count_held(s->submit, t);
}

static void message_refuse(struct session *s, struct smtp_decision d, const char *rule, struct span address)
{
    struct smtp_decision logged = refuse(s, d, rule, address);
    bool ended = s->transaction->ended;
    make_void(s, s->transaction);
    if (ended) {
        smtp_server_message_result(s->smtp, &logged);
    } else {
        smtp_server_message_refuse(s->smtp, &logged);
    }
}

/* The octets. */

static struct envelope envelope_of(const struct session *s, const struct transaction *t)
{
    return (struct envelope){.session = s->id,
                             .arrived_ms = clock_wall_ms(),
                             .flags = t->flags,
                             .peer = s->peer,
                             .sender = span_str(t->sender),
                             .account = span_str(s->account),
                             .envid = span_str(t->envid),
                             .message_id = span_str(t->message_id),
                             .hold_words = span_str(t->hold_words),
                             .recipients_count = (uint16_t)t->recipients_count,
                             .recipients = t->recipients};
}

static void send_chunks(struct submit *sb, struct transaction *t)
{
    while (t->octets.len > 0) {
        struct span part = {t->octets.data, t->octets.len < SPOOL_CHUNK_MAX ? t->octets.len : SPOOL_CHUNK_MAX};
        (void)FAULT_POINT("submit.chunk");
        (void)channel_send(sb->spool, SPOOL_CHUNK, t->id, part, -1);
        t->streamed += part.len;
        buf_consume(&t->octets, part.len);
    }
    buf_fini(&t->octets);
    count_held(sb, t);
}

/* Octets of a streaming message. A long run goes to the spool from where it was read; short ones (dots, BDAT) gather.
 */
static int stream_octets(struct submit *sb, struct transaction *t, struct span octets)
{
    if (t->octets.len == 0 && octets.len >= CHUNK_DIRECT && octets.len <= SPOOL_CHUNK_MAX) {
        (void)FAULT_POINT("submit.chunk");
        int r = channel_send(sb->spool, SPOOL_CHUNK, t->id, octets, -1);
        t->streamed += r < 0 ? 0 : octets.len;
        return r;
    }
    int r = buf_append(&t->octets, octets.ptr, octets.len);
    count_held(sb, t);
    if (t->octets.len >= SPOOL_CHUNK_MAX) {
        send_chunks(sb, t);
    }
    return r;
}

static void begin_large(struct session *s, struct transaction *t)
{
    struct spool_begin begin = {.envelope = envelope_of(s, t), .declared = t->declared};
    struct wire_writer w = channel_begin(s->submit->spool, SPOOL_BEGIN, t->id);
    spool_begin_encode(&w, &begin);
    (void)channel_end(s->submit->spool, &w);
    t->stage = INTAKE_LARGE;
    send_chunks(s->submit, t);
}

/* Where the octets behind the empty line begin, or 0: it is not there yet. at: where to look from. */
static size_t header_end(const struct buf *b, size_t at)
{
    const uint8_t *p = b->data;
    if (b->len >= 2 && p[0] == '\r' && p[1] == '\n') {
        return 2;
    }
    at = at > 3 ? at - 3 : 0;
    const uint8_t *hit = b->len > at ? memmem(p + at, b->len - at, "\r\n\r\n", 4) : NULL;
    return hit != NULL ? (size_t)(hit - p) + 4 : 0;
}

static void prepare_facts(const struct session *s, const struct transaction *t, struct message_submission *m,
                          char tls[128], char peer[NET_ADDRESS_TEXT])
{
    const struct config *c = s->settings->config->config;
    stream_tls_text(s->stream, tls, 128);
    net_address_format(&s->peer, peer);
    *m = (struct message_submission){
        .hostname = span_str(s->listener->smtp.hostname),
        .id = t->id,
        .client_name = span_str(s->greeted_as),
        .client_address = span_str(peer),
        .hide_client = c->submission.senders.hide_client_address,
        .tls = span_str(tls),
        .extended = smtp_server_extended(s->smtp),
        .authenticated = s->account != NULL,
        .smtputf8 = (t->flags & ENVELOPE_SMTPUTF8) != 0,
        .now = (int64_t)(clock_wall_ms() / 1000),
        .identities = s->identities,
        .identities_count = s->identities_count,
        .check_identities = s->account != NULL,
        .enforce = c->submission.senders.enforce,
        .plus_addressing = c->submission.senders.plus_addressing,
    };
}

/* Replaces the header section (the first `len` octets held) by the prepared one. false: refused, told to the engine. */
static bool prepare_header(struct session *s, struct transaction *t, size_t len)
{
    struct message_submission m;
    struct message_submission_result result;
    char tls[128], peer[NET_ADDRESS_TEXT];
    struct buf out;
    prepare_facts(s, t, &m, tls, peer);
    buf_init(&out, t->octets.max);
    int r = message_submission_prepare((struct span){t->octets.data, len}, &m, &out, &result);
    if (r == 0 && result.code != 0) {
        struct smtp_decision d = {.code = result.code, .text = span_str(result.text)};
        memcpy(d.enhanced, result.enhanced, sizeof(d.enhanced));
        message_refuse(s, d, "header", span_str(result.address));
        buf_fini(&out);
        return false;
    }
    if (r == 0 && result.reported) {
        log_warn("sender.reported", LF_ID("session", s->id), LF_ID("id", t->id), LF_STR("account", s->account),
                 LF_STR("where", "header"), LF_STR("address", result.address));
    }
    t->message_id = span_dup(span_str(result.message_id));
    if (r == 0) {
        r = buf_append(&out, t->octets.data + len, t->octets.len - len);
    }
    if (r < 0 || t->message_id == NULL) {
        buf_fini(&out);
        message_refuse(s, no_memory(), "memory", (struct span){0});
        return false;
    }
    buf_fini(&t->octets);
    t->octets = out;
    t->stage = INTAKE_SMALL;
    return true;
}

enum smtp_body_verdict intake_body(struct session *s, struct span octets)
{
    struct transaction *t = s->transaction;
    size_t before = t->octets.len;
    if (t->stage == INTAKE_VOID) {
        return SMTP_BODY_MORE;
    }
    if (s->submit->spool == NULL) {
        message_refuse(s, decision(451, 3, 0, "The spool went away; send the message again"), "spool-away",
                       (struct span){0});
        return SMTP_BODY_MORE;
    }
    int r =
        t->stage == INTAKE_LARGE ? stream_octets(s->submit, t, octets) : buf_append(&t->octets, octets.ptr, octets.len);
    if (r < 0) {
        message_refuse(s, no_memory(), "memory", (struct span){0});
        return SMTP_BODY_MORE;
    }
    count_held(s->submit, t);
    if (s->submit->held > 2 * (uint64_t)HELD_HIGH) {
        message_refuse(s, decision(452, 3, 1, "Too much mail comes in at once; send the message again in a moment"),
                       "memory", (struct span){0});
        return SMTP_BODY_MORE;
    }
    if (t->stage == INTAKE_HEADER) {
        size_t end = header_end(&t->octets, before);
        if (end == 0 || !prepare_header(s, t, end)) {
            return SMTP_BODY_MORE;
        }
    }
    if (t->stage == INTAKE_SMALL && (t->octets.len > SPOOL_INLINE_MAX || s->submit->held > HELD_HIGH)) {
        begin_large(s, t);
    }
    if (t->stage == INTAKE_LARGE && channel_pending(s->submit->spool) > SPOOL_PENDING_HIGH) {
        t->waits_for_spool = true;
        return SMTP_BODY_PAUSE;
    }
    return SMTP_BODY_MORE;
}

void intake_spool_drained(struct submit *sb)
{
    struct transaction *t, *next;
    HASH_ITER(hh, sb->sent, t, next)
    {
        if (t->waits_for_spool) {
            t->waits_for_spool = false;
            smtp_server_resume(t->session->smtp);
            session_continue(t->session);
        }
    }
}

static void put_small(struct session *s, struct transaction *t)
{
    struct spool_put put = {.envelope = envelope_of(s, t), .octets = buf_span(&t->octets)};
    (void)FAULT_POINT("submit.put");
    struct wire_writer w = channel_begin(s->submit->spool, SPOOL_PUT, t->id);
    spool_put_encode(&w, &put);
    if (channel_end(s->submit->spool, &w) < 0) {
        struct smtp_decision d = no_memory();
        make_void(s, t);
        smtp_server_message_result(s->smtp, &d);
        return;
    }
    t->stage = INTAKE_STORING;
    buf_fini(&t->octets);
    count_held(s->submit, t);
}

static void commit_large(struct session *s, struct transaction *t)
{
    send_chunks(s->submit, t);
    (void)FAULT_POINT("submit.commit");
    struct wire_writer w = channel_begin(s->submit->spool, SPOOL_COMMIT, t->id);
    wire_put_u64(&w, t->streamed);
    (void)channel_end(s->submit->spool, &w);
    t->stage = INTAKE_STORING;
}

void intake_body_end(struct session *s, const struct smtp_body_end *end)
{
    struct transaction *t = s->transaction;
    t->flags |= (uint16_t)(end->has_8bit ? ENVELOPE_8BIT : 0);
    t->ended = true;
    if (s->submit->spool == NULL && t->stage != INTAKE_VOID) {
        struct smtp_decision d = refuse(s, decision(451, 3, 0, "The spool went away; send the message again"),
                                        "spool-away", (struct span){0});
        make_void(s, t);
        smtp_server_message_result(s->smtp, &d);
        return;
    }
    if (t->stage == INTAKE_HEADER && !prepare_header(s, t, t->octets.len)) {
        return; /* a message of a header only; message_refuse() has answered */
    }
    if (t->stage == INTAKE_SMALL && t->octets.len > SPOOL_INLINE_MAX) {
        begin_large(s, t);
    }
    if (t->stage == INTAKE_SMALL) {
        put_small(s, t);
    } else if (t->stage == INTAKE_LARGE) {
        commit_large(s, t);
    }
}

void intake_abort(struct session *s)
{
    if (s->transaction != NULL) {
        make_void(s, s->transaction);
    }
}

void intake_end(struct session *s)
{
    transaction_free(s);
}

/* The spool's answers. */

void intake_stored(struct submit *sb, uint64_t id)
{
    struct transaction *t = find(sb, id);
    if (t == NULL || t->stage != INTAKE_STORING) {
        return;
    }
    (void)FAULT_POINT("submit.stored");
    struct session *s = t->session;
    char text[64], id_text[ID_TEXT_LEN + 1];
    id_format(id, id_text);
    (void)snprintf(text, sizeof(text), "Safe on disk; queued as %s", id_text);
    struct smtp_decision d = decision(250, 0, 0, text);
    sb->counters.messages++;
    s->messages++;
    if (!s->familiar) {
        session_becomes_familiar(s);
    }
    smtp_server_message_result(s->smtp, &d);
    session_continue(s);
    (void)FAULT_POINT("submit.replied");
}

void intake_refused(struct submit *sb, uint64_t id, const struct spool_refused *refused)
{
    struct transaction *t = find(sb, id);
    if (t == NULL || (t->stage != INTAKE_STORING && t->stage != INTAKE_LARGE)) {
        return;
    }
    struct session *s = t->session;
    struct smtp_decision d = {.code = refused->code, .text = refused->text};
    memcpy(d.enhanced, refused->enhanced, sizeof(d.enhanced));
    d = refuse(s, d, "spool", span_str(t->sender));
    bool ended = t->stage == INTAKE_STORING;
    refund(s, t);
    t->stage = INTAKE_VOID;
    if (ended) {
        smtp_server_message_result(s->smtp, &d);
    } else {
        bool paused = t->waits_for_spool;
        t->waits_for_spool = false;
        smtp_server_message_refuse(s->smtp, &d);
        if (paused) {
            smtp_server_resume(s->smtp);
        }
    }
    session_continue(s);
}

void intake_spool_lost(struct submit *sb)
{
    struct transaction *t, *next;
    HASH_ITER(hh, sb->sent, t, next)
    {
        struct spool_refused lost = {
            .code = 451,
            .enhanced = {4, 3, 0},
            .text = SPAN_LIT("The spool went away before it could promise; send the message again")};
        intake_refused(sb, t->id, &lost);
    }
}
