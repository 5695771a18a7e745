/*
 * The submit process: its peers, and who hears their answers. It reads the network, and so has neither files nor
 * the right to make a connection; everything else is a question over a channel.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "submit/submit_int.h"

#define TURNS_US 200U /* of strangers, before the loop looks for events of others: a handshake at most, as a rule */

/* The vault. */

static struct session *asked(struct submit *sb, uint64_t question)
{
    struct session *s = NULL;
    HASH_FIND(asked_hh, sb->asked, &question, sizeof(question), s);
    return s;
}

static void cut_account(struct submit *sb, struct span account, const char *text, const char *why)
{
    static const uint8_t enhanced[3] = {4, 7, 1};
    struct session *next;
    for (struct session *s = sb->sessions; s != NULL; s = next) {
        next = s->next;
        if (s->account != NULL && span_eq(span_str(s->account), account)) {
            session_cut(s, 421, enhanced, text, why);
        }
    }
}

static int on_account_changed(struct submit *sb, struct span payload)
{
    struct wire_reader r = wire_reader(payload);
    struct span account = wire_get_bytes(&r, VAULT_NAME_MAX);
    if (wire_reader_end(&r) < 0) {
        return -1;
    }
    cut_account(sb, account, "This account was changed; log in again", "account changed");
    return 0;
}

static int on_vault_frame(void *arg, const struct frame *f, struct span payload, int fd)
{
    struct submit *sb = arg;
    struct session *s = asked(sb, f->id);
    struct vault_verdict verdict;
    struct vault_salt salt;
    if (fd >= 0) {
        (void)close(fd);
    }
    switch (f->type) {
    case VAULT_VERDICT:
        if (vault_verdict_decode(payload, &verdict) < 0) {
            return -1;
        }
        if (s != NULL) {
            session_verdict(s, &verdict);
        }
        return 0;
    case VAULT_SALT:
        if (vault_salt_decode(payload, &salt) < 0) {
            return -1;
        }
        if (s != NULL) {
            session_salt(s, &salt);
        }
        return 0;
    case VAULT_ACCOUNT_CHANGED:
        return on_account_changed(sb, payload);
    default:
        return -1;
    }
}

static void vault_gone(struct submit *sb)
{
    struct session *s, *next;
    channel_free(&sb->vault);
    HASH_ITER(asked_hh, sb->asked, s, next)
    {
        session_vault_lost(s);
    }
}

static void on_vault_closed(void *arg, const char *why)
{
    struct submit *sb = arg;
    vault_gone(sb);
    child_peer_broken(sb->child, ROLE_VAULT, 0, why);
}

/* The guard. */

static int on_guard_frame(void *arg, const struct frame *f, struct span payload, int fd)
{
    struct submit *sb = arg;
    struct guard_answer answer;
    struct guard_suspension suspension;
    if (fd >= 0) {
        (void)close(fd);
    }
    switch (f->type) {
    case GUARD_ANSWER:
        if (guard_answer_decode(payload, &answer) < 0) {
            return -1;
        }
        intake_guard_answer(sb, f->id, &answer);
        return 0;
    case GUARD_SUSPENDED:
        if (guard_suspension_decode(payload, &suspension) < 0) {
            return -1;
        }
        cut_account(sb, suspension.account, "This account is suspended", "account suspended");
        return 0;
    case GUARD_RESUMED:
    case GUARD_TOLD_ALL:
        return 0; /* the vault keeps the door */
    default:
        return -1;
    }
}

static void guard_gone(struct submit *sb)
{
    channel_free(&sb->guard);
    intake_guard_lost(sb);
}

static void on_guard_closed(void *arg, const char *why)
{
    struct submit *sb = arg;
    guard_gone(sb);
    child_peer_broken(sb->child, ROLE_GUARD, 0, why);
}

/* The spool. */

static void set_spool_state(struct submit *sb, const struct spool_state *state)
{
    size_t len = state->text.len < SPOOL_TEXT_MAX ? state->text.len : SPOOL_TEXT_MAX;
    sb->spool_state = *state;
    if (len > 0) {
        memcpy(sb->spool_words, state->text.ptr, len);
    }
    sb->spool_state.text = (struct span){(const uint8_t *)sb->spool_words, len};
}

static int on_spool_frame(void *arg, const struct frame *f, struct span payload, int fd)
{
    struct submit *sb = arg;
    struct spool_refused refused;
    struct spool_state state;
    if (fd >= 0) {
        (void)close(fd);
    }
    switch (f->type) {
    case SPOOL_STORED:
        intake_stored(sb, f->id);
        return 0;
    case SPOOL_REFUSED:
        if (spool_refused_decode(payload, &refused) < 0) {
            return -1;
        }
        intake_refused(sb, f->id, &refused);
        return 0;
    case SPOOL_STATE:
        if (spool_state_decode(payload, &state) < 0) {
            return -1;
        }
        set_spool_state(sb, &state);
        return 0;
    default:
        return -1;
    }
}

static void spool_gone(struct submit *sb)
{
    channel_free(&sb->spool);
    intake_spool_lost(sb);
}

static void on_spool_closed(void *arg, const char *why)
{
    struct submit *sb = arg;
    spool_gone(sb);
    child_peer_broken(sb->child, ROLE_SPOOL, 0, why);
}

