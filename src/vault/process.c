/*
 * The vault's process: the only one that reads secrets. It answers submit with verdicts, hears from the guard who is
 * suspended, obeys its control socket. Passwords are checked on its own threads; everything else, the store too, runs
 * on the loop.
 */
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "vault/vault_int.h"
#include "wire/guard.h"

#define USED_EVERY_MS 30000

static int on_submit_frame(struct vault_peer *p, const struct frame *f, struct span payload)
{
    switch ((enum vault_type)f->type) {
    case VAULT_VERIFY:
        return login_verify(p, f->id, payload);
    case VAULT_SCRAM_SALT:
        return login_salt(p, f->id, payload);
    case VAULT_SCRAM_PROOF:
        return login_proof(p, f->id, payload);
    case VAULT_CERTIFICATE:
        return login_certificate(p, f->id, payload);
    case VAULT_CANCEL:
        login_cancel(p, f->id);
        return payload.len == 0 ? 0 : -1;
    case VAULT_SALT:
    case VAULT_VERDICT:
    case VAULT_ACCOUNT_CHANGED:
        break;
    }
    return -1;
}

static int on_guard_frame(struct vault_peer *p, const struct frame *f, struct span payload)
{
    struct guard_suspension m;
    if (f->type == GUARD_TOLD_ALL) {
        suspended_retell_end(p->vault);
        return payload.len == 0 ? 0 : -1;
    }
    if ((f->type != GUARD_SUSPENDED && f->type != GUARD_RESUMED) || guard_suspension_decode(payload, &m) < 0) {
        return -1;
    }
    if (f->type == GUARD_SUSPENDED) {
        /* Without memory the channel ends: the guard tells it all again over the next. */
        return suspended_set(p->vault, m.account, m.words) < 0 ? -1 : 0;
    }
    suspended_unset(p->vault, m.account);
    return 0;
}

static int on_frame(struct peer *p, const struct frame *f, struct span payload)
{
    struct vault_peer *vp = (struct vault_peer *)p;
    return p->role == ROLE_SUBMIT  ? on_submit_frame(vp, f, payload)
           : p->role == ROLE_GUARD ? on_guard_frame(vp, f, payload)
                                   : -1;
}

/* The threads end before the loop does: they wake it. */
static void leave(struct vault *v)
{
    v->ended = true;
    pool_free(&v->pool);
    child_exit(v->child, 0);
}

static void on_gone(struct peer *p)
{
    struct vault *v = p->all->arg;
    login_forget_peer((struct vault_peer *)p);
    if (v->child->stopping && !peers_has(&v->peers, ROLE_SUBMIT)) {
        leave(v);
    }
}

static const struct peers_ops peers_ops = {.frame = on_frame, .gone = on_gone};

static void on_peer(struct child *c, enum master_role role, uint32_t instance, int fd)
{
    struct vault *v = c->arg;
    struct vault_peer *p = (struct vault_peer *)peers_take(&v->peers, c, role, instance, fd);
    if (p == NULL) {
        return;
    }
    p->vault = v;
    channel_read_pause(p->peer.channel, !v->ready);
    if (role == ROLE_GUARD) {
        suspended_retell_begin(v);
    }
}

void vault_account_changed(struct vault *v, int64_t id, const char *name)
{
    v->generation++;
    cache_forget(v->cache, id);
    for (struct peer *p = v->peers.first; p != NULL; p = p->next) {
        if (p->role == ROLE_SUBMIT) {
            struct wire_writer w = channel_begin(p->channel, VAULT_ACCOUNT_CHANGED, 0);
            wire_put_bytes(&w, span_str(name));
            (void)channel_end(p->channel, &w);
        }
    }
}

/* The threads' only touch of the loop. */
static void notify(void *arg)
{
    struct vault *v = arg;
    (void)uv_async_send(&v->reap);
}

static void on_reap(uv_async_t *h)
{
    struct vault *v = h->data;
    if (v->pool != NULL) {
        pool_reap(v->pool);
    }
}

static void on_used(uv_timer_t *t)
{
    login_store_used(t->data);
}

static int on_start(struct child *c)
{
    struct vault *v = c->arg;
    v->child = c;
    if (sodium_init() < 0) {
        return -EIO;
    }
    /* SQLite wants a path; its folder is the one we were given, and after the sandbox nothing else can be reached. */
    if (c->directory_fd < 0 || fchdir(c->directory_fd) != 0) {
        return c->directory_fd < 0 ? -EBADF : -errno;
    }
    clock_boot_id(v->boot_id);
    v->used_timer.data = v->grace.data = v->reap.data = v;
    (void)uv_async_init(c->loop, &v->reap, on_reap);
    (void)uv_timer_init(c->loop, &v->used_timer);
    (void)uv_timer_init(c->loop, &v->grace);
    return 0;
}

struct guess_settings vault_guess_settings(const struct vault *v)
{
    const struct config *c = v->child->config->config;
    return (struct guess_settings){.first_ms = c->accounts.guess_delay_first_ms,
                                   .max_ms = c->accounts.guess_delay_max_ms,
                                   .free = c->accounts.guesses_free,
                                   .good_ms = VAULT_KNOWN_MS};
}

static int on_reload(struct child *c, struct child_tls *tls, size_t tls_count)
{
    struct vault *v = c->arg;
    (void)tls;
    (void)tls_count;
    v->cache_ms = c->config->config->accounts.cache_ms;
    if (v->guess != NULL) {
        struct guess_settings settings = vault_guess_settings(v);
        guess_configure(v->guess, &settings);
    }
    return 0;
}

