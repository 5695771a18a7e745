/*
 * A TCP or unix connection under uv_poll, with OpenSSL on the same descriptor when TLS runs.
 *
 * Clear text is read into `in`; TLS into the same buffer after decryption. The buffers are freed when empty, so that an
 * idle connection costs the structure and OpenSSL's own state (SSL_MODE_RELEASE_BUFFERS) only. After TLS began, recv()
 * is never called again by us: whatever ends TLS ends the stream.
 */
#include "process/stream.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define READ_ROOM      (16U * 1024U)
#define READ_ROOM_FAST (64U * 1024U)
#define IN_MAX         (512U * 1024U)
#define OUT_MAX        (4U * 1024U * 1024U)

enum stream_state { STREAM_CONNECTING, STREAM_CLEAR, STREAM_HANDSHAKE, STREAM_TLS, STREAM_CLOSING, STREAM_DEAD };

struct stream {
    uv_loop_t *loop;
    uv_poll_t poll;
    uv_timer_t timer;
    uv_idle_t again; /* offers once more what read() left */
    int fd;
    int events;
    enum stream_state state;
    const struct stream_ops *ops;
    void *arg;
    SSL *ssl;
    bool first_octets; /* OpenSSL reads what came before the handshake first, then the socket */
    struct buf in, out;
    bool paused, freed, busy, tls_wants_write, tls_wants_read;
    bool in_owner; /* called by the owner: an end found now is told from the loop */
    int end_err;
    const char *end_why;
    int handles;
    size_t read_room;
    struct turns *turns; /* NULL: events are met at once */
    struct turn turn;
    int told_status, told_events; /* what waits for the turn */
};

static void on_poll(uv_poll_t *h, int status, int events);
static void settle(struct stream *s);

static void handle_closed(uv_handle_t *h)
{
    struct stream *s = h->data;
    if (--s->handles == 0) {
        buf_wipe(&s->in); /* an AUTH line may have stood in it */
        buf_fini(&s->out);
        SSL_free(s->ssl);
        (void)close(s->fd);
        free(s);
    }
}

void stream_free(struct stream **sp)
{
    struct stream *s = *sp;
    if (s == NULL) {
        return;
    }
    *sp = NULL;
    s->freed = true;
    s->state = STREAM_DEAD;
    turns_remove(&s->turn);
    uv_close((uv_handle_t *)&s->poll, handle_closed); /* before the loop waits again the descriptor is closed */
    uv_close((uv_handle_t *)&s->timer, handle_closed);
    uv_close((uv_handle_t *)&s->again, handle_closed);
}

static void on_end(uv_timer_t *t)
{
    struct stream *s = t->data;
    s->ops->closed(s->arg, s->end_err, s->end_why);
}

/* Every end comes through here, once; never from within a call of the owner's, who is not ready to lose the stream
 * there. */
static void end(struct stream *s, int err, const char *why)
{
    if (s->state == STREAM_DEAD) {
        return;
    }
    s->state = STREAM_DEAD; /* what is still polled for is given up when it comes, or with the stream */
    (void)uv_timer_stop(&s->timer);
    (void)uv_idle_stop(&s->again);
    if (s->in_owner) {
        s->end_err = err;
        s->end_why = why;
        (void)uv_timer_start(&s->timer, on_end, 0, 0);
    } else {
        s->ops->closed(s->arg, err, why);
    }
}

static const char *tls_reason(void)
{
    unsigned long e = ERR_peek_last_error();
    const char *text = e != 0 ? ERR_reason_error_string(e) : NULL;
    return text != NULL ? text : "TLS error";
}

