/*
 * net.c: streams, in place of process/stream.h, and the mail hosts at their other end. A host has good and bad times:
 * it refuses, is a black hole, is busy, defers, breaks off, falls silent. Octets take their time and come in pieces; a
 * stream whose owner is gone still brings what was on its way.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <utlist.h>

#include "process/stream.h"
#include "simulation/sim.h"

#define LATENCY_MAX_MS 120
#define LINE_SIZE      1100
#define HOSTS          (SIM_HOSTS + 1) /* the last one is the senders' */
#define HOST_RCPTMAX   5               /* takes one recipient at once, two messages a connection */
#define HOST_DSN       6               /* offers DSN */

enum mood { UP, REFUSES, BLACK_HOLE, BUSY, DEFERS, BREAKS_OFF, FALLS_SILENT, MOODS };

struct host {
    struct sim *sim;
    int number;
    enum mood mood;
    struct sim_event change;
};

struct stream {
    struct stream *prev, *next;
    struct sim *sim;
    struct host *host;
    const struct stream_ops *ops; /* NULL: its owner is gone */
    void *arg;
    bool calling, freed; /* within a callback; freed there */
    struct sim_event timer, arrive, back;
    struct buf to_host, to_client;
    bool host_closed, silent;
    bool orphan; /* nobody waits for what this transaction ends with */
    /* The host's side. */
    char line[LINE_SIZE];
    size_t line_length;
    bool in_data, has_sender;
    char sender[64];
    char recipients[SIM_RECIPIENTS][64];
    size_t recipients_count;
    struct buf message;
};

void net_address_of(int host, struct net_address *ret)
{
    *ret = (struct net_address){.bytes = {[10] = 0xff, 0xff, 198, 51, 100, (uint8_t)(host + 1)}};
}

int net_host_of(const struct net_address *a)
{
    int host = a->bytes[15] - 1;
    return a->bytes[12] == 198 && host >= 0 && host < HOSTS ? host : -1;
}

/* --- hosts --- */

static void on_change(void *arg)
{
    struct host *h = arg;
    struct sim *s = h->sim;
    bool bad = !sim_healed(s) && h->mood == UP && h->number != SIM_HOSTS && sim_chance(s, s->weather.hosts_bad);
    h->mood = bad ? (enum mood)(1 + sim_below(s, MOODS - 1)) : UP;
    uint64_t longest = sim_chance(s, 150) ? 7 * DAY : h->mood == UP ? DAY : 12 * HOUR;
    uint64_t ms = MINUTE + sim_below(s, longest);
    if (s->now_ms < SIM_HEALED_AT && s->now_ms + ms > SIM_HEALED_AT) {
        ms = SIM_HEALED_AT - s->now_ms;
    }
    sim_trace(s, "mood", (uint64_t)h->number, (uint64_t)h->mood);
    if (!sim_healed(s)) {
        sim_in(s, &h->change, ms, on_change, h);
    }
}

void net_init(struct sim *s)
{
    s->hosts = calloc(HOSTS, sizeof(*s->hosts));
    if (s->hosts == NULL) {
        abort();
    }
    for (int i = 0; i < HOSTS; i++) {
        s->hosts[i] = (struct host){.sim = s, .number = i};
        sim_in(s, &s->hosts[i].change, sim_below(s, 6 * HOUR), on_change, &s->hosts[i]);
    }
}

/* --- streams --- */

static void stream_destroy(struct stream *st)
{
    sim_cancel(st->sim, &st->timer);
    sim_cancel(st->sim, &st->arrive);
    sim_cancel(st->sim, &st->back);
    DL_DELETE(st->sim->streams, st);
    buf_fini(&st->to_host);
    buf_fini(&st->to_client);
    buf_fini(&st->message);
    free(st);
}

void stream_free(struct stream **sp)
{
    struct stream *st = *sp;
    *sp = NULL;
    if (st == NULL) {
        return;
    }
    st->ops = NULL;
    st->orphan = true;
    sim_cancel(st->sim, &st->timer);
    st->freed = true;
    if (!st->calling && st->arrive.node.at == 0) {
        stream_destroy(st);
    }
}

