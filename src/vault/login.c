/*
 * A login: from submit's question to the verdict.
 *
 * What is typed comes from strangers. Known and unknown names go the same way: the same hash time (an unknown name is
 * checked against some hash of this store), the same words, the same slowing. A password that was right or wrong a
 * moment ago is answered from the cache without a hash. An answer that must wait waits with a timer, not with a thread.
 */
#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/hash.h"
#include "vault/vault_int.h"

/* Logins under way from one network that is being slowed. */
struct slowed {
    uint8_t network[16];
    unsigned count;
    UT_hash_handle hh;
};

struct used {
    int64_t secret;
    uint64_t at_ms;
    UT_hash_handle hh;
};

struct login {
    struct pool_job job; /* first: the pool's pointer is ours */
    struct vault *vault;
    struct vault_peer *peer; /* NULL: nobody wants the answer any more */
    uint64_t question, session;
    struct net_address address;
    char mechanism[24];
    char name[ACCOUNT_NAME_MAX + 1]; /* normalised; empty: it cannot be one */
    struct account *account;         /* NULL: there is none */
    uint64_t generation;
    struct slowed *slowed; /* counted there */

    /* For the thread. */
    struct password password;
    char hash[PASSWORD_HASH_MAX];
    bool upgrade; /* when right, make what the store lacks */
    int verified; /* password_verify() */
    bool has_made;
    struct store_secret made;

    bool has_digest;
    struct cache_digest digest;

    uint8_t status; /* enum vault_status */
    int64_t secret; /* which one was right */
    const char *reason;
    uint8_t signature[SCRAM_KEY_MAX];
    size_t signature_len;
    bool held;
    uv_timer_t timer;
    UT_hash_handle hh;
};

static void login_free(struct login *l)
{
    struct vault *v = l->vault;
    if (l->peer != NULL) {
        HASH_DEL(l->peer->logins, l);
    }
    if (l->slowed != NULL && --l->slowed->count == 0) {
        HASH_DEL(v->slowed, l->slowed);
        free(l->slowed);
    }
    account_drop(&l->account);
    v->logins_count--;
    explicit_bzero(l, sizeof(*l));
    free(l);
}

static void send_verdict(struct vault_peer *p, uint64_t question, const struct vault_verdict *m)
{
    (void)FAULT_POINT("vault.answer");
    struct wire_writer w = channel_begin(p->peer.channel, VAULT_VERDICT, question);
    vault_verdict_encode(&w, m);
    (void)channel_end(p->peer.channel, &w);
}

static void send_status(struct vault_peer *p, uint64_t question, uint8_t status)
{
    const struct vault_verdict m = {.status = status};
    send_verdict(p, question, &m);
}

/* What the user of a suspended account is told: the operator's words when a client of any age can read them. */
static void suspended_text(const struct vault *v, const char *words, char text[static VAULT_TEXT_MAX])
{
    const char *url = v->child->config->config->operator_.help_url;
    bool plain = words[0] != '\0', link = url != NULL && url[0] != '\0' && strlen(url) < 200;
    for (const char *p = words; *p != '\0'; p++) {
        plain = plain && *p >= 0x20 && *p < 0x7f;
    }
    (void)snprintf(text, VAULT_TEXT_MAX, "This account is suspended%s%.200s%s%s%s", plain ? ": " : "",
                   plain ? words : "", link ? " (" : "", link ? url : "", link ? ")" : "");
}

/* Right credentials, or the account's suspension. */
static void send_account(struct vault *v, struct vault_peer *p, uint64_t question, const struct account *a,
                         const char *words, struct span signature)
{
    struct vault_verdict m = {.status = words != NULL ? VAULT_SUSPENDED : VAULT_OK, .account = span_str(a->name)};
    char text[VAULT_TEXT_MAX];
    if (words != NULL) {
        suspended_text(v, words, text);
        m.text = span_str(text);
    } else {
        m.server_signature = signature;
        for (size_t i = 0; i < a->identities_count; i++) {
            m.identities[i] = span_str(a->identities[i]);
        }
        m.identities_count = (uint16_t)a->identities_count;
    }
    send_verdict(p, question, &m);
}