/* 0: wait for what `wants` says; 1: try again at once; -1: ended. r is what the SSL call returned. */
static int tls_failed(struct stream *s, int r)
{
    int e = SSL_get_error(s->ssl, r);
    int err = errno;
    switch (e) {
    case SSL_ERROR_WANT_READ:
        if (s->first_octets) {
            s->first_octets = false;
            SSL_set0_rbio(s->ssl, BIO_new_socket(s->fd, BIO_NOCLOSE));
            return 1;
        }
        s->tls_wants_read = true;
        return 0;
    case SSL_ERROR_WANT_WRITE:
        s->tls_wants_write = true;
        return 0;
    case SSL_ERROR_ZERO_RETURN:
        end(s, 0, "TLS was closed");
        return -1;
    case SSL_ERROR_SYSCALL:
        end(s, err != 0 ? -err : -ECONNRESET, err != 0 ? strerrordesc_np(err) : "the connection was closed within TLS");
        break;
    default:
        end(s, 1, tls_reason());
        break;
    }
    ERR_clear_error();
    return -1;
}

static void handshake(struct stream *s)
{
    int r;
    do {
        s->tls_wants_read = s->tls_wants_write = false;
        ERR_clear_error();
        r = SSL_do_handshake(s->ssl);
    } while (r != 1 && tls_failed(s, r) > 0);
    if (r != 1) {
        return;
    }
    s->state = STREAM_TLS;
    s->ops->tls_ready(s->arg);
    if (!s->freed && s->state == STREAM_TLS && !s->paused && SSL_has_pending(s->ssl)) {
        stream_read_resume(s); /* what came right behind the handshake is OpenSSL's already: no poll will tell of it */
    }
}

/* >0 octets, 0 nothing now, -1 ended. */
static ssize_t read_octets(struct stream *s, uint8_t *room, size_t len)
{
    if (s->state == STREAM_TLS) {
        s->tls_wants_write = false;
        ERR_clear_error();
        int r = SSL_read(s->ssl, room, (int)len);
        return r > 0 ? r : tls_failed(s, r);
    }
    ssize_t n = recv(s->fd, room, len, MSG_DONTWAIT);
    if (n == 0) {
        end(s, 0, "the peer closed the connection");
        return -1;
    }
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
        return 0;
    }
    if (n < 0) {
        int err = errno;
        end(s, -err, strerrordesc_np(err));
        return -1;
    }
    return n;
}

/* The buffer of an idle stream is given back. An AUTH line may have stood in it; not in a large one, which messages
 * fill, and which is not worth the wiping. */
static void give_back(struct stream *s)
{
    if (s->in.len == 0) {
        (s->in.cap < READ_ROOM_FAST ? buf_wipe : buf_fini)(&s->in);
    }
}

/* Offers what is there. false: freed, ended, or TLS began and what was left is void. */
static bool offer(struct stream *s)
{
    while (s->in.len > 0 && !s->paused) {
        enum stream_state before = s->state;
        size_t taken = s->ops->read(s->arg, buf_span(&s->in));
        if (s->freed || s->state == STREAM_DEAD) {
            return false;
        }
        if (s->state != before) {
            buf_wipe(&s->in);
            return false;
        }
        buf_consume(&s->in, taken);
        if (taken == 0) {
            break;
        }
    }
    give_back(s);
    return true;
}

static void on_readable(struct stream *s)
{
    bool dry = false;
    for (int turn = 0; turn < 8 && !s->paused; turn++) { /* a busy peer gives others their turn */
        uint8_t *room;
        if (s->in.cap < s->read_room) {
            give_back(s); /* wiped before it grows */
        }
        if (buf_reserve(&s->in, s->read_room, &room) < 0) {
            return; /* the owner takes nothing: it must pause; we wait with it */
        }
        ssize_t n = read_octets(s, room, s->read_room);
        if (n < 0) {
            return;
        }
        if (n == 0) {
            dry = true;
            break;
        }
        buf_commit(&s->in, (size_t)n);
        bool full = (size_t)n == s->read_room || (s->state == STREAM_TLS && n >= 8192);
        s->read_room = full ? READ_ROOM_FAST : READ_ROOM;
        if (!offer(s) || s->state == STREAM_HANDSHAKE) {
            return;
        }
        if (!full && (s->state != STREAM_TLS || SSL_pending(s->ssl) == 0)) {
            break;
        }
    }
    give_back(s);
    if (s->state == STREAM_TLS && !dry && !s->paused && SSL_has_pending(s->ssl)) {
        stream_read_resume(
            s); /* what OpenSSL holds already, no poll will tell of; but the rest of a record, one will */
    }
}

