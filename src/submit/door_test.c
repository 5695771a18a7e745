/* Who is let in when, over real sockets: familiar networks at once, strangers by turn, after two seconds not at all. */
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "submit/shared_fake.h"
#include "submit/submit_int.h"

#define GUESTS_MAX 1024U /* as in door.c */
#define MANY       (GUESTS_MAX + 64U)

static struct {
    uv_loop_t loop;
    struct child child;
    struct submit submit;
    struct submit_settings settings;
    struct submit_listener listener;
    struct net_prefix proxies;
    struct turn talker; /* a stranger further in, who never runs out of work */
    bool talks;
    useconds_t talk_us;
    int shared, listening;
    uint64_t now_ms;
    int clients[MANY];
    size_t clients_count;
    uint8_t in[MANY], away[MANY]; /* the last octet of the address, in this order */
    size_t in_count, away_count;
} w;

static uint64_t mono(void *arg)
{
    (void)arg;
    return w.now_ms * 1000000;
}

static const struct clock_source source = {.mono_ns = mono};

void session_open(struct submit *sb, uint32_t listener, int fd, const struct net_address *peer)
{
    assert_ptr_equal(sb, &w.submit);
    assert_int_equal(listener, 0);
    assert_false(sb->stopping);
    w.in[w.in_count++] = peer->bytes[15];
    (void)close(fd);
}

void session_turn_away(struct submit *sb, uint32_t listener, int fd, const struct net_address *peer)
{
    assert_ptr_equal(sb, &w.submit);
    assert_int_equal(listener, 0);
    w.away[w.away_count++] = peer->bytes[15];
    (void)close(fd);
}

static void talk(struct turn *t)
{
    if (w.talks) {
        (void)usleep(w.talk_us);
        turns_add(&w.submit.turns, t, 0);
    }
}

static void begin_talking(useconds_t us)
{
    w.talks = true;
    w.talk_us = us;
    turns_add(&w.submit.turns, &w.talker, 0);
}

static struct sockaddr_in loopback(uint8_t last)
{
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK - 1 + last)};
}

static void come(uint8_t last)
{
    struct sockaddr_in from = loopback(last), to;
    socklen_t len = sizeof(to);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(getsockname(w.listening, (struct sockaddr *)&to, &len), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&from, sizeof(from)), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, len), 0);
    w.clients[w.clients_count++] = fd;
}

/* Until so many have met their fate. */
static void run_until(size_t in, size_t away)
{
    while (w.in_count < in || w.away_count < away) {
        (void)uv_run(&w.loop, UV_RUN_ONCE);
    }
    assert_int_equal(w.in_count, in);
    assert_int_equal(w.away_count, away);
}

static int setup(void **state)
{
    (void)state;
    struct sockaddr_in at = loopback(1);
    memset(&w, 0, sizeof(w));
    w.now_ms = 1000000;
    clock_override(&source);
    (void)uv_loop_init(&w.loop);
    w.shared = shared_memory();
    w.listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(w.listening, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(w.listening, 4096), 0);
    w.proxies = (struct net_prefix){.bits = 128};
    memcpy(w.proxies.bytes, shared_address("127.0.0.7").bytes, 16);
    w.listener = (struct submit_listener){.proxy_from = &w.proxies, .proxy_from_count = 1};
    w.settings = (struct submit_settings){.listeners = &w.listener, .listeners_count = 1};
    w.child = (struct child){.loop = &w.loop, .arg = &w.submit};
    w.submit.child = &w.child;
    w.submit.settings = &w.settings;
    w.submit.familiar = familiar_open(w.shared);
    w.talker.run = talk;
    turns_init(&w.submit.turns, &w.loop, 0); /* one turn, then the loop looks */
    door_init(&w.submit);
    door_open(&w.child, 0, dup(w.listening));
    return 0;
}

static void close_handle(uv_handle_t *h, void *arg)
{
    (void)arg;
    if (!uv_is_closing(h)) {
        uv_close(h, NULL);
    }
}

static int teardown(void **state)
{
    (void)state;
    door_close(&w.submit);
    assert_int_equal(w.submit.guests_count, 0);
    uv_walk(&w.loop, close_handle, NULL);
    (void)uv_run(&w.loop, UV_RUN_DEFAULT);
    familiar_close(&w.submit.familiar);
    for (size_t i = 0; i < w.clients_count; i++) {
        (void)close(w.clients[i]);
    }
    (void)close(w.listening);
    (void)close(w.shared);
    clock_override(NULL);
    return uv_loop_close(&w.loop);
}