/* Last uses. */

void login_store_used(struct vault *v)
{
    struct store_used *list = calloc(HASH_COUNT(v->used) + 1, sizeof(*list));
    size_t count = 0;
    struct used *u, *next;
    HASH_ITER(hh, v->used, u, next)
    {
        if (list != NULL) {
            list[count++] = (struct store_used){u->secret, u->at_ms};
        }
        HASH_DEL(v->used, u);
        free(u);
    }
    if (count > 0) {
        (void)store_used(v->store, list, count); /* it is only for show: a failure is logged and forgotten */
    }
    free(list);
}

static void note_used(struct vault *v, int64_t secret)
{
    struct used *u;
    HASH_FIND(hh, v->used, &secret, sizeof(secret), u);
    if (u == NULL && HASH_COUNT(v->used) >= VAULT_USED_MAX) {
        login_store_used(v);
    }
    if (u == NULL) {
        u = calloc(1, sizeof(*u));
        if (u == NULL) {
            return;
        }
        u->secret = secret;
        HASH_ADD(hh, v->used, secret, sizeof(u->secret), u);
        if (!hash_added(u->hh)) {
            free(u);
            return;
        }
    }
    u->at_ms = clock_wall_ms();
}

/* The log. */

static const char *secret_label(const struct account *a, int64_t secret)
{
    for (size_t i = 0; i < a->secrets_count; i++) {
        if (a->secrets[i].id == secret) {
            return a->secrets[i].label;
        }
    }
    return "";
}

static void log_success(uint64_t session, const struct account *a, const struct net_address *address,
                        struct span mechanism, int64_t secret, uint32_t guesses)
{
    char text[NET_ADDRESS_TEXT];
    net_address_format(address, text);
    log_info("auth.succeeded", LF_ID("session", session), LF_STR("account", a->name), LF_STR("address", text),
             LF_SPAN("mechanism", mechanism), LF_STR("app_password", secret_label(a, secret)),
             LF_UINT("guesses", guesses));
}

/* A name nobody has may be a password typed into the wrong field: it is written only when it looks like a name. */
static const char *name_for_log(const struct login *l)
{
    return l->account != NULL || strchr(l->name, '@') != NULL ? l->name : "";
}

static void log_failure(const struct login *l, const struct guess_outcome *o)
{
    char text[NET_ADDRESS_TEXT];
    net_address_format(&l->address, text);
    log_info("auth.failed", LF_ID("session", l->session), LF_STR("account", name_for_log(l)), LF_STR("address", text),
             LF_STR("mechanism", l->mechanism), LF_STR("reason", l->reason), LF_UINT("repeated", o->repeated),
             LF_UINT("wait_ms", o->wait_ms));
}

static void unavailable(struct vault *v, uint64_t session, const struct net_address *address, const char *reason)
{
    char text[NET_ADDRESS_TEXT];
    net_address_format(address, text);
    v->figures.unavailable++;
    log_warn("auth.unavailable", LF_ID("session", session), LF_STR("address", text), LF_STR("reason", reason));
}

/* The end of a login. */

static void answer(struct login *l)
{
    struct vault *v = l->vault;
    if (l->peer != NULL && (l->status == VAULT_OK || l->status == VAULT_SUSPENDED)) {
        /* Looked at again: the suspension may have come while the answer waited. */
        const char *words = suspended_find(v, l->account->name);
        send_account(v, l->peer, l->question, l->account, words,
                     (struct span){l->signature, words == NULL ? l->signature_len : 0});
    } else if (l->peer != NULL) {
        send_status(l->peer, l->question, l->status);
    }
}

static void on_timer_closed(uv_handle_t *h)
{
    login_free(h->data);
}

