/*
 * users.c: who submits mail: the smtp client engine on the user's side, the server engine on ours, and what submit does
 * around it: gather the octets, hand them to the spool, say its answer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "simulation/sim.h"
#include "smtp/client.h"
#include "smtp/server.h"

#define USERS          6
#define SUBMIT_DAYS    7 /* they write in the first week */
#define LATENCY_MAX_MS 60

struct user {
    struct sim *sim;
    unsigned number;
    uint64_t ticket; /* of this session */
    unsigned left;   /* messages in this session */
    struct sim_event session, up_event, down_event, resume, vanish;
    struct buf up, down;
    /* The user's side. */
    struct smtp_client *client;
    uint32_t token; /* of what is being sent */
    struct buf octets;
    bool octets_given;
    char sender[48];
    struct smtp_client_recipient recipients[SIM_RECIPIENTS];
    /* Our side. */
    struct smtp_server *server;
    uint64_t id, waits_for; /* message's; 0: none */
    struct buf body;
    char from[64];
    char to[SIM_RECIPIENTS][64];
    uint8_t notify[SIM_RECIPIENTS];
    uint16_t to_count;
};

static void on_session(void *arg);

/* --- messages --- */

static uint32_t mix(uint32_t x)
{
    x ^= x >> 16;
    x *= 0x7feb352dU;
    x ^= x >> 15;
    return x * 0x846ca68bU;
}

/* Lines of letters, some with a dot in front, until there are `size` octets. */
void users_octets(uint32_t token, uint32_t size, struct buf *out)
{
    (void)buf_printf(out, "From: m%u@origin.example\r\nX-Sim: %u\r\nSubject: number %u\r\n\r\n", token, token, token);
    for (uint32_t line = 1; out->len + 80 < size; line++) {
        uint32_t dice = mix(token * 977U + line);
        char text[80];
        size_t len = dice % 77;
        memset(text, (int)('a' + dice / 77 % 26), len);
        if (len > 0 && dice % 5 == 0) {
            text[0] = '.';
        }
        (void)buf_append(out, text, len);
        (void)buf_append(out, "\r\n", 2);
    }
}

static uint32_t size_choose(struct sim *s)
{
    uint64_t dice = sim_below(s, 1000);
    return (uint32_t)(dice < 5    ? 262U * 1024U + sim_below(s, 30000)
                      : dice < 80 ? SIM_LARGE + sim_below(s, 30000)
                                  : 200 + sim_below(s, 6000));
}

static void recipient_choose(struct sim *s, struct sim_message *m, size_t i)
{
    static const uint8_t notify[] = {0, 0, 0, 0, NOTIFY_NEVER, NOTIFY_FAILURE, NOTIFY_SUCCESS | NOTIFY_FAILURE};
    struct sim_recipient *r = &m->recipients[i];
    r->nobody = sim_chance(s, 60);
    r->notify = notify[sim_below(s, sizeof(notify))];
    (void)snprintf(r->address, sizeof(r->address), "%s%u-%zu@d%u.example", r->nobody ? "nobody" : "u", m->token, i,
                   (unsigned)sim_below(s, SIM_DOMAINS));
}

/* --- octets between the two --- */

static void pump(struct user *u);

static void session_end(struct user *u)
{
    struct sim *s = u->sim;
    sim_cancel(s, &u->up_event);
    sim_cancel(s, &u->down_event);
    sim_cancel(s, &u->resume);
    sim_cancel(s, &u->vanish);
    smtp_server_free(&u->server);
    smtp_client_free(&u->client);
    if (u->ticket != 0) {
        house_client_gone(s, u->ticket);
    }
    u->waits_for = 0;
    buf_clear(&u->up);
    buf_clear(&u->down);
    uint64_t each = SUBMIT_DAYS * DAY * USERS / (s->weather.messages / 2 + 1);
    if (s->now_ms < SUBMIT_DAYS * DAY) {
        sim_in(s, &u->session, 1 + sim_below(s, 2 * each), on_session, u);
    }
}

