/*
 * The guard's process: answers submit once a transaction, tells everybody who is suspended, obeys its control socket.
 *
 * It believes submit about account and address (submit has them from the vault and the kernel) and nobody about
 * anything else; a frame that does not decode closes that channel. Submit waits for each answer, so nothing here waits:
 * the only disk in the way is that of a suspension.
 */
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fault.h"
#include "guard/guard_int.h"

struct limits_moment guard_moment(const struct guard_process *g)
{
    return (struct limits_moment){.table_ns = table_now(g->table, clock_mono_ns()), .wall_ms = clock_wall_ms()};
}

static int send_suspension(struct peer *p, enum guard_type type, const char *account, const char *words)
{
    struct guard_suspension m = {.account = span_str(account), .words = span_str(words)};
    struct wire_writer w = channel_begin(p->channel, (uint16_t)type, 0);
    guard_suspension_encode(&w, &m);
    return channel_end(p->channel, &w);
}

void guard_push(struct guard_process *g, enum guard_type type, const char *account, const char *words)
{
    for (struct peer *p = g->peers.first; p != NULL; p = p->next) {
        (void)send_suspension(p, type, account, words);
    }
}

static void push_all(struct guard_process *g, struct peer *p)
{
    const struct suspension *s = NULL;
    while ((s = suspend_next(g->suspend, s)) != NULL) {
        (void)send_suspension(p, GUARD_SUSPENDED, s->account, s->reason);
    }
    (void)channel_send(p->channel, GUARD_TOLD_ALL, 0, (struct span){0}, -1);
}

/* The vault keeps the door; this is for the session that was let in just before. */
static void answer_suspended(const struct guard_process *g, struct limits_answer *ret)
{
    const char *url = g->child->config->config->operator_.help_url;
    bool link = url != NULL && url[0] != '\0' && strlen(url) < 100;
    *ret = (struct limits_answer){.verdict = GUARD_REJECT};
    (void)snprintf(ret->text, sizeof(ret->text), "This account is suspended%s%s%s", link ? " (" : "", link ? url : "",
                   link ? ")" : "");
}

static void note_check(struct guard_process *g, uint64_t id, const struct guard_check *q, const struct limits_answer *a)
{
    static const char *const verdicts[] = {
        [GUARD_PASS] = "pass", [GUARD_DEFER] = "defer", [GUARD_REJECT] = "reject", [GUARD_HOLD] = "hold"};
    char address[NET_ADDRESS_TEXT];
    g->figures.checks++;
    if (a->verdict == GUARD_PASS) {
        return;
    }
    g->figures.deferred += a->verdict == GUARD_DEFER;
    g->figures.rejected += a->verdict == GUARD_REJECT;
    g->figures.held += a->verdict == GUARD_HOLD;
    net_address_format(&q->peer, address);
    if (a->limit != NULL) {
        log_info("limit.exceeded", LF_ID("id", id), LF_ID("session", q->session), LF_SPAN("account", q->account),
                 LF_STR("address", address), LF_STR("limit", a->limit->name), LF_STR("verdict", verdicts[a->verdict]),
                 LF_UINT("recipients", q->recipients), LF_STR("text", a->text));
    } else {
        g->figures.suspended++;
        log_info("account.suspended.refused", LF_ID("id", id), LF_ID("session", q->session),
                 LF_SPAN("account", q->account), LF_STR("address", address));
    }
}

static int on_check(struct guard_process *g, struct peer *p, uint64_t id, struct span payload)
{
    struct guard_check q;
    struct limits_answer a;
    if (guard_check_decode(payload, &q) < 0) {
        return -1;
    }
    if (q.account.len > 0 && suspend_find(g->suspend, q.account) != NULL) {
        answer_suspended(g, &a);
    } else {
        limits_check(g->limits, id, &q, guard_moment(g), &a);
    }
    note_check(g, id, &q, &a);
    (void)FAULT_POINT("guard.answer");
    struct guard_answer m = {.verdict = (uint8_t)a.verdict,
                             .limit = span_str(a.limit != NULL ? a.limit->name : NULL),
                             .text = span_str(a.text)};
    struct wire_writer w = channel_begin(p->channel, GUARD_ANSWER, id);
    guard_answer_encode(&w, &m);
    return channel_end(p->channel, &w) == -EMSGSIZE ? -1 : 0;
}

