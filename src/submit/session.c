/*
 * One connection of a user's program: the stream, the pure engine, and the questions to the vault. Everything that
 * comes over the stream is a stranger's until AUTH, and hostile after it.
 */
#include <errno.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "smtp/proxy.h"
#include "smtp/reply.h"
#include "submit/submit_int.h"

#define OUTPUT_HIGH    (64U * 1024U) /* a client that does not read its replies waits here, not in our memory */
#define CLOSE_LIMIT_MS 3000
#define REPLY_ROOM     2048U

static void session_free(struct session *s)
{
    struct submit *sb = s->submit;
    if (s->question != 0) {
        HASH_DELETE(asked_hh, sb->asked, s);
        if (sb->vault != NULL) {
            (void)channel_send(sb->vault, VAULT_CANCEL, s->question, (struct span){0}, -1);
        }
    }
    smtp_server_free(&s->smtp);
    stream_free(&s->stream);
    *s->link = s->next;
    if (s->next != NULL) {
        s->next->link = s->link;
    }
    sb->sessions_count--;
    if (s->counted) {
        crowd_leave(sb->crowd, &s->peer);
    }
    free(s->account);
    free(s->identities);
    free(s->greeted_as);
    submit_settings_drop(&s->settings);
    free(s);
    if (sb->stopping && sb->sessions_count == 0) {
        child_exit(sb->child, 0);
    }
}

static void log_closed(const struct session *s, const char *why)
{
    char peer[NET_ADDRESS_TEXT], tls[128] = "";
    net_address_format(&s->peer, peer);
    stream_tls_text(s->stream, tls, sizeof(tls));
    log_info("session.closed", LF_ID("session", s->id), LF_STR("address", peer),
             LF_STR("service", s->listener->service), LF_STR("account", s->account),
             LF_STR("greeted_as", s->greeted_as), LF_STR("tls", tls), LF_UINT("messages", s->messages),
             LF_STR("reason", why));
}

static void on_closed(void *arg, int err, const char *why)
{
    struct session *s = arg;
    if (s->phase == PHASE_HANDSHAKE && err != 0) {
        char peer[NET_ADDRESS_TEXT];
        net_address_format(&s->peer, peer);
        s->submit->counters.tls_failed++;
        log_info("tls.failed", LF_ID("session", s->id), LF_STR("address", peer), LF_STR("reason", why));
    }
    log_closed(s, s->over_why != NULL ? s->over_why : why);
    session_free(s);
}

static enum session_clock clock_of(const struct session *s)
{
    if (s->phase == PHASE_HANDSHAKE || s->phase == PHASE_PROXY) {
        return CLOCK_HANDSHAKE;
    }
    if (s->smtp != NULL && smtp_server_waiting(s->smtp)) {
        return CLOCK_STOPPED; /* it is our turn: the client owes nothing */
    }
    return s->smtp != NULL && smtp_server_in_message(s->smtp) ? CLOCK_DATA : CLOCK_COMMAND;
}

/* answered: a reply was made, so a command has ended. Until then its time runs on, however many octets of it come: one
 * now and then would hold a connection for days. Within a message, octets are progress. */
static void set_clock(struct session *s, bool answered)
{
    const struct config *c = s->settings->config->config;
    const uint64_t ms[] = {[CLOCK_STOPPED] = 0,
                           [CLOCK_HANDSHAKE] = c->submission.timeouts.handshake_ms,
                           [CLOCK_COMMAND] = c->submission.timeouts.command_ms,
                           [CLOCK_DATA] = c->submission.timeouts.data_ms};
    enum session_clock now = clock_of(s);
    if (now != s->clock || now != CLOCK_COMMAND || answered) {
        s->clock = now;
        stream_timeout(s->stream, ms[now]);
    }
}