/* What an unknown name is checked against while the store has no password at all. */
static int make_dummy(struct vault *v)
{
    struct password p = {.len = 32};
    char hex[33];
    uint8_t octets[16];
    randombytes_buf(octets, sizeof(octets));
    (void)sodium_bin2hex(hex, sizeof(hex), octets, sizeof(octets));
    memcpy(p.text, hex, sizeof(hex));
    int r = password_hash(&p, v->dummy_hash);
    password_wipe(&p);
    return r;
}

/* Names stand there only as hashes under a key that the account store keeps. */
static int open_guesses(struct vault *v)
{
    static const char purpose[] = "kidoban guesses";
    struct guess_settings settings = vault_guess_settings(v);
    struct guess_start start = {.records = VAULT_GUESS_MAX, .good_records = VAULT_GOOD_MAX, .now_ms = clock_mono_ms()};
    bool lasting;
    (void)crypto_generichash(start.key, sizeof(start.key), (const uint8_t *)purpose, sizeof(purpose),
                             store_key(v->store), STORE_KEY_LEN);
    memcpy(start.boot_id, v->boot_id, sizeof(start.boot_id));
    v->guess_memory = guess_file_map(v->child->directory_fd, VAULT_GUESS_FILE, VAULT_GUESS_OCTETS, &lasting);
    if (v->guess_memory == NULL) {
        return -ENOMEM;
    }
    if (!lasting) {
        log_warn("guesses.degraded",
                 LF_STR("what", "wrong guesses cannot be written; they are counted in memory only"));
    }
    start.memory = v->guess_memory;
    v->guess = guess_new(&start, &settings);
    explicit_bzero(&start, sizeof(start));
    return v->guess != NULL ? 0 : -ENOMEM;
}

static int open_all(struct vault *v)
{
    unsigned threads = v->child->config->config->accounts.workers;
    const struct pool_settings pool = {
        .threads = threads,
        .lane_max = {(size_t)VAULT_LANE_KNOWN * threads, (size_t)VAULT_LANE_OTHERS * threads},
        .budgets = {[POOL_PACE] = {VAULT_PACE_PERMILLE, (uint64_t)VAULT_PACE_MS * threads},
                    [POOL_ALLOWANCE] = {VAULT_ALLOWANCE_PERMILLE, (uint64_t)VAULT_ALLOWANCE_MS * threads}},
        .wait_ms = VAULT_WAIT_MS,
        .idle = password_rest,
        .idle_ms = VAULT_IDLE_MS,
        .notify = notify,
        .arg = v,
    };
    int r = store_open(VAULT_STORE_FILE, &v->store);
    if (r < 0) {
        log_error("accounts.unreadable", LF_ERR(r));
        return r;
    }
    r = open_guesses(v);
    v->cache = cache_new(VAULT_CACHE_MAX);
    v->pool = pool_new(&pool);
    return r < 0 || v->cache == NULL || v->pool == NULL ? -ENOMEM : make_dummy(v);
}

static int on_ready(struct child *c)
{
    struct vault *v = c->arg;
    int r = open_all(v);
    if (r == 0 && c->control_fd >= 0) {
        v->control = control_new(c->loop, c->control_fd, vault_verbs, v);
        r = v->control != NULL ? 0 : -ENOMEM;
    }
    if (r < 0) {
        return r;
    }
    v->ready = true;
    (void)uv_timer_start(&v->used_timer, on_used, USED_EVERY_MS, USED_EVERY_MS);
    for (struct peer *p = v->peers.first; p != NULL; p = p->next) {
        channel_read_pause(p->channel, false);
    }
    return 0;
}

static void on_grace(uv_timer_t *t)
{
    leave(t->data);
}

/* Sessions that drain may still log in. */
static void on_stop(struct child *c, uint32_t grace_ms)
{
    struct vault *v = c->arg;
    if (grace_ms == 0 || !peers_has(&v->peers, ROLE_SUBMIT)) {
        leave(v);
        return;
    }
    (void)uv_timer_start(&v->grace, on_grace, grace_ms, 0);
}

void vault_figures(const struct vault *v, json_t *into)
{
    const struct {
        const char *name;
        uint64_t value;
    } rows[] = {
        {"accounts", v->store != NULL ? store_account_count(v->store) : 0},
        {"succeeded", v->figures.succeeded},
        {"cached", v->figures.cached},
        {"failed", v->figures.failed},
        {"slowed", v->figures.slowed},
        {"suspended", v->figures.suspended},
        {"unavailable", v->figures.unavailable},
        {"waiting", v->logins_count},
        {"cache_entries", v->cache != NULL ? cache_count(v->cache) : 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        (void)json_object_set_new(into, rows[i].name, json_integer((json_int_t)rows[i].value));
    }
}

static void on_status(struct child *c, struct buf *json)
{
    json_t *figures = json_object();
    vault_figures(c->arg, figures);
    char *text = figures != NULL ? json_dumps(figures, JSON_COMPACT) : NULL;
    if (text != NULL) {
        (void)buf_append_str(json, text);
    }
    free(text);
    json_decref(figures);
}

int vault_main(uint32_t instance)
{
    static struct vault v = {.peers = {.ops = &peers_ops, .size = sizeof(struct vault_peer), .arg = &v}};
    static const struct child_ops ops = {.start = on_start,
                                         .ready = on_ready,
                                         .reload = on_reload,
                                         .peer = on_peer,
                                         .stop = on_stop,
                                         .status = on_status};
    int status = child_run(ROLE_VAULT, instance, &ops, &v);
    v.ended = true; /* from here nothing may touch the loop: it is gone */
    pool_free(&v.pool);
    if (v.store != NULL) {
        login_store_used(&v);
    }
    cache_free(&v.cache);
    guess_free(&v.guess);
    guess_file_unmap(&v.guess_memory, VAULT_GUESS_OCTETS);
    suspended_free(&v);
    store_close(&v.store);
    return status;
}