/* After a callback: false when the stream is gone. */
static bool still_owned(struct stream *st)
{
    st->calling = false;
    if (st->freed && st->arrive.node.at == 0) {
        stream_destroy(st);
        return false;
    }
    return !st->freed;
}

static void tell_closed(struct stream *st, int err, const char *why)
{
    if (st->ops != NULL) {
        sim_trace(st->sim, "closed", (uint64_t)st->host->number, (uint64_t)-err);
        sim_cancel(st->sim, &st->timer);
        st->calling = true;
        st->ops->closed(st->arg, err, why);
        (void)still_owned(st);
    }
}

static void on_timer(void *arg)
{
    tell_closed(arg, -ETIMEDOUT, "no answer in time");
}

void stream_timeout(struct stream *st, uint64_t ms)
{
    if (ms == 0) {
        sim_cancel(st->sim, &st->timer);
    } else {
        sim_in(st->sim, &st->timer, ms, on_timer, st);
    }
}

/* What the host said arrives, in one to three pieces; then its end. */
static void on_back(void *arg)
{
    struct stream *st = arg;
    struct buf said = st->to_client;
    bool owned = st->ops != NULL;
    buf_init(&st->to_client, 1U << 20);
    for (size_t at = 0; owned && at < said.len;) {
        size_t len = 1 + (size_t)sim_below(st->sim, said.len - at);
        len = sim_chance(st->sim, 700) ? said.len - at : len;
        st->calling = true;
        (void)st->ops->read(st->arg, (struct span){said.data + at, len});
        at += len;
        owned = still_owned(st);
    }
    buf_fini(&said);
    if (owned && st->host_closed && st->back.node.at == 0) {
        tell_closed(st, 0, "the other side closed the connection");
    }
}

static void back_soon(struct stream *st)
{
    if (st->back.node.at == 0 && st->ops != NULL) {
        sim_in(st->sim, &st->back, 1 + sim_below(st->sim, LATENCY_MAX_MS), on_back, st);
    }
}

/* --- the host's side --- */

__attribute__((format(printf, 2, 3))) static void say(struct stream *st, const char *fmt, ...)
{
    char line[200];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    if (!st->silent && !st->host_closed) {
        (void)buf_append(&st->to_client, line, (size_t)n);
        back_soon(st);
    }
}

static void host_close(struct stream *st)
{
    st->host_closed = true;
    back_soon(st);
}

static void transaction_reset(struct stream *st)
{
    st->has_sender = false;
    st->recipients_count = 0;
    buf_clear(&st->message);
}

static void path_copy(char to[static 64], const char *line)
{
    const char *from = strchr(line, '<'), *end = from != NULL ? strchr(from, '>') : NULL;
    size_t len = end != NULL ? (size_t)(end - from - 1) : 0;
    len = len < 63 ? len : 63;
    if (len > 0) {
        memcpy(to, from + 1, len);
    }
    to[len] = '\0';
}

/* A bad turn of a host: true when it has answered, or never will. */
static bool misbehaves(struct stream *st)
{
    struct sim *s = st->sim;
    enum mood mood = st->host->mood;
    unsigned odds = st->host->number == SIM_HOSTS ? s->weather.replies_bad / 4 : s->weather.replies_bad;
    if (mood == BLACK_HOLE || mood == FALLS_SILENT) {
        st->silent = true;
        return true;
    }
    if (mood == BREAKS_OFF && sim_chance(s, 250)) {
        host_close(st);
        return true;
    }
    if (sim_healed(s) || !sim_chance(s, odds)) {
        return false;
    }
    switch (sim_below(s, 4)) {
    case 0:
        say(st, "421 4.3.2 Closing\r\n");
        host_close(st);
        break;
    case 1:
        say(st, "451 4.3.0 Not now\r\n");
        break;
    case 2:
        host_close(st);
        break;
    default:
        st->silent = true;
    }
    return true;
}

static void take_message(struct stream *st)
{
    for (size_t i = 0; i < st->recipients_count; i++) {
        ledger_accepted(st->sim, span_str(st->sender), span_str(st->recipients[i]), buf_span(&st->message), st->orphan);
    }
}

