#include "vault/store.h"

#include <errno.h>
#include <setjmp.h>
#include <sodium.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct store *s;
static const struct store_scram scram = {.salt = "0123456789abcde", .iterations = 4096};
static const struct store_secret secret = {
    .hash = "$6$salt$hash", .has_scram = true, .sha1 = {"a1", "b1"}, .sha256 = {"a2", "b2"}};
static const struct store_secret bare = {.hash = "$6$salt$other"};

static int setup(void **state)
{
    (void)state;
    return store_open(":memory:", &s);
}

static int teardown(void **state)
{
    (void)state;
    store_close(&s);
    return 0;
}

static void add(const char *name, const struct store_secret *x)
{
    const char *identities[] = {"z@example.net", "*@example.org", "z@example.net"};
    assert_int_equal(store_account_add(s, name, identities, 3, &scram, x, 1000), 0);
}

static struct account *load(const char *name)
{
    struct account *a = NULL;
    assert_int_equal(store_account_load(s, name, &a), 0);
    return a;
}

static void test_accounts(void **state)
{
    (void)state;
    struct account *a;
    assert_int_equal(store_account_load(s, "alice", &a), -ENOENT);
    add("alice", &secret);
    assert_int_equal(store_account_add(s, "alice", NULL, 0, &scram, NULL, 1), -EEXIST);
    a = load("alice");
    assert_string_equal(a->name, "alice");
    assert_int_equal(a->created_ms, 1000);
    assert_int_equal(a->scram_iterations, 4096);
    assert_memory_equal(a->scram_salt, scram.salt, sizeof(scram.salt));
    assert_int_equal(a->identities_count, 2);
    assert_string_equal(a->identities[0], "*@example.org");
    assert_string_equal(a->identities[1], "z@example.net");
    const struct secret *x = account_main(a);
    assert_non_null(x);
    assert_string_equal(x->hash, "$6$salt$hash");
    assert_true(x->has_scram);
    assert_memory_equal(x->sha256.server, secret.sha256.server, 32);
    account_drop(&a);
    add("bob", NULL);
    a = load("bob");
    assert_null(account_main(a));
    account_drop(&a);
    assert_int_equal(store_account_count(s), 2);
    assert_int_equal(store_account_remove(s, "alice"), 0);
    assert_int_equal(store_account_remove(s, "alice"), -ENOENT);
    add("alice", &bare); /* nothing of the old one is left */
    a = load("alice");
    assert_int_equal(a->secrets_count, 1);
    assert_false(account_main(a)->has_scram);
    account_drop(&a);
}

static void test_odd_names(void **state)
{
    (void)state;
    add("o'brien\"; DROP TABLE account; --", &secret);
    struct account *a = load("o'brien\"; DROP TABLE account; --");
    account_drop(&a);
    assert_int_equal(store_account_load(s, "%", &a), -ENOENT);
}

static bool collect(void *arg, const char *name)
{
    char *out = arg;
    (void)strncat(out, name, 8);
    return strlen(out) < 6;
}

static void test_list(void **state)
{
    (void)state;
    char seen[32] = "";
    add("carol", NULL);
    add("a", NULL);
    add("b", NULL);
    assert_int_equal(store_account_list(s, "", collect, seen), 0);
    assert_string_equal(seen, "abcarol");
    seen[0] = '\0';
    assert_int_equal(store_account_list(s, "a", collect, seen), 0);
    assert_string_equal(seen, "bcarol");
}

static void test_passwords(void **state)
{
    (void)state;
    add("alice", &secret);
    struct account *a = load("alice");
    int64_t id = a->id, first = account_main(a)->id;
    account_drop(&a);
    assert_int_equal(store_password_set(s, id, &bare, 2000), 0);
    a = load("alice");
    assert_int_equal(a->secrets_count, 1);
    assert_string_equal(account_main(a)->hash, bare.hash);
    assert_int_not_equal(account_main(a)->id, first); /* an id is never used twice */
    int64_t now = account_main(a)->id;
    account_drop(&a);
    assert_int_equal(store_secret_upgrade(s, now, &secret), 0);
    a = load("alice");
    assert_true(account_main(a)->has_scram);
    assert_int_equal(account_main(a)->id, now);
    account_drop(&a);
    assert_int_equal(store_secret_upgrade(s, first, &secret), -ENOENT);
    assert_int_equal(store_password_set(s, 999, &bare, 1), -EEXIST); /* no such account: a constraint */
}

