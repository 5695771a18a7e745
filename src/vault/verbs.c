/*
 * What an operator may ask the vault. Passwords come in a request and are wiped from it; one goes out, once: a new app
 * password. Hashing is done by the pool like a login's, so no request stops the loop. Each change is an event with who
 * made it.
 */
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "common/clock.h"
#include "vault/vault_int.h"

#define IMPORT_MAX 5000U

/* A change that needs a hash first. */
struct change {
    struct pool_job job; /* first */
    struct vault *vault;
    struct control_request *rq;
    bool add; /* else: another password for it */
    char name[ACCOUNT_NAME_MAX + 1];
    char **identities;
    size_t identities_count;
    struct password password; /* empty: the hash was given */
    struct store_scram scram;
    struct store_secret secret;
    int error;
};

static void time_text(uint64_t wall_ms, char text[static 32])
{
    struct tm tm;
    time_t s = (time_t)(wall_ms / 1000);
    (void)gmtime_r(&s, &tm);
    if (wall_ms == 0 || strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0) {
        text[0] = '\0';
    }
}

/* The parsed request is the only copy of the password that we can reach; its octets are ours to clear. */
static void wipe_json(const json_t *string)
{
    const char *text = json_string_value(string);
    if (text != NULL) {
        explicit_bzero((void *)(uintptr_t)text, json_string_length(string));
    }
}

static struct span json_span(const json_t *string)
{
    return (struct span){(const uint8_t *)json_string_value(string), json_string_length(string)};
}

static bool get_name(struct control_request *rq, const json_t *request, const char *key,
                     char ret[static ACCOUNT_NAME_MAX + 1])
{
    if (account_name_normalise(json_span(json_object_get(request, key)), ret) < 0) {
        control_fail(rq, EX_USAGE, "\"%s\" must be an account's name: 1 to %u octets, no spaces, none of \"*<>\\", key,
                     ACCOUNT_NAME_MAX);
        return false;
    }
    return true;
}

static void fail(struct control_request *rq, int r, const char *name)
{
    switch (r) {
    case -ENOENT:
        control_fail(rq, 1, "there is no account %s", name);
        break;
    case -EEXIST:
        control_fail(rq, 1, "there is an account %s already", name);
        break;
    case -EBUSY:
        control_fail(rq, EX_TEMPFAIL, "another program holds accounts.db; nothing was changed");
        break;
    default:
        control_fail(rq, EX_IOERR, "nothing was changed: %s", strerror(-r));
        break;
    }
}

/* NULL after the request has failed. */
static struct account *get_account(struct vault *v, struct control_request *rq, const json_t *request, const char *key)
{
    char name[ACCOUNT_NAME_MAX + 1];
    struct account *a = NULL;
    if (!get_name(rq, request, key, name)) {
        return NULL;
    }
    int r = store_account_load(v->store, name, &a);
    if (r < 0) {
        fail(rq, r, name);
    }
    return a;
}

static void note(const char *event, struct control_request *rq, const char *name, const char *what)
{
    log_event(LOG_LEVEL_INFO, event,
              (const struct log_field[]){LF_STR("account", name), LF_STR("what", what),
                                         LF_STR("by", control_peer_name(rq)), LF_UINT("uid", control_peer_uid(rq))},
              4);
}

/* Accounts and passwords. */

static void change_free(struct change *x)
{
    for (size_t i = 0; i < x->identities_count; i++) {
        free(x->identities[i]);
    }
    free(x->identities);
    explicit_bzero(x, sizeof(*x));
    free(x);
}

/* On a thread. */
static void change_run(struct pool_job *job)
{
    struct change *x = (struct change *)job;
    struct span text = {(const uint8_t *)x->password.text, x->password.len}, salt = {x->scram.salt, SCRAM_SALT_LEN};
    x->error = password_hash(&x->password, x->secret.hash);
    x->error = x->error == 0 ? scram_derive(SCRAM_SHA1, text, salt, x->scram.iterations, &x->secret.sha1) : x->error;
    x->error =
        x->error == 0 ? scram_derive(SCRAM_SHA256, text, salt, x->scram.iterations, &x->secret.sha256) : x->error;
    x->secret.has_scram = x->error == 0;
    password_wipe(&x->password);
}

