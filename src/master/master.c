/*
 * The master's life: read the configuration, make the ground, start the family; then signals. It reads no octet of a
 * stranger.
 *
 * Reload (SIGHUP, `kidoban reload`, a certificate that changed): see reload.c. Upgrade (SIGUSR2, `kidoban upgrade`):
 * the program at our path checks the configuration; then the family stops as at an end, the listening sockets stay
 * open, and we become that program.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "master/master_int.h"

#define TEXT_MAX        (8U * 1024U * 1024U)
#define PREFIXES_MAX    (1024U * 1024U * 1024U)
#define WATCH_MS        2000
#define STATUS_LIMIT_MS 2000

/* Loading. */

static void print_complaints(const struct config_complaints *complaints)
{
    struct buf b;
    buf_init(&b, 65536);
    (void)config_complaints_format(complaints, &b);
    (void)fwrite(b.data, 1, b.len, stderr);
    buf_fini(&b);
}

int master_check(const char *path)
{
    struct config *config = NULL;
    struct config_complaints complaints = {0};
    struct buf text;
    int r = reload_read(path, &config, &text, &complaints);
    if (r < 0) {
        print_complaints(&complaints);
    } else {
        (void)printf("%s: good\n", path);
        config_free(&config);
        buf_fini(&text);
    }
    config_complaints_fini(&complaints);
    return r < 0 ? 1 : 0;
}

static void materials_free(struct material *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (list[i].fd >= 0) {
            (void)close(list[i].fd);
        }
        free(list[i].path);
    }
    free(list);
}

static int tls_memfd(const char *path)
{
    struct buf text;
    int r = ground_read_file(path, TEXT_MAX, &text);
    if (r == 0) {
        r = ground_memfd("tls", buf_span(&text));
        buf_wipe(&text);
    }
    return r;
}

static int material_add(struct material **list, size_t *count, uint8_t kind, uint32_t number, const char *path)
{
    struct material *grown = realloc(*list, (*count + 1) * sizeof(*grown));
    if (grown == NULL) {
        return -ENOMEM;
    }
    *list = grown;
    struct material *m = &grown[*count];
    *m = (struct material){.what = {.kind = kind, .number = number}, .path = strdup(path), .fd = -1};
    (void)stat(path, &m->seen);
    m->fd = kind == TLS_PREFIXES ? ground_memfd_of(path, PREFIXES_MAX) : tls_memfd(path);
    (*count)++;
    if (m->fd < 0) {
        log_error(kind == TLS_PREFIXES ? "gate.file.refused" : "tls.refused", LF_STR("path", path), LF_ERR(m->fd));
    }
    return m->fd < 0 ? m->fd : 0;
}

static int materials_read(const struct config *c, struct material **ret, size_t *ret_count)
{
    struct material *list = NULL;
    size_t count = 0;
    int r = 0;
    for (size_t i = 0; r == 0 && i < c->submission.tls.certificates_count; i++) {
        r = material_add(&list, &count, TLS_CERTIFICATE, (uint32_t)i, c->submission.tls.certificates[i].certificate);
        r = r == 0 ? material_add(&list, &count, TLS_KEY, (uint32_t)i, c->submission.tls.certificates[i].key) : r;
    }
    if (r == 0 && c->submission.tls.client_ca != NULL) {
        r = material_add(&list, &count, TLS_CLIENT_CA, 0, c->submission.tls.client_ca);
    }
    for (size_t i = 0; r == 0 && i < c->gate.classes_count; i++) {
        const char *path = c->gate.classes[i].prefixes_file;
        r = path != NULL ? material_add(&list, &count, TLS_PREFIXES, (uint32_t)i, path) : 0;
    }
    if (r < 0) {
        materials_free(list, count);
        return r;
    }
    *ret = list;
    *ret_count = count;
    return 0;
}

