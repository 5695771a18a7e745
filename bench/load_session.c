/* load_session.c: see load.h. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "load.h"

#define TLS_CHUNK    16384
#define INLINE_BODY  65536 /* bodies up to here are copied behind their header, and leave in one write */
#define SCAN_EVERY_S 0.1

enum state { CONNECT, HANDSHAKE, GREETING, EHLO, STARTTLS, AUTH, MAIL, RCPT, DATA, DOT, HOLD, QUIT, STATE_COUNT };

struct piece {
    const char *ptr;
    size_t len;
};

struct load_session {
    struct load_session *next, *prev;
    int fd;
    bool secure, want_out, offers_starttls, offers_plain, offers_pipelining, failed;
    enum state state;
    SSL *ssl;
    uint32_t events;
    long index, messages, rcpts, wrong;
    double begun, message_begun, deadline;
    char in[4096];
    size_t in_len;
    char *out;
    size_t out_cap;
    struct piece pieces[3];
    int pieces_count;
};

static const struct load_options *const o = &load_run.o;

/* ---- the end of a session ---- */

static void session_free(struct load_worker *w, struct load_session *s)
{
    if (s->prev != NULL)
        s->prev->next = s->next;
    else
        w->list = s->next;
    if (s->next != NULL)
        s->next->prev = s->prev;
    if (s->ssl != NULL) {
        SSL_set_quiet_shutdown(s->ssl, 1);
        SSL_shutdown(s->ssl);
        SSL_free(s->ssl);
    }
    if (s->fd >= 0)
        close(s->fd);
    free(s->out);
    free(s);
}

static void session_end(struct load_worker *w, struct load_session *s)
{
    if (s->state == HOLD) {
        atomic_fetch_sub(&load_run.held, 1);
        atomic_fetch_add(&load_run.dropped, 1);
    } else {
        w->setting_up--;
        if (o->holding)
            atomic_fetch_add(&load_run.setup_failed, 1);
    }
    w->active--;
    w->last = load_now();
    session_free(w, s);
}

static void note_error(struct load_worker *w, enum load_error e, const char *detail)
{
    w->errors[e]++;
    if (w->first_error[0] == '\0')
        (void)snprintf(w->first_error, sizeof w->first_error, "%s: %s", load_error_names[e], detail);
}

static int session_fail(struct load_worker *w, struct load_session *s, enum load_error e, const char *detail)
{
    if (!s->failed)
        note_error(w, e, detail);
    session_end(w, s);
    return -1;
}

/* ---- what is said ---- */

static void reserve(struct load_session *s, size_t n)
{
    if (n <= s->out_cap)
        return;
    s->out = load_alloc(s->out, n);
    s->out_cap = n;
}

static void __attribute__((format(printf, 2, 3))) say(struct load_session *s, const char *fmt, ...)
{
    va_list ap;
    reserve(s, 2048);
    va_start(ap, fmt);
    int n = vsnprintf(s->out, s->out_cap, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= s->out_cap)
        load_die("a command is too long");
    s->pieces[0] = (struct piece){s->out, (size_t)n};
    s->pieces_count = 1;
}

/* The sender of a session: with --users each user has an address of their own. */
static void sender(char *to, size_t cap, long index)
{
    const char *at = strchr(o->from, '@');
    if (o->users > 0 && at != NULL)
        (void)snprintf(to, cap, "%s%ld%s", o->user, index % o->users, at);
    else
        (void)snprintf(to, cap, "%s", o->from);
}

size_t load_header(char *to, size_t cap, long session, long message)
{
    char from[300];
    sender(from, sizeof from, session);
    int n = snprintf(to, cap,
                     "From: <%.250s>\r\nTo: <%.200s>\r\nSubject: load %08x.%ld.%ld\r\n"
                     "Date: Thu, 01 Jan 2026 00:00:00 +0000\r\n"
                     "Message-ID: <%08x.%ld.%ld@client.example>\r\n",
                     from, o->to, load_run.id, session, message, load_run.id, session, message);
    return (size_t)n;
}