static void flush_output(struct session *s)
{
    struct span out = smtp_server_output(s->smtp);
    if (out.len > 0 && stream_pending(s->stream) < OUTPUT_HIGH && stream_write(s->stream, out) == 0) {
        smtp_server_written(s->smtp, out.len);
        out.len = 0;
    }
    if (smtp_server_wants_close(s->smtp) && out.len == 0) {
        stream_shutdown(s->stream, CLOSE_LIMIT_MS);
        s->over = true;
    }
}

static void start_tls(struct session *s, struct span first)
{
    s->wants_tls = false;
    SSL *ssl = submit_tls_session(s->settings->tls, span_str(s->listener->service));
    s->phase = PHASE_HANDSHAKE;
    if (ssl == NULL || stream_start_tls(s->stream, ssl, first) < 0) {
        s->over = true;
        s->over_why = "TLS could not be started";
        stream_shutdown(s->stream, 0);
    }
}

/* After anything was put into the engine. */
static void settle(struct session *s)
{
    if (s->over || s->smtp == NULL) {
        return;
    }
    bool answered = smtp_server_output(s->smtp).len > s->unsent;
    flush_output(s);
    s->unsent = smtp_server_output(s->smtp).len;
    if (s->wants_tls && !s->over) {
        start_tls(s, (struct span){0});
    }
    if (!s->over && s->phase == PHASE_DIALOGUE) {
        set_clock(s, answered);
    }
    if (!s->over && s->submit->stopping && s->transaction == NULL && s->over_why == NULL) {
        session_cut(s, 421, (const uint8_t[]){4, 3, 2}, "This server restarts; connect again in a moment",
                    "server stops");
    }
}

void session_continue(struct session *s)
{
    settle(s);
    if (!s->over && s->phase == PHASE_DIALOGUE && !smtp_server_waiting(s->smtp)) {
        stream_read_resume(s->stream);
    }
}

/* The engine's questions and news. */

static void on_event(void *arg, enum smtp_event event)
{
    struct session *s = arg;
    s->submit->counters.events[event]++;
    log_info("session.incident", LF_ID("session", s->id), LF_STR("what", smtp_event_name(event)),
             LF_STR("account", s->account));
}

static void on_greeted(void *arg, struct span name, bool extended)
{
    struct session *s = arg;
    (void)extended;
    free(s->greeted_as);
    s->greeted_as = span_dup(name);
}

static void on_starttls(void *arg)
{
    struct session *s = arg;
    s->wants_tls = true;
}

static size_t on_channel_binding(void *arg, enum smtp_binding type, uint8_t octets[static SMTP_BINDING_MAX])
{
    const struct session *s = arg;
    SSL *ssl = stream_ssl(s->stream);
    switch (type) {
    case SMTP_BINDING_TLS_EXPORTER:
        return ssl != NULL ? submit_tls_exporter(ssl, octets) : 0;
    case SMTP_BINDING_TLS_SERVER_END_POINT:
        return ssl != NULL ? submit_tls_server_end_point(ssl, octets) : 0;
    case SMTP_BINDING_TLS_UNIQUE:
        break; /* void with TLS 1.3, and weak before (RFC 9266) */
    }
    return 0;
}

/* Opens a question to the vault; false: it is away or there is no memory, and the client was told so. */
static bool ask_vault(struct session *s)
{
    if (s->submit->vault == NULL) {
        smtp_server_auth_result(s->smtp, SMTP_AUTH_UNAVAILABLE, (struct span){0}, (struct span){0});
        return false;
    }
    s->question = ++s->submit->questions;
    HASH_ADD(asked_hh, s->submit->asked, question, sizeof(s->question), s);
    if (!hash_added(s->asked_hh)) {
        s->question = 0;
        smtp_server_auth_result(s->smtp, SMTP_AUTH_UNAVAILABLE, (struct span){0}, (struct span){0});
        return false;
    }
    return true;
}