static int change_store(struct change *x)
{
    struct vault *v = x->vault;
    if (x->add) {
        return store_account_add(v->store, x->name, (const char *const *)x->identities, x->identities_count, &x->scram,
                                 &x->secret, clock_wall_ms());
    }
    struct account *a = NULL;
    int r = store_account_load(v->store, x->name, &a);
    /* Removed and made again meanwhile: the keys were made with another salt. */
    if (r == 0 && x->secret.has_scram && memcmp(a->scram_salt, x->scram.salt, SCRAM_SALT_LEN) != 0) {
        r = -EAGAIN;
    }
    r = r == 0 ? store_password_set(v->store, a->id, &x->secret, clock_wall_ms()) : r;
    if (r == 0) {
        vault_account_changed(v, a->id, a->name);
    }
    account_drop(&a);
    return r;
}

static void change_finish(struct change *x)
{
    int r = x->error < 0 ? x->error : change_store(x);
    if (r < 0) {
        fail(x->rq, r, x->name);
    } else {
        if (x->add) {
            cache_forget(x->vault->cache, 0); /* what failed for this name while there was no such account */
            x->vault->generation++;
        }
        note(x->add ? "account.added" : "account.password.changed", x->rq, x->name, "");
        control_done(x->rq, NULL);
    }
    change_free(x);
}

static void change_done(struct pool_job *job)
{
    struct change *x = (struct change *)job;
    if (x->vault->ended) {
        change_free(x);
        return;
    }
    if (job->dropped) {
        x->error = -EAGAIN;
    }
    change_finish(x);
}

/* 0, or the request has failed. */
static int take_secret(struct change *x, const json_t *request)
{
    const json_t *password = json_object_get(request, "password"), *hash = json_object_get(request, "hash");
    if ((json_is_string(password) ? 1 : 0) + (json_is_string(hash) ? 1 : 0) != 1) {
        control_fail(x->rq, EX_USAGE, "either \"password\" or \"hash\" is needed");
        return -EINVAL;
    }
    if (json_is_string(password)) {
        int r = password_prepare(json_span(password), &x->password);
        wipe_json(password);
        if (r < 0) {
            control_fail(x->rq, EX_DATAERR, "a password has 1 to %u octets of UTF-8 and no control characters",
                         PASSWORD_TEXT_MAX);
        }
        return r;
    }
    int r = password_hash_check(json_string_value(hash));
    if (r == 0) {
        (void)snprintf(x->secret.hash, sizeof(x->secret.hash), "%s", json_string_value(hash));
    } else if (r == -ERANGE) {
        control_fail(x->rq, EX_DATAERR, "this hash would take too long at each login");
    } else {
        control_fail(x->rq, EX_DATAERR, "not a hash that can be imported: $argon2id$, $y$, $2b$, $6$, $5$, $1$");
    }
    return r;
}

/* Normalises a JSON list into a new array. 0, -EINVAL with *ret_bad, -E2BIG, -ENOMEM. */
static int take_identities(const json_t *list, char ***ret, size_t *ret_count, const char **ret_bad)
{
    size_t count = json_array_size(list);
    *ret_count = 0;
    *ret_bad = "";
    *ret = count <= ACCOUNT_IDENTITIES_MAX ? calloc(count + 1, sizeof(**ret)) : NULL;
    if (*ret == NULL) {
        return count <= ACCOUNT_IDENTITIES_MAX ? -ENOMEM : -E2BIG;
    }
    for (size_t i = 0; i < count; i++) {
        char identity[ACCOUNT_IDENTITY_MAX + 1];
        const json_t *item = json_array_get(list, i);
        if (!json_is_string(item) || account_identity_normalise(json_span(item), identity) < 0) {
            *ret_bad = json_is_string(item) ? json_string_value(item) : "";
            return -EINVAL;
        }
        (*ret)[i] = strdup(identity);
        if ((*ret)[i] == NULL) {
            return -ENOMEM;
        }
        ++*ret_count;
    }
    return 0;
}