static void say_auth(struct load_session *s)
{
    unsigned char raw[800], encoded[1200];
    char user[256], pass[300];
    if (o->users > 0)
        (void)snprintf(user, sizeof user, "%s%ld", o->user, s->index % o->users);
    else
        (void)snprintf(user, sizeof user, "%s", o->user);
    (void)snprintf(pass, sizeof pass, "%s", o->pass);
    if (o->wrong > 0) /* never the same twice: a repeated one would be no new guess */
        (void)snprintf(pass, sizeof pass, "wrong-%08x-%ld-%ld", load_run.id, s->index, s->wrong);
    size_t u = strlen(user), p = strlen(pass);
    raw[0] = raw[1 + u] = 0;
    memcpy(raw + 1, user, u);
    memcpy(raw + 2 + u, pass, p);
    EVP_EncodeBlock(encoded, raw, (int)(u + p + 2));
    say(s, "AUTH PLAIN %s\r\n", (char *)encoded);
    s->state = AUTH;
}

static void say_quit(struct load_session *s)
{
    say(s, "QUIT\r\n");
    s->state = QUIT;
}

static bool pipelined(const struct load_session *s)
{
    return o->pipeline && s->offers_pipelining;
}

static void begin_message(struct load_session *s)
{
    char from[300];
    sender(from, sizeof from, s->index);
    s->message_begun = load_now();
    s->rcpts = 0;
    s->state = MAIL;
    say(s, "MAIL FROM:<%s>\r\n", from);
    if (!pipelined(s))
        return;
    size_t n = s->pieces[0].len;
    reserve(s, n + 64 + (size_t)o->rcpts * 320);
    for (long i = 0; i < o->rcpts; i++)
        n += (size_t)snprintf(s->out + n, s->out_cap - n, "RCPT TO:<%s>\r\n", o->to);
    n += (size_t)snprintf(s->out + n, s->out_cap - n, "DATA\r\n");
    s->pieces[0] = (struct piece){s->out, n};
}

static void say_message(struct load_session *s)
{
    size_t body = load_run.body_length;
    reserve(s, 1024 + (body <= INLINE_BODY ? body + 8 : 0));
    size_t n = load_header(s->out, s->out_cap, s->index, s->messages);
    s->state = DOT;
    if (body <= INLINE_BODY) {
        memcpy(s->out + n, load_run.body, body);
        memcpy(s->out + n + body, ".\r\n", 3);
        s->pieces[0] = (struct piece){s->out, n + body + 3};
        s->pieces_count = 1;
        return;
    }
    s->pieces[0] = (struct piece){s->out, n};
    s->pieces[1] = (struct piece){load_run.body, body};
    s->pieces[2] = (struct piece){".\r\n", 3};
    s->pieces_count = 3;
}

static void begin_tls(struct load_worker *w, struct load_session *s)
{
    s->ssl = SSL_new(load_run.tls);
    if (s->ssl == NULL || SSL_set_fd(s->ssl, s->fd) != 1)
        load_die("SSL_new failed");
    if (w->saved != NULL)
        SSL_set_session(s->ssl, w->saved);
    SSL_set_connect_state(s->ssl);
    SSL_set_app_data(s->ssl, w);
    s->state = HANDSHAKE;
}

int load_on_new_session(SSL *ssl, SSL_SESSION *session)
{
    struct load_worker *w = SSL_get_app_data(ssl);
    SSL_SESSION_free(w->saved);
    w->saved = session;
    return 1;
}

/* ---- what is answered ---- */

static void session_ready(struct load_worker *w, struct load_session *s)
{
    load_samples_add(&w->setup, load_now() - s->begun);
    if (o->holding) {
        s->state = HOLD;
        w->setting_up--;
        atomic_fetch_add(&load_run.held, 1);
        free(s->out);
        s->out = NULL;
        s->out_cap = 0;
    } else if (o->messages > 0)
        begin_message(s);
    else
        say_quit(s);
}