static void on_spool_drained(void *arg)
{
    intake_spool_drained(arg);
}

static const struct channel_ops vault_ops = {.frame = on_vault_frame, .closed = on_vault_closed};
static const struct channel_ops guard_ops = {.frame = on_guard_frame, .closed = on_guard_closed};
static const struct channel_ops spool_ops = {
    .frame = on_spool_frame, .closed = on_spool_closed, .drained = on_spool_drained};

static void on_peer(struct child *c, enum master_role role, uint32_t instance, int fd)
{
    struct submit *sb = c->arg;
    (void)instance; /* there is one of each */
    switch (role) {
    case ROLE_VAULT:
        if (sb->vault != NULL) {
            vault_gone(sb);
        }
        sb->vault = channel_new(c->loop, fd, &vault_ops, sb);
        if (sb->vault != NULL) {
            channel_keep_secret(sb->vault);
        }
        break;
    case ROLE_GUARD:
        if (sb->guard != NULL) {
            guard_gone(sb);
        }
        sb->guard = channel_new(c->loop, fd, &guard_ops, sb);
        break;
    case ROLE_SPOOL:
        if (sb->spool != NULL) {
            spool_gone(sb);
        }
        set_spool_state(sb, &(struct spool_state){.accepting = 1});
        sb->spool = channel_new(c->loop, fd, &spool_ops, sb);
        break;
    default:
        (void)close(fd);
        break;
    }
}

/* The master. */

static int on_reload(struct child *c, struct child_tls *tls, size_t tls_count)
{
    struct submit *sb = c->arg;
    const char *why = "out of memory";
    struct submit_settings *fresh = NULL;
    int r = submit_settings_new(c->config, tls, tls_count, &fresh, &why);
    if (r < 0) {
        log_error("tls.refused", LF_STR("reason", why));
        return r;
    }
    door_close(sb); /* the master holds the sockets open and sends them again: nobody is refused meanwhile */
    submit_settings_drop(&sb->settings);
    sb->settings = fresh;
    return 0;
}

static int on_start(struct child *c)
{
    struct submit *sb = c->arg;
    sb->child = c;
    sb->crowd = c->shared_fd >= 0 ? crowd_open(c->shared_fd, c->instance) : NULL;
    sb->familiar = c->shared_fd >= 0 ? familiar_open(c->shared_fd) : NULL;
    if (sb->crowd == NULL || sb->familiar == NULL) {
        return -ENOMEM;
    }
    turns_init(&sb->turns, c->loop, TURNS_US);
    door_init(sb);
    sb->minter.worker = c->instance;
    sb->minter.counter = (uint32_t)(clock_mono_ns() >> 4);
    return 0;
}

static void on_stop_timer(uv_timer_t *t)
{
    struct submit *sb = t->data;
    child_exit(sb->child, 0);
}

/* Whoever is between messages is told at once; who is in the middle of one may finish it. Who stands at the door is
 * greeted first: a connection that we have taken was not refused. */
static void on_stop(struct child *c, uint32_t grace_ms)
{
    static const uint8_t enhanced[3] = {4, 3, 2};
    struct submit *sb = c->arg;
    door_close(sb);
    sb->stopping = true;
    struct session *next;
    for (struct session *s = sb->sessions; s != NULL; s = next) {
        next = s->next;
        if (s->transaction == NULL) {
            session_cut(s, 421, enhanced, "This server restarts; connect again in a moment", "server stops");
        }
    }
    (void)uv_timer_init(c->loop, &sb->stop_timer);
    sb->stop_timer.data = sb;
    (void)uv_timer_start(&sb->stop_timer, on_stop_timer, grace_ms, 0);
    if (sb->sessions_count == 0) {
        child_exit(c, 0);
    }
}

static void on_status(struct child *c, struct buf *json)
{
    const struct submit *sb = c->arg;
    const struct submit_counters *n = &sb->counters;
    (void)buf_printf(json,
                     "{\"sessions_open\":%zu,\"sessions\":%llu,\"sessions_refused\":%llu,\"tls_failed\":%llu,"
                     "\"messages\":%llu,\"refused\":%llu,\"auth_ok\":%llu,\"auth_failed\":%llu",
                     sb->sessions_count, (unsigned long long)n->sessions, (unsigned long long)n->sessions_refused,
                     (unsigned long long)n->tls_failed, (unsigned long long)n->messages, (unsigned long long)n->refused,
                     (unsigned long long)n->auth_ok, (unsigned long long)n->auth_failed);
    for (int i = 0; i < SMTP_EVENT_COUNT; i++) {
        if (n->events[i] > 0) {
            (void)buf_printf(json, ",\"%s\":%llu", smtp_event_name((enum smtp_event)i),
                             (unsigned long long)n->events[i]);
        }
    }
    (void)buf_append_byte(json, '}');
}

static const struct child_ops child_callbacks = {
    .start = on_start,
    .reload = on_reload,
    .peer = on_peer,
    .listener = door_open,
    .stop = on_stop,
    .status = on_status,
};

int submit_main(uint32_t instance)
{
    static struct submit submit;
    return child_run(ROLE_SUBMIT, instance, &child_callbacks, &submit);
}
