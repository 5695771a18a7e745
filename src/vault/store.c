#include "vault/store.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

#define BUSY_MS        200
#define SCHEMA_VERSION 1

/* Entry n brings version n to n + 1. */
static const char *const migrations[SCHEMA_VERSION] = {
    "CREATE TABLE setting(name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE account("
    " id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, created INTEGER NOT NULL,"
    " scram_salt BLOB NOT NULL, scram_iterations INTEGER NOT NULL);"
    "CREATE TABLE identity("
    " account INTEGER NOT NULL REFERENCES account ON DELETE CASCADE, pattern TEXT NOT NULL,"
    " PRIMARY KEY(account, pattern)) WITHOUT ROWID;"
    "CREATE INDEX identity_pattern ON identity(pattern);"
    "CREATE TABLE secret("
    " id INTEGER PRIMARY KEY AUTOINCREMENT, account INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,"
    " kind TEXT NOT NULL CHECK(kind IN ('main', 'app')), label TEXT NOT NULL, hash TEXT NOT NULL,"
    " sha1_stored BLOB, sha1_server BLOB, sha256_stored BLOB, sha256_server BLOB,"
    " created INTEGER NOT NULL, last_used INTEGER NOT NULL DEFAULT 0, revoked INTEGER NOT NULL DEFAULT 0);"
    "CREATE UNIQUE INDEX secret_label ON secret(account, kind, label) WHERE revoked = 0;"
    "CREATE TABLE certificate("
    " sha256 BLOB PRIMARY KEY, account INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,"
    " label TEXT NOT NULL, created INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE INDEX certificate_account ON certificate(account);",
};

enum statement {
    SQL_SETTING_GET,
    SQL_SETTING_PUT,
    SQL_ACCOUNT_GET,
    SQL_ACCOUNT_PUT,
    SQL_ACCOUNT_DELETE,
    SQL_ACCOUNT_LIST,
    SQL_ACCOUNT_COUNT,
    SQL_IDENTITIES,
    SQL_IDENTITY_PUT,
    SQL_IDENTITY_DELETE,
    SQL_IDENTITY_OWNER,
    SQL_SECRETS,
    SQL_SECRET_PUT,
    SQL_SECRET_REVOKE,
    SQL_SECRET_UPGRADE,
    SQL_SECRET_USED,
    SQL_SECRET_FORGET,
    SQL_CERTIFICATE_PUT,
    SQL_CERTIFICATE_DELETE,
    SQL_CERTIFICATE_OWNER,
    SQL_CERTIFICATES,
    SQL_SAMPLE,
    SQL_SECRET_LAST,
    SQL_COUNT,
};

