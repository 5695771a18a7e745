#include "gate/observe.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "common/clock.h"
#include "common/log.h"
#include "gate/active.h"
#include "gate/history.h"
#include "gate/observe_int.h"

#define READ_MOST 2048  /* events read at once... */
#define READ_MS   100   /* ...in so long */
#define TURN_MS   10000 /* of the active lines */
#define SWEEP_MS  60000 /* of the table of sources */
#define IDLE_NS   UINT64_C(120000000000)
#define LOG_MOST  100 /* lines told in a turn */
#define LOG_AGAIN UINT64_C(60000000000)

static uint64_t boot_ns(void)
{
    struct timespec t = {0};
    (void)clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static struct history_moment moment(void)
{
    return (struct history_moment){.wall_ms = clock_wall_ms(), .boot_ns = boot_ns()};
}

static const char *class_name(const struct observe *o, uint32_t row)
{
    return row < BLOB_CLASSES_MAX ? o->keeper->rows.names[row] : NULL;
}

/* Events */

static int on_event(void *arg, void *data, size_t size)
{
    struct observe *o = arg;
    const struct gate_event *e = data;
    if (size >= sizeof(*e) && e->verdict <= POLICY_DROP && e->would <= POLICY_DROP && e->reason < REASON_COUNT) {
        (void)active_take(o->active, e);
    }
    return ++o->read < READ_MOST ? 0 : -EAGAIN;
}

static void on_again(uv_timer_t *t);

/* Then it rests: however fast they come, reading them costs no more than this. */
static void on_events(uv_poll_t *h, int status, int events)
{
    struct observe *o = h->data;
    (void)status;
    (void)events;
    o->read = 0;
    (void)ring_buffer__consume(o->ring);
    (void)uv_poll_stop(&o->poll);
    (void)uv_timer_start(&o->again, on_again, READ_MS, 0);
}

static void on_again(uv_timer_t *t)
{
    struct observe *o = t->data;
    (void)uv_poll_start(&o->poll, UV_READABLE, on_events);
}

/* The log */

static const char *interface_name(const struct observe *o, uint32_t index)
{
    for (const struct interface *i = o->keeper->interfaces; i != NULL; i = i->next) {
        if (i->link.index == index) {
            return i->link.name;
        }
    }
    return NULL;
}

static void address_text(const uint8_t address[16], char text[static NET_ADDRESS_TEXT])
{
    struct net_address a = {0};
    memcpy(a.bytes, address, 16);
    net_address_format(&a, text);
}

static void tell(const struct observe *o, struct active_line *l, uint64_t now)
{
    const struct gate_event *e = &l->last;
    char address[NET_ADDRESS_TEXT], far[NET_ADDRESS_TEXT];
    uint64_t since = l->told_ns != 0 ? l->told_ns : l->first_ns;
    address_text(e->subject, address);
    address_text(e->far, far);
    log_info("gate.refused", LF_STR("address", address), LF_STR("class", class_name(o, e->row)),
             LF_STR("verdict", policy_verdict_name(e->verdict)), LF_STR("would", policy_verdict_name(e->would)),
             LF_STR("rule", policy_reason_name(e->reason)), LF_STR("side", e->uplink != 0 ? "uplink" : "subscriber"),
             LF_STR("interface", interface_name(o, e->ifindex)), LF_STR("far", far), LF_UINT("port", e->port),
             LF_UINT("packets", e->packets - l->told_packets), LF_UINT("seconds", (now - since) / 1000000000U));
    l->told_ns = now;
    l->told_packets = e->packets;
}

static void on_turn(uv_timer_t *t)
{
    struct observe *o = t->data;
    uint64_t now = boot_ns(), lines = 0, packets = 0;
    size_t position = 0, told = 0;
    for (struct active_line *l; (l = active_next(o->active, &position)) != NULL;) {
        bool news = l->last.packets > l->told_packets && (l->told_ns == 0 || now - l->told_ns >= LOG_AGAIN);
        if (news && told < LOG_MOST) {
            tell(o, l, now);
            told++;
        } else if (news) {
            lines++;
            packets += l->last.packets - l->told_packets;
        }
    }
    if (lines > 0 || o->active->lost > 0) {
        log_info("gate.refused.more", LF_UINT("lines", lines), LF_UINT("packets", packets),
                 LF_UINT("events", o->active->lost));
        o->active->lost = 0;
    }
    active_turn(o->active, now, IDLE_NS);
}

/* The history */

static void flush_fars(struct observe *o)
{
    size_t position = 0;
    for (struct active_line *l; (l = active_next(o->active, &position)) != NULL;) {
        for (size_t i = 0; i < ACTIVE_FARS && l->fars[i].count > 0; i++) {
            history_far(o->history, &l->key, l->fars[i].address, l->fars[i].count, l->fars[i].ours);
            l->fars[i].count = 0;
        }
    }
}

static void save(struct observe *o)
{
    int r = history_save(o->history);
    if (r < 0 && !o->failing) {
        log_error("gate.history.failed", LF_ERR(r));
    }
    o->failing = r < 0;
    for (size_t i = 0; i < o->waiting_count; i++) {
        if (r < 0) {
            control_fail(o->waiting[i], 74, "the history cannot be written: %s", strerror(-r));
        } else {
            control_done(o->waiting[i], json_pack("{s:I}", "lines", (json_int_t)history_lines(o->history)));
        }
    }
    o->waiting_count = 0;
}

/* One slice. 1: there is more. */
static int sweep_slice(struct observe *o)
{
    uint32_t count = SLICE;
    LIBBPF_OPTS(bpf_map_batch_opts, options);
    int r = bpf_map_lookup_batch(o->keeper->pins.maps.fd[GATE_MAP_SOURCES], o->slices > 0 ? &o->batch : NULL, &o->batch,
                                 o->keys, o->sources, &count, &options);
    if (r < 0 && r != -ENOENT) {
        return r;
    }
    for (uint32_t i = 0; i < count; i++) {
        history_source(o->history, &o->keys[i], &o->sources[i], class_name(o, o->sources[i].row));
    }
    o->slices++;
    return r == 0 && o->slices < SLICES_MAX ? 1 : 0;
}

static void on_idle(uv_idle_t *h)
{
    struct observe *o = h->data;
    int r = sweep_slice(o);
    if (r > 0) {
        return;
    }
    if (r < 0 && !o->failing) {
        log_error("gate.history.failed", LF_ERR(r));
        o->failing = true;
    }
    (void)uv_idle_stop(h);
    o->sweeping = false;
    flush_fars(o);
    save(o);
}

static void begin_sweep(struct observe *o)
{
    const struct history_moment now = moment();
    if (!o->sweeping) {
        o->sweeping = true;
        o->slices = 0;
        history_begin(o->history, &now);
        (void)uv_idle_start(&o->idle, on_idle);
    }
}

static void on_minute(uv_timer_t *t)
{
    begin_sweep(t->data);
}

/* The answer may be of a sweep that began a moment before. */
void observe_verb_save(struct observe *o, struct control_request *rq)
{
    if (o == NULL || !o->started) {
        control_done(rq, NULL);
        return;
    }
    if (o->waiting_count == WAITING) {
        control_fail(rq, 75, "too many ask at once");
        return;
    }
    (void)ring_buffer__consume(o->ring);
    o->waiting[o->waiting_count++] = rq;
    begin_sweep(o);
}

/* Life */

static struct history_settings settings_of(const struct observe *o)
{
    const struct config_gate *g = &o->keeper->child->config->config->gate;
    struct history_settings s = {.retention_ms = g->history_retention_ms, .lines = g->history_lines};
    memcpy(s.boot_id, o->boot_id, sizeof(s.boot_id));
    return s;
}

void observe_configure(struct observe *o)
{
    const struct history_settings settings = settings_of(o);
    int r = o->history != NULL ? history_configure(o->history, &settings) : 0;
    if (r < 0) {
        log_error("gate.history.failed", LF_ERR(r));
    }
}

int observe_new(struct keeper *k, struct observe **ret)
{
    struct observe *o = calloc(1, sizeof(*o));
    struct active *active = calloc(1, sizeof(*active));
    uint64_t seed = 0;
    if (o == NULL || active == NULL || getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed)) {
        free(active);
        free(o);
        return -ENOMEM;
    }
    active_init(active, seed);
    o->keeper = k;
    o->active = active;
    clock_boot_id(o->boot_id);
    *ret = o;
    return 0;
}