static void on_auth_password(void *arg, const struct smtp_auth_password *q)
{
    struct session *s = arg;
    if (ask_vault(s)) {
        struct vault_verify m = {.session = s->id,
                                 .peer = s->peer,
                                 .name = q->name,
                                 .password = q->password,
                                 .mechanism = span_str(smtp_mechanism_name(q->mechanism))};
        struct wire_writer w = channel_begin(s->submit->vault, VAULT_VERIFY, s->question);
        vault_verify_encode(&w, &m);
        (void)channel_end(s->submit->vault, &w);
    }
}

static uint8_t hash_of(enum smtp_mechanism mechanism)
{
    return mechanism == SMTP_MECHANISM_SCRAM_SHA_1 || mechanism == SMTP_MECHANISM_SCRAM_SHA_1_PLUS ? VAULT_SHA1
                                                                                                   : VAULT_SHA256;
}

static void on_auth_salt(void *arg, const struct smtp_auth_salt *q)
{
    struct session *s = arg;
    if (ask_vault(s)) {
        struct vault_scram_salt m = {.session = s->id, .peer = s->peer, .hash = hash_of(q->mechanism), .name = q->name};
        struct wire_writer w = channel_begin(s->submit->vault, VAULT_SCRAM_SALT, s->question);
        vault_scram_salt_encode(&w, &m);
        (void)channel_end(s->submit->vault, &w);
    }
}

static void on_auth_proof(void *arg, const struct smtp_auth_proof *q)
{
    struct session *s = arg;
    if (ask_vault(s)) {
        struct vault_scram_proof m = {.session = s->id,
                                      .peer = s->peer,
                                      .hash = hash_of(q->mechanism),
                                      .name = q->name,
                                      .mechanism = span_str(smtp_mechanism_name(q->mechanism)),
                                      .auth_message = q->auth_message,
                                      .proof = q->proof};
        struct wire_writer w = channel_begin(s->submit->vault, VAULT_SCRAM_PROOF, s->question);
        vault_scram_proof_encode(&w, &m);
        (void)channel_end(s->submit->vault, &w);
    }
}

static void on_auth_external(void *arg, struct span authzid)
{
    struct session *s = arg;
    struct buf mailbox, subject;
    uint8_t sha256[32];
    buf_init(&mailbox, VAULT_IDENTITY_MAX);
    buf_init(&subject, VAULT_NAME_MAX);
    if (stream_ssl(s->stream) == NULL || !submit_tls_client(stream_ssl(s->stream), sha256, &mailbox, &subject)) {
        smtp_server_auth_result(s->smtp, SMTP_AUTH_BAD_CREDENTIALS, (struct span){0}, (struct span){0});
    } else if (ask_vault(s)) {
        struct vault_certificate m = {.session = s->id,
                                      .peer = s->peer,
                                      .authzid = authzid,
                                      .sha256 = {sha256, sizeof(sha256)},
                                      .mailbox = buf_span(&mailbox),
                                      .subject = buf_span(&subject)};
        struct wire_writer w = channel_begin(s->submit->vault, VAULT_CERTIFICATE, s->question);
        vault_certificate_encode(&w, &m);
        (void)channel_end(s->submit->vault, &w);
    }
    buf_fini(&mailbox);
    buf_fini(&subject);
}

static struct smtp_decision on_mail(void *arg, const struct smtp_mail *mail)
{
    return intake_mail(arg, mail);
}

static struct smtp_decision on_rcpt(void *arg, const struct smtp_rcpt *rcpt)
{
    return intake_rcpt(arg, rcpt);
}

static void on_data_begin(void *arg, const struct smtp_data_begin *begin)
{
    intake_data_begin(arg, begin);
}

static enum smtp_body_verdict on_body(void *arg, struct span octets)
{
    return intake_body(arg, octets);
}

static void on_body_end(void *arg, const struct smtp_body_end *end)
{
    intake_body_end(arg, end);
}

static void on_abort(void *arg)
{
    intake_abort(arg);
}

static void on_transaction_end(void *arg)
{
    intake_end(arg);
}