/* The end of the data: the only moment at which a broken connection makes a second copy. */
static void data_end(struct stream *st)
{
    struct sim *s = st->sim;
    unsigned odds = sim_healed(s)                   ? 0
                    : st->host->number == SIM_HOSTS ? s->weather.replies_bad / 4
                                                    : s->weather.replies_bad;
    uint64_t dice = sim_chance(s, odds) ? 1 + sim_below(s, 5) : 0;
    dice = st->host->mood == BLACK_HOLE || st->host->mood == FALLS_SILENT ? 5 : dice;
    dice = dice == 2 && st->host->number == SIM_HOSTS ? 1 : dice;
    st->in_data = false;
    switch (dice) {
    case 0:
        take_message(st);
        say(st, "250 2.0.0 Taken\r\n");
        break;
    case 1:
        say(st, "452 4.3.1 No room\r\n");
        break;
    case 2:
        say(st, "554 5.7.1 Not wanted\r\n");
        break;
    case 3: /* taken, and the answer is lost */
        take_message(st);
        host_close(st);
        break;
    case 4:
        take_message(st);
        st->silent = true;
        break;
    default:
        st->silent = true;
    }
    transaction_reset(st);
}

static void hello(struct stream *st)
{
    say(st, "250-h%d.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n", st->host->number);
    if (st->host->number == HOST_RCPTMAX) {
        say(st, "250-LIMITS RCPTMAX=1 MAILMAX=2\r\n");
    } else if (st->host->number == HOST_DSN) {
        say(st, "250-DSN\r\n");
    }
    say(st, "250 SIZE 20000000\r\n");
}

static void recipient(struct stream *st)
{
    char address[64];
    path_copy(address, st->line);
    if (!st->has_sender) {
        say(st, "503 5.5.1 MAIL first\r\n");
    } else if (strncmp(address, "nobody", 6) == 0) {
        say(st, "550 5.1.1 No such user\r\n");
    } else if (st->host->mood == DEFERS) {
        say(st, "450 4.2.0 Later, please\r\n");
    } else if (st->recipients_count == SIM_RECIPIENTS ||
               (st->host->number == HOST_RCPTMAX && st->recipients_count == 1)) {
        say(st, "452 4.5.3 Too many recipients\r\n");
    } else {
        memcpy(st->recipients[st->recipients_count++], address, sizeof(address));
        say(st, "250 2.1.5 Good\r\n");
    }
}

static void mail_from(struct stream *st)
{
    path_copy(st->sender, st->line);
    st->has_sender = true;
    st->orphan = st->ops == NULL;
    say(st, "250 2.1.0 Good\r\n");
}

static void data_begin(struct stream *st)
{
    if (st->recipients_count == 0) {
        say(st, "554 5.5.1 No valid recipients\r\n");
        return;
    }
    st->in_data = true;
    say(st, "354 Go on\r\n");
}

static void command(struct stream *st)
{
    const char *line = st->line;
    if (strncasecmp(line, "QUIT", 4) == 0) {
        say(st, "221 2.0.0 Bye\r\n");
        host_close(st);
        return;
    }
    if (strncasecmp(line, "MAIL", 4) == 0) {
        transaction_reset(st);
    }
    if (misbehaves(st)) {
        return;
    }
    if (strncasecmp(line, "EHLO", 4) == 0) {
        hello(st);
    } else if (strncasecmp(line, "MAIL", 4) == 0) {
        mail_from(st);
    } else if (strncasecmp(line, "RCPT", 4) == 0) {
        recipient(st);
    } else if (strncasecmp(line, "DATA", 4) == 0) {
        data_begin(st);
    } else {
        if (strncasecmp(line, "RSET", 4) == 0) {
            transaction_reset(st);
        }
        say(st, "250 2.0.0 Good\r\n");
    }
}