/* A message was refused: counted; the session leaves politely. */
static int message_fail(struct load_worker *w, struct load_session *s, enum load_error e, const char *line)
{
    note_error(w, e, line);
    if (s->pieces_count > 0 || pipelined(s)) /* more is under way: only close */
        (void)shutdown(s->fd, SHUT_RDWR);
    say_quit(s);
    s->failed = true;
    return 0;
}

static int on_greeting(struct load_worker *w, struct load_session *s, int code, const char *line)
{
    if (code != 220)
        return session_fail(w, s, LOAD_ERROR_GREETING, line);
    say(s, "EHLO %s\r\n", o->helo);
    s->state = EHLO;
    return 0;
}

static int on_ehlo(struct load_worker *w, struct load_session *s, int code, const char *line)
{
    if (code != 250)
        return session_fail(w, s, LOAD_ERROR_EHLO, line);
    if (o->tls == LOAD_TLS_STARTTLS && !s->secure) {
        if (!s->offers_starttls)
            return session_fail(w, s, LOAD_ERROR_STARTTLS, "not offered");
        say(s, "STARTTLS\r\n");
        s->state = STARTTLS;
    } else if (o->auth) {
        if (!s->offers_plain)
            return session_fail(w, s, LOAD_ERROR_AUTH, "PLAIN is not offered");
        say_auth(s);
    } else
        session_ready(w, s);
    return 0;
}

static int on_starttls(struct load_worker *w, struct load_session *s, int code, const char *line)
{
    if (code != 220)
        return session_fail(w, s, LOAD_ERROR_STARTTLS, line);
    s->offers_starttls = s->offers_plain = s->offers_pipelining = false;
    begin_tls(w, s);
    return 0;
}

static int on_auth(struct load_worker *w, struct load_session *s, int code, const char *line)
{
    if (o->wrong > 0 && code == 535) {
        w->refused_logins++;
        if (++s->wrong < o->wrong)
            say_auth(s);
        else
            say_quit(s);
        return 0;
    }
    if (code != 235 || o->wrong > 0)
        return session_fail(w, s, LOAD_ERROR_AUTH, line);
    session_ready(w, s);
    return 0;
}

static int on_mail(struct load_worker *w, struct load_session *s, int code, const char *line)
{
    if (code != 250)
        return message_fail(w, s, LOAD_ERROR_MAIL, line);
    s->state = RCPT;
    if (!pipelined(s))
        say(s, "RCPT TO:<%s>\r\n", o->to);
    return 0;
}

static int on_rcpt(struct load_worker *w, struct load_session *s, int code, const char *line)
{
    if (code != 250 && code != 251)
        return message_fail(w, s, LOAD_ERROR_RCPT, line);
    bool more = ++s->rcpts < o->rcpts;
    s->state = more ? RCPT : DATA;
    if (pipelined(s))
        return 0;
    if (more)
        say(s, "RCPT TO:<%s>\r\n", o->to);
    else
        say(s, "DATA\r\n");
    return 0;
}

static int on_data(struct load_worker *w, struct load_session *s, int code, const char *line)
{
    if (code != 354)
        return message_fail(w, s, LOAD_ERROR_DATA, line);
    say_message(s);
    return 0;
}

static int on_dot(struct load_worker *w, struct load_session *s, int code, const char *line)
{
    if (code != 250)
        return message_fail(w, s, LOAD_ERROR_DOT, line);
    load_samples_add(&w->message, load_now() - s->message_begun);
    w->ok_messages++;
    if (++s->messages < o->messages)
        begin_message(s);
    else
        say_quit(s);
    return 0;
}

static int on_held(struct load_worker *w, struct load_session *s, int code, const char *line)
{
    (void)code;
    return session_fail(w, s, LOAD_ERROR_CLOSED, line);
}

static int on_quit(struct load_worker *w, struct load_session *s, int code, const char *line)
{
    (void)code, (void)line;
    if (!s->failed) {
        w->ok_sessions++;
        load_samples_add(&w->session, load_now() - s->begun);
    }
    session_end(w, s);
    return -1;
}