static int on_body_next(void *arg, struct span *ret)
{
    struct user *u = arg;
    *ret = buf_span(&u->octets);
    bool given = u->octets_given;
    u->octets_given = true;
    return given ? 0 : 1;
}

static void on_recipient(void *arg, size_t index, const struct smtp_client_result *result)
{
    struct user *u = arg;
    struct sim_message *m = ledger_by_token(u->sim, u->token);
    sim_trace(u->sim, "user told", u->token, (uint64_t)result->class * 1000 + result->code);
    (void)index;
    if (result->class == SMTP_CLIENT_DELIVERED && !m->acked) {
        m->acked = true;
        m->at = u->sim->now_ms;
    }
}

static void message_begin(struct user *u)
{
    struct sim *s = u->sim;
    struct sim_message *m = ledger_add(s);
    u->token = m->token;
    m->size = size_choose(s);
    m->count = (uint8_t)(1 + sim_below(s, SIM_RECIPIENTS));
    for (size_t i = 0; i < m->count; i++) {
        recipient_choose(s, m, i);
        u->recipients[i] = (struct smtp_client_recipient){.address = span_str(m->recipients[i].address),
                                                          .notify = m->recipients[i].notify};
    }
    (void)snprintf(u->sender, sizeof(u->sender), "m%u@origin.example", m->token);
    buf_clear(&u->octets);
    users_octets(m->token, m->size, &u->octets);
    u->octets_given = false;
    const struct smtp_client_transaction t = {.sender = span_str(u->sender),
                                              .size = u->octets.len,
                                              .recipients = u->recipients,
                                              .recipients_count = m->count,
                                              .arg = u,
                                              .body_next = on_body_next,
                                              .recipient = on_recipient};
    u->left--;
    if (smtp_client_begin(u->client, &t) < 0) {
        sim_broken(s, "the client engine does not begin");
    }
}

static void on_up(void *arg)
{
    struct user *u = arg;
    size_t len = sim_chance(u->sim, 800) ? u->up.len : 1 + (size_t)sim_below(u->sim, u->up.len);
    size_t taken = smtp_server_feed(u->server, u->up.data, len);
    memmove(u->up.data, u->up.data + taken, u->up.len - taken);
    u->up.len -= taken;
    pump(u);
}

static void client_turn(struct user *u)
{
    if (smtp_client_state(u->client) == SMTP_CLIENT_READY) {
        if (u->left > 0) {
            message_begin(u);
        } else {
            smtp_client_quit(u->client);
        }
    }
}

static void on_down(void *arg)
{
    struct user *u = arg;
    struct buf said = u->down;
    buf_init(&u->down, 1U << 20);
    smtp_client_feed(u->client, said.data, said.len);
    buf_fini(&said);
    client_turn(u);
    if (smtp_server_wants_close(u->server) && smtp_server_output(u->server).len == 0 && u->down.len == 0) {
        smtp_client_fail(u->client, "the connection was closed");
    }
    pump(u);
}

static void take_output(struct user *u)
{
    struct span out;
    while ((out = smtp_server_output(u->server)).len > 0) {
        (void)buf_append(&u->down, out.ptr, out.len);
        smtp_server_written(u->server, out.len);
    }
    while ((out = smtp_client_output(u->client)).len > 0) {
        (void)buf_append(&u->up, out.ptr, out.len);
        smtp_client_written(u->client, out.len);
    }
}

static void pump(struct user *u)
{
    struct sim *s = u->sim;
    take_output(u);
    if (smtp_client_state(u->client) == SMTP_CLIENT_OVER) {
        session_end(u);
        return;
    }
    if (u->up.len > 0 && u->up_event.node.at == 0 && !smtp_server_waiting(u->server) && u->resume.node.at == 0) {
        sim_in(s, &u->up_event, 1 + sim_below(s, LATENCY_MAX_MS), on_up, u);
    }
    if ((u->down.len > 0 || smtp_server_wants_close(u->server)) && u->down_event.node.at == 0) {
        sim_in(s, &u->down_event, 1 + sim_below(s, LATENCY_MAX_MS), on_down, u);
    }
}