static void line_take(struct stream *st)
{
    size_t len = st->line_length;
    st->line[len] = '\0';
    st->line_length = 0;
    if (!st->in_data) {
        st->line[strcspn(st->line, "\r\n")] = '\0';
        command(st);
    } else if (strcmp(st->line, ".\r\n") == 0) {
        data_end(st);
    } else {
        bool dot = st->line[0] == '.';
        (void)buf_append(&st->message, st->line + dot, len - dot);
    }
}

/* What the client wrote arrives. */
static void on_arrive(void *arg)
{
    struct stream *st = arg;
    for (size_t i = 0; i < st->to_host.len && !st->host_closed && !st->silent; i++) {
        st->line[st->line_length++] = (char)st->to_host.data[i];
        if (st->to_host.data[i] == '\n' || st->line_length + 1 == LINE_SIZE) {
            line_take(st);
        }
    }
    buf_clear(&st->to_host);
    if (st->freed && !st->calling) {
        stream_destroy(st);
    }
}

int stream_write(struct stream *st, struct span octets)
{
    (void)buf_append(&st->to_host, octets.ptr, octets.len);
    if (st->arrive.node.at == 0) {
        sim_in(st->sim, &st->arrive, 1 + sim_below(st->sim, LATENCY_MAX_MS), on_arrive, st);
    }
    return 0;
}

static void on_connect(void *arg)
{
    struct stream *st = arg;
    enum mood mood = st->host->mood;
    sim_trace(st->sim, "connect", (uint64_t)st->host->number, (uint64_t)mood);
    if (mood == REFUSES) {
        tell_closed(st, -ECONNREFUSED, "connection refused");
    } else if (mood != BLACK_HOLE) {
        st->calling = true;
        st->ops->connected(st->arg);
        if (still_owned(st) && !misbehaves(st)) {
            say(st, mood == BUSY ? "421 4.3.2 Too busy\r\n" : "220 h%d.example ESMTP\r\n", st->host->number);
            if (mood == BUSY) {
                host_close(st);
            }
        }
    }
}

struct stream *stream_connect(uv_loop_t *loop, const struct net_address *address, const struct net_address *source,
                              const struct stream_ops *ops, void *arg)
{
    struct sim *s = sim_now;
    int host = net_host_of(address);
    struct stream *st = calloc(1, sizeof(*st));
    (void)loop, (void)source;
    if (st == NULL || host < 0) {
        abort();
    }
    *st = (struct stream){.sim = s, .host = &s->hosts[host], .ops = ops, .arg = arg};
    buf_init(&st->to_host, 1U << 22);
    buf_init(&st->to_client, 1U << 20);
    buf_init(&st->message, 1U << 22);
    DL_APPEND(s->streams, st);
    sim_in(s, &st->back, 1 + sim_below(s, LATENCY_MAX_MS), on_connect, st);
    return st;
}

/* Not in this world: unix sockets and TLS. */
struct stream *stream_connect_unix(uv_loop_t *loop, const char *path, const struct stream_ops *ops, void *arg)
{
    (void)loop, (void)path, (void)ops, (void)arg;
    return NULL;
}

int stream_start_tls(struct stream *st, SSL *take_ssl, struct span first)
{
    (void)st, (void)first;
    SSL_free(take_ssl);
    return -EPIPE;
}

void stream_tls_text(const struct stream *st, char *text, size_t size)
{
    (void)st;
    text[0] = size > 0 ? '\0' : text[0];
}

size_t stream_pending(const struct stream *st)
{
    (void)st;
    return 0;
}

/* --- the end of the house --- */

void net_orphan_all(struct sim *s)
{
    for (struct stream *st = s->streams; st != NULL; st = st->next) {
        st->orphan = true;
    }
}

void net_cut_all(struct sim *s)
{
    bool any;
    net_orphan_all(s);
    do { /* each end may make the relay end others */
        any = false;
        for (struct stream *st = s->streams; st != NULL && !any; st = st->next) {
            if (st->ops != NULL) {
                any = true;
                tell_closed(st, -ECONNRESET, "the process has died");
            }
        }
    } while (any);
}

void net_fini(struct sim *s)
{
    while (s->streams != NULL) {
        stream_destroy(s->streams);
    }
    free(s->hosts);
}