static const char *const sql[SQL_COUNT] = {
    [SQL_SETTING_GET] = "SELECT value FROM setting WHERE name = ?1",
    [SQL_SETTING_PUT] = "INSERT INTO setting VALUES(?1, ?2)",
    [SQL_ACCOUNT_GET] = "SELECT id, created, scram_salt, scram_iterations FROM account WHERE name = ?1",
    [SQL_ACCOUNT_PUT] = "INSERT INTO account(name, created, scram_salt, scram_iterations) VALUES(?1, ?2, ?3, ?4)",
    [SQL_ACCOUNT_DELETE] = "DELETE FROM account WHERE name = ?1",
    [SQL_ACCOUNT_LIST] = "SELECT name FROM account WHERE name > ?1 ORDER BY name",
    [SQL_ACCOUNT_COUNT] = "SELECT count(*) FROM account",
    [SQL_IDENTITIES] = "SELECT pattern FROM identity WHERE account = ?1 ORDER BY pattern LIMIT ?2",
    [SQL_IDENTITY_PUT] = "INSERT INTO identity VALUES(?1, ?2)",
    [SQL_IDENTITY_DELETE] = "DELETE FROM identity WHERE account = ?1 AND pattern = ?2",
    [SQL_IDENTITY_OWNER] = "SELECT name FROM identity JOIN account ON account = id WHERE pattern = ?1 LIMIT 2",
    [SQL_SECRETS] = ("SELECT id, kind, label, hash, sha1_stored, sha1_server, sha256_stored, sha256_server, created,"
                     " last_used, revoked FROM secret WHERE account = ?1 ORDER BY revoked = 0 DESC, id LIMIT ?2"),
    [SQL_SECRET_PUT] = ("INSERT INTO secret(account, kind, label, hash, sha1_stored, sha1_server, sha256_stored,"
                        " sha256_server, created) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"),
    [SQL_SECRET_REVOKE] = ("UPDATE secret SET revoked = ?4, hash = '', sha1_stored = NULL, sha1_server = NULL,"
                           " sha256_stored = NULL, sha256_server = NULL"
                           " WHERE account = ?1 AND kind = ?2 AND label = ?3 AND revoked = 0"),
    [SQL_SECRET_UPGRADE] = ("UPDATE secret SET hash = ?2, sha1_stored = ?3, sha1_server = ?4, sha256_stored = ?5,"
                            " sha256_server = ?6 WHERE id = ?1 AND revoked = 0"),
    [SQL_SECRET_USED] = "UPDATE secret SET last_used = ?2 WHERE id = ?1 AND last_used < ?2",
    [SQL_SECRET_FORGET] = "DELETE FROM secret WHERE account = ?1 AND kind = 'main'",
    [SQL_CERTIFICATE_PUT] = "INSERT INTO certificate VALUES(?1, ?2, ?3, ?4)",
    [SQL_CERTIFICATE_DELETE] = "DELETE FROM certificate WHERE sha256 = ?1 AND account = ?2",
    [SQL_CERTIFICATE_OWNER] = "SELECT name FROM certificate JOIN account ON account = id WHERE sha256 = ?1",
    [SQL_CERTIFICATES] =
        "SELECT sha256, label, certificate.created FROM certificate WHERE account = ?1 ORDER BY sha256",
    [SQL_SAMPLE] = "SELECT hash FROM secret WHERE id >= ?1 AND kind = 'main' AND revoked = 0 ORDER BY id LIMIT 1",
    [SQL_SECRET_LAST] = "SELECT max(id) FROM secret WHERE kind = 'main' AND revoked = 0",
};

struct store {
    sqlite3 *db;
    sqlite3_stmt *statements[SQL_COUNT];
    uint8_t key[STORE_KEY_LEN];
};

static int error_of(struct store *s, int rc, const char *what)
{
    if (rc == SQLITE_OK || rc == SQLITE_ROW || rc == SQLITE_DONE) {
        return 0;
    }
    if ((rc & 0xff) == SQLITE_CONSTRAINT) {
        return -EEXIST;
    }
    log_error("accounts.store.failed", LF_STR("what", what), LF_STR("reason", sqlite3_errmsg(s->db)));
    return (rc & 0xff) == SQLITE_BUSY ? -EBUSY : -EIO;
}

static int run(struct store *s, const char *text)
{
    return error_of(s, sqlite3_exec(s->db, text, NULL, NULL, NULL), text);
}

/* NULL: it cannot be had; the next step says why. */
static sqlite3_stmt *get(struct store *s, enum statement n)
{
    if (s->statements[n] == NULL) {
        (void)sqlite3_prepare_v3(s->db, sql[n], -1, SQLITE_PREPARE_PERSISTENT, &s->statements[n], NULL);
    }
    return s->statements[n];
}

/* 1 a row, 0 the end, -errno. */
static int step(struct store *s, sqlite3_stmt *st)
{
    int rc = st != NULL ? sqlite3_step(st) : sqlite3_errcode(s->db);
    return rc == SQLITE_ROW ? 1 : rc == SQLITE_DONE ? 0 : error_of(s, rc, st != NULL ? sqlite3_sql(st) : "prepare");
}