static void change_go(struct change *x)
{
    if (x->password.len == 0) {
        change_finish(x); /* the hash was given */
        return;
    }
    x->job = (struct pool_job){.run = change_run, .done = change_done};
    if (x->vault->pool == NULL || pool_submit(x->vault->pool, POOL_KNOWN, &x->job) < 0) {
        control_fail(x->rq, EX_TEMPFAIL, "too many passwords are being checked just now; try again");
        change_free(x);
    }
}

static struct change *change_new(struct vault *v, struct control_request *rq, bool add)
{
    struct change *x = calloc(1, sizeof(*x));
    if (x == NULL) {
        control_fail(rq, EX_OSERR, "out of memory");
        return NULL;
    }
    x->vault = v;
    x->rq = rq;
    x->add = add;
    x->scram.iterations = SCRAM_ITERATIONS;
    randombytes_buf(x->scram.salt, sizeof(x->scram.salt));
    return x;
}

static void account_add(void *arg, struct control_request *rq, const json_t *request)
{
    struct change *x = change_new(arg, rq, true);
    const char *bad;
    if (x == NULL) {
        return;
    }
    if (!get_name(rq, request, "name", x->name) || take_secret(x, request) < 0) {
        wipe_json(json_object_get(request, "password"));
        change_free(x);
        return;
    }
    int r = take_identities(json_object_get(request, "identities"), &x->identities, &x->identities_count, &bad);
    if (r == -EINVAL) {
        control_fail(rq, EX_USAGE, "\"%s\" is no identity: user@example.net, or *@example.net", bad);
    } else if (r < 0) {
        control_fail(rq, EX_USAGE, "an account has at most %u identities", ACCOUNT_IDENTITIES_MAX);
    }
    if (r < 0) {
        change_free(x);
        return;
    }
    change_go(x);
}

static void account_passwd(void *arg, struct control_request *rq, const json_t *request)
{
    struct vault *v = arg;
    struct change *x = change_new(v, rq, false);
    if (x == NULL) {
        return;
    }
    struct account *a = get_account(v, rq, request, "name");
    if (a == NULL || take_secret(x, request) < 0) {
        wipe_json(json_object_get(request, "password"));
        account_drop(&a);
        change_free(x);
        return;
    }
    memcpy(x->name, a->name, sizeof(x->name));
    memcpy(x->scram.salt, a->scram_salt, sizeof(x->scram.salt));
    x->scram.iterations = a->scram_iterations;
    account_drop(&a);
    change_go(x);
}

static json_t *identities_json(const struct account *a)
{
    json_t *list = json_array();
    for (size_t i = 0; i < a->identities_count; i++) {
        (void)json_array_append_new(list, json_string(a->identities[i]));
    }
    return list;
}

static size_t count_apps(const struct account *a)
{
    size_t count = 0;
    for (size_t i = 0; i < a->secrets_count; i++) {
        count += a->secrets[i].kind == SECRET_APP && a->secrets[i].revoked_ms == 0;
    }
    return count;
}

/* The scheme of a hash, "argon2id" or as crypt(5) names it; never the hash. */
static const char *scheme_of(const struct secret *x)
{
    static const struct {
        const char *prefix, *name;
    } rows[] = {{"$argon2id$", "argon2id"}, {"$y$", "yescrypt"},    {"$2", "bcrypt"},
                {"$6$", "sha512crypt"},     {"$5$", "sha256crypt"}, {"$1$", "md5crypt"}};
    for (size_t i = 0; x != NULL && i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (strncmp(x->hash, rows[i].prefix, strlen(rows[i].prefix)) == 0) {
            return rows[i].name;
        }
    }
    return x != NULL ? "unknown" : "none";
}

static const char *state_of(const struct vault *v, const struct account *a)
{
    return suspended_find(v, a->name) != NULL ? "suspended" : "active";
}