static void write_out(struct stream *s)
{
    bool wrote = false;
    while (s->out.len > 0) {
        ssize_t n;
        if (s->ssl != NULL) {
            size_t len = s->out.len < 16384 * 4 ? s->out.len : 16384 * 4;
            ERR_clear_error();
            n = SSL_write(s->ssl, s->out.data, (int)len);
            if (n <= 0) {
                (void)tls_failed(s, (int)n);
                break;
            }
        } else {
            n = send(s->fd, s->out.data, s->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (n < 0) {
                int err = errno;
                if (err != EAGAIN && err != EWOULDBLOCK && err != EINTR) {
                    end(s, -err, strerrordesc_np(err));
                }
                break;
            }
        }
        wrote = true;
        buf_consume(&s->out, (size_t)n);
    }
    if (s->state == STREAM_DEAD || s->out.len > 0) {
        return;
    }
    buf_fini(&s->out);
    if (wrote && !s->in_owner && s->ops->drained != NULL && s->state != STREAM_CLOSING) {
        s->ops->drained(s->arg);
    }
}

static void finish_closing(struct stream *s)
{
    if (s->out.len == 0) {
        if (s->ssl != NULL) {
            ERR_clear_error();
            (void)SSL_shutdown(s->ssl);
            ERR_clear_error();
        }
        end(s, 0, "closed");
    }
}

static void finish_connecting(struct stream *s)
{
    int err = 0;
    socklen_t len = sizeof(err);
    (void)getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &err, &len);
    if (err != 0) {
        end(s, -err, strerrordesc_np(err));
        return;
    }
    s->state = STREAM_CLEAR;
    s->ops->connected(s->arg);
}

static void act(struct stream *s, int events)
{
    switch (s->state) {
    case STREAM_CONNECTING:
        finish_connecting(s);
        break;
    case STREAM_HANDSHAKE:
        handshake(s);
        break;
    case STREAM_CLEAR:
    case STREAM_TLS:
        if ((events & UV_WRITABLE) != 0) {
            write_out(s);
        }
        if (!s->freed && s->state != STREAM_DEAD && s->state != STREAM_CLOSING && (events & UV_READABLE) != 0 &&
            !s->paused) {
            on_readable(s);
        }
        break;
    case STREAM_CLOSING:
        write_out(s);
        if (!s->freed && s->state == STREAM_CLOSING) {
            finish_closing(s);
        }
        break;
    case STREAM_DEAD:
        break;
    }
}

/* libuv says EBADF for every POLLERR; the socket knows better. What came before the error can still be read: often it
 * says why. */
static void poll_failed(struct stream *s, int status)
{
    if ((s->state == STREAM_CLEAR || s->state == STREAM_TLS) && !s->paused) {
        on_readable(s);
    }
    if (s->freed || s->state == STREAM_DEAD) {
        return;
    }
    int err = 0;
    socklen_t len = sizeof(err);
    (void)getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &err, &len);
    end(s, err != 0 ? -err : status, err != 0 ? strerrordesc_np(err) : "poll failed");
}

static int wanted_events(const struct stream *s)
{
    switch (s->state) {
    case STREAM_CONNECTING:
    case STREAM_CLOSING:
        return UV_WRITABLE;
    case STREAM_HANDSHAKE:
        return s->tls_wants_write ? UV_WRITABLE : UV_READABLE;
    case STREAM_CLEAR:
    case STREAM_TLS:
        return (s->paused ? 0 : UV_READABLE) | (s->out.len > 0 ? UV_WRITABLE : 0);
    case STREAM_DEAD:
        break;
    }
    return 0;
}