static void end(sqlite3_stmt *st)
{
    if (st != NULL) {
        (void)sqlite3_reset(st);
        (void)sqlite3_clear_bindings(st);
    }
}

/* For a statement that changes: -ENOENT when it changed nothing. */
static int finish(struct store *s, sqlite3_stmt *st)
{
    int r = step(s, st);
    end(st);
    return r < 0 ? r : sqlite3_changes(s->db) == 0 ? -ENOENT : 0;
}

static void bind_text(sqlite3_stmt *st, int at, const char *text)
{
    (void)sqlite3_bind_text(st, at, text, -1, SQLITE_TRANSIENT);
}

static void bind_int(sqlite3_stmt *st, int at, int64_t n)
{
    (void)sqlite3_bind_int64(st, at, n);
}

static void bind_octets(sqlite3_stmt *st, int at, const void *octets, size_t len)
{
    (void)sqlite3_bind_blob(st, at, octets, (int)len, SQLITE_TRANSIENT);
}

static void copy_text(sqlite3_stmt *st, int column, char *out, size_t size)
{
    const char *text = (const char *)sqlite3_column_text(st, column);
    size_t len = text != NULL ? strlen(text) : 0;
    len = len < size ? len : size - 1;
    if (len > 0) {
        memcpy(out, text, len);
    }
    out[len] = '\0';
}

/* false: not that many octets. */
static bool copy_octets(sqlite3_stmt *st, int column, uint8_t *out, size_t len)
{
    const void *octets = sqlite3_column_blob(st, column);
    bool fits = octets != NULL && (size_t)sqlite3_column_bytes(st, column) == len;
    if (fits) {
        memcpy(out, octets, len);
    }
    return fits;
}

static int pragma_int(struct store *s, const char *text, int *ret)
{
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(s->db, text, -1, &st, NULL);
    if (rc == SQLITE_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
        *ret = sqlite3_column_int(st, 0);
    }
    (void)sqlite3_finalize(st);
    return error_of(s, rc, text);
}

static int migrate(struct store *s)
{
    int version = 0;
    int r = pragma_int(s, "PRAGMA user_version", &version);
    if (r == 0 && (version < 0 || version > SCHEMA_VERSION)) {
        log_error("accounts.store.failed", LF_STR("what", "a newer version wrote this file"),
                  LF_UINT("version", version));
        return -EPROTO;
    }
    for (; r == 0 && version < SCHEMA_VERSION; version++) {
        char set[] = "PRAGMA user_version = 0";
        set[sizeof(set) - 2] = (char)('0' + version + 1);
        r = store_begin(s);
        r = r == 0 ? run(s, migrations[version]) : r;
        r = r == 0 ? run(s, set) : r;
        r = r == 0 ? store_commit(s) : r;
        if (r < 0) {
            store_rollback(s);
        }
    }
    return r;
}

static int key_make(struct store *s)
{
    randombytes_buf(s->key, sizeof(s->key));
    sqlite3_stmt *st = get(s, SQL_SETTING_PUT);
    bind_text(st, 1, "key");
    bind_octets(st, 2, s->key, sizeof(s->key));
    return finish(s, st);
}

static int key_load(struct store *s)
{
    sqlite3_stmt *st = get(s, SQL_SETTING_GET);
    bind_text(st, 1, "key");
    int r = step(s, st);
    if (r == 1 && !copy_octets(st, 0, s->key, sizeof(s->key))) {
        r = -EIO;
    }
    end(st);
    return r == 0 ? key_make(s) : r < 0 ? r : 0;
}

int store_open(const char *path, struct store **ret)
{
    struct store *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return -ENOMEM;
    }
    int rc = sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    int r = s->db == NULL ? -ENOMEM : error_of(s, rc, "open");
    if (r == 0) {
        (void)sqlite3_extended_result_codes(s->db, 1);
        (void)sqlite3_busy_timeout(s->db, BUSY_MS);
        (void)sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
        r = run(s, "PRAGMA journal_mode = TRUNCATE; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
                   "PRAGMA secure_delete = ON; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF");
    }
    r = r == 0 ? migrate(s) : r;
    r = r == 0 ? key_load(s) : r;
    if (r < 0) {
        store_close(&s);
        return r;
    }
    *ret = s;
    return 0;
}