/* Nobody wants the answer, or it was given. What a thread works on is freed when it is done, and still counts as a
 * guess. */
static void detach(struct login *l)
{
    HASH_DEL(l->peer->logins, l);
    l->peer = NULL;
    if (l->held) {
        uv_close((uv_handle_t *)&l->timer, on_timer_closed);
    }
}

static void on_timer(uv_timer_t *t)
{
    answer(t->data);
    detach(t->data);
}

static void answer_after(struct login *l, uint64_t wait_ms)
{
    struct vault *v = l->vault;
    if (wait_ms == 0 || l->peer == NULL) {
        answer(l);
        login_free(l);
        return;
    }
    v->figures.slowed++;
    log_info("auth.slowed", LF_ID("session", l->session), LF_STR("account", name_for_log(l)),
             LF_UINT("wait_ms", wait_ms));
    explicit_bzero(&l->password, sizeof(l->password));
    (void)uv_timer_init(v->child->loop, &l->timer);
    l->timer.data = l;
    l->held = true;
    (void)uv_timer_start(&l->timer, on_timer, wait_ms, 0);
}

static struct guess_who who_of(const struct login *l)
{
    return (struct guess_who){.account = span_str(l->name), .peer = l->address};
}

static void end_right(struct login *l)
{
    struct vault *v = l->vault;
    struct guess_who who = who_of(l);
    uint64_t now_ms = clock_mono_ms();
    /* The wait is measured before the success counts: a right answer must not be told from a wrong one by its time. */
    uint64_t wait_ms = guess_wait_ms(v->guess, &who, now_ms);
    uint32_t guesses = guess_count(v->guess, &who, now_ms);
    guess_succeeded(v->guess, &who, now_ms);
    if (l->has_digest && v->cache_ms > 0) {
        cache_add_right(v->cache, &l->digest, l->account, l->secret, now_ms + v->cache_ms);
    }
    note_used(v, l->secret);
    bool suspended = suspended_find(v, l->account->name) != NULL;
    l->status = suspended ? VAULT_SUSPENDED : VAULT_OK;
    if (suspended) {
        struct guess_outcome none = {.wait_ms = wait_ms};
        l->reason = "suspended";
        v->figures.suspended++;
        log_failure(l, &none);
    } else {
        v->figures.succeeded++;
        log_success(l->session, l->account, &l->address, span_str(l->mechanism), l->secret, guesses);
    }
    answer_after(l, wait_ms);
}

static void end_wrong(struct login *l, const char *reason)
{
    struct vault *v = l->vault;
    struct guess_who who = who_of(l);
    uint64_t now_ms = clock_mono_ms();
    struct span what = {l->digest.bytes, l->has_digest ? sizeof(l->digest.bytes) : 0};
    struct guess_outcome o = guess_failed(v->guess, &who, what, now_ms);
    if (l->has_digest && l->generation == v->generation) {
        cache_add_wrong(v->cache, &l->digest, now_ms + VAULT_WRONG_MS);
    }
    v->figures.failed++;
    l->reason = reason;
    l->status = VAULT_BAD_CREDENTIALS;
    log_failure(l, &o);
    answer_after(l, o.wait_ms);
}

static void end_unavailable(struct login *l, const char *reason)
{
    unavailable(l->vault, l->session, &l->address, reason);
    l->status = VAULT_UNAVAILABLE;
    answer_after(l, 0);
}

static void end_as_known(struct login *l, bool right, const char *reason)
{
    if (right && l->generation != l->vault->generation) {
        end_unavailable(l, "the account changed meanwhile"); /* asked again, it finds what holds now */
    } else if (right) {
        end_right(l);
    } else {
        end_wrong(l, reason);
    }
}

/* The beginning of a login. */

