#include "deliver/connection.h"

#include <errno.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/log.h"
#include "deliver/verify.h"
#include "process/stream.h"
#include "smtp/client.h"

#define GATHER_MAX (CONNECTION_WINDOW + 64U * 1024U) /* a short message, its dots and its end leave in one write */
#define QUIT_MS    5000
#define TLS_TEXT   100
#define LABEL_MAX  (DNS_NAME_MAX + NET_ADDRESS_TEXT + 16)
#define ABORT_MS   1

#define CODE_CLOSING 421 /* RFC 5321 section 3.8 */
#define CODE_NO_MAIL 521 /* RFC 7504 */
#define CODE_NULL_MX 556

struct connection {
    const struct connection_env *env;
    const struct routes *routes;
    const struct route *route;
    const struct connection_ops *ops;
    void *arg;
    struct stream *stream;
    struct smtp_client *client;
    SSL *ssl; /* a second reference, for what went wrong in the handshake */
    struct sessions_use sessions;
    char name[DNS_NAME_MAX + 1];
    char address_text[NET_ADDRESS_TEXT]; /* empty: a unix socket */
    char label[LABEL_MAX];               /* both, for sentences */
    char tls_text[TLS_TEXT];
    bool connected, handshaking;
    bool resuming; /* a session was offered in the handshake */
    bool idle;     /* a job can be taken */
    bool sending;  /* within connection_send(), which says itself what became of it */
    bool quitting, aborted;
    bool lost; /* the end came from outside the protocol: what was not at its dot can be tried again */
    size_t served;

    struct job *job;
    int body_error; /* -EBADMSG: damaged, -ECANCELED, -errno: unreadable */
    struct verify *verify;
    uint64_t body_at;
    uint8_t *window;       /* long messages only */
    XXH3_state_t *running; /* of what was read for sending */
    struct smtp_client_recipient *recipients;
    uint16_t *indexes; /* of those in the job */
    size_t recipients_room;
    uint16_t open_at_begin;
};

static void advance(struct connection *c);
static bool begin(struct connection *c);

static struct outcome_peer peer_of(const struct connection *c)
{
    return (struct outcome_peer){
        .remote = span_str(c->name), .address = span_str(c->address_text), .tls = span_str(c->tls_text)};
}

/* ---- the end ---- */

static void body_fini(struct connection *c)
{
    verify_cancel(&c->verify);
    free(c->window);
    c->window = NULL;
    (void)XXH3_freeState(c->running);
    c->running = NULL;
    c->body_error = 0;
}

static void job_over(struct connection *c)
{
    body_fini(c);
    if (c->job != NULL && c->job->open == 0) {
        job_free(&c->job);
    }
}

static void connection_free(struct connection *c)
{
    body_fini(c);
    sessions_end(c->ssl);
    stream_free(&c->stream);
    SSL_free(c->ssl);
    free(c->recipients);
    free(c->indexes);
    free(c);
}

static enum connection_phase phase_of(const struct connection *c, enum smtp_client_phase phase)
{
    switch (phase) {
    case SMTP_CLIENT_GREETING:
    case SMTP_CLIENT_HELLO:
    case SMTP_CLIENT_TLS:
    case SMTP_CLIENT_AUTH:
        return CONNECTION_GREETING;
    case SMTP_CLIENT_DOT:
        return CONNECTION_ANSWER;
    default:
        return c->job != NULL ? CONNECTION_BUSY : CONNECTION_IDLE;
    }
}

static enum connection_phase phase_now(const struct connection *c)
{
    return !c->connected    ? CONNECTION_OPENING
           : c->handshaking ? CONNECTION_TLS
                            : phase_of(c, smtp_client_phase(c->client));
}

