/*
 * The children: how they are started, tied to each other, and started again. A child that dies young is started later
 * each time; a socket pair that breaks is replaced once, told apart by its epoch.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "master/master_int.h"

#define YOUNG_MS       10000U
#define DELAY_FIRST_MS 100U
#define DELAY_MAX_MS   10000U

/* Who talks to whom. */
static const struct {
    enum master_role one, other;
} pairs[] = {
    {ROLE_SUBMIT, ROLE_VAULT},  {ROLE_SUBMIT, ROLE_GUARD}, {ROLE_SUBMIT, ROLE_SPOOL},
    {ROLE_SPOOL, ROLE_DELIVER}, {ROLE_GUARD, ROLE_VAULT},  {ROLE_GUARD, ROLE_SPOOL},
};

static void start(struct relative *r);

static bool alive(const struct relative *r)
{
    return r->state == RELATIVE_STARTING || r->state == RELATIVE_READY;
}

static bool related(enum master_role a, enum master_role b)
{
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        if ((pairs[i].one == a && pairs[i].other == b) || (pairs[i].one == b && pairs[i].other == a)) {
            return true;
        }
    }
    return false;
}

static void send_peer(struct relative *to, const struct relative *peer, uint32_t epoch, int fd)
{
    struct buf payload;
    buf_init(&payload, 64);
    struct wire_writer w = {.out = &payload};
    wire_put_u8(&w, (uint8_t)peer->role);
    wire_put_u32(&w, peer->instance);
    wire_put_u32(&w, epoch);
    (void)channel_send(to->channel, MASTER_PEER, 0, buf_span(&payload), fd);
    buf_fini(&payload);
}

static struct tie *find_tie(struct master *m, const struct relative *a, const struct relative *b)
{
    for (size_t i = 0; i < m->ties_count; i++) {
        struct tie *t = &m->ties[i];
        if ((t->one == a && t->other == b) || (t->one == b && t->other == a)) {
            return t;
        }
    }
    return NULL;
}

static struct tie *add_tie(struct master *m, struct relative *a, struct relative *b)
{
    if (m->ties_count == TIES_MAX) {
        return NULL;
    }
    struct tie *t = &m->ties[m->ties_count++];
    *t = (struct tie){.one = a, .other = b};
    (void)uv_timer_init(&m->loop, &t->again);
    t->again.data = t;
    return t;
}

static void tie(struct relative *a, struct relative *b)
{
    int fds[2];
    struct tie *t = find_tie(a->master, a, b);
    if (!alive(a) || !alive(b) || a->channel == NULL || b->channel == NULL) {
        return;
    }
    t = t != NULL ? t : add_tie(a->master, a, b);
    if (t == NULL || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) != 0) {
        log_error("process.tie.failed", LF_ERR(errno));
        return;
    }
    /* A renewal that was asked for is this one: another would cut what already flows, and repeat deliveries. */
    (void)uv_timer_stop(&t->again);
    t->epoch = ++a->master->epoch;
    t->made_ms = clock_mono_ms();
    send_peer(a, b, t->epoch, fds[0]);
    send_peer(b, a, t->epoch, fds[1]);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

static void tie_all(struct relative *r)
{
    struct master *m = r->master;
    for (size_t i = 0; i < m->family_count; i++) {
        if (related(r->role, m->family[i].role)) {
            tie(r, &m->family[i]);
        }
    }
}

static struct relative *find(struct master *m, enum master_role role, uint32_t instance)
{
    for (size_t i = 0; i < m->family_count; i++) {
        if (m->family[i].role == role && m->family[i].instance == instance) {
            return &m->family[i];
        }
    }
    return NULL;
}

/* What a child needs of the configuration: at its start and at each reload. */
static void send_config(struct relative *r)
{
    struct master *m = r->master;
    (void)channel_send(r->channel, MASTER_CONFIG, 0, span_str(m->config_path), m->config_fd);
    for (size_t i = 0; i < m->materials_count; i++) {
        if (r->role != (m->materials[i].what.kind == TLS_PREFIXES ? ROLE_GATE : ROLE_SUBMIT)) {
            continue;
        }
        struct buf payload;
        buf_init(&payload, 64);
        struct wire_writer w = {.out = &payload};
        master_tls_encode(&w, &m->materials[i].what);
        (void)channel_send(r->channel, MASTER_TLS, 0, buf_span(&payload), m->materials[i].fd);
        buf_fini(&payload);
    }
}

