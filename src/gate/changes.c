/*
 * What operators change while the gate runs: logged, saved, put into force, and only then answered. What is in the way
 * of one of these leaves everything as it was.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <sysexits.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "gate/brief.h"
#include "gate/keeper_int.h"

#define LONGEST_WAIT_MS (UINT64_C(24) * 3600 * 1000)
#define FAR_FUTURE_S    (INT64_C(1) << 40)

/* The log */

bool changes_log(struct keeper *k, struct control_request *rq, const struct change *what)
{
    const struct audit_entry e = {.what = what->verb,
                                  .subject = what->subject,
                                  .reason = what->reason,
                                  .by = rq != NULL ? control_peer_name(rq) : "kidoband",
                                  .uid = rq != NULL ? control_peer_uid(rq) : (unsigned)getuid(),
                                  .on_behalf_of = what->on_behalf_of,
                                  .wall_ms = clock_wall_ms()};
    int r = audit_append(k->audit, &e);
    if (r < 0) {
        log_error("audit.failed", LF_ERR(r), LF_STR("what", what->verb), LF_STR("subject", what->subject));
    }
    return r == 0;
}

/* The set */

static void set_aside(const struct keeper *k)
{
    char name[64];
    int r = runtime_set_aside(k->state_fd, clock_wall_ms(), name);
    if (r < 0) {
        log_error("gate.runtime.damaged", LF_STR("file", "runtime.json"), LF_ERR(r));
    } else {
        log_error("gate.runtime.damaged", LF_STR("file", name));
    }
}

int changes_open(struct keeper *k)
{
    k->state_fd = openat(k->child->directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    k->clock_fd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    int r = k->state_fd >= 0 && k->clock_fd >= 0 ? audit_open(k->state_fd, &k->audit) : -errno;
    r = r == 0 ? runtime_load(k->state_fd, &k->runtime) : r;
    if (r == -EBADMSG) {
        set_aside(k);
        k->runtime = runtime_new();
        r = k->runtime != NULL ? 0 : -ENOMEM;
        if (r == 0) {
            k->runtime->last_id = clock_wall_ms() / 1000; /* beyond what was lost */
        }
    }
    if (r < 0) {
        log_error("gate.runtime.failed", LF_ERR(r));
    }
    return r;
}

/* What holds anyway. */
static void save(const struct keeper *k)
{
    int r = runtime_save(k->state_fd, k->runtime);
    if (r < 0) {
        log_error("gate.runtime.failed", LF_ERR(r));
    }
}

int changes_commit(struct keeper *k, struct runtime **take_next)
{
    struct runtime *next = *take_next, *old = k->runtime;
    *take_next = NULL;
    int r = runtime_save(k->state_fd, next);
    if (r == 0) {
        k->runtime = next;
        r = keeper_apply(k);
    }
    if (r == 0) {
        runtime_free(&old);
        changes_wait(k);
        return 0;
    }
    k->runtime = old;
    runtime_free(&next);
    save(k);
    return r;
}

static void log_dropped(void *arg, const struct runtime_mode *m)
{
    struct keeper *k = arg;
    const struct change what = {.verb = "gate.mode.dropped",
                                .subject = m->class_[0] != '\0' ? m->class_ : "gate",
                                .reason = "the configuration says otherwise now"};
    (void)changes_log(k, NULL, &what);
    log_warn("gate.mode", LF_STR("class", m->class_), LF_STR("mode", m->was_monitor ? "enforce" : "monitor"),
             LF_STR("by", "kidoband"), LF_STR("reason", what.reason));
}

/* Without a file that can be written they are dropped all the same: they hold no more (gate/runtime.h). */
void changes_reloaded(struct keeper *k, const struct config_gate *before)
{
    char text[BRIEF_MAX] = "";
    const struct config_gate *now = &k->child->config->config->gate;
    if (before != NULL) {
        brief_changes(before, now, text);
    }
    if (text[0] != '\0') {
        const struct change what = {.verb = "gate.reload", .subject = "gate", .reason = text};
        (void)changes_log(k, NULL, &what);
    }
    if (runtime_reconcile(k->runtime, now, log_dropped, k) > 0) {
        save(k);
    }
}

/* Ends */

static void log_end(void *arg, const struct runtime_exemption *e)
{
    char prefix[POLICY_PREFIX_TEXT];
    (void)arg;
    policy_prefix_format(&e->prefix, prefix);
    log_info("gate.exemption.ended", LF_STR("prefix", prefix), LF_STR("reason", e->words.reason),
             LF_STR("by", e->words.by));
}

/* The kernel has ended them by itself; here they leave the lists. */
static void on_end(uv_timer_t *t)
{
    struct keeper *k = t->data;
    if (runtime_prune(k->runtime, runtime_now(k->runtime, clock_wall_ms()), log_end, k) > 0) {
        save(k);
        watchers_tell(k);
    }
    changes_wait(k);
}

void changes_wait(struct keeper *k)
{
    uint64_t end = runtime_next_end(k->runtime), now = runtime_now(k->runtime, clock_wall_ms());
    if (!k->running || end == 0) {
        return;
    }
    uint64_t wait = end > now ? end - now : 0;
    uv_update_time(k->child->loop);
    (void)uv_timer_start(&k->ends, on_end, wait < LONGEST_WAIT_MS ? wait + 1 : LONGEST_WAIT_MS, 0);
}

/* Somebody sets the wall clock: a timer that will never come due is cancelled by it. */
static void arm_clock(const struct keeper *k)
{
    const struct itimerspec never = {.it_value = {.tv_sec = FAR_FUTURE_S}};
    (void)timerfd_settime(k->clock_fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, NULL);
}

static void on_clock(uv_poll_t *h, int status, int events)
{
    struct keeper *k = h->data;
    uint64_t count;
    (void)status;
    (void)events;
    if (read(k->clock_fd, &count, sizeof(count)) >= 0 || errno != ECANCELED) {
        return;
    }
    arm_clock(k);
    log_warn("gate.clock", LF_STR("what", "the wall clock was set; the ends of exemptions are computed anew"));
    k->runtime->known_ms = clock_wall_ms(); /* also where it went back: whoever set it is believed */
    save(k);
    (void)keeper_apply(k);
    on_end(&k->ends);
}

int changes_run(struct keeper *k)
{
    uv_loop_t *loop = k->child->loop;
    int r = uv_timer_init(loop, &k->ends);
    r = r == 0 ? uv_poll_init(loop, &k->clock, k->clock_fd) : r;
    k->ends.data = k->clock.data = k;
    arm_clock(k);
    r = r == 0 ? uv_poll_start(&k->clock, UV_READABLE, on_clock) : r;
    k->running = r == 0;
    if (r == 0) {
        on_end(&k->ends);
    }
    return r == 0 ? watchers_run(k) : r;
}

void changes_free(struct keeper *k)
{
    runtime_free(&k->runtime);
    audit_close(&k->audit);
    if (k->state_fd >= 0) {
        (void)close(k->state_fd);
    }
    if (k->clock_fd >= 0) {
        (void)close(k->clock_fd);
    }
}