static int on_frame(struct peer *p, const struct frame *f, struct span payload)
{
    struct guard_process *g = p->all->arg;
    if (p->role != ROLE_SUBMIT) {
        return -1; /* the others only listen */
    }
    if (f->type == GUARD_CHECK) {
        return on_check(g, p, f->id, payload);
    }
    if (f->type == GUARD_REFUND && payload.len == 0) {
        g->figures.refunds += limits_refund(g->limits, f->id, guard_moment(g));
        return 0;
    }
    return -1;
}

static void on_gone(struct peer *p)
{
    struct guard_process *g = p->all->arg;
    if (g->child->stopping && !peers_has(&g->peers, ROLE_SUBMIT)) {
        child_exit(g->child, 0);
    }
}

static const struct peers_ops peers_ops = {.frame = on_frame, .gone = on_gone};

static void on_peer(struct child *c, enum master_role role, uint32_t instance, int fd)
{
    struct guard_process *g = c->arg;
    struct peer *p = peers_take(&g->peers, c, role, instance, fd);
    if (p != NULL && g->limits == NULL) {
        channel_read_pause(p->channel, true); /* until ready */
    } else if (p != NULL) {
        push_all(g, p);
    }
}

static int on_start(struct child *c)
{
    struct guard_process *g = c->arg;
    g->child = c;
    if (sodium_init() < 0) {
        return -EIO;
    }
    clock_boot_id(g->boot_id);
    (void)uv_timer_init(c->loop, &g->grace);
    return 0;
}

static void limit_of(const struct config_limit *from, const struct config_window *window, struct limit *to)
{
    static const enum guard_verdict actions[] = {
        [LIMIT_DEFER] = GUARD_DEFER, [LIMIT_REJECT] = GUARD_REJECT, [LIMIT_HOLD] = GUARD_HOLD};
    *to = (struct limit){.subject = from->per == LIMIT_PER_ACCOUNT ? LIMIT_ACCOUNT : LIMIT_NETWORK,
                         .unit = from->count == LIMIT_COUNT_MESSAGES ? LIMIT_MESSAGES : LIMIT_RECIPIENTS,
                         .v4_bits = 32,
                         .v6_bits = 64,
                         .amount = window->limit,
                         .window_ms = window->window_ms,
                         .action = actions[from->action]};
    (void)snprintf(to->name, sizeof(to->name), "%s", from->name);
}

static int configure(struct guard_process *g)
{
    const struct config *c = g->child->config->config;
    struct limit *list = calloc(LIMITS_MAX, sizeof(*list));
    size_t count = 0, bad = 0;
    int r = list == NULL ? -ENOMEM : 0;
    for (size_t i = 0; i < c->limits_count && r == 0; i++) {
        for (size_t k = 0; k < c->limits[i].windows_count && r == 0; k++) {
            r = count < LIMITS_MAX ? 0 : -E2BIG;
            r = r == 0 && strlen(c->limits[i].name) > LIMITS_NAME_MAX ? -ENAMETOOLONG : r;
            if (r == 0) {
                limit_of(&c->limits[i], &c->limits[i].windows[k], &list[count++]);
            }
        }
    }
    r = r == 0 ? limits_configure(g->limits, list, count, c->operator_.help_url, &bad) : r;
    if (r < 0) {
        log_error("limits.refused", LF_ERR(r), LF_UINT("at", bad));
    }
    free(list);
    return r;
}

static int on_reload(struct child *c, struct child_tls *tls, size_t tls_count)
{
    struct guard_process *g = c->arg;
    (void)tls;
    (void)tls_count;
    return g->limits != NULL ? configure(g) : 0; /* at the start nothing is open yet */
}