static void set_poll(struct stream *s, int events)
{
    s->events = events;
    if (events == 0) {
        (void)uv_poll_stop(&s->poll);
    } else {
        (void)uv_poll_start(&s->poll, events, on_poll);
    }
}

static void meet(struct stream *s, int status, int events)
{
    int wanted = wanted_events(s);
    if ((events & ~wanted) != 0 || s->state == STREAM_DEAD || (status < 0 && wanted == 0)) {
        set_poll(s, wanted); /* it has come while nobody wanted it */
        if (wanted == 0) {
            return;
        }
    }
    s->busy = true;
    if (status < 0) {
        poll_failed(s, status);
    } else {
        act(s, events);
    }
    s->busy = false;
    if (!s->freed) {
        settle(s);
    }
}

static void on_turn(struct turn *t)
{
    struct stream *s = (struct stream *)((uint8_t *)t - offsetof(struct stream, turn));
    meet(s, s->told_status, s->told_events);
}

static void on_poll(uv_poll_t *h, int status, int events)
{
    struct stream *s = h->data;
    if (s->turns == NULL) {
        meet(s, status, events);
    } else if (s->turn.waits == NULL) {
        s->told_status = status;
        s->told_events = events;
        turns_add(s->turns, &s->turn, 0);
    } else { /* told again, while others have their turns: not to be told any more until its own */
        s->told_status = status < 0 ? status : s->told_status;
        s->told_events |= events;
        set_poll(s, 0);
    }
}

/* Tells libuv what we wait for now. Every change is two system calls, so a pause is not told: most are over before the
 * peer sends anything, and if it does, on_poll() gives up then. */
static void settle(struct stream *s)
{
    if (s->busy || s->freed || s->state == STREAM_DEAD) {
        return;
    }
    int wanted = wanted_events(s);
    if ((wanted & ~s->events) != 0 || (s->events & ~wanted & UV_WRITABLE) != 0) {
        set_poll(s, wanted);
    }
}

static struct stream *stream_make(uv_loop_t *loop, int fd, const struct stream_ops *ops, void *arg)
{
    struct stream *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        (void)close(fd);
        return NULL;
    }
    s->loop = loop;
    s->fd = fd;
    s->ops = ops;
    s->arg = arg;
    s->state = STREAM_CLEAR;
    s->read_room = READ_ROOM;
    buf_init(&s->in, IN_MAX);
    buf_init(&s->out, OUT_MAX);
    if (uv_poll_init(loop, &s->poll, fd) != 0) { /* makes it non-blocking */
        (void)close(fd);
        free(s);
        return NULL;
    }
    (void)uv_timer_init(loop, &s->timer);
    (void)uv_idle_init(loop, &s->again);
    s->poll.data = s->timer.data = s->again.data = s;
    s->turn.run = on_turn;
    s->handles = 3;
    return s;
}

struct stream *stream_new(uv_loop_t *loop, int fd, const struct stream_ops *ops, void *arg)
{
    struct stream *s = stream_make(loop, fd, ops, arg);
    if (s != NULL) {
        settle(s);
    }
    return s;
}

static socklen_t to_sockaddr(const struct net_address *a, struct sockaddr_storage *ss)
{
    memset(ss, 0, sizeof(*ss));
    if (net_address_is_v4(a)) {
        struct sockaddr_in *in = (struct sockaddr_in *)ss;
        in->sin_family = AF_INET;
        in->sin_port = htons(a->port);
        memcpy(&in->sin_addr, a->bytes + 12, 4);
        return sizeof(*in);
    }
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ss;
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(a->port);
    memcpy(&in6->sin6_addr, a->bytes, 16);
    return sizeof(*in6);
}

static void from_sockaddr(const struct sockaddr_storage *ss, struct net_address *ret)
{
    memset(ret, 0, sizeof(*ret));
    if (ss->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)ss;
        ret->bytes[10] = ret->bytes[11] = 0xff;
        memcpy(ret->bytes + 12, &in->sin_addr, 4);
        ret->port = ntohs(in->sin_port);
    } else if (ss->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)ss;
        memcpy(ret->bytes, &in6->sin6_addr, 16);
        ret->port = ntohs(in6->sin6_port);
    }
}

