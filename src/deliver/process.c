/*
 * The deliver process: between the spool's channel and relay.c.
 *
 * The spool is believed no more than its frames decode; the network not at all. When the channel breaks, the spool
 * queues everything again that had no outcome, so all that is not in its last breath here is dropped: `generation`
 * keeps an outcome of the old channel from being told on the new one.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/fault.h"
#include "common/log.h"
#include "deliver/relay.h"

#define JOBS_OCTETS_HIGH (64U * 1024U * 1024U) /* of envelopes in memory: the spool waits */
#define JOBS_OCTETS_LOW  (48U * 1024U * 1024U)

struct deliver {
    struct child *child;
    struct channel *spool;
    uint32_t spool_instance;
    uint64_t generation;
    bool paused;
    int early_fd; /* a channel that came before we could serve it, or -1 */
    struct files *files;
    struct relay *relay;
    struct outcome_sink sink;
    uint64_t jobs;
    uv_timer_t grace, tick;
    bool ready;
};

static void send_outcome(void *arg, uint64_t id, uint64_t generation, const struct deliver_outcome *m)
{
    struct deliver *d = arg;
    if (d->spool == NULL || generation != d->generation) {
        return;
    }
    (void)FAULT_POINT("deliver.outcome");
    struct wire_writer w = channel_begin(d->spool, DELIVER_OUTCOME, id);
    deliver_outcome_encode(&w, m);
    (void)channel_end(d->spool, &w); /* a broken channel tells itself */
    if (d->paused && job_memory() < JOBS_OCTETS_LOW) {
        d->paused = false;
        channel_read_pause(d->spool, false);
    }
}

static int on_job(struct deliver *d, const struct frame *f, struct span payload)
{
    struct job *j = NULL;
    int r = job_new(f->id, payload, d->files, &j);
    if (r == -ENOMEM) {
        log_fatal("no memory for a job", ENOMEM); /* without an outcome it would be lost until the channel ends */
    }
    if (r < 0) {
        return -1;
    }
    (void)FAULT_POINT("deliver.job");
    j->generation = d->generation;
    d->jobs++;
    relay_job(d->relay, j);
    if (!d->paused && d->spool != NULL && job_memory() > JOBS_OCTETS_HIGH) {
        d->paused = true;
        channel_read_pause(d->spool, true);
    }
    return 0;
}

static int on_file(struct deliver *d, struct span payload, int fd)
{
    struct wire_reader r = wire_reader(payload);
    uint64_t number = wire_get_u64(&r);
    if (wire_reader_end(&r) < 0 || fd < 0) {
        if (fd >= 0) {
            (void)close(fd);
        }
        return -1;
    }
    return files_add(d->files, number, fd) < 0 ? -1 : 0;
}

static int on_forget(struct deliver *d, struct span payload)
{
    struct wire_reader r = wire_reader(payload);
    uint64_t number = wire_get_u64(&r);
    return wire_reader_end(&r) < 0 || files_forget(d->files, number) < 0 ? -1 : 0;
}

