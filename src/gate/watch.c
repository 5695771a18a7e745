/*
 * Who wants to know when the policy in force changes, and the policy in other enforcers' languages.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "common/clock.h"
#include "gate/keeper_int.h"
#include "policy/export.h"

#define WATCHERS_MAX 16
#define HEARTBEAT_MS 10000 /* who goes away is seen by it, and who waits sees that we live */
#define TEXT_MAX     (16U * 1024U * 1024U)

struct watcher {
    struct control_request *rq;
    struct watcher *next;
};

static int tell(const struct keeper *k, const struct watcher *w)
{
    return control_line(w->rq, json_pack("{s:I}", "change", (json_int_t)k->changes));
}

static void tell_all(struct keeper *k)
{
    struct watcher **at = &k->watchers;
    while (*at != NULL) {
        struct watcher *w = *at;
        if (tell(k, w) == 0) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        k->watchers_count--;
        control_done(w->rq, NULL);
        free(w);
    }
}

void watchers_tell(struct keeper *k)
{
    k->changes++;
    tell_all(k);
}

static void on_heartbeat(uv_timer_t *t)
{
    interfaces_check(t->data);
    tell_all(t->data);
}

int watchers_run(struct keeper *k)
{
    int r = uv_timer_init(k->child->loop, &k->heartbeat);
    k->heartbeat.data = k;
    return r == 0 ? uv_timer_start(&k->heartbeat, on_heartbeat, HEARTBEAT_MS, HEARTBEAT_MS) : r;
}

void verb_watch(void *arg, struct control_request *rq, const json_t *request)
{
    struct keeper *k = arg;
    struct watcher *w = k->watchers_count < WATCHERS_MAX ? calloc(1, sizeof(*w)) : NULL;
    (void)request;
    if (w == NULL) {
        control_fail(rq, EX_TEMPFAIL, "%d watch already; no more can", WATCHERS_MAX);
        return;
    }
    *w = (struct watcher){.rq = rq, .next = k->watchers};
    k->watchers = w;
    k->watchers_count++;
    (void)tell(k, w); /* who has gone meanwhile is seen at the next heartbeat */
}

/* ret: text, to be freed. */
static int write_text(const char *target, const struct export_input *in, json_t **ret)
{
    struct buf out;
    buf_init(&out, TEXT_MAX);
    int r = export_write(target, in, &out);
    if (r == 0) {
        *ret = json_stringn(out.len > 0 ? (const char *)out.data : "", out.len);
        r = *ret != NULL ? 0 : -ENOMEM;
    }
    buf_fini(&out);
    return r;
}

static uint64_t next_end(const struct policy *p, uint64_t now_ns)
{
    uint64_t next = POLICY_NO_END;
    for (size_t i = 0; i < p->exemptions_count; i++) {
        uint64_t until = p->exemptions[i].until_ns;
        next = until > now_ns && until < next ? until : next;
    }
    return next;
}

/* "text" now, and "closed" when every exemption that has an end has ended. */
static int export_both(struct keeper *k, const char *target, size_t budget, json_t **ret)
{
    const struct config_gate *g = &k->child->config->config->gate;
    const struct runtime_moment now = keeper_now();
    struct policy *p = NULL;
    json_t *text = NULL, *closed = NULL;
    int r = runtime_policy(k->runtime, g, &now, &p);
    if (r == 0) {
        struct export_input in = {.policy = p,
                                  .subscriber_interfaces = &g->subscriber_interfaces,
                                  .uplink_interfaces = &g->uplink_interfaces,
                                  .now_boot_ns = now.boot_ns,
                                  .now_wall_ms = now.wall_ms,
                                  .budget = budget};
        uint64_t end = next_end(p, now.boot_ns);
        r = write_text(target, &in, &text);
        in.now_boot_ns = POLICY_NO_END - 1;
        r = r == 0 ? write_text(target, &in, &closed) : r;
        *ret = r == 0 ? json_pack("{s:O,s:O,s:I,s:I}", "text", text, "closed", closed, "change", (json_int_t)k->changes,
                                  "next_end_ns", end != POLICY_NO_END ? (json_int_t)end : 0)
                      : NULL;
    }
    policy_free(&p);
    json_decref(text);
    json_decref(closed);
    return r;
}

void verb_export(void *arg, struct control_request *rq, const json_t *request)
{
    struct keeper *k = arg;
    const char *target = json_string_value(json_object_get(request, "target"));
    json_int_t budget = json_integer_value(json_object_get(request, "budget"));
    json_t *answer = NULL;
    int r = target != NULL && budget >= 0 ? export_both(k, target, (size_t)budget, &answer) : -ENOENT;
    if (r == -E2BIG) {
        control_fail(rq, EX_DATAERR, "the policy takes more rules than such a router holds");
    } else if (r < 0) {
        control_fail(rq, r == -ENOENT ? EX_USAGE : EX_OSERR, "%s: %s", target != NULL ? target : "\"target\"",
                     r == -ENOENT ? "there is no such export" : strerror(-r));
    } else {
        control_done(rq, answer);
    }
}
