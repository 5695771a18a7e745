/*
 * What an operator may change of the gate while it runs, and ask about it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "common/clock.h"
#include "common/log.h"
#include "gate/keeper_int.h"

#define REASON_MAX 400U
#define SUGGESTION 256
/* What is shorter opens the gate rather than makes an exception of it. */
#define SHORTEST_V4 8
#define SHORTEST_V6 16

/* Of the request; what fails is answered here. */

static bool get_words(struct control_request *rq, const json_t *request, struct runtime_words *ret)
{
    const char *reason = json_string_value(json_object_get(request, "reason"));
    const json_t *by = json_object_get(request, "by");
    if (!audit_words_are_permitted(span_str(reason), REASON_MAX)) {
        control_fail(rq, EX_USAGE, "a reason of 1 to %u octets in one line is needed", REASON_MAX);
        return false;
    }
    if (by != NULL && !audit_words_are_permitted(span_str(json_string_value(by)), RUNTIME_BY_MAX)) {
        control_fail(rq, EX_USAGE, "who it is by should be 1 to %u octets in one line", RUNTIME_BY_MAX);
        return false;
    }
    *ret = (struct runtime_words){.reason = (char *)reason,
                                  .by = (char *)(by != NULL ? json_string_value(by) : control_peer_name(rq))};
    return true;
}

/* "192.0.2.5/24": what may have been meant. */
static void suggest(const char *text, char ret[static SUGGESTION])
{
    char host[64];
    struct net_prefix net;
    size_t len = strcspn(text, "/");
    unsigned long bits = text[len] == '/' ? strtoul(text + len + 1, NULL, 10) : 0;
    ret[0] = '\0';
    (void)snprintf(host, sizeof(host), "%.*s", (int)(len < sizeof(host) ? len : sizeof(host) - 1), text);
    if (len >= sizeof(host) || config_gate_prefix_parse(host, &net) != NULL) {
        return;
    }
    struct policy_prefix p = policy_prefix_of(&net);
    if (bits > p.bits) {
        return;
    }
    p.bits = (uint8_t)bits;
    for (unsigned bit = p.bits; bit < (p.v6 ? 128U : 32U); bit++) {
        p.bytes[bit / 8] &= (uint8_t) ~(0x80U >> bit % 8);
    }
    char network[POLICY_PREFIX_TEXT];
    policy_prefix_format(&p, network);
    (void)snprintf(ret, SUGGESTION, ": write %s for the network, or %s for the one address", network, host);
}

static bool get_prefix(struct control_request *rq, const json_t *request, struct policy_prefix *ret)
{
    const char *text = json_string_value(json_object_get(request, "prefix"));
    struct net_prefix net;
    char meant[SUGGESTION] = "";
    const char *wrong = text != NULL ? config_gate_prefix_parse(text, &net) : "is not a prefix";
    if (wrong != NULL && strstr(wrong, "bits set") != NULL) {
        suggest(text, meant);
    }
    if (wrong != NULL) {
        control_fail(rq, EX_USAGE, "\"%.64s\" %s%s", text != NULL ? text : "", wrong,
                     meant[0] != '\0' ? meant : "; write it like 192.0.2.7, 192.0.2.0/24 or 2001:db8:7::/48");
        return false;
    }
    *ret = policy_prefix_of(&net);
    return true;
}

static bool get_until(struct control_request *rq, const json_t *request, uint64_t now_ms, uint64_t *ret)
{
    const json_t *until = json_object_get(request, "until");
    const char *text = json_string_value(until);
    *ret = 0;
    int r = until == NULL ? 0 : text != NULL ? runtime_until_parse(text, now_ms, ret) : -EINVAL;
    if (r == -ERANGE) {
        control_fail(rq, EX_USAGE, "\"%.64s\" should be a time to come, within ten years", text);
    } else if (r < 0) {
        control_fail(rq, EX_USAGE,
                     "\"%.64s\" is not a time; write it like 2026-12-01T00:00:00Z, or from now: 7d, 12h, 30m",
                     text != NULL ? text : "");
    }
    return r == 0;
}

/* Logs the act, and does it; takes next. False after failing the request. */
static bool act(struct keeper *k, struct control_request *rq, const struct change *what, struct runtime **take_next)
{
    if (!changes_log(k, rq, what)) {
        runtime_free(take_next);
        control_fail(rq, EX_IOERR, "nothing was changed: the audit log cannot be written");
        return false;
    }
    int r = changes_commit(k, take_next);
    if (r < 0) {
        char verb[64];
        struct change failed = *what;
        (void)snprintf(verb, sizeof(verb), "%s failed", what->verb);
        failed.verb = verb;
        (void)changes_log(k, rq, &failed);
        control_fail(rq, EX_IOERR, "nothing was changed: %s", strerror(-r));
    }
    return r == 0;
}