static void tell_end(struct connection *c, enum connection_phase phase, bool policy, const struct refusal *why)
{
    bool cancelled = c->body_error == -ECANCELED;
    smtp_client_free(&c->client); /* recipients that still wait are told here */
    outcome_flush(c->env->sink);
    job_over(c);
    struct connection_end end = {.phase = phase, .why = why, .policy = policy, .reused = c->served > 0, .job = c->job};
    end.cancelled = cancelled;
    end.resuming = phase == CONNECTION_TLS && c->resuming;
    if (c->job != NULL) {
        c->job->sending = false;
    }
    c->job = NULL;
    c->ops->ended(c->arg, c, &end);
    connection_free(c);
}

/* The engine says it is over. */
static void end_by_client(struct connection *c)
{
    struct refusal why;
    enum connection_phase phase = phase_of(c, SMTP_CLIENT_IDLE);
    bool policy = false;
    const struct smtp_client_result *failure = smtp_client_failure(c->client);
    if (failure != NULL) {
        bool permanent = failure->code == CODE_NO_MAIL || failure->code == CODE_NULL_MX;
        phase = phase_of(c, failure->phase);
        policy = failure->phase == SMTP_CLIENT_TLS || failure->phase == SMTP_CLIENT_AUTH ||
                 (failure->code == 0 && failure->enhanced[1] == 7);
        refusal_set(&why, permanent, failure->code, failure->enhanced[1], failure->enhanced[2], "%s: %.*s", c->label,
                    (int)failure->text.len, (const char *)failure->text.ptr);
    } else {
        refusal_set(&why, false, 0, 4, 2, "%s: the connection was closed", c->label);
    }
    tell_end(c, phase, policy, &why);
}

/* The connection is over. */
static void end_by_stream(struct connection *c, const char *words)
{
    static const struct {
        uint8_t subject, detail; /* RFC 3463: 4.1 no answer, 4.2 bad connection, 7.5 cryptographic failure */
    } codes[] = {[CONNECTION_OPENING] = {4, 1}, [CONNECTION_TLS] = {7, 5},  [CONNECTION_GREETING] = {4, 2},
                 [CONNECTION_IDLE] = {4, 2},    [CONNECTION_BUSY] = {4, 2}, [CONNECTION_ANSWER] = {4, 2}};
    struct refusal why;
    enum connection_phase phase = phase_now(c);
    const char *doing = phase == CONNECTION_OPENING ? "connect"
                        : phase == CONNECTION_TLS   ? "TLS handshake"
                                                    : smtp_client_phase_name(smtp_client_phase(c->client));
    refusal_set(&why, false, 0, codes[phase].subject, codes[phase].detail, "%s: %s: %s", c->label, doing, words);
    if (phase == CONNECTION_TLS && c->resuming) {
        sessions_forget(c->env->sessions, &c->sessions.key);
    }
    c->lost = true;
    smtp_client_fail(c->client, why.words);
    tell_end(c, phase, phase == CONNECTION_TLS, &why);
}

/* ---- recipients and their results ---- */

/* A broken connection says nothing about a recipient as long as the message was not whole at the other side: the job
 * goes back with them open. So does a 421 that a connection used before gives: it had enough, not the recipient. */
static bool can_be_tried_again(const struct connection *c, const struct smtp_client_result *result)
{
    if (result->class != SMTP_CLIENT_TEMPORARY || result->phase == SMTP_CLIENT_DOT) {
        return false;
    }
    return (c->lost && result->code == 0) || (result->code == CODE_CLOSING && c->served > 0);
}

/* Who tells the sender of a success that NOTIFY asks for: a host that offers DSN was given the NOTIFY with the
 * recipient. */
static enum deliver_result taken(const struct connection *c)
{
    bool dsn = (smtp_client_capabilities(c->client)->flags & SMTP_CLIENT_CAP_DSN) != 0;
    return dsn ? DELIVER_HANDED_OVER : c->route->via == VIA_LMTP ? DELIVER_DELIVERED : DELIVER_RELAYED;
}