static void send_listeners(struct relative *r)
{
    struct master *m = r->master;
    for (uint32_t i = 0; i < m->listeners_count; i++) {
        struct span index = {(const uint8_t *)&i, sizeof(i)};
        (void)channel_send(r->channel, MASTER_LISTENER, 0, index, m->listeners[i].fd);
    }
    r->listening = true;
}

/* Nobody is let in before those who answer for it are there. */
static void listen_if_ready(struct master *m)
{
    static const enum master_role needed[] = {ROLE_VAULT, ROLE_GUARD, ROLE_SPOOL, ROLE_GATE};
    for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
        const struct relative *r = find(m, needed[i], 0);
        if (r != NULL && !m->ready_told && r->state != RELATIVE_READY) {
            return;
        }
    }
    size_t listening = 0;
    for (size_t i = 0; i < m->family_count; i++) {
        struct relative *r = &m->family[i];
        if (r->role == ROLE_SUBMIT && r->state == RELATIVE_READY && !r->listening && !m->stopping) {
            send_listeners(r);
        }
        listening += r->role == ROLE_SUBMIT && r->listening ? 1 : 0;
    }
    if (listening > 0 || !m->config->submission.present) {
        family_ready(m, NULL);
    }
}

static void on_again(uv_timer_t *timer)
{
    const struct tie *t = timer->data;
    tie(t->one, t->other);
}

/* Both ends tell of it, and so may those of an earlier pair: only the newest epoch counts, and at most twice a second.
 */
static int on_peer_broken(struct relative *from, struct span payload)
{
    struct wire_reader rd = wire_reader(payload);
    uint8_t role = wire_get_u8(&rd);
    uint32_t instance = wire_get_u32(&rd);
    uint32_t epoch = wire_get_u32(&rd);
    if (wire_reader_end(&rd) < 0 || role >= ROLE_COUNT) {
        return -1;
    }
    const struct relative *other = find(from->master, (enum master_role)role, instance);
    struct tie *t = other != NULL ? find_tie(from->master, from, other) : NULL;
    if (t == NULL || t->epoch != epoch || uv_is_active((const uv_handle_t *)&t->again) || !alive(other)) {
        return 0;
    }
    log_warn("process.tie.broken", LF_STR("by", master_role_name(from->role)),
             LF_STR("with", master_role_name(other->role)));
    (void)uv_timer_start(&t->again, on_again, clock_mono_ms() - t->made_ms < 500 ? 500 : 0, 0);
    return 0;
}

static int on_frame(void *arg, const struct frame *f, struct span payload, int fd)
{
    struct relative *r = arg;
    if (fd >= 0) {
        (void)close(fd);
    }
    switch (f->type) {
    case CHILD_READY:
        r->state = r->state == RELATIVE_STARTING ? RELATIVE_READY : r->state;
        log_info("process.ready", LF_STR("role", master_role_name(r->role)), LF_UINT("instance", r->instance),
                 LF_UINT("child", r->pid));
        listen_if_ready(r->master);
        return 0;
    case CHILD_STATUS_REPLY:
    case CHILD_RELOADED:
        question_answered(r->master, r, f->id, payload);
        return 0;
    case CHILD_PEER_BROKEN:
        return on_peer_broken(r, payload);
    default:
        return -1;
    }
}

/* It is dying, or spoke nonsense: in the latter case it has to die. */
static void on_closed(void *arg, const char *why)
{
    struct relative *r = arg;
    (void)why;
    channel_free(&r->channel);
    if (r->pid > 0 && r->state != RELATIVE_STOPPING) {
        (void)kill(r->pid, SIGKILL);
    }
}

static const struct channel_ops channel_callbacks = {.frame = on_frame, .closed = on_closed};