/* A connect that fails at once is told from the loop like one that fails later. */
static void on_connect_failed(uv_timer_t *t)
{
    struct stream *s = t->data;
    int err = s->events; /* set below; no poll runs yet */
    end(s, -err, strerrordesc_np(err));
}

static struct stream *start_connecting(uv_loop_t *loop, int fd, const struct sockaddr *to, socklen_t len, int bind_err,
                                       const struct stream_ops *ops, void *arg)
{
    struct stream *s = stream_make(loop, fd, ops, arg);
    if (s == NULL) {
        return NULL;
    }
    s->state = STREAM_CONNECTING;
    int err = bind_err != 0 ? bind_err : connect(fd, to, len) == 0 || errno == EINPROGRESS ? 0 : errno;
    if (err != 0) {
        s->events = err;
        s->busy = true;
        (void)uv_timer_start(&s->timer, on_connect_failed, 0, 0);
    } else {
        settle(s);
    }
    return s;
}

static void set_nodelay(int fd)
{
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

struct stream *stream_connect(uv_loop_t *loop, const struct net_address *address, const struct net_address *source,
                              const struct stream_ops *ops, void *arg)
{
    struct sockaddr_storage to, from;
    socklen_t to_len = to_sockaddr(address, &to);
    int fd = socket(to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return NULL;
    }
    set_nodelay(fd);
    int err = 0;
    if (source != NULL) {
        socklen_t from_len = to_sockaddr(source, &from);
        err = bind(fd, (struct sockaddr *)&from, from_len) == 0 ? 0 : errno;
    }
    return start_connecting(loop, fd, (struct sockaddr *)&to, to_len, err, ops, arg);
}

struct stream *stream_connect_unix(uv_loop_t *loop, const char *path, const struct stream_ops *ops, void *arg)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return NULL;
    }
    size_t len = strlen(path);
    if (len < sizeof(un.sun_path)) {
        memcpy(un.sun_path, path, len);
    }
    return start_connecting(loop, fd, (struct sockaddr *)&un, sizeof(un), len < sizeof(un.sun_path) ? 0 : ENAMETOOLONG,
                            ops, arg);
}

