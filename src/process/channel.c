/*
 * Frames over a stream socket pair. Outgoing frames gather in one buffer and leave when the loop is about to wait (a
 * prepare handle that runs only while something waits); a descriptor cuts the row, for it must ride on the first octet
 * of its frame.
 */
#include "process/channel.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fault.h"

#define READ_ROOM    (256U * 1024U)
#define READ_FDS_MAX 64
#define SEND_FDS_MAX 1024
#define SECRET_ROOM  (64U * 1024U)

struct out_fd {
    uint64_t position; /* octets sent before the frame that carries it */
    int fd;
};

struct channel {
    uv_poll_t poll;
    uv_prepare_t flush;
    int fd;
    int events; /* what libuv polls for now */
    const struct channel_ops *ops;
    void *arg;
    struct buf in, out;
    uint64_t sent, queued; /* octets in all: handed to the kernel; appended */
    struct out_fd out_fds[SEND_FDS_MAX];
    size_t out_fds_first, out_fds_count;
    int in_fds[READ_FDS_MAX];
    size_t in_fds_count;
    size_t frame_start; /* channel_begin: where in out the open frame's header stands */
    const char *broken; /* why; closed() is still to be called */
    bool paused, freed, secret;
    int handles; /* uv handles still closing */
};

static void drop_fds(struct channel *ch)
{
    for (size_t i = 0; i < ch->in_fds_count; i++) {
        (void)close(ch->in_fds[i]);
    }
    ch->in_fds_count = 0;
    while (ch->out_fds_count > 0) {
        (void)close(ch->out_fds[ch->out_fds_first].fd);
        ch->out_fds_first = (ch->out_fds_first + 1) % SEND_FDS_MAX;
        ch->out_fds_count--;
    }
}

static void handle_closed(uv_handle_t *h)
{
    struct channel *ch = h->data;
    if (--ch->handles == 0) {
        drop_fds(ch);
        buf_fini(&ch->in);
        (ch->secret ? buf_wipe : buf_fini)(&ch->out);
        (void)close(ch->fd);
        free(ch);
    }
}

void channel_free(struct channel **chp)
{
    struct channel *ch = *chp;
    if (ch == NULL) {
        return;
    }
    *chp = NULL;
    ch->freed = true;
    uv_close((uv_handle_t *)&ch->poll, handle_closed);
    uv_close((uv_handle_t *)&ch->flush, handle_closed);
}

static void set_poll(struct channel *ch);

static void fail(struct channel *ch, const char *why)
{
    if (ch->broken != NULL) {
        return;
    }
    ch->broken = why;
    (void)uv_poll_stop(&ch->poll);
    (void)uv_prepare_stop(&ch->flush);
    ch->ops->closed(ch->arg, why);
}

/* Sends up to the next frame that carries a descriptor; that one rides on the first octet. */
static ssize_t send_run(struct channel *ch)
{
    size_t len = ch->out.len;
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {.iov_base = ch->out.data};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    for (size_t i = 0; i < ch->out_fds_count && i < 2; i++) {
        const struct out_fd *next = &ch->out_fds[(ch->out_fds_first + i) % SEND_FDS_MAX];
        uint64_t ahead = next->position - ch->sent;
        if (ahead > 0) {
            len = ahead < len ? (size_t)ahead : len;
            break;
        }
        memset(&control, 0, sizeof(control));
        msg.msg_control = control.space;
        msg.msg_controllen = sizeof(control.space);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &next->fd, sizeof(int));
    }
    iov.iov_len = len;
    ssize_t n = sendmsg(ch->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0 && msg.msg_control != NULL) {
        (void)close(ch->out_fds[ch->out_fds_first].fd);
        ch->out_fds_first = (ch->out_fds_first + 1) % SEND_FDS_MAX;
        ch->out_fds_count--;
    }
    return n;
}

/* 0, or the errno that broke it. */
static int flush_now(struct channel *ch)
{
    while (ch->out.len > 0) {
        ssize_t n = send_run(ch);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            break;
        }
        if (n < 0) {
            return errno;
        }
        ch->sent += (uint64_t)n;
        if (ch->secret) {
            explicit_bzero(ch->out.data, (size_t)n);
        }
        buf_consume(&ch->out, (size_t)n);
    }
    return 0;
}

