/*
 * cache.h: what was verified a moment ago, so that a client that opens a connection for every message costs no hash.
 *
 * The key of an entry is a keyed BLAKE2b of name and password as they were typed; neither stands in memory. Successes
 * live for the configured time from the verification (a hit does not prolong it), failures shorter; both are bounded,
 * the oldest goes first. Clock passed in.
 */
#ifndef KIDOBAN_VAULT_CACHE_H
#define KIDOBAN_VAULT_CACHE_H

#include "common/buf.h"

struct cache;
struct account; /* vault/account.h: held by the entry */

struct cache_digest {
    uint8_t bytes[32];
};

enum cache_answer { CACHE_NOTHING, CACHE_RIGHT, CACHE_WRONG };

struct cache_hit {
    struct account *account; /* borrowed; right answers only */
    int64_t secret;          /* which of its secrets it was */
};

struct cache *cache_new(size_t entries_max); /* of each kind; NULL: no memory */
void cache_free(struct cache **c);
void cache_digest_make(const struct cache *c, struct span name, struct span password, struct cache_digest *ret);
enum cache_answer cache_find(struct cache *c, const struct cache_digest *d, uint64_t now_ms, struct cache_hit *ret);
/* Holds the account. Out of memory: nothing is kept. */
void cache_add_right(struct cache *c, const struct cache_digest *d, struct account *account, int64_t secret,
                     uint64_t until_ms);
void cache_add_wrong(struct cache *c, const struct cache_digest *d, uint64_t until_ms);
/* The account's secrets, identities or standing changed. Failures go whole: they do not say whose they are. */
void cache_forget(struct cache *c, int64_t account_id);
size_t cache_count(const struct cache *c);

#endif