static const char *behalf(const json_t *request)
{
    return json_string_value(json_object_get(request, "by"));
}

/* Exemptions */

void verb_exempt_add(void *arg, struct control_request *rq, const json_t *request)
{
    struct keeper *k = arg;
    uint64_t now = runtime_now(k->runtime, clock_wall_ms());
    struct runtime_exemption e = {.added_ms = now / 1000 * 1000};
    if (!get_prefix(rq, request, &e.prefix) || !get_until(rq, request, now, &e.until_ms) ||
        !get_words(rq, request, &e.words)) {
        return;
    }
    char prefix[POLICY_PREFIX_TEXT], subject[POLICY_PREFIX_TEXT + 32], until[24];
    policy_prefix_format(&e.prefix, prefix);
    if (e.prefix.bits < (e.prefix.v6 ? SHORTEST_V6 : SHORTEST_V4)) {
        control_fail(rq, EX_USAGE,
                     "%s is too much for an exemption (at most a /%d of IPv4, a /%d of IPv6); what may send is a class",
                     prefix, SHORTEST_V4, SHORTEST_V6);
        return;
    }
    bool replaces = runtime_exemption_of(k->runtime, &e.prefix) != NULL;
    struct runtime *next = runtime_copy(k->runtime);
    int r = next != NULL ? runtime_exempt(next, &e, now) : -ENOMEM;
    if (r < 0) {
        runtime_free(&next);
        control_fail(rq, r == -E2BIG ? EX_CANTCREAT : EX_OSERR,
                     r == -E2BIG
                         ? "there are %d exemptions, and no more are kept; what is more is a class with port25: allow"
                         : "no memory for one of %d exemptions",
                     RUNTIME_EXEMPTIONS_MAX);
        return;
    }
    runtime_time_format(e.until_ms, until);
    (void)snprintf(subject, sizeof(subject), "%s%s%s", prefix, e.until_ms != 0 ? " until " : "",
                   e.until_ms != 0 ? until : "");
    const struct change what = {
        .verb = "gate.exempt.add", .subject = subject, .reason = e.words.reason, .on_behalf_of = behalf(request)};
    if (act(k, rq, &what, &next)) {
        const struct runtime_exemption *kept = runtime_exemption_of(k->runtime, &e.prefix);
        log_info("gate.exemption.added", LF_STR("prefix", prefix), LF_STR("until", e.until_ms != 0 ? until : ""),
                 LF_STR("reason", e.words.reason), LF_STR("by", e.words.by), LF_UINT("uid", control_peer_uid(rq)));
        json_t *answer = kept != NULL ? runtime_exemption_json(kept) : json_object();
        (void)json_object_set_new(answer, "replaced", json_boolean(replaces));
        control_done(rq, answer);
    }
}

void verb_exempt_list(void *arg, struct control_request *rq, const json_t *request)
{
    struct keeper *k = arg;
    uint64_t now = runtime_now(k->runtime, clock_wall_ms());
    (void)request;
    for (size_t i = 0; i < k->runtime->exemptions_count; i++) {
        const struct runtime_exemption *e = &k->runtime->exemptions[i];
        if (e->until_ms == 0 || e->until_ms > now) {
            (void)control_line(rq, runtime_exemption_json(e));
        }
    }
    control_done(rq, NULL);
}

void verb_exempt_remove(void *arg, struct control_request *rq, const json_t *request)
{
    struct keeper *k = arg;
    struct policy_prefix p;
    struct runtime_words words;
    char prefix[POLICY_PREFIX_TEXT], covering[POLICY_PREFIX_TEXT];
    if (!get_prefix(rq, request, &p) || !get_words(rq, request, &words)) {
        return;
    }
    policy_prefix_format(&p, prefix);
    const struct runtime_exemption *wider = runtime_covering(k->runtime, &p);
    if (runtime_exemption_of(k->runtime, &p) == NULL) {
        if (wider != NULL) {
            policy_prefix_format(&wider->prefix, covering);
        }
        control_fail(rq, 1, wider != NULL ? "%s is not exempted by itself, but within %s" : "%s is not exempted%s",
                     prefix, wider != NULL ? covering : "");
        return;
    }
    struct runtime *next = runtime_copy(k->runtime);
    if (next == NULL) {
        control_fail(rq, EX_OSERR, "no memory");
        return;
    }
    (void)runtime_unexempt(next, &p, clock_wall_ms());
    const struct change what = {
        .verb = "gate.exempt.remove", .subject = prefix, .reason = words.reason, .on_behalf_of = behalf(request)};
    if (act(k, rq, &what, &next)) {
        log_info("gate.exemption.removed", LF_STR("prefix", prefix), LF_STR("reason", words.reason),
                 LF_STR("by", words.by), LF_UINT("uid", control_peer_uid(rq)));
        control_done(rq, NULL);
    }
}

