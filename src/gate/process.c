/*
 * The gate keeper: puts the gate's programs on the interfaces that the configuration names, gives them the policy,
 * follows interfaces that come and go, and obeys its control socket.
 *
 * It is no part of a verdict: programs, links and maps are pinned, and go on without it. Whoever comes next adopts
 * them. It believes the kernel, the configuration and its own state directory. Programs are loaded before rights are
 * dropped (the verifier asks for more than is kept); from then on it has CAP_NET_ADMIN and CAP_BPF.
 */
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "gate/observe.h"

static const struct config_gate *gate_of(const struct keeper *k)
{
    return &k->child->config->config->gate;
}

static int load(struct keeper *k)
{
    int r = pins_enter(gate_of(k)->pins, &k->child->pins_fd);
    int cpus = libbpf_num_possible_cpus(); /* reads a file */
    r = r == 0 && cpus < 1 ? -EIO : r;
    k->cpus = cpus > 0 ? (size_t)cpus : 0;
    k->outward = interfaces_outward(gate_of(k));
    r = r == 0 ? opening_load(k) : r;
    r = r == 0 ? pins_load(&k->pins, k->outward) : r;
    r = r == 0 ? interfaces_adopt(k) : r;
    r = r == 0 ? observe_new(k, &k->observe) : r;
    k->loaded = r == 0;
    return r;
}

static int on_start(struct child *c)
{
    struct keeper *k = c->arg;
    k->child = c;
    pins_init(&k->pins);
    int r = rows_load(&k->rows, c->directory_fd);
    r = r == 0 ? changes_open(k) : r;
    return r == 0 && interfaces_named(gate_of(k)) ? load(k) : r;
}

/* The prefixes of the files that classes name become part of the configuration that we hold. The master opened them. */
static int read_files(struct keeper *k, const struct child_tls *files, size_t count)
{
    struct config_complaints complaints = {0};
    struct buf words;
    int fds[CONFIG_GATE_CLASSES_MAX];
    for (size_t i = 0; i < CONFIG_GATE_CLASSES_MAX; i++) {
        fds[i] = -1;
    }
    for (size_t i = 0; i < count; i++) {
        if (files[i].what.kind == TLS_PREFIXES && files[i].what.number < CONFIG_GATE_CLASSES_MAX) {
            fds[files[i].what.number] = files[i].fd;
        }
    }
    int r = config_gate_read_files(k->child->config->config, "configuration", fds, &complaints);
    buf_init(&words, 65536);
    if (r < 0 && config_complaints_format(&complaints, &words) == 0) {
        log_error("config.refused", LF_SPAN("what", buf_span(&words)), LF_ERR(r));
    }
    buf_fini(&words);
    config_complaints_fini(&complaints);
    return r;
}

/* Programs cannot be loaded any more, so what needs others needs another keeper. */
static int check_change(const struct keeper *k)
{
    bool fits =
        interfaces_named(gate_of(k)) == k->loaded && (!k->loaded || interfaces_outward(gate_of(k)) == k->outward);
    if (!fits) {
        log_error("config.refused",
                  LF_STR("what", "the first interface of a side, or the last, comes and goes with a restart"));
    }
    return fits ? 0 : -EINVAL;
}

/* The last act with full rights: the directory becomes the user's that we shall be. */
static int leave_pins(struct keeper *k)
{
    struct stat owner;
    pins_tidy(&k->pins);
    return fstat(k->child->directory_fd, &owner) == 0 ? pins_leave_to(owner.st_uid, owner.st_gid) : -errno;
}

/* Without a policy the programs let nothing of port 25 through: it comes first where there is none. Otherwise what can
 * fail comes first. */
static int on_reload(struct child *c, struct child_tls *tls, size_t tls_count)
{
    struct keeper *k = c->arg;
    bool empty = !k->loaded || !pins_have_policy(&k->pins);
    int r = check_change(k);
    r = r == 0 ? read_files(k, tls, tls_count) : r;
    r = r == 0 && empty ? keeper_apply(k) : r;
    r = r == 0 && k->loaded ? interfaces_try(k) : r;
    r = r == 0 && !empty ? keeper_apply(k) : r;
    r = r == 0 && k->loaded ? interfaces_follow(k) : r;
    r = r == 0 && k->loaded && k->before == NULL ? leave_pins(k) : r;
    if (r == 0) {
        changes_reloaded(k, k->before != NULL ? &k->before->config->gate : NULL);
        config_ref_drop(&k->before);
        k->before = config_ref_hold(c->config);
        if (k->observe != NULL) {
            observe_configure(k->observe);
        }
    }
    return r;
}

static const struct links_ops watched = {.seen = interfaces_seen, .filters = interfaces_filters};

static void on_links(uv_poll_t *h, int status, int events)
{
    struct keeper *k = h->data;
    (void)events;
    int r = status < 0 ? status : links_watch(k->watch_fd, &watched, k);
    if (r == -ENOBUFS) {
        r = interfaces_again(k);
    }
    if (r < 0) {
        log_error("gate.links.failed", LF_ERR(r));
    }
}

static int watch(struct keeper *k)
{
    k->watch_fd = links_watch_open();
    int r = k->watch_fd < 0 ? k->watch_fd : uv_poll_init(k->child->loop, &k->watch, k->watch_fd);
    k->watch.data = k;
    r = r == 0 ? uv_poll_start(&k->watch, UV_READABLE, on_links) : r;
    return r == 0 ? interfaces_again(k) : r; /* what came before the socket was there */
}

static int on_ready(struct child *c)
{
    struct keeper *k = c->arg;
    int r = k->loaded ? watch(k) : 0;
    r = r == 0 ? changes_run(k) : r;
    if (r == 0 && k->loaded) {
        observe_start(k->observe);
    }
    if (r == 0 && c->control_fd >= 0) {
        k->control = control_new(c->loop, c->control_fd, gate_verbs, k);
        r = k->control != NULL ? 0 : -ENOMEM;
    }
    return r;
}

/* What was pinned goes on. */
static void on_stop(struct child *c, uint32_t grace_ms)
{
    const struct keeper *k = c->arg;
    (void)grace_ms;
    if (k->observe != NULL) {
        observe_finish(k->observe);
    }
    child_exit(c, 0);
}

static void on_status(struct child *c, struct buf *json)
{
    json_t *figures = figures_brief(c->arg);
    char *text = figures != NULL ? json_dumps(figures, JSON_COMPACT) : NULL;
    if (text != NULL) {
        (void)buf_append_str(json, text);
    }
    free(text);
    json_decref(figures);
}

int gate_main(uint32_t instance)
{
    static struct keeper k = {.watch_fd = -1, .state_fd = -1, .clock_fd = -1};
    static const struct child_ops ops = {
        .start = on_start, .ready = on_ready, .reload = on_reload, .stop = on_stop, .status = on_status};
    int status = child_run(ROLE_GATE, instance, &ops, &k);
    interfaces_free(&k);
    changes_free(&k);
    policy_rows_fini(&k.rows);
    config_ref_drop(&k.before);
    return status;
}