void store_close(struct store **sp)
{
    struct store *s = *sp;
    *sp = NULL;
    if (s == NULL) {
        return;
    }
    for (size_t i = 0; i < SQL_COUNT; i++) {
        (void)sqlite3_finalize(s->statements[i]);
    }
    (void)sqlite3_close(s->db);
    explicit_bzero(s, sizeof(*s));
    free(s);
}

const uint8_t *store_key(const struct store *s)
{
    return s->key;
}

int store_begin(struct store *s)
{
    return run(s, "BEGIN IMMEDIATE");
}

int store_commit(struct store *s)
{
    int r = run(s, "COMMIT");
    if (r < 0) {
        store_rollback(s);
    }
    return r;
}

void store_rollback(struct store *s)
{
    if (sqlite3_get_autocommit(s->db) == 0) {
        (void)run(s, "ROLLBACK");
    }
}

/* One act within an outer transaction or as its own; on failure nothing of it stays. */
static int act_begin(struct store *s)
{
    return run(s, "SAVEPOINT act");
}

static int act_end(struct store *s, int r)
{
    if (r == 0) {
        r = run(s, "RELEASE act");
    }
    if (r < 0 && sqlite3_get_autocommit(s->db) == 0) {
        (void)run(s, "ROLLBACK TO act; RELEASE act");
    }
    return r;
}

static int load_identities(struct store *s, struct account *a)
{
    sqlite3_stmt *st = get(s, SQL_IDENTITIES);
    a->identities = calloc(ACCOUNT_IDENTITIES_MAX, sizeof(a->identities[0]));
    int r = a->identities == NULL ? -ENOMEM : 1;
    bind_int(st, 1, a->id);
    bind_int(st, 2, ACCOUNT_IDENTITIES_MAX);
    while (r == 1 && (r = step(s, st)) == 1) {
        char *pattern = strdup((const char *)sqlite3_column_text(st, 0));
        if (pattern == NULL) {
            r = -ENOMEM;
            break;
        }
        a->identities[a->identities_count++] = pattern;
    }
    end(st);
    return r;
}

static void load_secret(sqlite3_stmt *st, struct secret *x)
{
    x->id = sqlite3_column_int64(st, 0);
    const char *kind = (const char *)sqlite3_column_text(st, 1);
    x->kind = kind != NULL && strcmp(kind, "main") == 0 ? SECRET_MAIN : SECRET_APP;
    copy_text(st, 2, x->label, sizeof(x->label));
    copy_text(st, 3, x->hash, sizeof(x->hash));
    x->has_scram = copy_octets(st, 4, x->sha1.stored, 20) && copy_octets(st, 5, x->sha1.server, 20) &&
                   copy_octets(st, 6, x->sha256.stored, 32) && copy_octets(st, 7, x->sha256.server, 32);
    x->created_ms = (uint64_t)sqlite3_column_int64(st, 8);
    x->last_used_ms = (uint64_t)sqlite3_column_int64(st, 9);
    x->revoked_ms = (uint64_t)sqlite3_column_int64(st, 10);
}

static int load_secrets(struct store *s, struct account *a)
{
    sqlite3_stmt *st = get(s, SQL_SECRETS);
    int r = 1;
    bind_int(st, 1, a->id);
    bind_int(st, 2, ACCOUNT_SECRETS_MAX);
    while (r == 1 && (r = step(s, st)) == 1) {
        struct secret *grown = calloc(a->secrets_count + 1, sizeof(*grown));
        if (grown == NULL) {
            r = -ENOMEM;
            break;
        }
        if (a->secrets != NULL) {
            memcpy(grown, a->secrets, a->secrets_count * sizeof(*grown));
            explicit_bzero(a->secrets, a->secrets_count * sizeof(*grown));
            free(a->secrets);
        }
        a->secrets = grown;
        load_secret(st, &a->secrets[a->secrets_count++]);
    }
    end(st);
    return r;
}