static void on_recipient(void *arg, size_t index, const struct smtp_client_result *result)
{
    struct connection *c = arg;
    enum deliver_result what = result->class == SMTP_CLIENT_DELIVERED   ? taken(c)
                               : result->class == SMTP_CLIENT_TEMPORARY ? DELIVER_TEMPORARY
                                                                        : DELIVER_PERMANENT;
    struct outcome_said said = {.result = what, .code = result->code, .text = result->text};
    memcpy(said.enhanced, result->enhanced, sizeof(said.enhanced));
    if (c->body_error == -EBADMSG && result->phase == SMTP_CLIENT_BODY) {
        said = (struct outcome_said){.result = DELIVER_DAMAGED,
                                     .enhanced = {5, 3, 0},
                                     .text = SPAN_LIT("The stored message does not match its checksum")};
    } else if (c->body_error == -ECANCELED && result->phase == SMTP_CLIENT_BODY) {
        said = (struct outcome_said){
            .result = DELIVER_CANCELLED, .enhanced = {4, 7, 0}, .text = SPAN_LIT("Given up before its end was sent")};
    } else if (c->body_error == 0 && can_be_tried_again(c, result)) {
        return;
    }
    struct outcome_peer peer = peer_of(c);
    outcome_one(c->env->sink, c->job, c->indexes[index], &peer, &said);
}

/* ---- the body ---- */

/* A short message: read whole, checked, sent. Valid until the next message is read by anybody: the stream has taken it
 * by then. */
static int body_short(struct connection *c, struct span *ret)
{
    static uint8_t room[CONNECTION_WINDOW];
    size_t len = (size_t)c->job->wire.length;
    int r = job_read(c->job, 0, room, len);
    if (r == 0 && XXH3_64bits(room, len) != c->job->wire.xxh3) {
        r = -EBADMSG;
    }
    *ret = (struct span){room, len};
    c->body_at = len;
    return r;
}

/* A window of a long one, which verify.c has found good before. It is hashed again on its way: if it is not what was
 * checked, the end of data is never sent. */
static int body_long(struct connection *c, struct span *ret)
{
    uint64_t left = c->job->wire.length - c->body_at;
    size_t len = left < CONNECTION_WINDOW ? (size_t)left : CONNECTION_WINDOW;
    int r = job_read(c->job, c->body_at, c->window, len);
    if (r < 0) {
        return r;
    }
    (void)XXH3_64bits_update(c->running, c->window, len);
    c->body_at += len;
    *ret = (struct span){c->window, len};
    return c->body_at == c->job->wire.length && XXH3_64bits_digest(c->running) != c->job->wire.xxh3 ? -EBADMSG : 0;
}

static int on_body_next(void *arg, struct span *ret)
{
    struct connection *c = arg;
    if (c->body_at >= c->job->wire.length) {
        return 0;
    }
    c->body_error = c->job->cancelled ? -ECANCELED : c->window != NULL ? body_long(c, ret) : body_short(c, ret);
    return c->body_error < 0 ? c->body_error : 1;
}

static void on_verified(void *arg, int result)
{
    struct connection *c = arg;
    c->verify = NULL;
    if (c->job->cancelled) {
        outcome_rest_cancelled(c->env->sink, c->job);
        job_over(c);
        advance(c);
        return;
    }
    struct outcome_peer nobody = {0};
    struct outcome_said said = {.result = DELIVER_DAMAGED,
                                .enhanced = {5, 3, 0},
                                .text = SPAN_LIT("The stored message does not match its checksum")};
    if (result == 0) {
        if (begin(c)) {
            advance(c);
            return;
        }
    } else {
        if (result != -EBADMSG) {
            said = (struct outcome_said){.result = DELIVER_TEMPORARY,
                                         .enhanced = {4, 3, 0},
                                         .text = SPAN_LIT("The stored message cannot be read now")};
        }
        outcome_rest(c->env->sink, c->job, &nobody, &said);
    }
    outcome_flush(c->env->sink);
    job_over(c);
    advance(c);
}