/* Of TLS only: a list of prefixes that somebody is still writing would be good as far as it goes. */
static bool materials_changed(const struct master *m)
{
    for (size_t i = 0; i < m->materials_count; i++) {
        if (m->materials[i].what.kind == TLS_PREFIXES) {
            continue;
        }
        const struct stat *old = &m->materials[i].seen;
        struct stat now;
        if (stat(m->materials[i].path, &now) == 0 &&
            (now.st_mtim.tv_sec != old->st_mtim.tv_sec || now.st_mtim.tv_nsec != old->st_mtim.tv_nsec ||
             now.st_ino != old->st_ino || now.st_size != old->st_size)) {
            return true;
        }
    }
    return false;
}

int master_take(struct master *m, struct config *config, struct span text)
{
    struct material *materials = NULL;
    struct ground_listener *listeners = NULL;
    size_t materials_count = 0, listeners_count = 0;
    int fd = ground_memfd("config", text);
    int r = fd < 0 ? fd : materials_read(config, &materials, &materials_count);
    if (r == 0) {
        r = ground_listen(config, m->listeners, m->listeners_count, &listeners, &listeners_count);
    }
    if (r < 0) {
        materials_free(materials, materials_count);
        if (fd >= 0) {
            (void)close(fd);
        }
        return r;
    }
    ground_listeners_free(m->listeners, m->listeners_count, listeners, listeners_count);
    materials_free(m->materials, m->materials_count);
    if (m->config_fd >= 0) {
        (void)close(m->config_fd);
    }
    config_free(&m->config);
    m->config = config;
    m->config_fd = fd;
    m->materials = materials;
    m->materials_count = materials_count;
    m->listeners = listeners;
    m->listeners_count = listeners_count;
    return 0;
}

/* Status. */

static const char *const state_names[] = {[RELATIVE_DEAD] = "dead",
                                          [RELATIVE_STARTING] = "starting",
                                          [RELATIVE_READY] = "running",
                                          [RELATIVE_STOPPING] = "stopping"};

/* A submit process that has no listener yet serves nobody. */
static bool serving(const struct relative *r)
{
    return r->role != ROLE_SUBMIT || r->state != RELATIVE_READY || r->listening;
}

static void status_finish(struct question *q)
{
    const struct master *m = q->master;
    json_t *processes = json_array();
    for (size_t i = 0; i < m->family_count; i++) {
        const struct relative *r = &m->family[i];
        json_t *one = json_pack("{s:s,s:i,s:i,s:s,s:i,s:I}", "role", master_role_name(r->role), "instance",
                                (int)r->instance, "pid", (int)r->pid, "state",
                                state_names[serving(r) ? r->state : RELATIVE_STARTING], "restarts", (int)r->restarts,
                                "uptime_s", (json_int_t)(r->pid != 0 ? (clock_mono_ms() - r->started_ms) / 1000 : 0));
        json_t *figures = json_is_object(q->answers[i]) ? json_incref(q->answers[i]) : json_object();
        (void)json_object_set_new(one, "figures", figures);
        (void)json_array_append_new(processes, one);
    }
    json_t *listeners = json_array();
    for (size_t i = 0; i < m->listeners_count; i++) {
        (void)json_array_append_new(listeners, json_string(m->listeners[i].text));
    }
    json_t *all = json_pack("{s:s,s:i,s:I,s:s,s:o,s:o}", "version", KIDOBAN_VERSION, "pid", (int)getpid(), "uptime_s",
                            (json_int_t)((clock_mono_ms() - m->started_ms) / 1000), "config", m->config_path, "listen",
                            listeners, "processes", processes);
    control_done(q->request, all);
}

static void verb_status(void *arg, struct control_request *rq, const json_t *request)
{
    (void)request;
    if (question_ask(arg, rq, MASTER_STATUS, STATUS_LIMIT_MS, status_finish) < 0) {
        control_fail(rq, EX_OSERR, "out of memory");
    }
}

static void verb_reload(void *arg, struct control_request *rq, const json_t *request)
{
    (void)request;
    reload_begin(arg, rq);
}