int store_account_load(struct store *s, const char *name, struct account **ret)
{
    struct account *a = account_new();
    if (a == NULL) {
        return -ENOMEM;
    }
    sqlite3_stmt *st = get(s, SQL_ACCOUNT_GET);
    bind_text(st, 1, name);
    int r = step(s, st);
    if (r == 1) {
        a->id = sqlite3_column_int64(st, 0);
        a->created_ms = (uint64_t)sqlite3_column_int64(st, 1);
        r = copy_octets(st, 2, a->scram_salt, sizeof(a->scram_salt)) ? 1 : -EIO;
        a->scram_iterations = (uint32_t)sqlite3_column_int64(st, 3);
        (void)memccpy(a->name, name, '\0', sizeof(a->name) - 1);
    }
    end(st);
    r = r == 0 ? -ENOENT : r == 1 ? load_identities(s, a) : r;
    r = r == 0 ? load_secrets(s, a) : r;
    if (r < 0) {
        account_drop(&a);
        return r;
    }
    *ret = a;
    return 0;
}

static void bind_keys(sqlite3_stmt *st, int at, const struct store_secret *x)
{
    if (x->has_scram) {
        bind_octets(st, at, x->sha1.stored, 20);
        bind_octets(st, at + 1, x->sha1.server, 20);
        bind_octets(st, at + 2, x->sha256.stored, 32);
        bind_octets(st, at + 3, x->sha256.server, 32);
    }
}

static int put_secret(struct store *s, int64_t account, const char *kind, const char *label,
                      const struct store_secret *x, uint64_t wall_ms)
{
    sqlite3_stmt *st = get(s, SQL_SECRET_PUT);
    bind_int(st, 1, account);
    bind_text(st, 2, kind);
    bind_text(st, 3, label);
    bind_text(st, 4, x->hash);
    bind_keys(st, 5, x);
    bind_int(st, 9, (int64_t)wall_ms);
    return finish(s, st);
}

static int put_account(struct store *s, const char *name, const struct store_scram *scram, uint64_t wall_ms)
{
    sqlite3_stmt *st = get(s, SQL_ACCOUNT_PUT);
    bind_text(st, 1, name);
    bind_int(st, 2, (int64_t)wall_ms);
    bind_octets(st, 3, scram->salt, sizeof(scram->salt));
    bind_int(st, 4, scram->iterations);
    return finish(s, st);
}

int store_account_add(struct store *s, const char *name, const char *const *identities, size_t identities_count,
                      const struct store_scram *scram, const struct store_secret *secret, uint64_t wall_ms)
{
    if (identities_count > ACCOUNT_IDENTITIES_MAX) {
        return -E2BIG;
    }
    int r = act_begin(s);
    if (r < 0) {
        return r;
    }
    r = put_account(s, name, scram, wall_ms);
    int64_t id = sqlite3_last_insert_rowid(s->db);
    for (size_t i = 0; i < identities_count && r == 0; i++) {
        r = store_identity_add(s, id, identities[i]);
        r = r == -EEXIST ? 0 : r; /* named twice */
    }
    if (r == 0 && secret != NULL) {
        r = put_secret(s, id, "main", "", secret, wall_ms);
    }
    return act_end(s, r);
}

int store_account_remove(struct store *s, const char *name)
{
    sqlite3_stmt *st = get(s, SQL_ACCOUNT_DELETE);
    bind_text(st, 1, name);
    return finish(s, st);
}