static struct slowed *slowed_of(struct vault *v, const struct net_address *address, bool make)
{
    uint8_t network[16];
    struct slowed *s;
    guess_network(address, network);
    HASH_FIND(hh, v->slowed, network, sizeof(network), s);
    if (s == NULL && make) {
        s = calloc(1, sizeof(*s));
        if (s != NULL) {
            memcpy(s->network, network, sizeof(network));
            HASH_ADD(hh, v->slowed, network, sizeof(s->network), s);
            if (!hash_added(s->hh)) {
                free(s);
                s = NULL;
            }
        }
    }
    return s;
}

/* Who is being slowed may have few logins under way: else he would only ask in parallel. The world's guessing at the
 * account does not count here, or it would keep its owner out; nor a neighbour's, for who is known from there. */
static bool admit(struct login *l)
{
    struct vault *v = l->vault;
    struct guess_who who = who_of(l);
    uint64_t now_ms = clock_mono_ms();
    bool known = guess_is_known(v->guess, &who, now_ms);
    if ((known ? guess_wait_ms(v->guess, &who, now_ms) : guess_network_wait_ms(v->guess, &who, now_ms)) == 0) {
        return true;
    }
    struct slowed *s = slowed_of(v, &l->address, true);
    if (s == NULL || s->count >= VAULT_SLOWED_MAX) {
        return false;
    }
    s->count++;
    l->slowed = s;
    return true;
}

/* NULL after an answer: too many, or no memory. */
static struct login *login_new(struct vault_peer *p, uint64_t question, uint64_t session,
                               const struct net_address *address, struct span mechanism)
{
    struct vault *v = p->vault;
    struct login *l = NULL, *old;
    HASH_FIND(hh, p->logins, &question, sizeof(question), old);
    if (v->logins_count < VAULT_LOGINS_MAX && old == NULL) {
        l = calloc(1, sizeof(*l));
    }
    if (l != NULL) {
        l->question = question;
        HASH_ADD(hh, p->logins, question, sizeof(l->question), l);
    }
    if (l == NULL || !hash_added(l->hh)) {
        free(l);
        unavailable(v, session, address, "too many logins");
        send_status(p, question, VAULT_UNAVAILABLE);
        return NULL;
    }
    v->logins_count++;
    l->vault = v;
    l->peer = p;
    l->session = session;
    l->address = *address;
    l->generation = v->generation;
    (void)snprintf(l->mechanism, sizeof(l->mechanism), "%.*s", (int)mechanism.len, (const char *)mechanism.ptr);
    return l;
}

/* Finds the account of a typed name. 0, or -errno of the store. */
static int find_account(struct login *l, struct span name)
{
    if (account_name_normalise(name, l->name) < 0) {
        l->name[0] = '\0';
        return 0;
    }
    int r = store_account_load(l->vault->store, l->name, &l->account);
    return r == -ENOENT ? 0 : r;
}

/* On a thread. */
static void run(struct pool_job *job)
{
    struct login *l = (struct login *)job;
    l->verified = password_verify(l->hash, &l->password);
    job->free = l->verified == 1 && l->account != NULL;
    struct span text = {(const uint8_t *)l->password.text, l->password.len};
    if (l->verified == 1 && l->upgrade) {
        struct span salt = {l->account->scram_salt, SCRAM_SALT_LEN};
        memcpy(l->made.hash, l->hash, sizeof(l->made.hash));
        l->has_made = (!password_hash_is_weak(l->hash) || password_hash(&l->password, l->made.hash) == 0) &&
                      scram_derive(SCRAM_SHA1, text, salt, l->account->scram_iterations, &l->made.sha1) == 0 &&
                      scram_derive(SCRAM_SHA256, text, salt, l->account->scram_iterations, &l->made.sha256) == 0;
        l->made.has_scram = l->has_made;
    }
    password_wipe(&l->password);
}