static void on_flush(uv_prepare_t *h)
{
    struct channel *ch = h->data;
    (void)uv_prepare_stop(&ch->flush);
    if (ch->broken != NULL || ch->freed) {
        return;
    }
    (void)FAULT_POINT("channel.flush");
    if (flush_now(ch) != 0) {
        fail(ch, "the peer does not read any more");
        return;
    }
    (void)FAULT_POINT("channel.flushed");
    set_poll(ch);
    if (ch->ops->drained != NULL && ch->out.len < CHANNEL_LOW) {
        ch->ops->drained(ch->arg);
    }
}

void channel_flush(struct channel *ch)
{
    if (ch->broken == NULL && flush_now(ch) != 0) {
        (void)uv_prepare_start(&ch->flush, on_flush); /* fails again there, where closed() may be called */
    }
}

static void take_fds(struct channel *ch, struct msghdr *msg)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (ch->in_fds_count < READ_FDS_MAX) {
                ch->in_fds[ch->in_fds_count++] = fd;
            } else {
                (void)close(fd);
            }
        }
    }
}

/* 1 octets were read, 0 nothing there, -1 the end (with *why). */
static int read_some(struct channel *ch, const char **why)
{
    uint8_t *room;
    if (buf_reserve(&ch->in, READ_ROOM, &room) < 0) {
        *why = "out of memory";
        return -1;
    }
    union {
        char space[CMSG_SPACE(sizeof(int) * 8)];
        struct cmsghdr align;
    } control;
    struct iovec iov = {.iov_base = room, .iov_len = READ_ROOM};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof(control.space)};
    ssize_t n = recvmsg(ch->fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n < 0) {
        *why = "read failed";
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : -1;
    }
    if (n == 0) {
        *why = "the peer is gone";
        return -1;
    }
    take_fds(ch, &msg);
    buf_commit(&ch->in, (size_t)n);
    return 1;
}

static int take_fd_of(struct channel *ch, const struct frame *f)
{
    if ((f->flags & FRAME_HAS_FD) == 0 || ch->in_fds_count == 0) {
        return -1;
    }
    int fd = ch->in_fds[0];
    ch->in_fds_count--;
    memmove(ch->in_fds, ch->in_fds + 1, ch->in_fds_count * sizeof(int));
    return fd;
}

/* Hands over every whole frame. false: the channel is broken or freed. */
static bool hand_over(struct channel *ch)
{
    size_t done = 0;
    while (!ch->freed && ch->broken == NULL && !ch->paused) {
        struct frame f;
        struct span rest = {ch->in.data + done, ch->in.len - done};
        int r = frame_decode(rest, &f);
        if (r < 0) {
            fail(ch, "a frame that is none");
            break;
        }
        if (r == 0 || rest.len - sizeof(f) < f.length) {
            break;
        }
        int fd = take_fd_of(ch, &f);
        done += sizeof(f) + f.length;
        if (ch->ops->frame(ch->arg, &f, (struct span){rest.ptr + sizeof(f), f.length}, fd) < 0 && !ch->freed) {
            fail(ch, "a frame that does not decode");
        }
    }
    if (!ch->freed && ch->broken == NULL) {
        buf_consume(&ch->in, done);
        return true;
    }
    return false;
}

static void on_poll(uv_poll_t *h, int status, int events)
{
    struct channel *ch = h->data;
    if (status < 0) {
        fail(ch, "poll failed");
        return;
    }
    if ((events & UV_WRITABLE) != 0) {
        on_flush(&ch->flush);
    }
    if ((events & (UV_READABLE | UV_DISCONNECT)) == 0 || ch->freed || ch->broken != NULL || ch->paused) {
        return;
    }
    const char *why = NULL;
    int r = read_some(ch, &why);
    if (r > 0 && !hand_over(ch)) {
        return;
    }
    if (r > 0 && ch->ops->batch_end != NULL) {
        ch->ops->batch_end(ch->arg);
    } else if (r < 0) {
        fail(ch, why);
    }
}