/* In the child after fork: descriptor 3 is the channel, nothing else above stays; then this very program again. */
static _Noreturn void become(const struct relative *r, int fd)
{
    char instance[16];
    (void)snprintf(instance, sizeof(instance), "%u", r->instance);
    char *argv[] = {(char *)"kidoband",   (char *)"--role", (char *)master_role_name(r->role),
                    (char *)"--instance", instance,         NULL};
    int exe = fcntl(r->master->exe_fd, F_DUPFD, 10);
    int channel = fcntl(fd, F_DUPFD, 10);
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    if (exe >= 0 && channel >= 0 && dup2(channel, 3) == 3 && dup2(exe, 4) == 4) {
        (void)fcntl(4, F_SETFD, FD_CLOEXEC);
        (void)syscall(SYS_close_range, 5U, ~0U, 0U);
        (void)syscall(SYS_execveat, 4, "", argv, environ, AT_EMPTY_PATH);
    }
    _exit(126);
}

static void on_delay_over(uv_timer_t *t)
{
    struct relative *r = t->data;
    if (!r->master->stopping) {
        start(r);
    }
}

static void start_later(struct relative *r)
{
    r->delay_ms = r->delay_ms == 0 ? DELAY_FIRST_MS : r->delay_ms * 2 < DELAY_MAX_MS ? r->delay_ms * 2 : DELAY_MAX_MS;
    /* A harness that kills all the time does not want to wait for it. */
    uint64_t delay_ms = FAULT_POINT("master.delay") < 0 ? 1 : r->delay_ms;
    (void)uv_timer_start(&r->timer, on_delay_over, delay_ms, 0);
}

static void start(struct relative *r)
{
    struct master *m = r->master;
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) != 0) {
        log_error("process.start.failed", LF_ERR(errno));
        start_later(r);
        return;
    }
    log_flush(); /* or the child would write it again */
    pid_t pid = fork();
    if (pid == 0) {
        become(r, fds[1]);
    }
    (void)close(fds[1]);
    if (pid < 0) {
        log_error("process.start.failed", LF_ERR(errno));
        (void)close(fds[0]);
        start_later(r);
        return;
    }
    r->pid = pid;
    r->state = RELATIVE_STARTING;
    r->listening = false;
    r->started_ms = clock_mono_ms();
    r->channel = channel_new(&m->loop, fds[0], &channel_callbacks, r);
    if (r->channel == NULL) {
        (void)kill(pid, SIGKILL);
        return;
    }
    (void)channel_send(r->channel, MASTER_EVENT_FILE, 0, (struct span){0}, m->event_fd);
    send_config(r);
    if (m->directory_fds[r->role] >= 0) {
        (void)channel_send(r->channel, MASTER_DIRECTORY, 0, (struct span){0}, m->directory_fds[r->role]);
    }
    if (m->control_fds[r->role] >= 0) {
        uint32_t index = LISTENER_CONTROL;
        (void)channel_send(r->channel, MASTER_LISTENER, 0, (struct span){(const uint8_t *)&index, sizeof(index)},
                           m->control_fds[r->role]);
    }
    if (r->role == ROLE_SUBMIT) {
        (void)channel_send(r->channel, MASTER_SHARED, 0, (struct span){0}, m->shared_fd);
    }
    (void)FAULT_POINT("master.start");
    const uint8_t again = m->ready_told || m->again;
    (void)channel_send(r->channel, MASTER_START, 0, (struct span){&again, sizeof(again)}, -1);
    tie_all(r);
}

static void add(struct master *m, enum master_role role, uint32_t count)
{
    for (uint32_t i = 0; i < count && m->family_count < FAMILY_MAX; i++) {
        struct relative *r = &m->family[m->family_count++];
        *r = (struct relative){.master = m, .role = role, .instance = i};
        (void)uv_timer_init(&m->loop, &r->timer);
        r->timer.data = r;
    }
}

bool family_has(const struct config *c, enum master_role role)
{
    return role == ROLE_GATE ? c->gate.present : role == ROLE_MASTER || role == ROLE_GUARD || c->submission.present;
}

void family_start(struct master *m)
{
    const struct {
        enum master_role role;
        uint32_t count;
    } wanted[] = {{ROLE_VAULT, 1},
                  {ROLE_GUARD, 1},
                  {ROLE_SPOOL, 1},
                  {ROLE_GATE, 1},
                  {ROLE_DELIVER, m->config->delivery.workers},
                  {ROLE_SUBMIT, m->config->submission.workers}};
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        add(m, wanted[i].role, family_has(m->config, wanted[i].role) ? wanted[i].count : 0);
    }
    for (size_t i = 0; i < m->family_count; i++) {
        start(&m->family[i]);
    }
}