static void done(struct pool_job *job)
{
    struct login *l = (struct login *)job;
    const struct secret *main = l->account != NULL ? account_main(l->account) : NULL;
    if (l->vault->ended) {
        login_free(l);
        return;
    }
    if (job->dropped || l->verified == -ENOMEM) {
        end_unavailable(l, job->dropped ? "stopping" : "out of memory");
        return;
    }
    bool right = l->verified == 1 && main != NULL;
    l->secret = right ? main->id : 0;
    if (right && l->has_made && l->generation == l->vault->generation) {
        (void)store_secret_upgrade(l->vault->store, main->id, &l->made);
    }
    end_as_known(l, right, l->account != NULL ? "wrong password" : "unknown account");
}

/* An app password is too long to be guessed, so one fast hash tells. */
static bool is_app_password(struct login *l, struct span password)
{
    char hash[APP_HASH_LEN];
    bool right = false;
    if (l->account == NULL || !app_password_hash(password, hash)) {
        return false;
    }
    for (size_t i = 0; i < l->account->secrets_count; i++) {
        const struct secret *x = &l->account->secrets[i];
        if (x->kind == SECRET_APP && x->revoked_ms == 0 && strlen(x->hash) == strlen(hash) &&
            sodium_memcmp(x->hash, hash, strlen(hash)) == 0) {
            l->secret = x->id;
            right = true;
        }
    }
    explicit_bzero(hash, sizeof(hash));
    return right;
}

/* What the name has, or what a name here might have. */
static void choose_hash(struct login *l)
{
    struct vault *v = l->vault;
    const struct secret *main = l->account != NULL ? account_main(l->account) : NULL;
    if (main != NULL) {
        memcpy(l->hash, main->hash, sizeof(l->hash));
        l->upgrade = !main->has_scram || password_hash_is_weak(main->hash);
        return;
    }
    uint64_t chance;
    uint8_t key[crypto_shorthash_KEYBYTES];
    memcpy(key, store_key(v->store), sizeof(key));
    (void)crypto_shorthash((uint8_t *)&chance, (const uint8_t *)l->name, strlen(l->name), key);
    if (store_sample_hash(v->store, chance, l->hash) < 0) {
        memcpy(l->hash, v->dummy_hash, sizeof(l->hash));
    }
}

static void check_password(struct login *l, struct span password)
{
    struct vault *v = l->vault;
    if (is_app_password(l, password)) {
        end_as_known(l, true, NULL);
        return;
    }
    if (password_prepare(password, &l->password) < 0) {
        end_wrong(l, "not a password");
        return;
    }
    choose_hash(l);
    struct guess_who who = who_of(l);
    enum pool_lane lane = guess_is_known(v->guess, &who, clock_mono_ms()) ? POOL_KNOWN : POOL_STRANGER;
    l->job = (struct pool_job){.run = run, .done = done};
    if (v->pool == NULL || pool_submit(v->pool, lane, &l->job) < 0) {
        end_unavailable(l, "too many passwords to check");
    }
}

/* The short way: no hash, no thread, no allocation. false: it is not one of those. */
static bool answer_from_cache(struct vault_peer *p, uint64_t question, const struct vault_verify *m,
                              const struct cache_hit *hit)
{
    struct vault *v = p->vault;
    struct guess_who who = {.account = span_str(hit->account->name), .peer = m->peer};
    uint64_t now_ms = clock_mono_ms();
    const char *words = suspended_find(v, hit->account->name);
    if (words != NULL || guess_wait_ms(v->guess, &who, now_ms) > 0) {
        return false;
    }
    guess_succeeded(v->guess, &who, now_ms);
    note_used(v, hit->secret);
    v->figures.succeeded++;
    v->figures.cached++;
    send_account(v, p, question, hit->account, NULL, (struct span){0});
    log_success(m->session, hit->account, &m->peer, m->mechanism, hit->secret, 0);
    return true;
}