/* --- what the server engine asks --- */

static void on_event(void *arg, enum smtp_event event)
{
    (void)arg, (void)event;
}

static void on_greeted(void *arg, struct span name, bool extended)
{
    (void)arg, (void)name, (void)extended;
}

static void on_starttls(void *arg)
{
    struct user *u = arg;
    sim_broken(u->sim, "STARTTLS where none is offered");
}

static void on_auth(void *arg)
{
    struct user *u = arg;
    sim_broken(u->sim, "AUTH where none is offered");
}

static void on_auth_password(void *arg, const struct smtp_auth_password *q)
{
    (void)q;
    on_auth(arg);
}

static void on_auth_salt(void *arg, const struct smtp_auth_salt *q)
{
    (void)q;
    on_auth(arg);
}

static void on_auth_proof(void *arg, const struct smtp_auth_proof *q)
{
    (void)q;
    on_auth(arg);
}

static void on_auth_external(void *arg, struct span authzid)
{
    (void)authzid;
    on_auth(arg);
}

static void path_copy(char to[static 64], const struct smtp_path *p)
{
    (void)snprintf(to, 64, "%.*s@%.*s", (int)p->local.len, (const char *)p->local.ptr, (int)p->domain.len,
                   (const char *)p->domain.ptr);
}

static struct smtp_decision on_mail(void *arg, const struct smtp_mail *mail)
{
    struct user *u = arg;
    if (!house_accepts(u->sim)) {
        return (struct smtp_decision){451, {4, 3, 0}, SPAN_LIT("Not now")};
    }
    path_copy(u->from, &mail->sender);
    u->to_count = 0;
    buf_clear(&u->body);
    return SMTP_ACCEPT;
}

static struct smtp_decision on_rcpt(void *arg, const struct smtp_rcpt *rcpt)
{
    struct user *u = arg;
    if (u->to_count == SIM_RECIPIENTS) {
        return (struct smtp_decision){452, {4, 5, 3}, SPAN_LIT("Too many")};
    }
    u->notify[u->to_count] = rcpt->notify;
    path_copy(u->to[u->to_count++], &rcpt->recipient);
    return SMTP_ACCEPT;
}

static void on_data_begin(void *arg, const struct smtp_data_begin *begin)
{
    struct user *u = arg;
    (void)begin;
    u->id = house_mint(u->sim);
    smtp_server_data_go(u->server);
}

static void on_resume(void *arg)
{
    struct user *u = arg;
    smtp_server_resume(u->server);
    pump(u);
}

static enum smtp_body_verdict on_body(void *arg, struct span octets)
{
    struct user *u = arg;
    (void)buf_append(&u->body, octets.ptr, octets.len);
    if (sim_chance(u->sim, 50)) {
        sim_in(u->sim, &u->resume, 1 + sim_below(u->sim, 20), on_resume, u);
        return SMTP_BODY_PAUSE;
    }
    return SMTP_BODY_MORE;
}

static void on_body_end(void *arg, const struct smtp_body_end *end)
{
    struct user *u = arg;
    struct envelope_recipient to[SIM_RECIPIENTS] = {0};
    struct sim_message *m = ledger_by_token(u->sim, u->token);
    char account[16];
    (void)end;
    for (uint16_t i = 0; i < u->to_count; i++) {
        to[i] = (struct envelope_recipient){.notify = u->notify[i], .address = span_str(u->to[i])};
    }
    (void)snprintf(account, sizeof(account), "user%u", u->number);
    const struct envelope e = {.session = u->ticket,
                               .arrived_ms = clock_wall_ms(),
                               .sender = span_str(u->from),
                               .account = span_str(account),
                               .recipients_count = u->to_count,
                               .recipients = to};
    m->id = u->waits_for = u->id;
    house_put(u->sim, u->ticket, u->id, &e, buf_span(&u->body));
}