static void seen_certificate(void *arg, const uint8_t *sha256, const char *label, uint64_t created_ms)
{
    char hex[2 * STORE_FINGERPRINT_LEN + 1], created[32];
    (void)sodium_bin2hex(hex, sizeof(hex), sha256, STORE_FINGERPRINT_LEN);
    time_text(created_ms, created);
    (void)json_array_append_new(arg, json_pack("{s:s,s:s,s:s}", "sha256", hex, "label", label, "created", created));
}

static void account_show(void *arg, struct control_request *rq, const json_t *request)
{
    struct vault *v = arg;
    struct account *a = get_account(v, rq, request, "name");
    if (a == NULL) {
        return;
    }
    char created[32], used[32];
    const struct secret *main = account_main(a);
    json_t *certificates = json_array();
    time_text(a->created_ms, created);
    time_text(main != NULL ? main->last_used_ms : 0, used);
    (void)store_certificate_list(v->store, a->id, seen_certificate, certificates);
    json_t *o = json_pack("{s:s,s:s,s:s,s:o,s:s,s:b,s:s,s:I,s:o}", "name", a->name, "state", state_of(v, a), "created",
                          created, "identities", identities_json(a), "password", scheme_of(main), "scram",
                          main != NULL && main->has_scram, "last_used", used, "app_passwords",
                          (json_int_t)count_apps(a), "certificates", certificates);
    const char *words = suspended_find(v, a->name);
    if (words != NULL) {
        (void)json_object_set_new(o, "suspended", json_string(words));
    }
    (void)control_line(rq, o);
    control_done(rq, NULL);
    account_drop(&a);
}

/* A list goes out a screenful at a time: between them the loop serves logins. */
struct listing {
    struct vault *vault;
    struct control_request *rq;
    char after[ACCOUNT_NAME_MAX + 1];
    char names[64][ACCOUNT_NAME_MAX + 1];
    size_t count;
};

static bool list_name(void *arg, const char *name)
{
    struct listing *l = arg;
    (void)snprintf(l->names[l->count++], sizeof(l->names[0]), "%s", name);
    return l->count < sizeof(l->names) / sizeof(l->names[0]);
}

static void list_line(struct listing *l, const char *name)
{
    struct account *a = NULL;
    if (store_account_load(l->vault->store, name, &a) == 0) {
        (void)control_line(l->rq,
                           json_pack("{s:s,s:s,s:I,s:o}", "name", a->name, "state", state_of(l->vault, a),
                                     "app_passwords", (json_int_t)count_apps(a), "identities", identities_json(a)));
        account_drop(&a);
    }
}

static void list_more(struct control_request *rq, void *arg)
{
    struct listing *l = arg;
    int r = 0;
    do {
        l->count = 0;
        r = store_account_list(l->vault->store, l->after, list_name, l);
        for (size_t i = 0; i < l->count; i++) {
            list_line(l, l->names[i]);
        }
        if (l->count > 0) {
            memcpy(l->after, l->names[l->count - 1], sizeof(l->after));
        }
    } while (r == 0 && l->count > 0 && !control_is_full(rq));
    if (r == 0 && l->count > 0) {
        control_on_drain(rq, list_more, l, free);
        return;
    }
    free(l);
    if (r < 0) {
        fail(rq, r, "");
    } else {
        control_done(rq, NULL);
    }
}

static void account_list(void *arg, struct control_request *rq, const json_t *request)
{
    struct listing *l = calloc(1, sizeof(*l));
    (void)request;
    if (l == NULL) {
        control_fail(rq, EX_OSERR, "out of memory");
        return;
    }
    l->vault = arg;
    l->rq = rq;
    list_more(rq, l);
}

static void account_remove(void *arg, struct control_request *rq, const json_t *request)
{
    struct vault *v = arg;
    struct account *a = get_account(v, rq, request, "name");
    if (a == NULL) {
        return;
    }
    int r = store_account_remove(v->store, a->name);
    if (r < 0) {
        fail(rq, r, a->name);
    } else {
        vault_account_changed(v, a->id, a->name);
        note("account.removed", rq, a->name, "");
        control_done(rq, NULL);
    }
    account_drop(&a);
}