int store_account_list(struct store *s, const char *after, bool (*seen)(void *arg, const char *name), void *arg)
{
    sqlite3_stmt *st = get(s, SQL_ACCOUNT_LIST);
    int r;
    bind_text(st, 1, after);
    while ((r = step(s, st)) == 1 && seen(arg, (const char *)sqlite3_column_text(st, 0))) {
    }
    end(st);
    return r < 0 ? r : 0;
}

uint64_t store_account_count(struct store *s)
{
    sqlite3_stmt *st = get(s, SQL_ACCOUNT_COUNT);
    uint64_t count = step(s, st) == 1 ? (uint64_t)sqlite3_column_int64(st, 0) : 0;
    end(st);
    return count;
}

int store_password_set(struct store *s, int64_t account, const struct store_secret *secret, uint64_t wall_ms)
{
    int r = act_begin(s);
    if (r < 0) {
        return r;
    }
    sqlite3_stmt *st = get(s, SQL_SECRET_FORGET);
    bind_int(st, 1, account);
    r = finish(s, st);
    r = r == -ENOENT ? 0 : r; /* it had none */
    r = r == 0 ? put_secret(s, account, "main", "", secret, wall_ms) : r;
    return act_end(s, r);
}

int store_secret_upgrade(struct store *s, int64_t secret_id, const struct store_secret *secret)
{
    sqlite3_stmt *st = get(s, SQL_SECRET_UPGRADE);
    bind_int(st, 1, secret_id);
    bind_text(st, 2, secret->hash);
    bind_keys(st, 3, secret);
    return finish(s, st);
}

static int count_live(struct store *s, int64_t account, size_t *ret)
{
    sqlite3_stmt *st = get(s, SQL_SECRETS);
    int r;
    *ret = 0;
    bind_int(st, 1, account);
    bind_int(st, 2, ACCOUNT_SECRETS_MAX);
    while ((r = step(s, st)) == 1) {
        *ret += sqlite3_column_int64(st, 10) == 0;
    }
    end(st);
    return r;
}

int store_app_add(struct store *s, int64_t account, const char *label, const struct store_secret *secret,
                  uint64_t wall_ms)
{
    size_t live;
    int r = count_live(s, account, &live);
    if (r == 0 && live >= ACCOUNT_SECRETS_MAX) {
        return -E2BIG;
    }
    return r == 0 ? put_secret(s, account, "app", label, secret, wall_ms) : r;
}

int store_app_revoke(struct store *s, int64_t account, const char *label, uint64_t wall_ms)
{
    sqlite3_stmt *st = get(s, SQL_SECRET_REVOKE);
    bind_int(st, 1, account);
    bind_text(st, 2, "app");
    bind_text(st, 3, label);
    bind_int(st, 4, (int64_t)wall_ms);
    return finish(s, st);
}

int store_used(struct store *s, const struct store_used *list, size_t count)
{
    int r = act_begin(s);
    if (r < 0) {
        return r;
    }
    for (size_t i = 0; i < count && r == 0; i++) {
        sqlite3_stmt *st = get(s, SQL_SECRET_USED);
        bind_int(st, 1, list[i].secret);
        bind_int(st, 2, (int64_t)list[i].at_ms);
        r = finish(s, st);
        r = r == -ENOENT ? 0 : r; /* removed meanwhile */
    }
    return act_end(s, r);
}

static int count_identities(struct store *s, int64_t account)
{
    sqlite3_stmt *st = get(s, SQL_IDENTITIES);
    int r, count = 0;
    bind_int(st, 1, account);
    bind_int(st, 2, ACCOUNT_IDENTITIES_MAX);
    while ((r = step(s, st)) == 1) {
        count++;
    }
    end(st);
    return r < 0 ? r : count;
}

int store_identity_add(struct store *s, int64_t account, const char *identity)
{
    int count = count_identities(s, account);
    if (count < 0 || count >= (int)ACCOUNT_IDENTITIES_MAX) {
        return count < 0 ? count : -E2BIG;
    }
    sqlite3_stmt *st = get(s, SQL_IDENTITY_PUT);
    bind_int(st, 1, account);
    bind_text(st, 2, identity);
    return finish(s, st);
}