static const struct smtp_server_ops engine_ops = {
    .event = on_event,
    .greeted = on_greeted,
    .starttls = on_starttls,
    .channel_binding = on_channel_binding,
    .auth_password = on_auth_password,
    .auth_salt = on_auth_salt,
    .auth_proof = on_auth_proof,
    .auth_external = on_auth_external,
    .mail = on_mail,
    .rcpt = on_rcpt,
    .data_begin = on_data_begin,
    .body = on_body,
    .body_end = on_body_end,
    .abort = on_abort,
    .transaction_end = on_transaction_end,
};

/* The vault's answers. */

static void question_done(struct session *s)
{
    HASH_DELETE(asked_hh, s->submit->asked, s);
    s->question = 0;
}

/* Account and identities in one allocation each; false: out of memory, the login fails with 454. */
static bool take_account(struct session *s, const struct vault_verdict *v)
{
    size_t octets = v->identities_count * sizeof(struct span);
    for (size_t i = 0; i < v->identities_count; i++) {
        octets += v->identities[i].len;
    }
    free(s->account); /* of an exchange that was good and then cancelled */
    free(s->identities);
    s->account = span_dup(v->account);
    s->identities = malloc(octets > 0 ? octets : 1);
    if (s->account == NULL || s->identities == NULL) {
        return false;
    }
    uint8_t *text = (uint8_t *)(s->identities + v->identities_count);
    for (size_t i = 0; i < v->identities_count; i++) {
        s->identities[i] = (struct span){text, v->identities[i].len};
        memcpy(text, v->identities[i].ptr, v->identities[i].len);
        text += v->identities[i].len;
    }
    s->identities_count = v->identities_count;
    return true;
}

void session_becomes_familiar(struct session *s)
{
    familiar_add(s->submit->familiar, &s->peer, clock_mono_ms());
    s->familiar = true;
    stream_set_turns(s->stream, NULL);
}

void session_verdict(struct session *s, const struct vault_verdict *v)
{
    static const enum smtp_auth_verdict verdicts[] = {
        [VAULT_OK] = SMTP_AUTH_OK,
        [VAULT_BAD_CREDENTIALS] = SMTP_AUTH_BAD_CREDENTIALS,
        [VAULT_SUSPENDED] = SMTP_AUTH_SUSPENDED,
        [VAULT_UNAVAILABLE] = SMTP_AUTH_UNAVAILABLE,
    };
    enum smtp_auth_verdict verdict = verdicts[v->status];
    question_done(s);
    if (verdict == SMTP_AUTH_OK && !take_account(s, v)) {
        verdict = SMTP_AUTH_UNAVAILABLE;
    }
    if (verdict == SMTP_AUTH_OK) {
        s->submit->counters.auth_ok++;
        session_becomes_familiar(s);
    } else {
        s->submit->counters.auth_failed++;
    }
    smtp_server_auth_result(s->smtp, verdict, v->text, v->server_signature);
    session_continue(s);
}

void session_salt(struct session *s, const struct vault_salt *v)
{
    question_done(s);
    smtp_server_auth_salt(s->smtp, v->status == VAULT_OK ? SMTP_AUTH_OK : SMTP_AUTH_UNAVAILABLE, v->salt,
                          v->iterations);
    session_continue(s);
}

void session_vault_lost(struct session *s)
{
    question_done(s);
    smtp_server_auth_result(s->smtp, SMTP_AUTH_UNAVAILABLE, (struct span){0}, (struct span){0});
    session_continue(s);
}

void session_cut(struct session *s, uint16_t code, const uint8_t enhanced[3], const char *text, const char *why)
{
    if (s->over) {
        return;
    }
    s->over_why = why;
    if (s->phase != PHASE_DIALOGUE || s->smtp == NULL) {
        s->over = true;
        stream_shutdown(s->stream, 0);
        return;
    }
    struct smtp_decision reply = {.code = code, .text = span_str(text)};
    memcpy(reply.enhanced, enhanced, sizeof(reply.enhanced));
    smtp_server_close(s->smtp, &reply);
    settle(s);
    if (!s->over) { /* it does not read, so it cannot be told */
        s->over = true;
        stream_shutdown(s->stream, CLOSE_LIMIT_MS);
    }
}

