/*
 * store.h: accounts.db, the only place where secrets stand. SQLite with one connection, for everything, on one thread:
 * SQLite 3.40's WAL can be corrupted by a commit that races a checkpoint of another connection, so the journal is a
 * plain one (truncate) and synchronous is full: what was answered is on disk.
 *
 * All functions: 0; -ENOENT: no such account, label, identity, fingerprint; -EEXIST: there is one; -E2BIG: too many;
 * -EBUSY: somebody else holds the file; -EIO: anything else of the disk, with a line in the log. Names and identities
 * are given normalised. Nothing has changed after a failure.
 */
#ifndef KIDOBAN_VAULT_STORE_H
#define KIDOBAN_VAULT_STORE_H

#include "vault/account.h"

#define STORE_KEY_LEN         32U
#define STORE_FINGERPRINT_LEN 32U

struct store;

/* A secret to be written. */
struct store_secret {
    char hash[PASSWORD_HASH_MAX];
    bool has_scram;
    struct scram_keys sha1, sha256;
};

/* What a login with SCRAM needs of an account that is yet to be made. */
struct store_scram {
    uint8_t salt[SCRAM_SALT_LEN];
    uint32_t iterations;
};

struct store_used {
    int64_t secret;
    uint64_t at_ms;
};

/* path: ":memory:" in tests. Makes or migrates. -EPROTO: a newer version of Kidoban wrote it. */
int store_open(const char *path, struct store **ret);
void store_close(struct store **s);
/* 32 octets made with the file: the key of false salts, the same after a restart. */
const uint8_t *store_key(const struct store *s);

int store_account_load(struct store *s, const char *name, struct account **ret); /* one holder */
/* secret may be NULL: no main password. */
int store_account_add(struct store *s, const char *name, const char *const *identities, size_t identities_count,
                      const struct store_scram *scram, const struct store_secret *secret, uint64_t wall_ms);
int store_account_remove(struct store *s, const char *name);
/* Names after `after` (empty: from the first), in order; seen returns false to stop. */
int store_account_list(struct store *s, const char *after, bool (*seen)(void *arg, const char *name), void *arg);
uint64_t store_account_count(struct store *s);

/* Replaces the main secret. */
int store_password_set(struct store *s, int64_t account, const struct store_secret *secret, uint64_t wall_ms);
/* Keeps the secret, replaces how it is stored: after a right password of an old hash. */
int store_secret_upgrade(struct store *s, int64_t secret_id, const struct store_secret *secret);
int store_app_add(struct store *s, int64_t account, const char *label, const struct store_secret *secret,
                  uint64_t wall_ms);
int store_app_revoke(struct store *s, int64_t account, const char *label, uint64_t wall_ms);
/* One transaction for all. */
int store_used(struct store *s, const struct store_used *list, size_t count);

int store_identity_add(struct store *s, int64_t account, const char *identity);
int store_identity_remove(struct store *s, int64_t account, const char *identity);
/* The one account with exactly this identity; -ENOTUNIQ: several. */
int store_identity_owner(struct store *s, const char *identity, char ret_name[static ACCOUNT_NAME_MAX + 1]);

int store_certificate_add(struct store *s, int64_t account, const uint8_t sha256[static STORE_FINGERPRINT_LEN],
                          const char *label, uint64_t wall_ms);
int store_certificate_remove(struct store *s, int64_t account, const uint8_t sha256[static STORE_FINGERPRINT_LEN]);
int store_certificate_owner(struct store *s, const uint8_t sha256[static STORE_FINGERPRINT_LEN],
                            char ret_name[static ACCOUNT_NAME_MAX + 1]);
int store_certificate_list(struct store *s, int64_t account,
                           void (*seen)(void *arg, const uint8_t *sha256, const char *label, uint64_t created_ms),
                           void *arg);

/* Some main hash of the store, the same one for the same chance: what an unknown name is checked against, so that it
 * costs what names here cost. -ENOENT: the store has none. */
int store_sample_hash(struct store *s, uint64_t chance, char ret_hash[static PASSWORD_HASH_MAX]);

/* Many changes, one sync. */
int store_begin(struct store *s);
int store_commit(struct store *s);
void store_rollback(struct store *s);

#endif