static void on_abort(void *arg)
{
    struct user *u = arg;
    buf_clear(&u->body);
}

static void on_transaction_end(void *arg)
{
    struct user *u = arg;
    u->to_count = 0;
}

static const struct smtp_server_ops server_ops = {
    .event = on_event,
    .greeted = on_greeted,
    .starttls = on_starttls,
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

void users_answer(struct sim *s, uint64_t ticket, uint64_t id, const struct spool_refused *refused)
{
    for (size_t i = 0; i < USERS; i++) {
        struct user *u = &s->users[i];
        if (u->ticket == ticket && u->waits_for == id && u->server != NULL) {
            u->waits_for = 0;
            struct smtp_decision d = SMTP_ACCEPT;
            if (refused != NULL) {
                d = (struct smtp_decision){.code = refused->code, .text = refused->text};
                memcpy(d.enhanced, refused->enhanced, sizeof(d.enhanced));
            }
            smtp_server_message_result(u->server, &d);
            if (u->sim->house != NULL) {
                pump(u);
            }
        }
    }
}

/* --- sessions --- */

static void on_vanish(void *arg)
{
    struct user *u = arg;
    smtp_client_fail(u->client, "the user's line is cut");
    session_end(u);
}

static void on_session(void *arg)
{
    static struct smtp_server_config config = {.hostname = "mx.sim.example", .tls = SMTP_SERVER_CLEAR};
    static const struct smtp_client_config client = {.hostname = "user.example", .tls = SMTP_CLIENT_TLS_NONE};
    struct user *u = arg;
    struct sim *s = u->sim;
    config.limits = smtp_server_limits_default;
    u->ticket += USERS;
    const struct smtp_server_start start = {.session = u->ticket, .may_relay = true};
    u->left = 1 + (unsigned)sim_below(s, 3);
    u->server = smtp_server_new(&config, &server_ops, u, &start);
    u->client = smtp_client_new(&client);
    if (u->server == NULL || u->client == NULL) {
        abort();
    }
    smtp_server_greet(u->server);
    if (sim_chance(s, 40)) {
        sim_in(s, &u->vanish, sim_below(s, 2 * SECOND), on_vanish, u);
    }
    pump(u);
}

void users_disconnect_all(struct sim *s, bool politely)
{
    const struct spool_refused refused = {451, {4, 3, 0}, SPAN_LIT("Cannot store the message now"), 0};
    for (size_t i = 0; i < USERS; i++) {
        struct user *u = &s->users[i];
        if (u->server == NULL) {
            continue;
        }
        if (!politely) {
            smtp_client_fail(u->client, "the connection is lost");
            session_end(u);
        } else if (u->waits_for != 0) {
            users_answer(s, u->ticket, u->waits_for, &refused);
        }
    }
}

void users_init(struct sim *s)
{
    s->users = calloc(USERS, sizeof(*s->users));
    if (s->users == NULL) {
        abort();
    }
    for (unsigned i = 0; i < USERS; i++) {
        struct user *u = &s->users[i];
        u->sim = s;
        u->number = i;
        u->ticket = i + 1;
        buf_init(&u->up, 1U << 22);
        buf_init(&u->down, 1U << 20);
        buf_init(&u->octets, 1U << 20);
        buf_init(&u->body, 1U << 20);
        sim_in(s, &u->session, sim_below(s, DAY / 2), on_session, u);
    }
}

void users_fini(struct sim *s)
{
    for (unsigned i = 0; i < USERS; i++) {
        struct user *u = &s->users[i];
        smtp_server_free(&u->server);
        smtp_client_free(&u->client);
        buf_fini(&u->up);
        buf_fini(&u->down);
        buf_fini(&u->octets);
        buf_fini(&u->body);
    }
    free(s->users);
}