static void test_app_passwords(void **state)
{
    (void)state;
    add("alice", &secret);
    struct account *a = load("alice");
    int64_t id = a->id;
    account_drop(&a);
    assert_int_equal(store_app_add(s, id, "phone", &bare, 2000), 0);
    assert_int_equal(store_app_add(s, id, "phone", &bare, 2000), -EEXIST);
    assert_int_equal(store_app_add(s, id, "tablet", &secret, 2001), 0);
    a = load("alice");
    assert_int_equal(a->secrets_count, 3);
    assert_string_equal(a->secrets[1].label, "phone");
    struct store_used used[] = {{a->secrets[1].id, 5000}, {12345, 1}, {a->secrets[2].id, 6000}};
    account_drop(&a);
    assert_int_equal(store_used(s, used, 3), 0);
    used[0].at_ms = 4000; /* an older time changes nothing */
    assert_int_equal(store_used(s, used, 1), 0);
    assert_int_equal(store_app_revoke(s, id, "phone", 7000), 0);
    assert_int_equal(store_app_revoke(s, id, "phone", 7000), -ENOENT);
    a = load("alice");
    assert_int_equal(a->secrets[2].revoked_ms, 7000);
    assert_int_equal(a->secrets[2].last_used_ms, 5000);
    assert_string_equal(a->secrets[2].hash, ""); /* gone, only the record of it stays */
    assert_int_equal(a->secrets[1].last_used_ms, 6000);
    account_drop(&a);
    assert_int_equal(store_app_add(s, id, "phone", &bare, 8000), 0); /* the label is free again */
    for (unsigned i = 0; i + 3 < ACCOUNT_SECRETS_MAX; i++) {
        char label[16];
        (void)snprintf(label, sizeof(label), "n%u", i);
        assert_int_equal(store_app_add(s, id, label, &bare, 1), 0);
    }
    assert_int_equal(store_app_add(s, id, "one more", &bare, 1), -E2BIG);
    a = load("alice");
    assert_non_null(account_main(a));
    account_drop(&a);
}

static void test_identities(void **state)
{
    (void)state;
    char name[ACCOUNT_NAME_MAX + 1];
    add("alice", NULL);
    struct account *a = load("alice");
    int64_t id = a->id;
    account_drop(&a);
    assert_int_equal(store_identity_add(s, id, "new@example.net"), 0);
    assert_int_equal(store_identity_add(s, id, "new@example.net"), -EEXIST);
    assert_int_equal(store_identity_owner(s, "new@example.net", name), 0);
    assert_string_equal(name, "alice");
    add("bob", NULL);
    assert_int_equal(store_identity_owner(s, "z@example.net", name), -ENOTUNIQ);
    assert_int_equal(store_identity_owner(s, "nobody@example.net", name), -ENOENT);
    assert_int_equal(store_identity_remove(s, id, "new@example.net"), 0);
    assert_int_equal(store_identity_remove(s, id, "new@example.net"), -ENOENT);
    for (unsigned i = 0; i + 2 < ACCOUNT_IDENTITIES_MAX; i++) {
        char identity[32];
        (void)snprintf(identity, sizeof(identity), "n%u@example.net", i);
        assert_int_equal(store_identity_add(s, id, identity), 0);
    }
    assert_int_equal(store_identity_add(s, id, "more@example.net"), -E2BIG);
}

static void seen_certificate(void *arg, const uint8_t *sha256, const char *label, uint64_t created_ms)
{
    assert_int_equal(sha256[0], 7);
    assert_string_equal(label, "router");
    assert_int_equal(created_ms, 3000);
    ++*(int *)arg;
}