static void begin_verify(struct vault_peer *p, uint64_t question, const struct vault_verify *m)
{
    struct vault *v = p->vault;
    struct cache_digest digest;
    struct cache_hit hit;
    cache_digest_make(v->cache, m->name, m->password, &digest);
    enum cache_answer cached = cache_find(v->cache, &digest, clock_mono_ms(), &hit);
    if (cached == CACHE_RIGHT && answer_from_cache(p, question, m, &hit)) {
        return;
    }
    struct login *l = login_new(p, question, m->session, &m->peer, m->mechanism);
    if (l == NULL) {
        return;
    }
    l->has_digest = true;
    l->digest = digest;
    if (find_account(l, m->name) < 0) {
        end_unavailable(l, "the store does not answer");
    } else if (!admit(l)) {
        end_unavailable(l, "too many logins from a network that is slowed");
    } else if (cached == CACHE_RIGHT && l->account != NULL) {
        l->secret = hit.secret;
        end_right(l);
    } else if (cached == CACHE_WRONG) {
        end_wrong(l, l->account != NULL ? "wrong password" : "unknown account");
    } else {
        check_password(l, m->password);
    }
}

int login_verify(struct vault_peer *p, uint64_t question, struct span payload)
{
    struct vault_verify m;
    if (vault_verify_decode(payload, &m) < 0) {
        return -1;
    }
    begin_verify(p, question, &m);
    /* The octets are the channel's own buffer, which is writable: the password must not wait there to be overwritten.
     */
    explicit_bzero((void *)(uintptr_t)m.password.ptr, m.password.len);
    return 0;
}

int login_salt(struct vault_peer *p, uint64_t question, struct span payload)
{
    struct vault *v = p->vault;
    struct vault_scram_salt m;
    if (vault_scram_salt_decode(payload, &m) < 0) {
        return -1;
    }
    char name[ACCOUNT_NAME_MAX + 1];
    uint8_t salt[SCRAM_SALT_LEN];
    struct account *a = NULL;
    bool is_name = account_name_normalise(m.name, name) == 0;
    int r = is_name ? store_account_load(v->store, name, &a) : -ENOENT;
    scram_false_salt(store_key(v->store), is_name ? span_str(name) : m.name, salt);
    struct vault_salt answer_salt = {.status = r == 0 || r == -ENOENT ? VAULT_OK : VAULT_UNAVAILABLE,
                                     .iterations = a != NULL ? a->scram_iterations : SCRAM_ITERATIONS,
                                     .salt = {a != NULL ? a->scram_salt : salt, SCRAM_SALT_LEN}};
    if (answer_salt.status != VAULT_OK) {
        unavailable(v, m.session, &m.peer, "the store does not answer");
    }
    struct wire_writer w = channel_begin(p->peer.channel, VAULT_SALT, question);
    vault_salt_encode(&w, &answer_salt);
    (void)channel_end(p->peer.channel, &w);
    account_drop(&a);
    return 0;
}

/* All secrets share the salt that the client was told, so the proof may be of any of them. 1, 0, -ENOMEM. */
static int check_proof(struct login *l, const struct vault_scram_proof *m)
{
    enum scram_hash h = m->hash == VAULT_SHA1 ? SCRAM_SHA1 : SCRAM_SHA256;
    struct scram_keys none;
    scram_false_keys(store_key(l->vault->store), m->name, &none);
    int r = scram_check(h, &none, m->auth_message, m->proof, l->signature) < 0 ? -ENOMEM : 0;
    for (size_t i = 0; l->account != NULL && i < l->account->secrets_count && r == 0; i++) {
        const struct secret *x = &l->account->secrets[i];
        if (x->has_scram && x->revoked_ms == 0) {
            r = scram_check(h, h == SCRAM_SHA1 ? &x->sha1 : &x->sha256, m->auth_message, m->proof, l->signature);
            l->secret = r == 1 ? x->id : 0;
        }
    }
    l->signature_len = r == 1 ? scram_key_len(h) : 0;
    return r;
}