static int open_table(struct guard_process *g)
{
    struct table_clock clock = {.mono_ns = clock_mono_ns(), .wall_ns = clock_wall_ms() * 1000000U};
    memcpy(clock.boot_id, g->boot_id, sizeof(clock.boot_id));
    int r = table_open(g->child->directory_fd, GUARD_TABLE_FILE, &clock, GUARD_SLOTS_MAX, &g->table);
    if (r < 0) {
        return r;
    }
    struct table_figures f;
    table_figures(g->table, &f);
    if (!f.persistent) {
        log_warn("limits.degraded", LF_STR("what", "the table of counts cannot be written; they live in memory only"));
    }
    if (f.damaged > 0) {
        log_warn("limits.damaged", LF_STR("what", "counts that did not read were dropped"),
                 LF_UINT("count", f.damaged));
    }
    return 0;
}

static int on_ready(struct child *c)
{
    struct guard_process *g = c->arg;
    int r = suspend_open(c->directory_fd, &g->suspend);
    if (r < 0) {
        log_error("suspensions.unreadable", LF_ERR(r));
        return r;
    }
    r = audit_open(c->directory_fd, &g->audit);
    if (r < 0) {
        log_error("audit.failed", LF_ERR(r), LF_STR("what", "open"));
        return r;
    }
    r = open_table(g);
    if (r < 0) {
        return r;
    }
    g->limits = limits_new(g->table);
    if (g->limits == NULL) {
        return -ENOMEM;
    }
    r = configure(g);
    if (r == 0 && c->control_fd >= 0) {
        g->control = control_new(c->loop, c->control_fd, guard_verbs, g);
        r = g->control != NULL ? 0 : -ENOMEM;
    }
    for (struct peer *p = g->peers.first; p != NULL && r == 0; p = p->next) {
        push_all(g, p);
        channel_read_pause(p->channel, false);
    }
    return r;
}

static void on_grace(uv_timer_t *t)
{
    struct guard_process *g = t->data;
    child_exit(g->child, 0);
}

/* Submit still asks until its sessions have ended. */
static void on_stop(struct child *c, uint32_t grace_ms)
{
    struct guard_process *g = c->arg;
    if (grace_ms == 0 || !peers_has(&g->peers, ROLE_SUBMIT)) {
        child_exit(c, 0);
        return;
    }
    g->grace.data = g;
    (void)uv_timer_start(&g->grace, on_grace, grace_ms, 0);
}

void guard_figures(const struct guard_process *g, json_t *into)
{
    struct table_figures f = {0};
    if (g->table != NULL) {
        table_figures(g->table, &f);
    }
    const struct {
        const char *name;
        uint64_t value;
    } rows[] = {
        {"checks", g->figures.checks},     {"deferred", g->figures.deferred},
        {"rejected", g->figures.rejected}, {"held", g->figures.held},
        {"refunds", g->figures.refunds},   {"suspended_accounts", g->suspend != NULL ? suspend_count(g->suspend) : 0},
        {"table_slots", f.slots},          {"table_evicted", f.evicted},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        (void)json_object_set_new(into, rows[i].name, json_integer((json_int_t)rows[i].value));
    }
    (void)json_object_set_new(into, "table_persistent", json_boolean(f.persistent));
}

static void on_status(struct child *c, struct buf *json)
{
    json_t *figures = json_object();
    guard_figures(c->arg, figures);
    char *text = figures != NULL ? json_dumps(figures, JSON_COMPACT) : NULL;
    if (text != NULL) {
        (void)buf_append_str(json, text);
    }
    free(text);
    json_decref(figures);
}

int guard_main(uint32_t instance)
{
    static struct guard_process g = {.peers = {.ops = &peers_ops, .size = sizeof(struct peer), .arg = &g}};
    static const struct child_ops ops = {.start = on_start,
                                         .ready = on_ready,
                                         .reload = on_reload,
                                         .peer = on_peer,
                                         .stop = on_stop,
                                         .status = on_status};
    int status = child_run(ROLE_GUARD, instance, &ops, &g);
    limits_free(&g.limits);
    if (g.table != NULL) {
        table_close(&g.table);
    }
    if (g.suspend != NULL) {
        suspend_close(&g.suspend);
    }
    audit_close(&g.audit);
    return status;
}