/* The stream's news. */

/* Why this connection cannot be served now, or NULL. Counts it in. */
static const char *refuse_why(struct session *s)
{
    const struct config *c = s->settings->config->config;
    uint32_t mates = crowd_enter(s->submit->crowd, &s->peer);
    s->counted = true;
    if (crowd_total(s->submit->crowd) > c->submission.limits.connections) {
        return "Too many connections to this server; try again later";
    }
    return mates > c->submission.limits.connections_per_network
               ? "Too many connections from your address; close some and try again"
               : NULL;
}

/* The address is known (from the socket or by PROXY): make the engine, speak. */
static void begin_dialogue(struct session *s, struct span first)
{
    s->network = submit_settings_relay_network(s->settings, &s->peer);
    s->familiar = familiar_has(s->submit->familiar, &s->peer, clock_mono_ms());
    stream_set_turns(s->stream, s->familiar ? NULL : &s->submit->turns);
    struct smtp_server_start start = {.session = s->id, .may_relay = s->network != NULL};
    if (RAND_bytes(start.random, sizeof(start.random)) == 1) {
        s->smtp = smtp_server_new(&s->listener->smtp, &engine_ops, s, &start);
    }
    if (s->smtp == NULL) {
        s->over = true;
        s->over_why = "out of memory";
        stream_shutdown(s->stream, 0);
        return;
    }
    const char *why = refuse_why(s);
    if (s->listener->implicit_tls && why == NULL) {
        start_tls(s, first);
        set_clock(s, false);
        return;
    }
    s->phase = PHASE_DIALOGUE;
    if (why != NULL) {
        s->submit->counters.sessions_refused++;
        if (s->listener->implicit_tls) {
            s->over = true; /* a reply before the handshake would be noise to the client */
            s->over_why = why;
            stream_shutdown(s->stream, 0);
        } else {
            session_cut(s, 421, (const uint8_t[]){4, 7, 0}, why, why);
        }
        return;
    }
    smtp_server_greet(s->smtp);
    settle(s);
}

static size_t read_proxy(struct session *s, struct span octets)
{
    struct smtp_proxy proxy;
    size_t used = 0;
    const char *why = NULL;
    int r = smtp_proxy_parse(octets, &proxy, &used, &why);
    if (r == 0) {
        return 0;
    }
    if (r < 0) {
        s->over = true;
        s->over_why = why;
        stream_shutdown(s->stream, 0);
        return octets.len;
    }
    if (proxy.addresses) {
        s->peer = proxy.source;
    }
    s->phase = PHASE_DIALOGUE;
    begin_dialogue(s, (struct span){octets.ptr + used, octets.len - used});
    return used;
}

static bool takes_input(const struct session *s)
{
    return !s->over && s->phase == PHASE_DIALOGUE && !smtp_server_waiting(s->smtp);
}

static size_t on_read(void *arg, struct span octets)
{
    struct session *s = arg;
    if (s->over) {
        return octets.len;
    }
    if (s->phase == PHASE_PROXY) {
        return read_proxy(s, octets);
    }
    size_t taken = 0;
    for (size_t n = 1; n > 0 && taken < octets.len && takes_input(s);) {
        n = smtp_server_feed(s->smtp, octets.ptr + taken, octets.len - taken);
        taken += n;
        settle(s); /* room for replies, or an answer that was given at once: the engine may take more now */
    }
    if (!s->over && s->phase == PHASE_DIALOGUE && (taken < octets.len || smtp_server_waiting(s->smtp))) {
        stream_read_pause(s->stream);
    }
    return taken;
}

