/*
 * What an operator may ask the guard. A suspension is logged before it is done: an act nobody can be asked about later
 * does not happen. By the time the answer is read, submit, vault and spool have been told.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "common/clock.h"
#include "guard/guard_int.h"

/* The normalised name under key; fails the request when it is none. */
static bool get_name(struct control_request *rq, const json_t *request, const char *key,
                     char ret[static ACCOUNT_NAME_MAX + 1])
{
    const char *raw = json_string_value(json_object_get(request, key));
    if (raw == NULL || account_name_normalise(span_str(raw), ret) < 0) {
        control_fail(rq, EX_USAGE, "\"%s\" must be the name of an account", key);
        return false;
    }
    return true;
}

static bool audit(struct guard_process *g, struct control_request *rq, const char *what, const char *account,
                  const char *reason)
{
    const struct audit_entry e = {.what = what,
                                  .account = account,
                                  .reason = reason,
                                  .by = control_peer_name(rq),
                                  .uid = control_peer_uid(rq),
                                  .wall_ms = clock_wall_ms()};
    int r = audit_append(g->audit, &e);
    if (r < 0) {
        log_error("audit.failed", LF_ERR(r), LF_STR("what", what), LF_STR("account", account));
    }
    return r == 0;
}

static void finish(struct guard_process *g, struct control_request *rq, int r, const char *what, const char *account,
                   const char *reason)
{
    if (r < 0) {
        char failed[64];
        (void)snprintf(failed, sizeof(failed), "%s failed", what);
        (void)audit(g, rq, failed, account, reason);
        control_fail(rq, r == -E2BIG ? EX_CANTCREAT : EX_IOERR, "nothing was changed: %s", strerror(-r));
        return;
    }
    control_done(rq, NULL);
}

static void account_suspend(void *arg, struct control_request *rq, const json_t *request)
{
    struct guard_process *g = arg;
    char name[ACCOUNT_NAME_MAX + 1];
    const char *reason = json_string_value(json_object_get(request, "reason"));
    if (!get_name(rq, request, "name", name)) {
        return;
    }
    if (!audit_words_are_permitted(span_str(reason), SUSPEND_REASON_MAX)) {
        control_fail(rq, EX_USAGE, "a reason of 1 to %u octets in one line is needed", SUSPEND_REASON_MAX);
        return;
    }
    const struct suspension *old = suspend_find(g->suspend, span_str(name));
    if (old != NULL && strcmp(old->reason, reason) == 0) {
        control_done(rq, NULL);
        return;
    }
    if (!audit(g, rq, "account.suspend", name, reason)) {
        control_fail(rq, EX_IOERR, "nothing was changed: the audit log cannot be written");
        return;
    }
    int r = suspend_add(g->suspend, span_str(name), span_str(reason), control_peer_name(rq), clock_wall_ms());
    if (r == 0) {
        guard_push(g, GUARD_SUSPENDED, name, reason);
        log_warn("account.suspended", LF_STR("account", name), LF_STR("reason", reason),
                 LF_STR("by", control_peer_name(rq)), LF_UINT("uid", control_peer_uid(rq)));
    }
    finish(g, rq, r, "account.suspend", name, reason);
}

static void account_resume(void *arg, struct control_request *rq, const json_t *request)
{
    struct guard_process *g = arg;
    char name[ACCOUNT_NAME_MAX + 1];
    if (!get_name(rq, request, "name", name)) {
        return;
    }
    if (suspend_find(g->suspend, span_str(name)) == NULL) {
        control_fail(rq, 1, "%s is not suspended", name);
        return;
    }
    if (!audit(g, rq, "account.resume", name, "")) {
        control_fail(rq, EX_IOERR, "nothing was changed: the audit log cannot be written");
        return;
    }
    int r = suspend_remove(g->suspend, span_str(name));
    if (r == 0) {
        guard_push(g, GUARD_RESUMED, name, "");
        log_warn("account.resumed", LF_STR("account", name), LF_STR("by", control_peer_name(rq)),
                 LF_UINT("uid", control_peer_uid(rq)));
    }
    finish(g, rq, r, "account.resume", name, "");
}

