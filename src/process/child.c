/*
 * The frame of every process but the master. All that comes over descriptor 3 comes from the process that started us,
 * and is believed; still it is decoded with the same care, so that a bug there is a message here.
 */
#include "process/child.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "process/sandbox.h"

#define MASTER_FD     3
#define TEXT_MAX      (8U * 1024U * 1024U)
#define TLS_MAX       4096
#define INSTANCES_MAX 64
#define HEAP_KEPT     (2 * 1024 * 1024)

struct child_frame {
    struct child child;
    const struct child_ops *ops;
    struct channel *master;
    struct config_ref *next; /* arrived, not yet swapped in */
    struct child_tls *tls;
    size_t tls_count;
    uint32_t epochs[ROLE_COUNT][INSTANCES_MAX]; /* of the socket pair to each peer, told back when it breaks */
    uv_prepare_t log_flush;
    uv_signal_t ignore_term, ignore_int;
    bool started;
    bool refused; /* the last configuration */
    int status;
};

struct config_ref *config_ref_hold(struct config_ref *ref)
{
    ref->holders++;
    return ref;
}

void config_ref_drop(struct config_ref **refp)
{
    struct config_ref *ref = *refp;
    *refp = NULL;
    if (ref != NULL && --ref->holders == 0) {
        config_free(&ref->config);
        free(ref);
    }
}

/* The whole of a memfd. 0 or -errno. */
static int read_memfd(int fd, struct buf *out)
{
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        return -EBADF;
    }
    if (st.st_size < 0 || (uint64_t)st.st_size > TEXT_MAX) {
        return -EFBIG;
    }
    buf_init(out, TEXT_MAX);
    size_t size = (size_t)st.st_size;
    uint8_t *room;
    int r = size > 0 ? buf_reserve(out, size, &room) : 0;
    while (r == 0 && out->len < size) {
        ssize_t n = pread(fd, out->data + out->len, size - out->len, (off_t)out->len);
        if (n <= 0) {
            r = n == 0 ? -EIO : -errno;
            break;
        }
        buf_commit(out, (size_t)n);
    }
    return r;
}

static int on_config(struct child_frame *f, struct span name, int fd)
{
    struct buf text;
    char *file = span_dup(name);
    struct config_ref *ref = calloc(1, sizeof(*ref));
    int r = file == NULL || ref == NULL ? -ENOMEM : read_memfd(fd, &text);
    if (r == 0) {
        struct config_complaints complaints = {0};
        r = config_load(buf_span(&text), file, &ref->config, &complaints);
        config_complaints_fini(&complaints);
        buf_fini(&text);
    }
    free(file);
    if (r < 0) {
        free(ref);
        log_error("config.refused", LF_STR("what", "the master sent a configuration that does not load"), LF_ERR(r));
        return -1;
    }
    ref->holders = 1;
    config_ref_drop(&f->next);
    f->next = ref;
    return 0;
}

static void tls_clear(struct child_frame *f)
{
    for (size_t i = 0; i < f->tls_count; i++) {
        buf_wipe(&f->tls[i].pem);
        if (f->tls[i].fd >= 0) {
            (void)close(f->tls[i].fd);
        }
    }
    free(f->tls);
    f->tls = NULL;
    f->tls_count = 0;
}

static int on_tls(struct child_frame *f, struct span payload, int fd, bool *ret_kept)
{
    struct master_tls what;
    if (master_tls_decode(payload, &what) < 0 || f->tls_count == TLS_MAX) {
        return -1;
    }
    struct child_tls *grown = realloc(f->tls, (f->tls_count + 1) * sizeof(*grown));
    if (grown == NULL) {
        return -1;
    }
    f->tls = grown;
    struct child_tls *t = &f->tls[f->tls_count++];
    *t = (struct child_tls){.what = what, .fd = -1};
    buf_init(&t->pem, TEXT_MAX);
    if (what.kind != TLS_PREFIXES) {
        return read_memfd(fd, &t->pem) < 0 ? -1 : 0;
    }
    t->fd = fd;
    *ret_kept = true;
    return fd >= 0 ? 0 : -1;
}

static void set_user(const struct child_frame *f, char *user, size_t size)
{
    (void)snprintf(user, size, "%s%s", f->child.config->config->processes.user_prefix, master_role_name(f->child.role));
}