int store_identity_remove(struct store *s, int64_t account, const char *identity)
{
    sqlite3_stmt *st = get(s, SQL_IDENTITY_DELETE);
    bind_int(st, 1, account);
    bind_text(st, 2, identity);
    return finish(s, st);
}

int store_identity_owner(struct store *s, const char *identity, char ret_name[static ACCOUNT_NAME_MAX + 1])
{
    sqlite3_stmt *st = get(s, SQL_IDENTITY_OWNER);
    bind_text(st, 1, identity);
    int r = step(s, st);
    if (r == 1) {
        copy_text(st, 0, ret_name, ACCOUNT_NAME_MAX + 1);
        r = step(s, st);
        r = r == 1 ? -ENOTUNIQ : r;
    } else if (r == 0) {
        r = -ENOENT;
    }
    end(st);
    return r;
}

int store_certificate_add(struct store *s, int64_t account, const uint8_t sha256[static STORE_FINGERPRINT_LEN],
                          const char *label, uint64_t wall_ms)
{
    sqlite3_stmt *st = get(s, SQL_CERTIFICATE_PUT);
    bind_octets(st, 1, sha256, STORE_FINGERPRINT_LEN);
    bind_int(st, 2, account);
    bind_text(st, 3, label);
    bind_int(st, 4, (int64_t)wall_ms);
    return finish(s, st);
}

int store_certificate_remove(struct store *s, int64_t account, const uint8_t sha256[static STORE_FINGERPRINT_LEN])
{
    sqlite3_stmt *st = get(s, SQL_CERTIFICATE_DELETE);
    bind_octets(st, 1, sha256, STORE_FINGERPRINT_LEN);
    bind_int(st, 2, account);
    return finish(s, st);
}

int store_certificate_owner(struct store *s, const uint8_t sha256[static STORE_FINGERPRINT_LEN],
                            char ret_name[static ACCOUNT_NAME_MAX + 1])
{
    sqlite3_stmt *st = get(s, SQL_CERTIFICATE_OWNER);
    bind_octets(st, 1, sha256, STORE_FINGERPRINT_LEN);
    int r = step(s, st);
    if (r == 1) {
        copy_text(st, 0, ret_name, ACCOUNT_NAME_MAX + 1);
    }
    end(st);
    return r == 1 ? 0 : r == 0 ? -ENOENT : r;
}

int store_certificate_list(struct store *s, int64_t account,
                           void (*seen)(void *arg, const uint8_t *sha256, const char *label, uint64_t created_ms),
                           void *arg)
{
    sqlite3_stmt *st = get(s, SQL_CERTIFICATES);
    uint8_t sha256[STORE_FINGERPRINT_LEN];
    int r;
    bind_int(st, 1, account);
    while ((r = step(s, st)) == 1) {
        if (copy_octets(st, 0, sha256, sizeof(sha256))) {
            seen(arg, sha256, (const char *)sqlite3_column_text(st, 1), (uint64_t)sqlite3_column_int64(st, 2));
        }
    }
    end(st);
    return r;
}

int store_sample_hash(struct store *s, uint64_t chance, char ret_hash[static PASSWORD_HASH_MAX])
{
    sqlite3_stmt *st = get(s, SQL_SECRET_LAST);
    int r = step(s, st);
    int64_t last = r == 1 ? sqlite3_column_int64(st, 0) : 0;
    end(st);
    if (r < 0 || last <= 0) {
        return r < 0 ? r : -ENOENT;
    }
    st = get(s, SQL_SAMPLE);
    bind_int(st, 1, (int64_t)(chance % (uint64_t)last) + 1);
    r = step(s, st);
    if (r == 1) {
        copy_text(st, 0, ret_hash, PASSWORD_HASH_MAX);
    }
    end(st);
    return r == 1 ? 0 : r == 0 ? -ENOENT : r;
}