static void on_tls_ready(void *arg)
{
    struct session *s = arg;
    SSL *ssl = stream_ssl(s->stream);
    uint8_t binding[SMTP_BINDING_MAX];
    bool certificate = SSL_get0_peer_certificate(ssl) != NULL && SSL_get_verify_result(ssl) == X509_V_OK;
    struct smtp_server_tls tls = {
        .client_certificate = certificate,
        .binding = SSL_version(ssl) >= TLS1_3_VERSION || submit_tls_server_end_point(ssl, binding) > 0,
    };
    s->phase = PHASE_DIALOGUE;
    smtp_server_tls_started(s->smtp, &tls);
    if (s->listener->implicit_tls) {
        smtp_server_greet(s->smtp);
    }
    settle(s);
}

static void on_drained(void *arg)
{
    struct session *s = arg;
    if (s->smtp != NULL && !s->over && s->phase == PHASE_DIALOGUE) {
        session_continue(s);
    }
}

static void on_timeout(void *arg)
{
    struct session *s = arg;
    session_cut(s, 421, (const uint8_t[]){4, 4, 2}, "Nothing was heard from you for too long; connect again",
                "time-out");
}

static const struct stream_ops stream_callbacks = {
    .read = on_read, .tls_ready = on_tls_ready, .timeout = on_timeout, .drained = on_drained, .closed = on_closed};

/* At the least cost, or refusing would take the time of those who are served: the line waits for the end that close()
 * sends, and goes with it. */
void session_turn_away(struct submit *sb, uint32_t listener, int fd, const struct net_address *peer)
{
    static const char why[] = "Too many connections to this server; try again later";
    const struct submit_listener *l = &sb->settings->listeners[listener];
    struct buf reply;
    char address[NET_ADDRESS_TEXT];
    const struct reply_tail tail = {l->smtp.help_url, id_mint(&sb->minter, clock_wall_ms())};
    buf_init(&reply, REPLY_ROOM);
    if (!l->implicit_tls && reply_append(&reply, 421, (const uint8_t[]){4, 7, 0}, span_str(why), &tail) == 0) {
        (void)send(fd, reply.data, reply.len, MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE);
    }
    net_address_format(peer, address);
    (void)close(fd);
    buf_fini(&reply);
    sb->counters.sessions++;
    sb->counters.sessions_refused++;
    log_info("session.closed", LF_ID("session", tail.session), LF_STR("address", address),
             LF_STR("service", l->service), LF_STR("account", NULL), LF_STR("greeted_as", NULL), LF_STR("tls", ""),
             LF_UINT("messages", 0), LF_STR("reason", why));
}

/* Whom a proxy brings, and the crowd of one address, begin_dialogue() judges. */
void session_open(struct submit *sb, uint32_t listener, int fd, const struct net_address *peer)
{
    bool proxy = submit_listener_is_proxy(&sb->settings->listeners[listener], peer);
    if (!proxy && crowd_total(sb->crowd) >= sb->settings->config->config->submission.limits.connections) {
        session_turn_away(sb, listener, fd, peer);
        return;
    }
    struct session *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        (void)close(fd);
        return;
    }
    struct stream *stream = stream_new(sb->child->loop, fd, &stream_callbacks, s);
    if (stream == NULL) {
        free(s);
        return;
    }
    s->submit = sb;
    s->stream = stream;
    s->settings = submit_settings_hold(sb->settings);
    s->listener = &s->settings->listeners[listener];
    s->id = id_mint(&sb->minter, clock_wall_ms());
    s->next = sb->sessions;
    s->link = &sb->sessions;
    if (s->next != NULL) {
        s->next->link = &s->next;
    }
    sb->sessions = s;
    sb->sessions_count++;
    sb->counters.sessions++;
    s->peer = *peer;
    if (proxy) {
        s->phase = PHASE_PROXY;
        set_clock(s, false);
    } else {
        begin_dialogue(s, (struct span){0});
    }
}