static int open_history(struct observe *o)
{
    const struct history_settings settings = settings_of(o);
    const struct history_moment now = moment();
    bool damaged;
    int r = history_new(o->keeper->child->directory_fd, &settings, &now, &o->history, &damaged);
    if (r == 0 && damaged) {
        log_error("gate.history.damaged", LF_STR("what", "a file that does not read was set aside"));
    }
    return r;
}

void observe_start(struct observe *o)
{
    uv_loop_t *loop = o->keeper->child->loop;
    int r = open_history(o);
    o->ring = r == 0 ? ring_buffer__new(o->keeper->pins.maps.fd[GATE_MAP_EVENTS], on_event, o, NULL) : NULL;
    r = r == 0 && o->ring == NULL ? -errno : r;
    r = r == 0 ? uv_poll_init(loop, &o->poll, ring_buffer__epoll_fd(o->ring)) : r;
    if (r < 0) {
        log_error("gate.history.failed", LF_ERR(r));
        return;
    }
    (void)uv_timer_init(loop, &o->again);
    (void)uv_timer_init(loop, &o->turn);
    (void)uv_timer_init(loop, &o->minute);
    (void)uv_idle_init(loop, &o->idle);
    o->poll.data = o->again.data = o->turn.data = o->minute.data = o->idle.data = o;
    o->started = true;
    (void)uv_poll_start(&o->poll, UV_READABLE, on_events);
    (void)uv_timer_start(&o->turn, on_turn, TURN_MS, TURN_MS);
    (void)uv_timer_start(&o->minute, on_minute, 1000, SWEEP_MS);
}

void observe_finish(struct observe *o)
{
    if (!o->started) {
        return;
    }
    if (!o->sweeping) {
        const struct history_moment now = moment();
        history_begin(o->history, &now);
        o->slices = 0;
    }
    while (sweep_slice(o) > 0) {
    }
    flush_fars(o);
    save(o);
    on_turn(&o->turn);
}