static void verb_stop(void *arg, struct control_request *rq, const json_t *request)
{
    (void)request;
    control_done(rq, NULL);
    master_stop(arg, false);
}

static void verb_upgrade(void *arg, struct control_request *rq, const json_t *request)
{
    (void)request;
    upgrade_begin(arg, rq);
}

static const struct control_verb verbs[] = {
    {"status", verb_status}, {"reload", verb_reload}, {"upgrade", verb_upgrade}, {"stop", verb_stop}, {NULL, NULL},
};

/* The end. */

/* In this order: nobody new, what is under way, then those who answer for what was promised. */
static const struct {
    enum master_role role;
    uint32_t grace_ms;
} stop_order[] = {
    {ROLE_SUBMIT, 5000}, {ROLE_DELIVER, 5000}, {ROLE_SPOOL, 5000},
    {ROLE_GUARD, 2000},  {ROLE_VAULT, 2000},   {ROLE_GATE, 2000},
};
#define STOP_PHASES (sizeof(stop_order) / sizeof(stop_order[0]))

static void on_stop_limit(uv_timer_t *t)
{
    family_kill(t->loop->data);
}

static void stop_next(struct master *m)
{
    while (m->stop_phase < STOP_PHASES) {
        size_t count = family_stop(m, stop_order[m->stop_phase].role, stop_order[m->stop_phase].grace_ms);
        if (count > 0) {
            (void)uv_timer_start(&m->stop_timer, on_stop_limit, stop_order[m->stop_phase].grace_ms + 3000U, 0);
            return;
        }
        m->stop_phase++;
    }
    uv_stop(&m->loop);
}

void master_stop(struct master *m, bool upgrade)
{
    if (m->stopping) {
        return;
    }
    log_info("master.stopping", LF_STR("why", upgrade ? "upgrade" : "told to"));
    (void)sd_notify(0, upgrade ? "RELOADING=1" : "STOPPING=1");
    m->stopping = true;
    m->upgrading = upgrade;
    stop_next(m);
}

void master_child_gone(struct master *m)
{
    if (m->stop_phase < STOP_PHASES && family_alive(m, stop_order[m->stop_phase].role) == 0) {
        (void)uv_timer_stop(&m->stop_timer);
        m->stop_phase++;
        stop_next(m);
    }
}

/* The loop. */

void family_ready(struct master *m, struct relative *r)
{
    (void)r;
    if (!m->ready_told) {
        m->ready_told = true;
        (void)sd_notifyf(0, "READY=1\nMAINPID=%ld", (long)getpid());
        log_info("master.ready", LF_UINT("listeners", m->listeners_count));
    }
}

static void on_signal(uv_signal_t *h, int number)
{
    struct master *m = h->data;
    int wait_status;
    pid_t pid;
    switch (number) {
    case SIGCHLD:
        while ((pid = waitpid(-1, &wait_status, WNOHANG)) > 0) {
            if (!upgrade_reaped(m, pid, wait_status)) {
                family_reaped(m, pid, wait_status);
            }
        }
        break;
    case SIGHUP:
        reload_begin(m, NULL);
        break;
    case SIGUSR2:
        upgrade_begin(m, NULL);
        break;
    default:
        master_stop(m, false);
        break;
    }
}

static void on_watch(uv_timer_t *t)
{
    struct master *m = t->data;
    if (ground_event_file(m) > 0) {
        family_event_file(m);
    }
    (void)sd_notify(0, "WATCHDOG=1");
    if (!m->stopping && materials_changed(m)) {
        for (size_t i = 0; i < m->materials_count; i++) {
            (void)stat(m->materials[i].path,
                       &m->materials[i].seen); /* a bad file is told once, not every two seconds */
        }
        log_info("tls.changed", LF_STR("what", "a certificate, key or CA file changed"));
        reload_begin(m, NULL);
    }
}

static void on_log_flush(uv_prepare_t *h)
{
    (void)h;
    log_flush();
}

