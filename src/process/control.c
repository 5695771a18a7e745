/*
 * The control protocol's server half. The askers are local and permitted by the mode of the socket, but their lines are
 * still bounded and parsed with care: a process that serves must not fall because of an operator's script.
 */
#include "process/control.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

#include "common/buf.h"

#define CONNECTIONS_MAX 64
#define LINE_MAX_OCTETS (1024U * 1024U)
#define OUT_MAX         (64U * 1024U * 1024U)
#define OUT_FULL        (256U * 1024U)

struct control_request {
    struct control *control;
    uv_poll_t poll;
    int fd;
    struct buf in, out;
    bool running, gone, closing;
    uid_t uid;
    char name[64];
    void (*resume)(struct control_request *rq, void *arg);
    void (*drop)(void *arg);
    void *drain_arg;
    struct control_request *next;
};

struct control {
    uv_loop_t *loop;
    uv_poll_t poll;
    int fd;
    const struct control_verb *verbs;
    void *arg;
    size_t connections;
    struct control_request *all;
};

static void settle(struct control_request *rq);
static void run_lines(struct control_request *rq);

static void connection_closed(uv_handle_t *h)
{
    struct control_request *rq = h->data;
    (void)close(rq->fd);
    buf_wipe(&rq->in);
    buf_wipe(&rq->out);
    free(rq);
}

static void forget_drain(struct control_request *rq)
{
    if (rq->drop != NULL) {
        rq->drop(rq->drain_arg);
    }
    rq->resume = NULL;
    rq->drop = NULL;
}

/* A request that still runs keeps its structure until control_done(). */
static void connection_end(struct control_request *rq)
{
    rq->gone = true;
    (void)uv_poll_stop(&rq->poll);
    if (rq->drop != NULL) {
        rq->running = false; /* it waited for room: nobody else will end it */
    }
    forget_drain(rq);
    if (rq->running || rq->closing) {
        return;
    }
    rq->closing = true;
    if (rq->control != NULL) {
        struct control_request **p = &rq->control->all;
        while (*p != rq) {
            p = &(*p)->next;
        }
        *p = rq->next;
        rq->control->connections--;
    }
    uv_close((uv_handle_t *)&rq->poll, connection_closed);
}

static void flush_out(struct control_request *rq)
{
    while (rq->out.len > 0 && !rq->gone) {
        ssize_t n = send(rq->fd, rq->out.data, rq->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            if (errno != EAGAIN && errno != EWOULDBLOCK) {
                connection_end(rq);
            }
            return;
        }
        buf_consume(&rq->out, (size_t)n);
    }
}

static void on_connection(uv_poll_t *h, int status, int events)
{
    struct control_request *rq = h->data;
    if (status < 0) {
        connection_end(rq);
        return;
    }
    if ((events & UV_WRITABLE) != 0) {
        flush_out(rq);
        if (!rq->gone && rq->resume != NULL && rq->out.len < OUT_FULL) {
            void (*resume)(struct control_request *, void *) = rq->resume;
            rq->resume = NULL;
            rq->drop = NULL;
            resume(rq, rq->drain_arg);
        }
    }
    if (!rq->gone && (events & UV_READABLE) != 0) {
        uint8_t *room;
        ssize_t n = buf_reserve(&rq->in, 16384, &room) < 0 ? 0 : recv(rq->fd, room, 16384, MSG_DONTWAIT);
        if (n > 0) {
            buf_commit(&rq->in, (size_t)n);
        } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            connection_end(rq);
            return;
        }
    }
    if (!rq->gone) {
        run_lines(rq);
    }
}

static void settle(struct control_request *rq)
{
    if (!rq->gone) {
        int events = UV_READABLE | (rq->out.len > 0 || rq->resume != NULL ? UV_WRITABLE : 0);
        (void)uv_poll_start(&rq->poll, events, on_connection);
    }
}

static void run_verb(struct control_request *rq, const json_t *request)
{
    const char *verb = json_string_value(json_object_get(request, "verb"));
    for (const struct control_verb *v = rq->control->verbs; verb != NULL && v->name != NULL; v++) {
        if (strcmp(v->name, verb) == 0) {
            v->run(rq->control->arg, rq, request);
            return;
        }
    }
    control_fail(rq, EX_USAGE, "no such verb here: %s", verb != NULL ? verb : "(none)");
}

static void run_line(struct control_request *rq, struct span line)
{
    json_error_t error;
    json_t *request = json_loadb((const char *)line.ptr, line.len, JSON_REJECT_DUPLICATES, &error);
    rq->running = true;
    if (!json_is_object(request)) {
        control_fail(rq, EX_DATAERR, "not a JSON object: %s", error.text);
    } else {
        run_verb(rq, request);
    }
    json_decref(request);
}