static int on_frame(void *arg, const struct frame *f, struct span payload, int fd)
{
    struct deliver *d = arg;
    if (f->type == DELIVER_FILE) {
        return on_file(d, payload, fd);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    switch ((enum deliver_type)f->type) {
    case DELIVER_JOB:
        return on_job(d, f, payload);
    case DELIVER_CANCEL:
        relay_cancel(d->relay, f->id);
        return 0;
    case DELIVER_FORGET:
        return on_forget(d, payload);
    case DELIVER_FILE:
    case DELIVER_OUTCOME:
        break;
    }
    return -1;
}

/* What came by the old channel is nobody's any more. */
static void channel_drop(struct deliver *d)
{
    channel_free(&d->spool);
    d->generation++;
    d->paused = false;
    relay_forget_jobs(d->relay);
    files_free(&d->files);
    d->files = files_new();
    if (d->files == NULL) {
        log_fatal("no memory for the table of files", ENOMEM);
    }
}

static void on_closed(void *arg, const char *why)
{
    struct deliver *d = arg;
    channel_drop(d);
    child_peer_broken(d->child, ROLE_SPOOL, d->spool_instance, why);
}

static const struct channel_ops channel_ops = {.frame = on_frame, .closed = on_closed};

static void peer_open(struct deliver *d, uint32_t instance, int fd)
{
    if (d->spool != NULL) {
        channel_drop(d);
    }
    d->spool_instance = instance;
    d->spool = channel_new(d->child->loop, fd, &channel_ops, d);
    if (d->spool == NULL) {
        child_peer_broken(d->child, ROLE_SPOOL, instance, "out of memory");
    }
}

static void on_peer(struct child *c, enum master_role role, uint32_t instance, int fd)
{
    struct deliver *d = c->arg;
    if (role != ROLE_SPOOL || c->stopping) {
        (void)close(fd);
    } else if (d->ready) {
        peer_open(d, instance, fd);
    } else {
        if (d->early_fd >= 0) {
            (void)close(d->early_fd);
        }
        d->early_fd = fd;
        d->spool_instance = instance;
    }
}

/* ---- the life of the process ---- */

#define READ_PATHS_MAX 64

static const char *read_paths[READ_PATHS_MAX] = {"/usr/share/dns", "/etc/ssl/certs"};

/* What a later reload may want to read again from within the sandbox. */
static void read_paths_fill(const struct config *c)
{
    size_t n = 2;
    for (size_t i = 0; i < c->routes_count && n + 1 < READ_PATHS_MAX; i++) {
        if (c->routes[i].password_file != NULL) {
            read_paths[n++] = c->routes[i].password_file;
        }
    }
    read_paths[n] = NULL;
}

static int on_start(struct child *c)
{
    struct deliver *d = c->arg;
    d->child = c;
    d->sink.send = send_outcome;
    d->sink.arg = d;
    d->files = files_new();
    (void)uv_timer_init(c->loop, &d->grace);
    (void)uv_timer_init(c->loop, &d->tick);
    d->grace.data = d->tick.data = d;
    read_paths_fill(c->config->config);
    return d->files != NULL ? 0 : -ENOMEM;
}

static void on_tick(uv_timer_t *t)
{
    struct deliver *d = t->data;
    relay_tick(d->relay);
}

static void tick_wanted(void *arg, bool wanted)
{
    struct deliver *d = arg;
    if (wanted) {
        (void)uv_timer_start(&d->tick, on_tick, RELAY_TICK_MS, RELAY_TICK_MS);
    } else {
        (void)uv_timer_stop(&d->tick);
    }
}

static int on_reload(struct child *c, struct child_tls *tls, size_t tls_count)
{
    struct deliver *d = c->arg;
    (void)tls;
    (void)tls_count;
    struct settings *s = settings_new(c->loop, &d->sink, c->config, d->relay != NULL ? relay_settings(d->relay) : NULL);
    if (s == NULL) {
        return -EINVAL;
    }
    if (d->relay != NULL) {
        relay_reload(d->relay, s);
        return 0;
    }
    d->relay = relay_new(&d->sink, s, tick_wanted, d);
    return d->relay != NULL ? 0 : -ENOMEM;
}

static int on_rights_dropped(struct child *c)
{
    struct deliver *d = c->arg;
    d->ready = true;
    if (d->early_fd >= 0) {
        int fd = d->early_fd;
        d->early_fd = -1;
        peer_open(d, d->spool_instance, fd);
    }
    return 0;
}

static void on_stopped(void *arg)
{
    struct deliver *d = arg;
    if (d->spool != NULL) {
        channel_flush(d->spool); /* the last outcomes: without them the spool would send these once more */
    }
    child_exit(d->child, 0);
}

static void on_grace(uv_timer_t *t)
{
    struct deliver *d = t->data;
    log_warn("delivery.stop.cut", LF_STR("what", "transactions were still under way at the end of the grace period"));
    on_stopped(d);
}

static void on_stop(struct child *c, uint32_t grace_ms)
{
    struct deliver *d = c->arg;
    (void)uv_timer_start(&d->grace, on_grace, grace_ms, 0);
    relay_stop(d->relay, on_stopped, d);
}

static void on_status(struct child *c, struct buf *json)
{
    const struct deliver *d = c->arg;
    struct relay_figures f = {0};
    const uint64_t *counts = d->sink.counts;
    uint64_t delivered = counts[DELIVER_DELIVERED] + counts[DELIVER_RELAYED] + counts[DELIVER_HANDED_OVER];
    if (d->relay != NULL) {
        relay_figures(d->relay, &f);
    }
    (void)buf_printf(json,
                     "{\"jobs\":%" PRIu64 ",\"delivered\":%" PRIu64 ",\"deferred\":%" PRIu64 ",\"failed\":%" PRIu64
                     ",\"damaged\":%" PRIu64 ",\"destinations\":%zu,\"connections\":%zu,\"idle\":%zu,"
                     "\"waiting\":%zu,\"memory\":%zu,\"files\":%zu}",
                     d->jobs, delivered, d->sink.counts[DELIVER_TEMPORARY], d->sink.counts[DELIVER_PERMANENT],
                     d->sink.counts[DELIVER_DAMAGED], f.destinations, f.connections, f.idle, f.waiting, job_memory(),
                     files_count(d->files));
}

int deliver_main(uint32_t instance)
{
    static struct deliver deliver = {.early_fd = -1}; /* one a process */
    static const struct child_ops ops = {.start = on_start,
                                         .ready = on_rights_dropped,
                                         .reload = on_reload,
                                         .peer = on_peer,
                                         .stop = on_stop,
                                         .read_paths = read_paths,
                                         .status = on_status};
    return child_run(ROLE_DELIVER, instance, &ops, &deliver);
}