int login_proof(struct vault_peer *p, uint64_t question, struct span payload)
{
    struct vault_scram_proof m;
    if (vault_scram_proof_decode(payload, &m) < 0) {
        return -1;
    }
    struct login *l = login_new(p, question, m.session, &m.peer, m.mechanism);
    if (l == NULL) {
        return 0;
    }
    if (find_account(l, m.name) < 0) {
        end_unavailable(l, "the store does not answer");
    } else if (!admit(l)) {
        end_unavailable(l, "too many logins from a network that is slowed");
    } else {
        int r = check_proof(l, &m);
        if (r < 0) {
            end_unavailable(l, "out of memory");
        } else {
            end_as_known(l, r == 1, l->account != NULL ? "wrong password" : "unknown account");
        }
    }
    return 0;
}

/* Nobody guesses a certificate: nothing is slowed and nothing learned about the network. */
static void end_certificate(struct login *l)
{
    struct vault *v = l->vault;
    l->status = VAULT_OK;
    if (suspended_find(v, l->account->name) == NULL) {
        v->figures.succeeded++;
        log_success(l->session, l->account, &l->address, span_str(l->mechanism), 0, 0);
    } else {
        struct guess_outcome none = {0};
        l->reason = "suspended";
        v->figures.suspended++;
        log_failure(l, &none);
    }
    answer_after(l, 0);
}

/* By fingerprint; else by the address in it, or a common name that is an account's. The operator's authority vouches
 * for the certificate (TLS has checked that). 0, -ENOENT, or -errno. */
static int certificate_owner(struct store *s, const struct vault_certificate *m, char name[static ACCOUNT_NAME_MAX + 1])
{
    char identity[ACCOUNT_IDENTITY_MAX + 1];
    if (m->sha256.len == STORE_FINGERPRINT_LEN) {
        int r = store_certificate_owner(s, m->sha256.ptr, name);
        if (r != -ENOENT) {
            return r;
        }
    }
    if (m->mailbox.len > 0) {
        return account_identity_normalise(m->mailbox, identity) == 0 && identity[0] != '*'
                   ? store_identity_owner(s, identity, name)
                   : -ENOENT;
    }
    return account_name_normalise(m->subject, name) == 0 ? 0 : -ENOENT;
}

int login_certificate(struct vault_peer *p, uint64_t question, struct span payload)
{
    struct vault_certificate m;
    char owner[ACCOUNT_NAME_MAX + 1], wanted[ACCOUNT_NAME_MAX + 1];
    if (vault_certificate_decode(payload, &m) < 0) {
        return -1;
    }
    struct login *l = login_new(p, question, m.session, &m.peer, SPAN_LIT("EXTERNAL"));
    if (l == NULL) {
        return 0;
    }
    int r = certificate_owner(p->vault->store, &m, owner);
    r = r == 0 ? find_account(l, span_str(owner)) : r == -ENOENT || r == -ENOTUNIQ ? 0 : r;
    bool asked = m.authzid.len == 0 || (account_name_normalise(m.authzid, wanted) == 0 && strcmp(wanted, l->name) == 0);
    if (r < 0) {
        end_unavailable(l, "the store does not answer");
    } else if (l->account != NULL && asked) {
        end_certificate(l);
    } else {
        struct guess_outcome none = {0};
        l->vault->figures.failed++;
        l->status = VAULT_BAD_CREDENTIALS;
        l->reason = l->account != NULL ? "certificate of another account" : "unknown certificate";
        log_failure(l, &none);
        answer_after(l, 0);
    }
    return 0;
}

void login_cancel(struct vault_peer *p, uint64_t question)
{
    struct login *l;
    HASH_FIND(hh, p->logins, &question, sizeof(question), l);
    if (l != NULL) {
        detach(l);
    }
}

void login_forget_peer(struct vault_peer *p)
{
    struct login *l, *next;
    HASH_ITER(hh, p->logins, l, next)
    {
        detach(l);
    }
}