static void account_suspensions(void *arg, struct control_request *rq, const json_t *request)
{
    struct guard_process *g = arg;
    const struct suspension *s = NULL;
    (void)request;
    while ((s = suspend_next(g->suspend, s)) != NULL) {
        char since[32];
        audit_time(s->since_ms, since);
        (void)control_line(
            rq, json_pack("{s:s,s:s,s:s,s:s}", "name", s->account, "reason", s->reason, "by", s->by, "since", since));
    }
    control_done(rq, NULL);
}

/* "1d", "2h", "10m", "30s", "500ms". */
static void window_text(uint64_t ms, char text[static 32])
{
    static const struct {
        uint64_t ms;
        const char *suffix;
    } units[] = {{86400000, "d"}, {3600000, "h"}, {60000, "m"}, {1000, "s"}, {1, "ms"}};
    size_t i = 0;
    while (ms % units[i].ms != 0) {
        i++;
    }
    (void)snprintf(text, 32, "%" PRIu64 "%s", ms / units[i].ms, units[i].suffix);
}

static json_t *usage_json(const struct limits_usage *u)
{
    char window[32], free_at[32];
    window_text(u->limit->window_ms, window);
    audit_time(u->free_ms > 0 ? u->free_ms + 999 : 0, free_at);
    return json_pack("{s:s,s:s,s:s,s:s,s:s,s:I,s:I,s:s}", "limit", u->limit->name, "per",
                     u->limit->subject == LIMIT_ACCOUNT ? "account" : "network", "subject", u->subject, "count",
                     u->limit->unit == LIMIT_MESSAGES ? "messages" : "recipients", "window", window, "used",
                     (json_int_t)u->used, "allowed", (json_int_t)u->limit->amount, "free_at", free_at);
}

static void guard_limits(void *arg, struct control_request *rq, const json_t *request)
{
    struct guard_process *g = arg;
    char name[ACCOUNT_NAME_MAX + 1];
    const char *text = json_string_value(json_object_get(request, "address"));
    struct net_address address;
    struct limits_usage usage[LIMITS_MAX];
    if (!get_name(rq, request, "account", name)) {
        return;
    }
    if (text != NULL && net_address_parse(text, &address) < 0) {
        control_fail(rq, EX_USAGE, "\"address\" must be an IPv4 or IPv6 address");
        return;
    }
    size_t count = limits_usage(g->limits, span_str(name), text != NULL ? &address : NULL, guard_moment(g), usage);
    for (size_t i = 0; i < count; i++) {
        (void)control_line(rq, usage_json(&usage[i]));
    }
    control_done(rq, NULL);
}

static void guard_status(void *arg, struct control_request *rq, const json_t *request)
{
    struct guard_process *g = arg;
    json_t *figures = json_object();
    (void)request;
    guard_figures(g, figures);
    (void)json_object_set_new(figures, "table_live",
                              json_integer((json_int_t)table_live(g->table, guard_moment(g).table_ns)));
    control_done(rq, figures);
}

static void run_audit_list(void *arg, struct control_request *rq, const json_t *request)
{
    struct guard_process *g = arg;
    char name[ACCOUNT_NAME_MAX + 1];
    bool whose = json_object_get(request, "account") != NULL;
    if (!whose || get_name(rq, request, "account", name)) {
        control_audit_list(rq, g->audit, request, whose ? name : NULL);
    }
}

const struct control_verb guard_verbs[] = {
    {"account.suspend", account_suspend},
    {"account.resume", account_resume},
    {"account.suspensions", account_suspensions},
    {"guard.limits", guard_limits},
    {"guard.status", guard_status},
    {"audit.list", run_audit_list},
    {NULL, NULL},
};