static void loop_prepare(struct master *m)
{
    static const int numbers[] = {SIGCHLD, SIGHUP, SIGUSR2, SIGTERM, SIGINT};
    m->loop.data = m;
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        (void)uv_signal_init(&m->loop, &m->signals[i]);
        m->signals[i].data = m;
        (void)uv_signal_start(&m->signals[i], on_signal, numbers[i]);
    }
    (void)uv_prepare_init(&m->loop, &m->log_flush);
    (void)uv_prepare_start(&m->log_flush, on_log_flush);
    (void)uv_timer_init(&m->loop, &m->watch);
    m->watch.data = m;
    (void)uv_timer_start(&m->watch, on_watch, WATCH_MS, WATCH_MS);
    (void)uv_timer_init(&m->loop, &m->stop_timer);
    (void)uv_timer_init(&m->loop, &m->upgrade_limit);
}

static void raise_limits(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
}

static int find_self(struct master *m)
{
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
    m->exe_fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    if (n <= 0 || m->exe_fd < 0) {
        return -errno;
    }
    path[n] = '\0';
    m->exe_path = strdup(path);
    return m->exe_path != NULL ? 0 : -ENOMEM;
}

static int start(struct master *m)
{
    struct config_complaints complaints = {0};
    struct config *config = NULL;
    struct buf text;
    int r = reload_read(m->config_path, &config, &text, &complaints);
    if (r < 0) {
        print_complaints(&complaints);
        config_complaints_fini(&complaints);
        return EX_CONFIG;
    }
    config_complaints_fini(&complaints);
    log_open("master", config->processes.log_level, -1);
    if (geteuid() != 0) {
        log_warn("sandbox.reduced",
                 LF_STR("what", "not root: all processes run as one user, and ports below 1024 may be refused"));
    }
    r = ground_adopt(&m->listeners, &m->listeners_count, &m->again);
    m->config = config;
    r = r == 0 ? ground_prepare(m) : r;
    m->config = NULL; /* master_take() frees the old one */
    r = r == 0 ? master_take(m, config, buf_span(&text)) : r;
    m->shared_fd = ground_shared();
    r = r == 0 && m->shared_fd < 0 ? m->shared_fd : r;
    buf_fini(&text);
    if (r == 0) {
        m->control = control_new(&m->loop, m->control_fds[ROLE_MASTER], verbs, m);
        r = m->control != NULL ? 0 : -ENOMEM;
    }
    if (r < 0) {
        log_error("start.failed", LF_ERR(r));
        log_flush();
        if (m->config == NULL) {
            config_free(&config);
        }
        return EX_OSERR;
    }
    return 0;
}

int master_run(const char *config_path, char **argv)
{
    static struct master master;
    struct master *m = &master;
    *m = (struct master){
        .config_path = config_path, .argv = argv, .config_fd = -1, .event_fd = -1, .lock_fd = -1, .spool_lock_fd = -1};
    for (int i = 0; i < ROLE_COUNT; i++) {
        m->control_fds[i] = m->directory_fds[i] = -1;
    }
    m->started_ms = clock_mono_ms();
    (void)signal(SIGPIPE, SIG_IGN);
    (void)umask(022);
    raise_limits();
    if (find_self(m) < 0 || uv_loop_init(&m->loop) != 0) {
        (void)fputs("kidoband: /proc is needed\n", stderr);
        return EX_OSERR;
    }
    loop_prepare(m);
    int status = start(m);
    if (status != 0) {
        return status;
    }
    family_start(m);
    (void)uv_run(&m->loop, UV_RUN_DEFAULT);
    if (m->upgrading) {
        return upgrade_become(m);
    }
    log_info("master.stopped", LF_UINT("pid", getpid()));
    log_flush();
    if (m->reloads != NULL) {
        _exit(m->status); /* exit() would wait for the thread, and that for a file which may never come */
    }
    return m->status;
}