/* Each acts on one whole reply; -1 when the session is gone. */
static int (*const on_reply[STATE_COUNT])(struct load_worker *, struct load_session *, int, const char *) = {
    [GREETING] = on_greeting, [EHLO] = on_ehlo, [STARTTLS] = on_starttls, [AUTH] = on_auth, [MAIL] = on_mail,
    [RCPT] = on_rcpt,         [DATA] = on_data, [DOT] = on_dot,           [HOLD] = on_held, [QUIT] = on_quit,
};

static void on_capability(struct load_session *s, const char *line)
{
    if (strcasecmp(line, "STARTTLS") == 0)
        s->offers_starttls = true;
    else if (strcasecmp(line, "PIPELINING") == 0)
        s->offers_pipelining = true;
    else if (strncasecmp(line, "AUTH ", 5) == 0 || strncasecmp(line, "AUTH=", 5) == 0)
        s->offers_plain |= strcasestr(line, "PLAIN") != NULL;
}

static int reply_code(const char *line, size_t n)
{
    if (n < 3 || (n > 3 && line[3] != ' ' && line[3] != '-'))
        return -1;
    for (int i = 0; i < 3; i++)
        if (line[i] < '0' || line[i] > '9')
            return -1;
    return line[0] < '2' || line[0] > '5' ? -1 : (line[0] - '0') * 100 + (line[1] - '0') * 10 + line[2] - '0';
}

static int on_line(struct load_worker *w, struct load_session *s, char *line, size_t n)
{
    int code = reply_code(line, n);
    if (code < 0 || on_reply[s->state] == NULL)
        return session_fail(w, s, LOAD_ERROR_PROTOCOL, line);
    if (s->state == EHLO && n > 4)
        on_capability(s, line + 4);
    if (n > 3 && line[3] == '-')
        return 0;
    if (code >= 400 && !s->failed)
        w->codes[code]++;
    s->deadline = load_now() + o->step_timeout;
    return on_reply[s->state](w, s, code, line);
}

/* Acts on the whole lines that have come; -1 when the session is gone. */
static int take_lines(struct load_worker *w, struct load_session *s)
{
    size_t off = 0;
    for (char *nl; (nl = memchr(s->in + off, '\n', s->in_len - off)) != NULL;) {
        char *line = s->in + off;
        size_t n = (size_t)(nl - line);
        off += n + 1;
        if (n > 0 && line[n - 1] == '\r')
            n--;
        line[n] = '\0';
        bool was_starttls = s->state == STARTTLS;
        if (on_line(w, s, line, n) < 0)
            return -1;
        if (was_starttls && off != s->in_len)
            return session_fail(w, s, LOAD_ERROR_PROTOCOL, "text behind the reply to STARTTLS");
    }
    memmove(s->in, s->in + off, s->in_len - off);
    s->in_len -= off;
    return s->in_len == sizeof s->in ? session_fail(w, s, LOAD_ERROR_PROTOCOL, "a reply line is too long") : 0;
}

/* ---- octets ---- */

/* Octets written, 0 when it would block, -1 when the session is gone. */
static ssize_t put(struct load_worker *w, struct load_session *s, const struct piece *p)
{
    if (s->ssl == NULL) {
        ssize_t n = send(s->fd, p->ptr, p->len, MSG_NOSIGNAL);
        if (n >= 0)
            return n;
        s->want_out = errno == EAGAIN;
        return errno == EAGAIN || errno == EINTR ? 0 : session_fail(w, s, LOAD_ERROR_CLOSED, strerror(errno));
    }
    int n = SSL_write(s->ssl, p->ptr, (int)(p->len > TLS_CHUNK ? TLS_CHUNK : p->len));
    if (n > 0)
        return n;
    int e = SSL_get_error(s->ssl, n);
    s->want_out = e == SSL_ERROR_WANT_WRITE;
    if (e == SSL_ERROR_WANT_WRITE || e == SSL_ERROR_WANT_READ)
        return 0;
    ERR_clear_error();
    return session_fail(w, s, LOAD_ERROR_CLOSED, "TLS write");
}