static void log_death(const struct relative *r, int wait_status)
{
    char how[64];
    if (WIFSIGNALED(wait_status)) {
        (void)snprintf(how, sizeof(how), "signal %d%s", WTERMSIG(wait_status),
                       WTERMSIG(wait_status) == SIGSYS ? " (a system call outside its rights)" : "");
    } else {
        (void)snprintf(how, sizeof(how), "exit %d", WEXITSTATUS(wait_status));
    }
    log_error("process.died", LF_STR("role", master_role_name(r->role)), LF_UINT("instance", r->instance),
              LF_UINT("child", r->pid), LF_STR("how", how));
}

/* An interface that cannot be gated is a start that failed, not one to be tried for ever: the child has said why. */
static bool fatal_to_start(const struct relative *r, int wait_status)
{
    const struct master *m = r->master;
    return r->role == ROLE_GATE && r->state == RELATIVE_STARTING && WIFEXITED(wait_status) && !m->ready_told &&
           !m->again && !m->stopping;
}

void family_reaped(struct master *m, pid_t pid, int wait_status)
{
    for (size_t i = 0; i < m->family_count; i++) {
        struct relative *r = &m->family[i];
        if (r->pid != pid) {
            continue;
        }
        bool wanted = r->state == RELATIVE_STOPPING;
        bool young = clock_mono_ms() - r->started_ms < YOUNG_MS;
        bool fatal = fatal_to_start(r, wait_status);
        if (!wanted) {
            log_death(r, wait_status);
        }
        (void)FAULT_POINT("master.reaped");
        r->pid = 0;
        r->state = RELATIVE_DEAD;
        r->restarts += wanted ? 0 : 1;
        channel_free(&r->channel);
        question_gone(m, r);
        if (fatal) {
            m->status = EX_UNAVAILABLE;
            master_stop(m, false);
        } else if (m->stopping) {
            master_child_gone(m);
        } else if (young) {
            start_later(r);
        } else {
            r->delay_ms = 0;
            start(r);
        }
        return;
    }
}

void family_reload(struct master *m)
{
    for (size_t i = 0; i < m->family_count; i++) {
        struct relative *r = &m->family[i];
        if (!alive(r) || r->channel == NULL) {
            continue; /* it gets the new one when it starts */
        }
        send_config(r);
        (void)channel_send(r->channel, MASTER_CONFIG_DONE, 0, (struct span){0}, -1);
        if (r->listening) {
            send_listeners(r);
        }
    }
}

void family_event_file(struct master *m)
{
    for (size_t i = 0; i < m->family_count; i++) {
        if (m->family[i].channel != NULL) {
            (void)channel_send(m->family[i].channel, MASTER_EVENT_FILE, 0, (struct span){0}, m->event_fd);
        }
    }
}

size_t family_stop(struct master *m, enum master_role role, uint32_t grace_ms)
{
    size_t count = 0;
    for (size_t i = 0; i < m->family_count; i++) {
        struct relative *r = &m->family[i];
        if (r->role != role || r->pid == 0) {
            continue;
        }
        count++;
        r->state = RELATIVE_STOPPING;
        if (r->channel != NULL) {
            struct span grace = {(const uint8_t *)&grace_ms, sizeof(grace_ms)};
            (void)channel_send(r->channel, MASTER_STOP, 0, grace, -1);
        }
    }
    return count;
}

size_t family_alive(const struct master *m, enum master_role role)
{
    size_t count = 0;
    for (size_t i = 0; i < m->family_count; i++) {
        count += m->family[i].role == role && m->family[i].pid != 0 ? 1 : 0;
    }
    return count;
}

void family_kill(struct master *m)
{
    for (size_t i = 0; i < m->family_count; i++) {
        if (m->family[i].pid > 0 && m->family[i].state == RELATIVE_STOPPING) {
            log_warn("process.killed", LF_STR("role", master_role_name(m->family[i].role)),
                     LF_UINT("child", m->family[i].pid));
            (void)kill(m->family[i].pid, SIGKILL);
        }
    }
}