/* Who came last, but is no stranger, is met first; the others in their order, while another talks on. */
static void test_by_turn(void **state)
{
    (void)state;
    struct net_address known = shared_address("127.0.0.9");
    familiar_add(w.submit.familiar, &known, w.now_ms);
    begin_talking(0);
    for (uint8_t last = 2; last < 6; last++) {
        come(last);
    }
    come(9);
    run_until(1, 0);
    assert_int_equal(w.in[0], 9);
    assert_int_equal(w.submit.guests_count, 4);
    run_until(5, 0);
    for (size_t i = 1; i < 5; i++) {
        assert_int_equal(w.in[i], i + 1);
    }
    w.talks = false;
}

/* From a proxy come others, so it is met at once; whoever else finds its listener is a stranger there, too. */
static void test_proxy(void **state)
{
    (void)state;
    begin_talking(0);
    come(8);
    come(7);
    run_until(1, 0);
    assert_int_equal(w.in[0], 7);
    assert_int_equal(w.submit.guests_count, 1);
    w.talks = false;
    run_until(2, 0);
}

/* The talker is so slow that nobody's turn comes before the look at who has waited too long. */
static void test_two_seconds(void **state)
{
    (void)state;
    begin_talking(30000);
    come(2);
    come(3);
    while (w.submit.guests_count < 2) {
        (void)uv_run(&w.loop, UV_RUN_ONCE);
    }
    w.now_ms += 1000;
    come(4);
    while (w.submit.guests_count < 3) {
        (void)uv_run(&w.loop, UV_RUN_ONCE);
    }
    w.now_ms += 1001;
    run_until(0, 2);
    assert_int_equal(w.away[0], 2);
    assert_int_equal(w.away[1], 3);
    assert_int_equal(w.submit.guests_count, 1);
    w.talks = false;
    run_until(1, 2);
    assert_int_equal(w.in[0], 4);
    (void)uv_run(&w.loop, UV_RUN_NOWAIT);
    while (uv_is_active((const uv_handle_t *)&w.submit.look_timer)) { /* nobody is left to look for */
        (void)uv_run(&w.loop, UV_RUN_ONCE);
    }
}

/* More than may stand there are turned away at once, but nobody who is known. */
static void test_full(void **state)
{
    (void)state;
    struct rlimit files;
    struct net_address known = shared_address("127.0.0.9");
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
    files.rlim_cur = files.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
    familiar_add(w.submit.familiar, &known, w.now_ms);
    begin_talking(0);
    for (size_t i = 0; i + 1 < MANY; i++) {
        come(2);
    }
    while (w.in_count + w.away_count + w.submit.guests_count < MANY - 1) {
        (void)uv_run(&w.loop, UV_RUN_ONCE);
        assert_true(w.submit.guests_count <= GUESTS_MAX);
    }
    assert_in_range(w.away_count, 32, 63); /* some had their turn meanwhile */
    size_t in = w.in_count, away = w.away_count;
    come(9);
    run_until(in + 1, away);
    assert_int_equal(w.in[in], 9);
    w.talks = false;
    run_until(MANY - away, away);
}

/* At a reload or an end they are let in, in their order, and nobody comes after them. */
static void test_close(void **state)
{
    (void)state;
    begin_talking(0);
    for (uint8_t last = 2; last < 6; last++) {
        come(last);
    }
    while (w.submit.guests_count < 4) {
        (void)uv_run(&w.loop, UV_RUN_ONCE);
    }
    door_close(&w.submit);
    assert_int_equal(w.in_count, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(w.in[i], i + 2);
    }
    come(6);
    w.talks = false;
    (void)uv_run(&w.loop, UV_RUN_DEFAULT);
    assert_int_equal(w.in_count, 4);
    door_open(&w.child, 0, dup(w.listening)); /* the reload's: who came meanwhile was not refused */
    run_until(5, 0);
}

/* Where it is permitted; else the machine's own loopback will do. */
static int own_network(void **state)
{
    (void)state;
    struct ifreq up = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    if (unshare(CLONE_NEWNET) == 0) {
        int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &up), 0);
        (void)close(fd);
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_by_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(test_proxy, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_seconds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full, setup, teardown),
        cmocka_unit_test_setup_teardown(test_close, setup, teardown),
    };
    return cmocka_run_group_tests(tests, own_network, NULL);
}