/* Modes */

static bool get_mode(struct keeper *k, struct control_request *rq, const json_t *request, struct runtime_mode *ret)
{
    const char *mode = json_string_value(json_object_get(request, "mode"));
    const char *name = json_string_value(json_object_get(request, "class"));
    *ret = (struct runtime_mode){.since_ms = runtime_now(k->runtime, clock_wall_ms()) / 1000 * 1000};
    ret->monitor = mode != NULL && strcmp(mode, "monitor") == 0;
    if (mode == NULL || (!ret->monitor && strcmp(mode, "enforce") != 0)) {
        control_fail(rq, EX_USAGE, "a mode is enforce or monitor");
        return false;
    }
    (void)snprintf(ret->class_, sizeof(ret->class_), "%s", name != NULL ? name : "");
    int r = runtime_mode_written(&k->child->config->config->gate, name != NULL ? name : "", &ret->was_monitor);
    if (r == -ENOENT) {
        control_fail(rq, EX_USAGE, "there is no class \"%.64s\" in the configuration", name);
    } else if (r < 0) {
        control_fail(rq, EX_USAGE, "class %.64s neither denies nor monitors, so it has no mode", name);
    }
    return r == 0;
}

static void mode_set(struct keeper *k, struct control_request *rq, const json_t *request)
{
    struct runtime_mode m;
    if (!get_mode(k, rq, request, &m) || !get_words(rq, request, &m.words)) {
        return;
    }
    struct runtime *next = runtime_copy(k->runtime);
    int r = next != NULL ? runtime_mode_set(next, &m, m.since_ms) : -ENOMEM;
    if (r < 0) {
        runtime_free(&next);
        control_fail(rq, EX_OSERR, "nothing was changed: %s", strerror(-r));
        return;
    }
    char subject[RUNTIME_CLASS_MAX + 32];
    const char *word = m.monitor ? "monitor" : "enforce";
    (void)snprintf(subject, sizeof(subject), "%s%s: %s", m.class_[0] != '\0' ? "class " : "gate", m.class_, word);
    const struct change what = {
        .verb = "gate.mode", .subject = subject, .reason = m.words.reason, .on_behalf_of = behalf(request)};
    if (act(k, rq, &what, &next)) {
        log_warn("gate.mode", LF_STR("class", m.class_), LF_STR("mode", word), LF_STR("reason", m.words.reason),
                 LF_STR("by", m.words.by), LF_UINT("uid", control_peer_uid(rq)));
        control_done(rq, NULL);
    }
}

/* As it is in force, with where that comes from. */
static json_t *mode_line(const struct keeper *k, const char *class_, bool monitor)
{
    const struct runtime_mode *m = runtime_mode_of(k->runtime, class_);
    json_t *line = m != NULL ? runtime_mode_json(m)
                             : json_pack("{s:s?,s:s}", "class", class_[0] != '\0' ? class_ : NULL, "mode",
                                         monitor ? "monitor" : "enforce");
    (void)json_object_set_new(line, "from", json_string(m != NULL ? "run time" : "configuration"));
    return line;
}

json_t *changes_modes(const struct keeper *k)
{
    const struct config_gate *g = &k->child->config->config->gate;
    json_t *list = json_array();
    (void)json_array_append_new(list, mode_line(k, "", g->monitor));
    for (size_t i = 0; i < g->classes_count; i++) {
        bool monitor;
        if (runtime_mode_written(g, g->classes[i].name, &monitor) == 0) {
            (void)json_array_append_new(list, mode_line(k, g->classes[i].name, monitor));
        }
    }
    return list;
}

/* Without "mode" it tells. */
void verb_mode(void *arg, struct control_request *rq, const json_t *request)
{
    struct keeper *k = arg;
    if (json_object_get(request, "mode") != NULL) {
        mode_set(k, rq, request);
        return;
    }
    json_t *list = changes_modes(k), *line;
    size_t i;
    json_array_foreach(list, i, line)
    {
        (void)control_line(rq, json_incref(line));
    }
    json_decref(list);
    control_done(rq, NULL);
}

/* All of it, as runtime_parse() reads it. */
void verb_runtime(void *arg, struct control_request *rq, const json_t *request)
{
    const struct keeper *k = arg;
    (void)request;
    control_done(rq, runtime_json(k->runtime));
}

void verb_audit(void *arg, struct control_request *rq, const json_t *request)
{
    struct keeper *k = arg;
    control_audit_list(rq, k->audit, request, NULL);
}