static bool long_body_start(struct connection *c)
{
    c->window = malloc(CONNECTION_WINDOW);
    c->running = XXH3_createState();
    if (c->window == NULL || c->running == NULL) {
        return false;
    }
    c->verify = verify_start(c->env->loop, c->job, on_verified, c);
    return c->verify != NULL;
}

/* ---- transactions ---- */

static bool recipients_reserve(struct connection *c, size_t count)
{
    if (count <= c->recipients_room) {
        return true;
    }
    struct smtp_client_recipient *recipients = calloc(count, sizeof(*recipients));
    uint16_t *indexes = calloc(count, sizeof(*indexes));
    if (recipients == NULL || indexes == NULL) {
        free(recipients);
        free(indexes);
        return false;
    }
    free(c->recipients);
    free(c->indexes);
    c->recipients = recipients;
    c->indexes = indexes;
    c->recipients_room = count;
    return true;
}

/* The recipients without a result, as many as the host takes at once (RFC 9422 RCPTMAX). */
static size_t recipients_gather(struct connection *c)
{
    const struct envelope *e = &c->job->wire.envelope;
    size_t n = 0, max = smtp_client_capabilities(c->client)->recipients_max;
    max = max > 0 && max < c->job->open ? max : c->job->open;
    if (!recipients_reserve(c, max)) {
        return 0;
    }
    for (size_t i = 0; i < e->recipients_count && n < max; i++) {
        if (c->job->settled[i]) {
            continue;
        }
        const struct envelope_recipient *r = &e->recipients[i];
        c->indexes[n] = (uint16_t)i;
        c->recipients[n++] =
            (struct smtp_client_recipient){.address = r->address, .notify = r->notify, .orcpt = r->orcpt};
    }
    return n;
}

static void settle_unsendable(struct connection *c, int err)
{
    struct outcome_peer peer = peer_of(c);
    struct outcome_said said = {.result = DELIVER_PERMANENT,
                                .enhanced = {5, 1, 3},
                                .text = SPAN_LIT("An address of this message cannot be written in SMTP")};
    if (err == -ENOMEM) {
        said = (struct outcome_said){
            .result = DELIVER_TEMPORARY, .enhanced = {4, 3, 0}, .text = SPAN_LIT("Out of memory here")};
    }
    outcome_rest(c->env->sink, c->job, &peer, &said);
    outcome_flush(c->env->sink);
}

/* false: nothing was begun and the job is settled. */
static bool begin(struct connection *c)
{
    const struct deliver_job *m = &c->job->wire;
    size_t count = recipients_gather(c);
    c->body_at = 0;
    c->body_error = 0;
    if (c->running != NULL) {
        (void)XXH3_64bits_reset(c->running);
    }
    struct smtp_client_transaction t = {
        .sender = m->envelope.sender,
        .size = m->length,
        .body_8bit = (m->envelope.flags & ENVELOPE_8BIT) != 0,
        .smtputf8 = (m->envelope.flags & ENVELOPE_SMTPUTF8) != 0,
        .ret = (m->envelope.flags & ENVELOPE_RET_FULL) != 0   ? SMTP_CLIENT_RET_FULL
               : (m->envelope.flags & ENVELOPE_RET_HDRS) != 0 ? SMTP_CLIENT_RET_HDRS
                                                              : SMTP_CLIENT_RET_NONE,
        .envid = m->envelope.envid,
        .recipients = c->recipients,
        .recipients_count = count,
        .arg = c,
        .body_next = on_body_next,
        .recipient = on_recipient,
    };
    int r = count > 0 ? smtp_client_begin(c->client, &t) : -ENOMEM;
    c->open_at_begin = c->job->open;
    if (r < 0) {
        settle_unsendable(c, r);
    }
    return r == 0;
}