static void set_poll(struct channel *ch)
{
    if (ch->broken != NULL || ch->freed) {
        return;
    }
    int events = (ch->paused ? 0 : UV_READABLE) | (ch->out.len > 0 ? UV_WRITABLE : 0);
    if (events == ch->events) {
        return; /* each change is a system call */
    }
    ch->events = events;
    if (events == 0) {
        (void)uv_poll_stop(&ch->poll);
    } else {
        (void)uv_poll_start(&ch->poll, events, on_poll);
    }
}

struct channel *channel_new(uv_loop_t *loop, int fd, const struct channel_ops *ops, void *arg)
{
    struct channel *ch = calloc(1, sizeof(*ch));
    if (ch == NULL) {
        (void)close(fd);
        return NULL;
    }
    ch->fd = fd;
    ch->ops = ops;
    ch->arg = arg;
    buf_init(&ch->in, 2 * (size_t)FRAME_PAYLOAD_MAX + READ_ROOM);
    buf_init(&ch->out, CHANNEL_OUT_MAX);
    (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    int size = 1024 * 1024; /* a whole batch of messages fits: fewer turns for both ends */
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    if (uv_poll_init(loop, &ch->poll, fd) != 0) {
        (void)close(fd);
        free(ch);
        return NULL;
    }
    (void)uv_prepare_init(loop, &ch->flush);
    ch->poll.data = ch->flush.data = ch;
    ch->handles = 2;
    set_poll(ch);
    return ch;
}

struct wire_writer channel_begin(struct channel *ch, uint16_t type, uint64_t id)
{
    struct frame f = {.type = type, .version = FRAME_VERSION, .id = id};
    struct wire_writer w = {.out = &ch->out, .error = ch->broken != NULL ? -EPIPE : 0};
    ch->frame_start = ch->out.len;
    wire_put_fixed(&w, &f, sizeof(f));
    return w;
}

int channel_end(struct channel *ch, struct wire_writer *w)
{
    size_t payload = ch->out.len - ch->frame_start - sizeof(struct frame);
    if (w->error == 0 && payload > FRAME_PAYLOAD_MAX) {
        w->error = -EMSGSIZE;
    }
    if (w->error != 0) {
        ch->out.len = ch->frame_start; /* as if it had never begun */
        return w->error;
    }
    uint32_t length = (uint32_t)payload;
    memcpy(ch->out.data + ch->frame_start + offsetof(struct frame, length), &length, sizeof(length));
    ch->queued += sizeof(struct frame) + payload;
    (void)uv_prepare_start(&ch->flush, on_flush);
    return 0;
}

int channel_send(struct channel *ch, uint16_t type, uint64_t id, struct span payload, int fd)
{
    int copy = -1;
    if (fd >= 0) {
        copy = ch->out_fds_count < SEND_FDS_MAX ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
        if (copy < 0) {
            return -EMFILE;
        }
    }
    uint64_t position = ch->queued;
    struct wire_writer w = channel_begin(ch, type, id);
    wire_put_fixed(&w, payload.ptr, payload.len);
    if (copy >= 0 && w.error == 0) {
        uint8_t flags = FRAME_HAS_FD;
        memcpy(ch->out.data + ch->frame_start + offsetof(struct frame, flags), &flags, 1);
    }
    int r = channel_end(ch, &w);
    if (copy >= 0 && r == 0) {
        size_t slot = (ch->out_fds_first + ch->out_fds_count++) % SEND_FDS_MAX;
        ch->out_fds[slot] = (struct out_fd){.position = position, .fd = copy};
    } else if (copy >= 0) {
        (void)close(copy);
    }
    return r;
}

void channel_keep_secret(struct channel *ch)
{
    uint8_t *room;
    ch->secret = true;
    (void)buf_reserve(&ch->out, SECRET_ROOM,
                      &room); /* it does not move, and leave a copy behind, before that is full */
}

size_t channel_pending(const struct channel *ch)
{
    return ch->out.len;
}

void channel_read_pause(struct channel *ch, bool paused)
{
    ch->paused = paused;
    set_poll(ch);
}
