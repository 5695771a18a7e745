/* Channels over a real socket pair: many frames in one turn, descriptors in order, back-pressure, nonsense, the peer's
 * end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "process/channel.h"

struct end {
    struct channel *ch;
    uint64_t frames, octets, last_id;
    uint64_t fds;
    bool in_order, closed;
    int refuse_at; /* the frame that this end calls nonsense; 0: none */
};

static int on_frame(void *arg, const struct frame *f, struct span payload, int fd)
{
    struct end *e = arg;
    e->frames++;
    e->octets += payload.len;
    e->in_order = e->in_order && f->id == e->last_id + 1;
    e->last_id = f->id;
    for (size_t i = 0; i < payload.len; i++) {
        e->in_order = e->in_order && payload.ptr[i] == (uint8_t)(f->id + i);
    }
    if (fd >= 0) {
        uint64_t id = 0;
        e->in_order = e->in_order && pread(fd, &id, sizeof(id), 0) == (ssize_t)sizeof(id) && id == f->id;
        (void)close(fd);
        e->fds++;
    }
    return e->refuse_at != 0 && e->frames == (uint64_t)e->refuse_at ? -1 : 0;
}

static void on_closed(void *arg, const char *why)
{
    struct end *e = arg;
    (void)why;
    e->closed = true;
    channel_free(&e->ch);
}

static const struct channel_ops ops = {.frame = on_frame, .closed = on_closed};

static void make(uv_loop_t *loop, struct end *a, struct end *b)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    *a = (struct end){.in_order = true};
    *b = (struct end){.in_order = true};
    a->ch = channel_new(loop, fds[0], &ops, a);
    b->ch = channel_new(loop, fds[1], &ops, b);
}

static void send_one(struct channel *ch, uint64_t id, size_t len, bool with_fd)
{
    uint8_t *payload = malloc(len + 1);
    for (size_t i = 0; i < len; i++) {
        payload[i] = (uint8_t)(id + i);
    }
    int fd = with_fd ? memfd_create("test", MFD_CLOEXEC) : -1;
    if (fd >= 0) {
        assert_int_equal(write(fd, &id, sizeof(id)), sizeof(id));
    }
    assert_int_equal(channel_send(ch, 7, id, (struct span){payload, len}, fd), 0);
    if (fd >= 0) {
        (void)close(fd);
    }
    free(payload);
}

static void finish(uv_loop_t *loop, struct end *a, struct end *b)
{
    channel_free(&a->ch);
    channel_free(&b->ch);
    (void)uv_run(loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(loop), 0);
}

static void run_until(uv_loop_t *loop, const struct end *e, uint64_t frames)
{
    for (int turns = 0; turns < 100000 && e->frames < frames && !e->closed; turns++) {
        (void)uv_run(loop, UV_RUN_NOWAIT);
    }
}

static void check_order_and_descriptors(void **state)
{
    (void)state;
    uv_loop_t loop;
    struct end a, b;
    assert_int_equal(uv_loop_init(&loop), 0);
    make(&loop, &a, &b);
    uint64_t octets = 0;
    for (uint64_t id = 1; id <= 3000; id++) {
        size_t len = id % 500 == 0 ? FRAME_PAYLOAD_MAX : id * 37 % 700;
        octets += len;
        send_one(a.ch, id, len, id % 97 == 0 || id == 1 || id == 2);
    }
    run_until(&loop, &b, 3000);
    assert_int_equal(b.frames, 3000);
    assert_int_equal(b.octets, octets);
    assert_int_equal(b.fds, 3000 / 97 + 2);
    assert_true(b.in_order);
    assert_int_equal(channel_pending(a.ch), 0);
    finish(&loop, &a, &b);
}

static void check_too_long_is_refused(void **state)
{
    (void)state;
    static uint8_t big[FRAME_PAYLOAD_MAX + 1];
    uv_loop_t loop;
    struct end a, b;
    assert_int_equal(uv_loop_init(&loop), 0);
    make(&loop, &a, &b);
    assert_int_not_equal(channel_send(a.ch, 7, 1, (struct span){big, sizeof(big)}, -1), 0);
    assert_int_equal(channel_pending(a.ch), 0);
    send_one(a.ch, 1, 10, false);
    run_until(&loop, &b, 1);
    assert_int_equal(b.frames, 1);
    assert_false(b.closed);
    finish(&loop, &a, &b);
}

static void check_nonsense_closes(void **state)
{
    (void)state;
    uv_loop_t loop;
    struct end a, b;
    assert_int_equal(uv_loop_init(&loop), 0);
    make(&loop, &a, &b);
    b.refuse_at = 3;
    for (uint64_t id = 1; id <= 5; id++) {
        send_one(a.ch, id, 5, false);
    }
    run_until(&loop, &b, 10);
    assert_true(b.closed);
    assert_int_equal(b.frames, 3);
    for (int i = 0; i < 1000 && !a.closed; i++) {
        (void)uv_run(&loop, UV_RUN_NOWAIT);
    }
    assert_true(a.closed); /* the other end hears of it */
    finish(&loop, &a, &b);
}

static void check_garbage_closes(void **state)
{
    (void)state;
    uv_loop_t loop;
    int fds[2];
    struct end a = {.in_order = true};
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    a.ch = channel_new(&loop, fds[0], &ops, &a);
    static const char garbage[] = "EHLO this is not a frame at all, but long enough\r\n";
    assert_int_equal(write(fds[1], garbage, sizeof(garbage)), sizeof(garbage));
    for (int i = 0; i < 1000 && !a.closed; i++) {
        (void)uv_run(&loop, UV_RUN_NOWAIT);
    }
    assert_true(a.closed);
    assert_int_equal(a.frames, 0);
    (void)close(fds[1]);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_order_and_descriptors),
        cmocka_unit_test(check_too_long_is_refused),
        cmocka_unit_test(check_nonsense_closes),
        cmocka_unit_test(check_garbage_closes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