bool connection_send(struct connection *c, struct job *take)
{
    c->job = take;
    take->sending = true;
    c->idle = false;
    bool good;
    if (take->wire.length > CONNECTION_WINDOW) {
        good = long_body_start(c);
        if (good) {
            stream_timeout(c->stream, 0); /* a disk may take its time; the peer owes nothing */
            return true;
        }
        settle_unsendable(c, -ENOMEM);
    } else {
        good = begin(c);
    }
    if (!good) {
        job_over(c);
        c->idle = true;
        return false;
    }
    c->sending = true;
    advance(c); /* over at once when the host cannot take such messages at all (SMTPUTF8) */
    c->sending = false;
    return !c->idle;
}

/* ---- the way of octets ---- */

/* Writes all the engine has to say in as few writes as it takes. Whole for short messages, whose octets stand in a room
 * that is shared. */
static void pump(struct connection *c)
{
    static uint8_t gather[GATHER_MAX];
    size_t n = 0;
    for (;;) {
        if (c->window != NULL && stream_pending(c->stream) > 0) {
            break; /* a window at a time, so that the clock of a slow peer is set again with each */
        }
        struct span out = smtp_client_output(c->client);
        if (out.len == 0) {
            break;
        }
        if (n + out.len > sizeof(gather) && n > 0) {
            (void)stream_write(c->stream, (struct span){gather, n}); /* an error arrives by closed() */
            n = 0;
        }
        if (out.len > sizeof(gather)) {
            (void)stream_write(c->stream, out);
        } else {
            memcpy(gather + n, out.ptr, out.len);
            n += out.len;
        }
        smtp_client_written(c->client, out.len);
    }
    if (n > 0) {
        (void)stream_write(c->stream, (struct span){gather, n});
    }
    if (c->route->username != NULL && c->served == 0 && c->job == NULL) {
        explicit_bzero(gather, n); /* it may have been the password */
    }
}

static void set_clock(struct connection *c)
{
    enum smtp_client_phase phase = smtp_client_phase(c->client);
    if (c->aborted) {
        return;
    }
    uint64_t longest = smtp_client_timeout_ms(phase);
    bool data = phase == SMTP_CLIENT_DATA || phase == SMTP_CLIENT_BODY || phase == SMTP_CLIENT_DOT;
    uint64_t set = phase == SMTP_CLIENT_QUIT ? QUIT_MS : data ? c->env->data_ms : c->env->command_ms;
    stream_timeout(c->stream, set > 0 && set < longest ? set : longest);
}

static SSL *tls_new(const struct connection *c)
{
    SSL_CTX *ctx = routes_tls(c->routes, c->route);
    SSL *ssl = ctx != NULL ? SSL_new(ctx) : NULL;
    struct net_address literal;
    bool is_name = net_address_parse(c->name, &literal) < 0 && c->name[0] != '[';
    if (ssl == NULL) {
        return NULL;
    }
    SSL_set_connect_state(ssl);
    bool good = !is_name || SSL_set_tlsext_host_name(ssl, c->name) == 1;
    if (c->route->tls == TLS_VERIFY) { /* RFC 9525: subjectAltName only, no partial wildcards */
        SSL_set_hostflags(ssl, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
        good = good && (is_name ? SSL_set1_host(ssl, c->name) == 1
                                : X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), c->name) == 1);
    }
    if (!good) {
        SSL_free(ssl);
        return NULL;
    }
    return ssl;
}

static void start_tls(struct connection *c)
{
    SSL *ssl = tls_new(c);
    c->handshaking = true;
    if (ssl == NULL || SSL_up_ref(ssl) != 1) {
        SSL_free(ssl);
        end_by_stream(c, "TLS cannot be started here");
        return;
    }
    c->ssl = ssl;
    c->resuming = sessions_begin(&c->sessions, ssl);
    stream_timeout(c->stream, c->env->command_ms);
    if (stream_start_tls(c->stream, ssl, (struct span){0}) < 0) {
        end_by_stream(c, "the connection was lost");
    }
}