/* One account of an import. NULL when it was made, else why not. */
static const char *import_one(struct vault *v, const json_t *item, char name[static ACCOUNT_NAME_MAX + 1])
{
    struct store_secret secret = {0};
    struct store_scram scram = {.iterations = SCRAM_ITERATIONS};
    const char *hash = json_string_value(json_object_get(item, "hash")), *bad;
    char **identities = NULL;
    size_t count = 0;
    if (account_name_normalise(json_span(json_object_get(item, "name")), name) < 0) {
        return "not a name";
    }
    int r = hash != NULL ? password_hash_check(hash) : -EINVAL;
    if (r < 0) {
        return r == -ERANGE ? "this hash would take too long at each login" : "not a hash that can be imported";
    }
    r = take_identities(json_object_get(item, "identities"), &identities, &count, &bad);
    if (r == 0) {
        (void)snprintf(secret.hash, sizeof(secret.hash), "%s", hash);
        randombytes_buf(scram.salt, sizeof(scram.salt));
        r = store_account_add(v->store, name, (const char *const *)identities, count, &scram, &secret, clock_wall_ms());
    } else if (r == -EINVAL) {
        r = -EDOM;
    }
    for (size_t i = 0; i < count; i++) {
        free(identities[i]);
    }
    free(identities);
    return r == 0         ? NULL
           : r == -EEXIST ? "there is one already"
           : r == -EDOM   ? "an identity that is none"
           : r == -E2BIG  ? "too many identities"
                          : strerror(-r);
}

/* Many accounts, one sync. What cannot be imported is told and left out; the others are made. */
static void account_import(void *arg, struct control_request *rq, const json_t *request)
{
    struct vault *v = arg;
    const json_t *list = json_object_get(request, "accounts");
    size_t count = json_array_size(list), added = 0;
    if (count == 0 || count > IMPORT_MAX) {
        control_fail(rq, EX_USAGE, "\"accounts\" must be a list of 1 to %u", IMPORT_MAX);
        return;
    }
    int r = store_begin(v->store);
    for (size_t i = 0; i < count && r == 0; i++) {
        char name[ACCOUNT_NAME_MAX + 1] = "";
        const json_t *item = json_array_get(list, i);
        const char *why = import_one(v, item, name);
        added += why == NULL;
        if (why != NULL) {
            const char *raw = json_string_value(json_object_get(item, "name"));
            (void)control_line(
                rq, json_pack("{s:I,s:s,s:s}", "index", (json_int_t)i, "name", raw != NULL ? raw : "", "error", why));
        }
    }
    r = r == 0 ? store_commit(v->store) : r;
    if (r < 0) {
        fail(rq, r, "");
        return;
    }
    cache_forget(v->cache, 0);
    v->generation++;
    log_info("account.imported", LF_UINT("added", added), LF_UINT("refused", count - added),
             LF_STR("by", control_peer_name(rq)), LF_UINT("uid", control_peer_uid(rq)));
    control_done(rq, json_pack("{s:I,s:I}", "added", (json_int_t)added, "refused", (json_int_t)(count - added)));
}

/* Identities and certificates. */

static void change_identity(struct vault *v, struct control_request *rq, const json_t *request, bool add)
{
    char identity[ACCOUNT_IDENTITY_MAX + 1];
    const json_t *raw = json_object_get(request, "identity");
    if (account_identity_normalise(json_span(raw), identity) < 0) {
        control_fail(rq, EX_USAGE, "\"identity\" must be user@example.net, or *@example.net");
        return;
    }
    struct account *a = get_account(v, rq, request, "name");
    if (a == NULL) {
        return;
    }
    int r = add ? store_identity_add(v->store, a->id, identity) : store_identity_remove(v->store, a->id, identity);
    if (r == -EEXIST || r == -ENOENT) {
        control_fail(rq, 1, add ? "%s has the identity %s already" : "%s does not have the identity %s", a->name,
                     identity);
    } else if (r == -E2BIG) {
        control_fail(rq, EX_CANTCREAT, "an account has at most %u identities", ACCOUNT_IDENTITIES_MAX);
    } else if (r < 0) {
        fail(rq, r, a->name);
    } else {
        vault_account_changed(v, a->id, a->name);
        note(add ? "account.identity.added" : "account.identity.removed", rq, a->name, identity);
        control_done(rq, NULL);
    }
    account_drop(&a);
}