/* 0, or -1 when the session is gone. */
static int flush_out(struct load_worker *w, struct load_session *s)
{
    while (s->pieces_count > 0) {
        struct piece *p = &s->pieces[0];
        ssize_t n = put(w, s, p);
        if (n <= 0)
            return (int)n;
        p->ptr += n;
        p->len -= (size_t)n;
        s->deadline = load_now() + o->step_timeout; /* progress in a long body */
        if (p->len == 0)
            memmove(s->pieces, s->pieces + 1, (size_t)--s->pieces_count * sizeof *p);
    }
    return 0;
}

static ssize_t get_tls(struct load_session *s, char *to, size_t cap)
{
    int n = SSL_read(s->ssl, to, (int)cap);
    if (n > 0)
        return n;
    int e = SSL_get_error(s->ssl, n);
    ERR_clear_error();
    s->want_out |= e == SSL_ERROR_WANT_WRITE;
    errno = e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE ? EAGAIN : ECONNRESET;
    return -1;
}

/* 1 got octets, 0 would block, -1 the session is gone. */
static int fill_in(struct load_worker *w, struct load_session *s)
{
    char *to = s->in + s->in_len;
    size_t cap = sizeof s->in - s->in_len;
    ssize_t n = s->ssl != NULL ? get_tls(s, to, cap) : recv(s->fd, to, cap, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0)
        return session_fail(w, s, LOAD_ERROR_CLOSED, n < 0 ? strerror(errno) : "by the server");
    s->in_len += (size_t)n;
    return 1;
}

/* 1 done, 0 would block, -1 the session is gone. */
static int handshake(struct load_worker *w, struct load_session *s)
{
    int n = SSL_do_handshake(s->ssl);
    if (n != 1) {
        int e = SSL_get_error(s->ssl, n);
        char words[200] = "handshake";
        s->want_out = e == SSL_ERROR_WANT_WRITE;
        if (e == SSL_ERROR_WANT_WRITE || e == SSL_ERROR_WANT_READ)
            return 0;
        unsigned long x = ERR_get_error();
        if (x != 0)
            ERR_error_string_n(x, words, sizeof words);
        ERR_clear_error();
        return session_fail(w, s, LOAD_ERROR_TLS, words);
    }
    s->secure = true;
    w->resumed += SSL_session_reused(s->ssl);
    if (w->tls[0] == '\0')
        (void)snprintf(w->tls, sizeof w->tls, "%s/%s", SSL_get_version(s->ssl), SSL_get_cipher_name(s->ssl));
    if (o->handshake_only)
        return on_quit(w, s, 0, "");
    if (o->tls == LOAD_TLS_IMPLICIT)
        s->state = GREETING;
    else {
        say(s, "EHLO %s\r\n", o->helo);
        s->state = EHLO;
    }
    return 1;
}

/* 0, or -1 when the session is gone. */
static int connected(struct load_worker *w, struct load_session *s)
{
    int error = 0;
    socklen_t n = sizeof error;
    (void)getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &n);
    if (error != 0)
        return session_fail(w, s, LOAD_ERROR_CONNECT, strerror(error));
    s->state = GREETING;
    if (o->tls == LOAD_TLS_IMPLICIT)
        begin_tls(w, s);
    return 0;
}

/* Goes on as far as it can: 0, or -1 when the session is gone. */
static int advance(struct load_worker *w, struct load_session *s)
{
    for (;;) {
        int r = s->state == HANDSHAKE ? handshake(w, s) : 1;
        if (r <= 0)
            return r;
        if (flush_out(w, s) < 0)
            return -1;
        r = fill_in(w, s);
        if (r <= 0)
            return r;
        if (take_lines(w, s) < 0)
            return -1;
        /* Small replies are read whole: what comes next is told by the next event, not by a read in vain. */
        if (s->ssl == NULL && s->state != HANDSHAKE)
            return flush_out(w, s);
    }
}