static void test_certificates(void **state)
{
    (void)state;
    static const uint8_t one[32] = {7}, two[32] = {8};
    char name[ACCOUNT_NAME_MAX + 1];
    int count = 0;
    add("alice", NULL);
    struct account *a = load("alice");
    assert_int_equal(store_certificate_add(s, a->id, one, "router", 3000), 0);
    assert_int_equal(store_certificate_add(s, a->id, one, "again", 3000), -EEXIST);
    assert_int_equal(store_certificate_owner(s, one, name), 0);
    assert_string_equal(name, "alice");
    assert_int_equal(store_certificate_owner(s, two, name), -ENOENT);
    assert_int_equal(store_certificate_list(s, a->id, seen_certificate, &count), 0);
    assert_int_equal(count, 1);
    assert_int_equal(store_certificate_remove(s, a->id + 1, one), -ENOENT);
    assert_int_equal(store_certificate_remove(s, a->id, one), 0);
    assert_int_equal(store_certificate_add(s, a->id, one, "router", 3000), 0);
    account_drop(&a);
    assert_int_equal(store_account_remove(s, "alice"), 0);
    assert_int_equal(store_certificate_owner(s, one, name), -ENOENT);
}

static void test_sample(void **state)
{
    (void)state;
    char hash[PASSWORD_HASH_MAX];
    unsigned first = 0, second = 0;
    assert_int_equal(store_sample_hash(s, 7, hash), -ENOENT);
    add("alice", &secret);
    add("bob", NULL);
    add("carol", &bare);
    for (uint64_t chance = 0; chance < 100; chance++) {
        assert_int_equal(store_sample_hash(s, chance * 7919, hash), 0);
        first += strcmp(hash, secret.hash) == 0;
        second += strcmp(hash, bare.hash) == 0;
    }
    assert_int_equal(first + second, 100);
    assert_true(first > 10 && second > 10);
}

static void test_many_in_one(void **state)
{
    (void)state;
    struct account *a;
    assert_int_equal(store_begin(s), 0);
    add("alice", &secret);
    assert_int_equal(store_account_add(s, "alice", NULL, 0, &scram, NULL, 1), -EEXIST); /* the others go on */
    add("bob", NULL);
    assert_int_equal(store_commit(s), 0);
    assert_int_equal(store_account_count(s), 2);
    assert_int_equal(store_begin(s), 0);
    add("carol", &secret);
    store_rollback(s);
    assert_int_equal(store_account_load(s, "carol", &a), -ENOENT);
}

/* On disk: modes, a second opening, the key that stays, a version from the future. */
static void test_file(void **state)
{
    char path[] = "/tmp/kidoban-store-XXXXXX";
    uint8_t key[32];
    struct store *f;
    (void)state;
    int fd = mkstemp(path);
    (void)close(fd);
    assert_int_equal(store_open(path, &f), 0);
    memcpy(key, store_key(f), sizeof(key));
    assert_false(sodium_is_zero(key, sizeof(key)));
    assert_int_equal(store_account_add(f, "alice", NULL, 0, &scram, &secret, 1), 0);
    store_close(&f);
    assert_int_equal(store_open(path, &f), 0);
    assert_memory_equal(key, store_key(f), sizeof(key));
    assert_int_equal(store_account_count(f), 1);
    store_close(&f);
    sqlite3 *db;
    sqlite3_stmt *st;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA journal_mode", -1, &st, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(st), SQLITE_ROW);
    assert_string_not_equal((const char *)sqlite3_column_text(st, 0), "wal");
    (void)sqlite3_finalize(st);
    assert_int_equal(sqlite3_exec(db, "PRAGMA user_version = 9", NULL, NULL, NULL), SQLITE_OK);
    (void)sqlite3_close(db);
    assert_int_equal(store_open(path, &f), -EPROTO);
    FILE *junk = fopen(path, "w");
    for (unsigned i = 0; i < 10000; i++) {
        (void)fputc((int)(i * 7 % 251), junk);
    }
    (void)fclose(junk);
    assert_int_equal(store_open(path, &f), -EIO);
    (void)unlink(path);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_accounts),      TEST(test_odd_names),        TEST(test_list),         TEST(test_passwords),
        TEST(test_app_passwords), TEST(test_identities),       TEST(test_certificates), TEST(test_sample),
        TEST(test_many_in_one),   cmocka_unit_test(test_file),
    };
    return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