static void account_identity_add(void *arg, struct control_request *rq, const json_t *request)
{
    change_identity(arg, rq, request, true);
}

static void account_identity_remove(void *arg, struct control_request *rq, const json_t *request)
{
    change_identity(arg, rq, request, false);
}

/* "ab:cd:..." or without colons, 32 octets. */
static bool get_fingerprint(const json_t *request, uint8_t ret[static STORE_FINGERPRINT_LEN])
{
    struct span hex = json_span(json_object_get(request, "sha256"));
    size_t len = 0;
    return hex.len > 0 && hex.len <= 3 * STORE_FINGERPRINT_LEN &&
           sodium_hex2bin(ret, STORE_FINGERPRINT_LEN, (const char *)hex.ptr, hex.len, ":", &len, NULL) == 0 &&
           len == STORE_FINGERPRINT_LEN;
}

/* One line of UTF-8 (JSON saw to that), not too long. */
static bool label_is_permitted(struct span label)
{
    for (size_t i = 0; i < label.len; i++) {
        if (label.ptr[i] < 0x20 || label.ptr[i] == 0x7f) {
            return false;
        }
    }
    return label.len <= ACCOUNT_LABEL_MAX;
}

static void change_certificate(struct vault *v, struct control_request *rq, const json_t *request, bool add)
{
    uint8_t sha256[STORE_FINGERPRINT_LEN];
    const json_t *label = json_object_get(request, "label");
    if (!get_fingerprint(request, sha256)) {
        control_fail(rq, EX_USAGE, "\"sha256\" must be the certificate's SHA-256 fingerprint: 64 hexadecimal digits");
        return;
    }
    if (!label_is_permitted(json_span(label))) {
        control_fail(rq, EX_USAGE, "\"label\" must be one line of at most %u octets", ACCOUNT_LABEL_MAX);
        return;
    }
    struct account *a = get_account(v, rq, request, "name");
    if (a == NULL) {
        return;
    }
    const char *text = label != NULL && json_is_string(label) ? json_string_value(label) : "";
    int r = add ? store_certificate_add(v->store, a->id, sha256, text, clock_wall_ms())
                : store_certificate_remove(v->store, a->id, sha256);
    if (r == -EEXIST || r == -ENOENT) {
        control_fail(rq, 1, add ? "an account has this certificate already" : "%s does not have this certificate",
                     a->name);
    } else if (r < 0) {
        fail(rq, r, a->name);
    } else {
        if (!add) {
            vault_account_changed(v, a->id, a->name);
        }
        note(add ? "account.certificate.added" : "account.certificate.removed", rq, a->name, text);
        control_done(rq, NULL);
    }
    account_drop(&a);
}

static void account_certificate_add(void *arg, struct control_request *rq, const json_t *request)
{
    change_certificate(arg, rq, request, true);
}

static void account_certificate_remove(void *arg, struct control_request *rq, const json_t *request)
{
    change_certificate(arg, rq, request, false);
}

/* App passwords. */

static bool get_label(struct control_request *rq, const json_t *request, char ret[static ACCOUNT_LABEL_MAX + 1])
{
    struct span label = json_span(json_object_get(request, "label"));
    if (label.len == 0 || !label_is_permitted(label)) {
        control_fail(rq, EX_USAGE, "\"label\" must be one line of 1 to %u octets", ACCOUNT_LABEL_MAX);
        return false;
    }
    memcpy(ret, label.ptr, label.len);
    ret[label.len] = '\0';
    return true;
}

/* A few milliseconds of key derivation on the loop; an operator's act, and rare. */
static int make_app(const struct account *a, char text[static APP_PASSWORD_LEN + 1], struct store_secret *ret)
{
    app_password_make(text);
    struct span password = {(const uint8_t *)text, APP_PASSWORD_LEN}, salt = {a->scram_salt, SCRAM_SALT_LEN};
    bool hashed = app_password_hash(password, ret->hash);
    ret->has_scram = hashed && scram_derive(SCRAM_SHA1, password, salt, a->scram_iterations, &ret->sha1) == 0 &&
                     scram_derive(SCRAM_SHA256, password, salt, a->scram_iterations, &ret->sha256) == 0;
    return ret->has_scram ? 0 : -ENOMEM;
}