static void run_lines(struct control_request *rq)
{
    while (!rq->running && !rq->gone) {
        uint8_t *end = rq->in.len > 0 ? memchr(rq->in.data, '\n', rq->in.len) : NULL;
        if (end == NULL) {
            break;
        }
        size_t len = (size_t)(end - rq->in.data);
        struct buf line;
        buf_init(&line, LINE_MAX_OCTETS);
        int r = buf_append(&line, rq->in.data, len);
        explicit_bzero(rq->in.data, len); /* it may carry a password */
        buf_consume(&rq->in, len + 1);
        if (r == 0) {
            run_line(rq, buf_span(&line));
        }
        buf_wipe(&line);
    }
    if (!rq->gone) {
        settle(rq);
    }
}

int control_line(struct control_request *rq, json_t *take_object)
{
    char *text = take_object != NULL ? json_dumps(take_object, JSON_COMPACT) : NULL;
    int r = text == NULL ? -ENOMEM : rq->gone ? -EPIPE : buf_append_str(&rq->out, text);
    if (r == 0) {
        r = buf_append_byte(&rq->out, '\n');
    }
    if (text != NULL) {
        explicit_bzero(text, strlen(text));
        free(text);
    }
    json_decref(take_object);
    if (r == 0) {
        settle(rq);
    }
    return r;
}

static void on_finished(struct control_request *rq)
{
    rq->running = false;
    if (rq->gone) {
        connection_end(rq);
        return;
    }
    flush_out(rq);
    if (!rq->gone) {
        settle(rq);
    }
}

void control_done(struct control_request *rq, json_t *take_object)
{
    json_t *object = take_object != NULL ? take_object : json_object();
    (void)json_object_set_new(object, "done", json_true());
    (void)control_line(rq, object);
    on_finished(rq);
}

void control_fail(struct control_request *rq, int status, const char *fmt, ...)
{
    char words[1024];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(words, sizeof(words), fmt, ap);
    va_end(ap);
    json_t *text = json_string(words);
    control_done(rq, json_pack("{s:o,s:i}", "error", text != NULL ? text : json_string("not UTF-8"), "status", status));
}

bool control_is_full(const struct control_request *rq)
{
    return rq->out.len >= OUT_FULL;
}

void control_on_drain(struct control_request *rq, void (*resume)(struct control_request *rq, void *arg), void *arg,
                      void (*drop)(void *arg))
{
    if (rq->gone) {
        drop(arg);
        control_done(rq, NULL);
        return;
    }
    rq->resume = resume;
    rq->drop = drop;
    rq->drain_arg = arg;
    settle(rq);
}

unsigned control_peer_uid(const struct control_request *rq)
{
    return rq->uid;
}

const char *control_peer_name(const struct control_request *rq)
{
    return rq->name;
}

static void peer_read(struct control_request *rq)
{
    struct ucred cred = {.uid = (uid_t)-1};
    socklen_t len = sizeof(cred);
    (void)getsockopt(rq->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len);
    rq->uid = cred.uid;
    (void)snprintf(rq->name, sizeof(rq->name), cred.uid == 0 ? "root" : "uid %u", (unsigned)cred.uid);
}

static void on_accept(uv_poll_t *h, int status, int events)
{
    struct control *c = h->data;
    (void)events;
    int fd = status < 0 ? -1 : accept4(c->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct control_request *rq = fd >= 0 && c->connections < CONNECTIONS_MAX ? calloc(1, sizeof(*rq)) : NULL;
    if (rq == NULL || uv_poll_init(c->loop, &rq->poll, fd) != 0) {
        free(rq);
        if (fd >= 0) {
            (void)close(fd);
        }
        return;
    }
    rq->control = c;
    rq->fd = fd;
    rq->poll.data = rq;
    buf_init(&rq->in, LINE_MAX_OCTETS);
    buf_init(&rq->out, OUT_MAX);
    peer_read(rq);
    rq->next = c->all;
    c->all = rq;
    c->connections++;
    settle(rq);
}

struct control *control_new(uv_loop_t *loop, int listen_fd, const struct control_verb *verbs, void *arg)
{
    struct control *c = calloc(1, sizeof(*c));
    if (c == NULL || uv_poll_init(loop, &c->poll, listen_fd) != 0) {
        free(c);
        return NULL;
    }
    c->loop = loop;
    c->fd = listen_fd;
    c->verbs = verbs;
    c->arg = arg;
    c->poll.data = c;
    (void)uv_poll_start(&c->poll, UV_READABLE, on_accept);
    return c;
}

static void control_closed(uv_handle_t *h)
{
    struct control *c = h->data;
    (void)close(c->fd);
    free(c);
}

void control_free(struct control **cp)
{
    struct control *c = *cp;
    if (c == NULL) {
        return;
    }
    *cp = NULL;
    while (c->all != NULL) {
        struct control_request *rq = c->all;
        c->all = rq->next;
        rq->control = NULL;
        connection_end(rq);
    }
    uv_close((uv_handle_t *)&c->poll, control_closed);
}
