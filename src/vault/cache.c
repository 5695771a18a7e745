#include "vault/cache.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"
#include "vault/account.h"

struct entry {
    struct cache_digest digest;
    struct account *account; /* NULL: a failure */
    int64_t secret;
    uint64_t until_ms;
    UT_hash_handle hh;
};

struct cache {
    uint8_t key[crypto_generichash_KEYBYTES];
    struct entry *right, *wrong; /* each in order of age */
    size_t entries_max;
};

struct cache *cache_new(size_t entries_max)
{
    struct cache *c = calloc(1, sizeof(*c));
    if (c != NULL) {
        c->entries_max = entries_max;
        randombytes_buf(c->key, sizeof(c->key));
    }
    return c;
}

static void wipe(struct entry *e)
{
    account_drop(&e->account);
    explicit_bzero(e, sizeof(*e));
    free(e);
}

static void drop(struct entry **table, struct entry *e)
{
    HASH_DEL(*table, e);
    wipe(e);
}

static void clear(struct entry **table)
{
    struct entry *e, *next;
    HASH_ITER(hh, *table, e, next)
    {
        drop(table, e);
    }
}

void cache_free(struct cache **cp)
{
    struct cache *c = *cp;
    if (c == NULL) {
        return;
    }
    *cp = NULL;
    clear(&c->right);
    clear(&c->wrong);
    explicit_bzero(c, sizeof(*c));
    free(c);
}

void cache_digest_make(const struct cache *c, struct span name, struct span password, struct cache_digest *ret)
{
    crypto_generichash_state state;
    uint64_t len = name.len;
    (void)crypto_generichash_init(&state, c->key, sizeof(c->key), sizeof(ret->bytes));
    (void)crypto_generichash_update(&state, (const uint8_t *)&len, sizeof(len));
    (void)crypto_generichash_update(&state, name.ptr, name.len);
    (void)crypto_generichash_update(&state, password.ptr, password.len);
    (void)crypto_generichash_final(&state, ret->bytes, sizeof(ret->bytes));
    explicit_bzero(&state, sizeof(state));
}

static struct entry *find(struct entry **table, const struct cache_digest *d, uint64_t now_ms)
{
    struct entry *e;
    HASH_FIND(hh, *table, d, sizeof(*d), e);
    if (e != NULL && e->until_ms <= now_ms) {
        drop(table, e);
        return NULL;
    }
    return e;
}

enum cache_answer cache_find(struct cache *c, const struct cache_digest *d, uint64_t now_ms, struct cache_hit *ret)
{
    const struct entry *e = find(&c->right, d, now_ms);
    if (e != NULL) {
        *ret = (struct cache_hit){.account = e->account, .secret = e->secret};
        return CACHE_RIGHT;
    }
    return find(&c->wrong, d, now_ms) != NULL ? CACHE_WRONG : CACHE_NOTHING;
}

static void add(struct cache *c, struct entry **table, const struct cache_digest *d, struct account *account,
                int64_t secret, uint64_t until_ms)
{
    struct entry *e = find(table, d, 0);
    if (e != NULL) {
        drop(table, e);
    }
    if (*table != NULL && HASH_COUNT(*table) >= c->entries_max) {
        drop(table, *table);
    }
    e = c->entries_max > 0 ? calloc(1, sizeof(*e)) : NULL;
    if (e == NULL) {
        return;
    }
    e->digest = *d;
    e->account = account != NULL ? account_hold(account) : NULL;
    e->secret = secret;
    e->until_ms = until_ms;
    HASH_ADD(hh, *table, digest, sizeof(e->digest), e);
    if (!hash_added(e->hh)) {
        wipe(e);
    }
}

void cache_add_right(struct cache *c, const struct cache_digest *d, struct account *account, int64_t secret,
                     uint64_t until_ms)
{
    add(c, &c->right, d, account, secret, until_ms);
}

void cache_add_wrong(struct cache *c, const struct cache_digest *d, uint64_t until_ms)
{
    add(c, &c->wrong, d, NULL, 0, until_ms);
}

void cache_forget(struct cache *c, int64_t account_id)
{
    struct entry *e, *next;
    HASH_ITER(hh, c->right, e, next)
    {
        if (e->account->id == account_id) {
            drop(&c->right, e);
        }
    }
    clear(&c->wrong);
}

size_t cache_count(const struct cache *c)
{
    return HASH_COUNT(c->right);
}