static int on_start(struct child_frame *f, struct span payload)
{
    struct child *c = &f->child;
    c->again = payload.len == 1 && payload.ptr[0] != 0;
    if (payload.len > 1 || f->next == NULL || f->started) {
        return -1;
    }
    c->config = f->next;
    f->next = NULL;
    int r = f->ops->start(c);
    if (r == 0 && f->ops->reload != NULL) {
        r = f->ops->reload(c, f->tls, f->tls_count);
    }
    tls_clear(f);
    if (r == 0) {
        char user[64];
        set_user(f, user, sizeof(user));
        const int directories[] = {c->directory_fd, c->pins_fd};
        r = c->config->config->processes.sandbox ? sandbox_enter(c->role, user, directories, 2, f->ops->read_paths) : 0;
    }
    if (r == 0 && f->ops->ready != NULL) {
        r = f->ops->ready(c);
    }
    if (r < 0) {
        log_error("process.start.failed", LF_ERR(r));
        child_exit(c, 1);
        return 0;
    }
    f->started = true;
    log_debug("process.started", LF_UINT("instance", c->instance), LF_STR("sandbox", sandbox_describe()));
    return channel_send(f->master, CHILD_READY, 0, (struct span){0}, -1);
}

static int on_config_done(struct child_frame *f)
{
    struct child *c = &f->child;
    if (f->next == NULL || !f->started) {
        return -1;
    }
    struct config_ref *old = c->config;
    c->config = f->next;
    f->next = NULL;
    int r = f->ops->reload != NULL ? f->ops->reload(c, f->tls, f->tls_count) : 0;
    tls_clear(f);
    f->refused = r < 0;
    if (f->refused) {
        log_error("config.refused", LF_STR("what", "this process keeps the old configuration"), LF_ERR(r));
        config_ref_drop(&c->config);
        c->config = old;
    } else {
        config_ref_drop(&old);
    }
    return 0;
}

static int on_peer(struct child_frame *f, struct span payload, int fd)
{
    struct wire_reader r = wire_reader(payload);
    uint8_t role = wire_get_u8(&r);
    uint32_t instance = wire_get_u32(&r);
    uint32_t epoch = wire_get_u32(&r);
    if (wire_reader_end(&r) < 0 || role >= ROLE_COUNT || instance >= INSTANCES_MAX || fd < 0 || f->ops->peer == NULL) {
        return -1;
    }
    f->epochs[role][instance] = epoch;
    f->ops->peer(&f->child, (enum master_role)role, instance, fd);
    return 0;
}

static int on_listener(struct child_frame *f, struct span payload, int fd)
{
    struct wire_reader r = wire_reader(payload);
    uint32_t index = wire_get_u32(&r);
    if (wire_reader_end(&r) < 0 || fd < 0) {
        return -1;
    }
    if (index == LISTENER_CONTROL) {
        f->child.control_fd = fd;
    } else if (f->ops->listener != NULL) {
        f->ops->listener(&f->child, index, fd);
    } else {
        (void)close(fd);
    }
    return 0;
}

static int on_stop(struct child_frame *f, struct span payload)
{
    struct wire_reader r = wire_reader(payload);
    uint32_t grace_ms = wire_get_u32(&r);
    if (wire_reader_end(&r) < 0) {
        return -1;
    }
    if (!f->child.stopping) {
        f->child.stopping = true;
        f->ops->stop(&f->child, grace_ms);
    }
    return 0;
}

static int on_status(struct child_frame *f, uint64_t id)
{
    struct buf json;
    buf_init(&json, FRAME_PAYLOAD_MAX);
    if (f->ops->status != NULL) {
        f->ops->status(&f->child, &json);
    }
    if (json.len == 0) {
        (void)buf_append_str(&json, "{}");
    }
    int r = channel_send(f->master, CHILD_STATUS_REPLY, id, buf_span(&json), -1);
    buf_fini(&json);
    return r;
}