int stream_start_tls(struct stream *s, SSL *take_ssl, struct span first)
{
    BIO *before = first.len > 0 ? BIO_new(BIO_s_mem()) : NULL;
    bool good = s->state == STREAM_CLEAR && SSL_set_fd(take_ssl, s->fd) == 1 &&
                (first.len == 0 || (before != NULL && BIO_write(before, first.ptr, (int)first.len) == (int)first.len));
    if (!good) {
        BIO_free(before);
        SSL_free(take_ssl);
        return -EINVAL;
    }
    if (before != NULL) {
        (void)BIO_set_mem_eof_return(before, -1);
        SSL_set0_rbio(take_ssl, before);
        s->first_octets = true;
    }
    s->in_owner = true;
    write_out(s); /* the reply before the handshake; a handshake octet must not overtake it */
    s->in_owner = false;
    if (s->state == STREAM_DEAD || s->out.len > 0) {
        SSL_free(take_ssl);
        return -EPIPE;
    }
    s->ssl = take_ssl;
    SSL_set_mode(s->ssl,
                 SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_set_read_ahead(s->ssl, 1); /* a record in one read, not its head and then its body */
    s->state = STREAM_HANDSHAKE;
    s->paused = false;
    s->tls_wants_write = SSL_is_server(s->ssl) == 0 || s->first_octets; /* who has something to do, does it at once */
    settle(s);
    return 0;
}

SSL *stream_ssl(struct stream *s)
{
    return s->state == STREAM_TLS ? s->ssl : NULL;
}

int stream_write(struct stream *s, struct span octets)
{
    if (s->state == STREAM_DEAD || s->state == STREAM_CLOSING || s->state == STREAM_CONNECTING) {
        return -EPIPE;
    }
    int r = buf_append(&s->out, octets.ptr, octets.len);
    if (r < 0) {
        return r;
    }
    if (s->state != STREAM_HANDSHAKE && (s->events & UV_WRITABLE) == 0) {
        bool outer = s->in_owner;
        s->in_owner = true;
        write_out(s);
        s->in_owner = outer;
    }
    if (s->state == STREAM_DEAD) {
        return -EPIPE;
    }
    settle(s);
    return 0;
}

size_t stream_pending(const struct stream *s)
{
    return s->out.len;
}

void stream_set_max_out(struct stream *s, size_t max)
{
    s->out.max = max;
}

void stream_set_turns(struct stream *s, struct turns *turns)
{
    s->turns = turns;
}

void stream_read_pause(struct stream *s)
{
    s->paused = true;
    (void)uv_idle_stop(&s->again);
    settle(s);
}

static void on_again(uv_idle_t *h)
{
    struct stream *s = h->data;
    (void)uv_idle_stop(&s->again);
    if (s->state != STREAM_CLEAR && s->state != STREAM_TLS) {
        return;
    }
    s->busy = true;
    if (offer(s) && !s->paused && s->state == STREAM_TLS && SSL_has_pending(s->ssl)) {
        on_readable(s);
    }
    s->busy = false;
    if (!s->freed) {
        settle(s);
    }
}

void stream_read_resume(struct stream *s)
{
    s->paused = false;
    if (s->in.len > 0 || (s->state == STREAM_TLS && SSL_has_pending(s->ssl))) {
        (void)uv_idle_start(&s->again, on_again);
    }
    settle(s);
}

static void on_shutdown_limit(uv_timer_t *t)
{
    end(t->data, -ETIMEDOUT, "the peer did not read to the end");
}

void stream_shutdown(struct stream *s, unsigned limit_ms)
{
    if (s->state == STREAM_DEAD || s->state == STREAM_CLOSING) {
        return;
    }
    s->state = STREAM_CLOSING;
    (void)uv_idle_stop(&s->again);
    if (s->out.len == 0) {
        bool outer = s->in_owner;
        s->in_owner = true;
        finish_closing(s);
        s->in_owner = outer;
        return;
    }
    (void)uv_timer_start(&s->timer, on_shutdown_limit, limit_ms, 0);
    settle(s);
}

static void on_timeout(uv_timer_t *t)
{
    struct stream *s = t->data;
    if (s->ops->timeout != NULL) {
        s->ops->timeout(s->arg);
    } else {
        end(s, -ETIMEDOUT, "time-out");
    }
}

void stream_timeout(struct stream *s, uint64_t ms)
{
    if (s->state == STREAM_DEAD || s->state == STREAM_CLOSING || (s->state == STREAM_CONNECTING && s->busy)) {
        return;
    }
    if (ms == 0) {
        (void)uv_timer_stop(&s->timer);
    } else {
        (void)uv_timer_start(&s->timer, on_timeout, ms, 0);
    }
}

void stream_local(const struct stream *s, struct net_address *ret)
{
    struct sockaddr_storage ss = {0};
    socklen_t len = sizeof(ss);
    (void)getsockname(s->fd, (struct sockaddr *)&ss, &len);
    from_sockaddr(&ss, ret);
}

int stream_accept(int listening, struct net_address *ret_peer)
{
    struct sockaddr_storage ss = {0};
    socklen_t len = sizeof(ss);
    int fd = accept4(listening, (struct sockaddr *)&ss, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
    from_sockaddr(&ss, ret_peer);
    return fd;
}

void stream_tls_text(const struct stream *s, char *text, size_t size)
{
    text[0] = '\0';
    if (s->ssl != NULL && SSL_is_init_finished(s->ssl)) {
        (void)snprintf(text, size, "%s %s", SSL_get_version(s->ssl), SSL_get_cipher_name(s->ssl));
    }
}