/* Another transaction for the job's other recipients, when the host takes only so many at once. */
static bool go_on(struct connection *c)
{
    if (c->job->cancelled) {
        outcome_rest_cancelled(c->env->sink, c->job);
        return false;
    }
    if (c->job->open == c->open_at_begin) { /* not one step: never again and again */
        struct outcome_peer peer = peer_of(c);
        struct outcome_said said = {.result = DELIVER_TEMPORARY,
                                    .enhanced = {4, 4, 2},
                                    .text = SPAN_LIT("The next hop neither takes nor refuses this message")};
        outcome_rest(c->env->sink, c->job, &peer, &said);
        outcome_flush(c->env->sink);
        return false;
    }
    return begin(c);
}

static bool had_enough(const struct connection *c)
{
    unsigned host_max = smtp_client_capabilities(c->client)->messages_max;
    return c->quitting || c->aborted || (c->served > 0 && !smtp_client_reusable(c->client)) ||
           (c->env->messages_max > 0 && c->served >= c->env->messages_max) || (host_max > 0 && c->served >= host_max);
}

static void become_ready(struct connection *c)
{
    if (c->job != NULL && c->job->open > 0 && go_on(c)) {
        advance(c);
        return;
    }
    c->served += c->job != NULL;
    job_over(c);
    if (had_enough(c)) {
        c->quitting = true;
        smtp_client_quit(c->client);
        advance(c);
        return;
    }
    if (!c->aborted) {
        stream_timeout(c->stream, 0);
    }
    c->idle = true;
    if (!c->sending) {
        c->ops->ready(c->arg, c);
    }
}

static void advance(struct connection *c)
{
    pump(c);
    outcome_flush(c->env->sink);
    switch (smtp_client_state(c->client)) {
    case SMTP_CLIENT_BUSY:
        set_clock(c);
        break;
    case SMTP_CLIENT_STARTTLS:
        if (stream_pending(c->stream) == 0 && !c->handshaking) {
            start_tls(c);
        }
        break;
    case SMTP_CLIENT_READY:
        if (!c->idle && c->verify == NULL) {
            become_ready(c);
        }
        break;
    case SMTP_CLIENT_OVER:
        end_by_client(c);
        break;
    }
}

/* ---- what the stream tells ---- */

static size_t on_read(void *arg, struct span octets)
{
    struct connection *c = arg;
    size_t len = octets.len;
    smtp_client_feed(c->client, octets.ptr, len);
    advance(c);
    return len;
}

static void on_drained(void *arg)
{
    advance(arg);
}

static void on_connected(void *arg)
{
    struct connection *c = arg;
    c->connected = true;
    if (c->route->implicit_tls) {
        start_tls(c);
    } else {
        advance(c);
    }
}

static void on_tls_ready(void *arg)
{
    struct connection *c = arg;
    c->handshaking = false;
    stream_tls_text(c->stream, c->tls_text, sizeof(c->tls_text));
    if (SSL_session_reused(c->ssl) == 1) {
        size_t len = strlen(c->tls_text);
        (void)snprintf(c->tls_text + len, sizeof(c->tls_text) - len, " resumed");
    }
    if (!c->route->implicit_tls) {
        smtp_client_tls_started(c->client);
    }
    advance(c);
}

static void on_closed(void *arg, int err, const char *why)
{
    struct connection *c = arg;
    long verdict = c->handshaking && err == 1 && c->ssl != NULL ? SSL_get_verify_result(c->ssl) : X509_V_OK;
    bool judged = verdict != X509_V_OK && c->route->tls == TLS_VERIFY;
    end_by_stream(c, judged ? X509_verify_cert_error_string(verdict) : why);
}