static void app_password_add(void *arg, struct control_request *rq, const json_t *request)
{
    struct vault *v = arg;
    char label[ACCOUNT_LABEL_MAX + 1], text[APP_PASSWORD_LEN + 1];
    struct store_secret secret = {0};
    if (!get_label(rq, request, label)) {
        return;
    }
    struct account *a = get_account(v, rq, request, "account");
    if (a == NULL) {
        return;
    }
    int r = make_app(a, text, &secret);
    r = r == 0 ? store_app_add(v->store, a->id, label, &secret, clock_wall_ms()) : r;
    if (r == -EEXIST) {
        control_fail(rq, 1, "%s has an app password %s already; revoke it first", a->name, label);
    } else if (r == -E2BIG) {
        control_fail(rq, EX_CANTCREAT, "an account has at most %u passwords", ACCOUNT_SECRETS_MAX);
    } else if (r < 0) {
        fail(rq, r, a->name);
    } else {
        v->generation++; /* a login under way has not seen it */
        note("app_password.added", rq, a->name, label);
        (void)control_line(rq, json_pack("{s:s,s:s,s:s}", "account", a->name, "label", label, "password", text));
        control_done(rq, NULL);
    }
    explicit_bzero(text, sizeof(text));
    explicit_bzero(&secret, sizeof(secret));
    account_drop(&a);
}

static void app_password_list(void *arg, struct control_request *rq, const json_t *request)
{
    struct vault *v = arg;
    login_store_used(v);
    struct account *a = get_account(v, rq, request, "account");
    if (a == NULL) {
        return;
    }
    for (size_t i = 0; i < a->secrets_count; i++) {
        const struct secret *x = &a->secrets[i];
        char created[32], used[32], revoked[32];
        if (x->kind != SECRET_APP) {
            continue;
        }
        time_text(x->created_ms, created);
        time_text(x->last_used_ms, used);
        time_text(x->revoked_ms, revoked);
        (void)control_line(rq, json_pack("{s:s,s:s,s:s,s:s}", "label", x->label, "created", created, "last_used", used,
                                         "revoked", revoked));
    }
    control_done(rq, NULL);
    account_drop(&a);
}

static void app_password_revoke(void *arg, struct control_request *rq, const json_t *request)
{
    struct vault *v = arg;
    char label[ACCOUNT_LABEL_MAX + 1];
    if (!get_label(rq, request, label)) {
        return;
    }
    struct account *a = get_account(v, rq, request, "account");
    if (a == NULL) {
        return;
    }
    int r = store_app_revoke(v->store, a->id, label, clock_wall_ms());
    if (r == -ENOENT) {
        control_fail(rq, 1, "%s has no app password %s", a->name, label);
    } else if (r < 0) {
        fail(rq, r, a->name);
    } else {
        vault_account_changed(v, a->id, a->name);
        note("app_password.revoked", rq, a->name, label);
        control_done(rq, NULL);
    }
    account_drop(&a);
}

static void vault_status(void *arg, struct control_request *rq, const json_t *request)
{
    json_t *figures = json_object();
    (void)request;
    vault_figures(arg, figures);
    control_done(rq, figures);
}

const struct control_verb vault_verbs[] = {
    {"account.add", account_add},
    {"account.passwd", account_passwd},
    {"account.show", account_show},
    {"account.list", account_list},
    {"account.remove", account_remove},
    {"account.import", account_import},
    {"account.identity.add", account_identity_add},
    {"account.identity.remove", account_identity_remove},
    {"account.certificate.add", account_certificate_add},
    {"account.certificate.remove", account_certificate_remove},
    {"app_password.add", app_password_add},
    {"app_password.list", app_password_list},
    {"app_password.revoke", app_password_revoke},
    {"vault.status", vault_status},
    {NULL, NULL},
};
