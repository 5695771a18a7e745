/*
 * The door: listeners, and who is let in when. A connection from a familiar network is met at once. A stranger's waits
 * for its turn behind what strangers further in have to do (one is let in for every few turns of theirs, or those who
 * are in could keep all others out), which waits behind everything else: so what a flood of them can take is what is
 * left over. Who waited too long, or finds too many before him, is turned away in a line.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "submit/submit_int.h"

#define ACCEPT_TURN     64    /* connections taken in one turn of the loop */
#define ACCEPT_PAUSE_MS 500U  /* when there is no descriptor or memory for one */
#define GUESTS_MAX      1024U /* at the door of each process */
#define GUEST_MS        2000U /* a program that waits longer has soon given up */
#define LOOK_MS         100U
#define RANK            1U /* behind the strangers' sessions (stream.h) */

struct acceptor {
    uv_poll_t poll;
    struct submit *submit;
    uint32_t index;
    int fd;
    struct acceptor *next;
};

struct guest {
    struct turn turn; /* first */
    struct submit *submit;
    uint32_t listener;
    int fd;
    struct net_address peer;
    uint64_t since_ms;
};

static void guest_in(struct turn *t)
{
    struct guest g = *(struct guest *)t;
    free(t);
    g.submit->guests_count--;
    session_open(g.submit, g.listener, g.fd, &g.peer);
}

static void guest_out(struct guest *guest)
{
    struct guest g = *guest;
    turns_remove(&guest->turn);
    free(guest);
    g.submit->guests_count--;
    session_turn_away(g.submit, g.listener, g.fd, &g.peer);
}

static struct guest *first_guest(const struct submit *sb)
{
    return (struct guest *)turns_first(&sb->turns, RANK);
}

static void on_look(uv_timer_t *timer)
{
    struct submit *sb = timer->data;
    uint64_t now_ms = clock_mono_ms();
    for (struct guest *g = first_guest(sb); g != NULL && now_ms - g->since_ms > GUEST_MS; g = first_guest(sb)) {
        guest_out(g);
    }
    if (first_guest(sb) == NULL) {
        (void)uv_timer_stop(timer);
    }
}

static void meet(struct submit *sb, uint32_t listener, int fd, const struct net_address *peer)
{
    uint64_t now_ms = clock_mono_ms();
    if (submit_listener_is_proxy(&sb->settings->listeners[listener], peer) ||
        familiar_has(sb->familiar, peer, now_ms)) { /* whom a proxy brings, nobody knows yet */
        session_open(sb, listener, fd, peer);
        return;
    }
    struct guest *g = sb->guests_count < GUESTS_MAX ? calloc(1, sizeof(*g)) : NULL;
    if (g == NULL) {
        session_turn_away(sb, listener, fd, peer);
        return;
    }
    *g = (struct guest){
        .turn = {.run = guest_in}, .submit = sb, .listener = listener, .fd = fd, .peer = *peer, .since_ms = now_ms};
    sb->guests_count++;
    turns_add(&sb->turns, &g->turn, RANK);
    if (!uv_is_active((const uv_handle_t *)&sb->look_timer)) {
        (void)uv_timer_start(&sb->look_timer, on_look, LOOK_MS, LOOK_MS);
    }
}

static void acceptor_closed(uv_handle_t *h)
{
    struct acceptor *a = h->data;
    (void)close(a->fd);
    free(a);
}

/* Who stands at the door already is let in: which listener it came by would mean another one after a reload. */
void door_close(struct submit *sb)
{
    while (sb->acceptors != NULL) {
        struct acceptor *a = sb->acceptors;
        sb->acceptors = a->next;
        uv_close((uv_handle_t *)&a->poll, acceptor_closed);
    }
    for (struct guest *g = first_guest(sb); g != NULL; g = first_guest(sb)) {
        turns_remove(&g->turn);
        guest_in(&g->turn);
    }
}

static void on_accept(uv_poll_t *h, int status, int events);

static void on_pause_over(uv_timer_t *t)
{
    const struct submit *sb = t->data;
    for (struct acceptor *a = sb->acceptors; a != NULL; a = a->next) {
        (void)uv_poll_start(&a->poll, UV_READABLE, on_accept);
    }
}

/* The connection stays in the backlog and the socket readable: without a pause the loop would turn for nothing. */
static void accept_failed(struct acceptor *a, int error)
{
    log_error("accept.failed", LF_ERR(error));
    (void)uv_poll_stop(&a->poll);
    if (!uv_is_active((const uv_handle_t *)&a->submit->accept_timer)) {
        (void)uv_timer_start(&a->submit->accept_timer, on_pause_over, ACCEPT_PAUSE_MS, 0);
    }
}

static void on_accept(uv_poll_t *h, int status, int events)
{
    struct acceptor *a = h->data;
    (void)events;
    for (int i = 0; i < ACCEPT_TURN && status == 0; i++) {
        struct net_address peer;
        int fd = stream_accept(a->fd, &peer);
        if (fd >= 0) {
            meet(a->submit, a->index, fd, &peer);
        } else if (errno == EAGAIN) {
            break;
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            accept_failed(a, errno);
            break;
        } /* else: that one connection is gone (accept(2), "Error handling") */
    }
}

void door_open(struct child *c, uint32_t index, int fd)
{
    struct submit *sb = c->arg;
    struct acceptor *a = calloc(1, sizeof(*a));
    if (a == NULL || sb->settings == NULL || index >= sb->settings->listeners_count || sb->stopping ||
        uv_poll_init(c->loop, &a->poll, fd) != 0) {
        free(a);
        (void)close(fd);
        return;
    }
    a->submit = sb;
    a->index = index;
    a->fd = fd;
    a->poll.data = a;
    a->next = sb->acceptors;
    sb->acceptors = a;
    (void)uv_poll_start(&a->poll, UV_READABLE, on_accept);
}

void door_init(struct submit *sb)
{
    (void)uv_timer_init(sb->child->loop, &sb->accept_timer);
    (void)uv_timer_init(sb->child->loop, &sb->look_timer);
    sb->accept_timer.data = sb->look_timer.data = sb;
}