static const struct stream_ops stream_ops = {
    .read = on_read, .tls_ready = on_tls_ready, .connected = on_connected, .drained = on_drained, .closed = on_closed};

/* ---- from outside ---- */

static const struct net_address *source_for(const struct connection_env *env, const struct net_address *address)
{
    static size_t turn;
    turn++;
    for (size_t i = 0; i < env->sources_count; i++) {
        const struct net_address *source = &env->sources[(turn + i) % env->sources_count];
        if (net_address_is_v4(source) == net_address_is_v4(address)) {
            return source;
        }
    }
    return NULL;
}

static void set_names(struct connection *c, const char *name, const struct net_address *address)
{
    if (c->route->unix_path != NULL) {
        (void)snprintf(c->name, sizeof(c->name), "unix:%s", c->route->unix_path);
        (void)snprintf(c->label, sizeof(c->label), "%s", c->name);
        return;
    }
    (void)snprintf(c->name, sizeof(c->name), "%s", name);
    net_address_format(address, c->address_text);
    (void)snprintf(c->label, sizeof(c->label), "%s [%s]:%u", c->name, c->address_text, address->port);
}

static struct smtp_client *client_new(const struct connection *c, bool clear)
{
    static const enum smtp_client_tls policies[] = {[TLS_NONE] = SMTP_CLIENT_TLS_NONE,
                                                    [TLS_MAY] = SMTP_CLIENT_TLS_MAY,
                                                    [TLS_MUST] = SMTP_CLIENT_TLS_MUST,
                                                    [TLS_VERIFY] = SMTP_CLIENT_TLS_MUST};
    const struct route *route = c->route;
    struct smtp_client_config config = {
        .hostname = c->env->hostname,
        .lmtp = route->via == VIA_LMTP,
        .tls = clear && route->tls == TLS_MAY ? SMTP_CLIENT_TLS_NONE : policies[route->tls],
        .tls_active = route->implicit_tls,
        .user = route->username,
        .password = route->username != NULL ? (const char *)route->password.data : NULL,
        .auth_in_clear = route->tls == TLS_NONE, /* the operator wrote both down */
    };
    return smtp_client_new(&config);
}

struct connection *connection_open(const struct connection_env *env, const struct routes *routes,
                                   const struct route *route, const char *name, const struct net_address *address,
                                   bool clear, const struct connection_ops *ops, void *arg)
{
    struct connection *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        return NULL;
    }
    c->env = env;
    c->routes = routes;
    c->route = route;
    c->ops = ops;
    c->arg = arg;
    set_names(c, name, address);
    c->sessions.table = env->sessions;
    c->sessions.key = (struct sessions_key){.route = route->number, .address = *address, .name = c->name};
    c->client = client_new(c, clear);
    if (c->client != NULL) {
        c->stream = route->unix_path != NULL
                        ? stream_connect_unix(env->loop, route->unix_path, &stream_ops, c)
                        : stream_connect(env->loop, address, source_for(env, address), &stream_ops, c);
    }
    if (c->stream == NULL) {
        smtp_client_free(&c->client);
        free(c);
        return NULL;
    }
    stream_timeout(c->stream, env->connect_ms);
    return c;
}

bool connection_abort(struct connection *c, bool spare_answers)
{
    if (spare_answers && phase_now(c) == CONNECTION_ANSWER) {
        return false;
    }
    if (!c->aborted) {
        c->aborted = true;
        stream_timeout(c->stream, ABORT_MS);
    }
    return true;
}

void connection_quit(struct connection *c)
{
    c->quitting = true;
    if (c->idle) {
        c->idle = false;
        smtp_client_quit(c->client);
        advance(c);
    } else if (c->job == NULL && smtp_client_phase(c->client) != SMTP_CLIENT_QUIT) {
        (void)connection_abort(c, false);
    }
}

bool connection_is_idle(const struct connection *c)
{
    return c->idle;
}