static void drive(struct load_worker *w, struct load_session *s)
{
    s->want_out = false;
    if ((s->state == CONNECT && connected(w, s) < 0) || advance(w, s) < 0)
        return;
    uint32_t want = EPOLLIN | (s->want_out ? (uint32_t)EPOLLOUT : 0);
    if (want == s->events)
        return;
    struct epoll_event e = {.events = s->events = want, .data.ptr = s};
    (void)epoll_ctl(w->epoll, EPOLL_CTL_MOD, s->fd, &e);
}

/* ---- the loop ---- */

static int bind_source(const struct load_session *s)
{
    int one = 1;
    if (o->spread <= 1 || load_run.to.ss_family != AF_INET)
        return 0;
    struct sockaddr_in from = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(0x7f010000u + (uint32_t)(s->index % o->spread) + 1)};
    (void)setsockopt(s->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    return bind(s->fd, (struct sockaddr *)&from, sizeof from);
}

static void session_open(struct load_worker *w, long index)
{
    struct load_session *s = calloc(1, sizeof *s);
    int one = 1;
    if (s == NULL)
        load_die("out of memory");
    s->index = index;
    s->next = w->list;
    if (w->list != NULL)
        w->list->prev = s;
    w->list = s;
    w->active++;
    w->setting_up++;
    w->started++;
    s->begun = load_now();
    s->deadline = s->begun + o->step_timeout;
    s->events = EPOLLIN | (uint32_t)EPOLLOUT;
    struct epoll_event e = {.events = s->events, .data.ptr = s};
    s->fd = socket(load_run.to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->fd < 0 || setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) < 0 || bind_source(s) < 0 ||
        (connect(s->fd, (struct sockaddr *)&load_run.to, load_run.to_length) < 0 && errno != EINPROGRESS) ||
        epoll_ctl(w->epoll, EPOLL_CTL_ADD, s->fd, &e) < 0)
        (void)session_fail(w, s, LOAD_ERROR_CONNECT, strerror(errno));
}

/* Opens what there is place for, or what is due by the clock. False: nothing more is to come. */
static bool open_some(struct load_worker *w, double now)
{
    double due = o->rate / (double)o->threads * (now - load_run.begin);
    if (atomic_load(&load_run.stop) != 0 || now - load_run.begin > o->max_time)
        return false;
    for (;;) {
        bool place = (o->holding ? w->setting_up : w->active) < w->limit;
        if (o->rate > 0 ? (double)(w->started + w->unoffered) >= due : !place)
            return true;
        long i = atomic_fetch_add(&load_run.next_session, 1);
        if (i >= o->sessions)
            return false;
        if (place)
            session_open(w, i);
        else
            w->unoffered++;
    }
}

static void scan(struct load_worker *w, double now)
{
    /* With a rate the time ends the beginning of sessions; those under way may finish. */
    bool over = now - load_run.begin > o->max_time + (o->rate > 0 ? o->step_timeout : 0);
    for (struct load_session *s = w->list, *next; s != NULL; s = next) {
        next = s->next;
        if (s->state == HOLD) {
            if (atomic_load(&load_run.stop) == 0)
                continue;
            w->active--;
            session_free(w, s);
        } else if (over || atomic_load(&load_run.stop) != 0)
            (void)session_fail(w, s, LOAD_ERROR_UNFINISHED, "the time is over");
        else if (now > s->deadline)
            (void)session_fail(w, s, LOAD_ERROR_TIMEOUT, "no reply");
    }
}

void *load_worker_run(void *arg)
{
    struct load_worker *w = arg;
    struct epoll_event events[256];
    double scanned = load_now();
    bool more = true;
    while (more || w->active > 0) {
        double now = load_now();
        more = more && open_some(w, now);
        int n = epoll_wait(w->epoll, events, 256, o->rate > 0 ? 1 : 50);
        /* A session ends by its own event or in the scan, and has one event a wait: none is met after its end. */
        for (int i = 0; i < n; i++)
            drive(w, events[i].data.ptr);
        if (now - scanned > SCAN_EVERY_S || atomic_load(&load_run.stop) != 0) {
            scanned = now;
            scan(w, now);
        }
    }
    return NULL;
}
