/*
 * Opening the gate, and shutting it again: an operator says why, it is written down, and then done.
 *
 * While it is open nothing of ours sits on any interface. The mark of it is a folder beside the pins: it outlives the
 * keeper, and not the machine's boot; and where the house starts anew, the gate is shut. The mark is set before the
 * first program goes and taken before the first one comes, so that a keeper that dies in between leaves what the next
 * one brings to its end.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "common/log.h"
#include "gate/keeper_int.h"

#define MARK       "open"
#define REASON_MAX 400U

int opening_load(struct keeper *k)
{
    struct stat st;
    k->open = lstat(MARK, &st) == 0 && S_ISDIR(st.st_mode); /* nothing else opens it */
    if (k->open && !k->child->again) {
        k->open = false;
        return unlinkat(AT_FDCWD, MARK, AT_REMOVEDIR) == 0 ? 0 : -errno;
    }
    if (k->open) {
        log_warn("gate.open", LF_STR("what", "an operator opened the gate; kidoban gate attach shuts it"));
    }
    return 0;
}

/* Logs it; NULL after failing the request. */
static const char *begin(struct keeper *k, struct control_request *rq, const json_t *request, const char *verb)
{
    const char *reason = json_string_value(json_object_get(request, "reason"));
    if (!audit_words_are_permitted(span_str(reason), REASON_MAX)) {
        control_fail(rq, EX_USAGE, "a reason of 1 to %u octets in one line is needed", REASON_MAX);
        return NULL;
    }
    if (!k->loaded) {
        control_fail(rq, 1, "the configuration names no interface: nothing sits anywhere");
        return NULL;
    }
    const struct change what = {.verb = verb, .subject = "gate", .reason = reason};
    if (!changes_log(k, rq, &what)) {
        control_fail(rq, EX_IOERR, "nothing was changed: the audit log cannot be written");
        return NULL;
    }
    return reason;
}

static void finish(struct keeper *k, struct control_request *rq, int r)
{
    json_t *interfaces = figures_interfaces(k);
    if (r < 0) {
        control_fail(rq, EX_UNAVAILABLE, "not everywhere: %s (see the log)", strerror(-r));
        json_decref(interfaces);
        return;
    }
    control_done(rq, json_pack("{s:b,s:o}", "open", k->open, "interfaces", interfaces));
}

void verb_detach(void *arg, struct control_request *rq, const json_t *request)
{
    struct keeper *k = arg;
    const char *reason = begin(k, rq, request, "gate.detach");
    if (reason == NULL) {
        return;
    }
    if (mkdir(MARK, 0700) != 0 && errno != EEXIST) {
        control_fail(rq, EX_IOERR, "nothing was changed: %s", strerror(errno));
        return;
    }
    k->open = true;
    log_warn("gate.opened", LF_STR("by", control_peer_name(rq)), LF_STR("reason", reason));
    finish(k, rq, interfaces_follow(k));
}

void verb_attach(void *arg, struct control_request *rq, const json_t *request)
{
    struct keeper *k = arg;
    const char *reason = begin(k, rq, request, "gate.attach");
    if (reason == NULL) {
        return;
    }
    if (unlinkat(AT_FDCWD, MARK, AT_REMOVEDIR) != 0 && errno != ENOENT) {
        control_fail(rq, EX_IOERR, "nothing was changed: %s", strerror(errno));
        return;
    }
    k->open = false;
    log_info("gate.shut", LF_STR("by", control_peer_name(rq)), LF_STR("reason", reason));
    finish(k, rq, interfaces_again(k));
}