/* Descriptors that a case does not keep are closed by the caller. */
static int on_frame_kept(struct child_frame *f, const struct frame *fr, struct span payload, int fd, bool *ret_kept)
{
    switch ((enum master_type)fr->type) {
    case MASTER_CONFIG:
        return on_config(f, payload, fd);
    case MASTER_TLS:
        return on_tls(f, payload, fd, ret_kept);
    case MASTER_EVENT_FILE:
        log_set_event_fd(fd);
        *ret_kept = true;
        return 0;
    case MASTER_DIRECTORY:
        f->child.directory_fd = fd;
        *ret_kept = true;
        return 0;
    case MASTER_SHARED:
        f->child.shared_fd = fd;
        *ret_kept = true;
        return 0;
    case MASTER_LISTENER:
        *ret_kept = true;
        return on_listener(f, payload, fd);
    case MASTER_PEER:
        *ret_kept = true;
        return on_peer(f, payload, fd);
    case MASTER_START:
        return on_start(f, payload);
    case MASTER_CONFIG_DONE:
        return on_config_done(f);
    case MASTER_STOP:
        return on_stop(f, payload);
    case MASTER_STATUS:
        return on_status(f, fr->id);
    case MASTER_RELOADED:
        return channel_send(f->master, CHILD_RELOADED, fr->id, f->refused ? SPAN_LIT("false") : SPAN_LIT("true"), -1);
    case CHILD_READY:
    case CHILD_RELOADED:
    case CHILD_STATUS_REPLY:
    case CHILD_PEER_BROKEN:
        break;
    }
    return -1;
}

static int on_frame(void *arg, const struct frame *fr, struct span payload, int fd)
{
    bool kept = false;
    int r = on_frame_kept(arg, fr, payload, fd, &kept);
    if (!kept && fd >= 0) {
        (void)close(fd);
    }
    return r;
}

/* The master is gone: a child alone has nobody who watches it. What is stored is safe; leave. */
static void on_master_closed(void *arg, const char *why)
{
    struct child_frame *f = arg;
    log_warn("process.orphaned", LF_STR("what", why));
    child_exit(&f->child, 1);
}

static const struct channel_ops master_ops = {.frame = on_frame, .closed = on_master_closed};

static void on_log_flush(uv_prepare_t *h)
{
    (void)h;
    log_flush();
}

static void on_signal(uv_signal_t *h, int number)
{
    (void)h;
    (void)number; /* the terminal's SIGINT reaches the whole group; the master tells us when to stop */
}

void child_exit(struct child *c, int status)
{
    struct child_frame *f = (struct child_frame *)c;
    f->status = status;
    uv_stop(c->loop);
}

void child_peer_broken(struct child *c, enum master_role role, uint32_t instance, const char *why)
{
    struct child_frame *f = (struct child_frame *)c;
    if (c->stopping || f->master == NULL || instance >= INSTANCES_MAX) {
        return;
    }
    /* No warning: at an end the others go first. The master warns when both of them live. */
    log_info("peer.lost", LF_STR("peer", master_role_name(role)), LF_UINT("instance", instance), LF_STR("reason", why));
    struct wire_writer w = channel_begin(f->master, CHILD_PEER_BROKEN, 0);
    wire_put_u8(&w, (uint8_t)role);
    wire_put_u32(&w, instance);
    wire_put_u32(&w, f->epochs[role][instance]);
    (void)channel_end(f->master, &w);
}

int child_run(enum master_role role, uint32_t instance, const struct child_ops *ops, void *arg)
{
    static struct child_frame frame; /* one a process */
    struct child_frame *f = &frame;
    static uv_loop_t loop;
    (void)umask(077);
    (void)signal(SIGPIPE, SIG_IGN);
    /* What is freed is soon needed again: pages given back to the kernel and faulted in anew cost more than the copies.
     */
    (void)mallopt(M_TRIM_THRESHOLD, HEAP_KEPT);
    (void)mallopt(M_MMAP_THRESHOLD, HEAP_KEPT / 8);
    log_open(master_role_name(role), LOG_LEVEL_INFO, -1);
    if (uv_loop_init(&loop) != 0) {
        log_fatal("no event loop", ENOMEM);
    }
    *f = (struct child_frame){
        .child = {.loop = &loop,
                  .role = role,
                  .instance = instance,
                  .directory_fd = -1,
                  .control_fd = -1,
                  .shared_fd = -1,
                  .pins_fd = -1,
                  .arg = arg},
        .ops = ops,
    };
    (void)uv_prepare_init(&loop, &f->log_flush);
    (void)uv_prepare_start(&f->log_flush, on_log_flush);
    (void)uv_signal_init(&loop, &f->ignore_term);
    (void)uv_signal_init(&loop, &f->ignore_int);
    (void)uv_signal_start(&f->ignore_term, on_signal, SIGTERM);
    (void)uv_signal_start(&f->ignore_int, on_signal, SIGINT);
    f->master = channel_new(&loop, MASTER_FD, &master_ops, f);
    if (f->master == NULL) {
        log_fatal("descriptor 3 is not the master", EBADF);
    }
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    log_flush();
    return f->status;
}
