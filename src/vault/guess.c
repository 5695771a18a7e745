#include "vault/guess.h"

#include <assert.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define PROBE     8U
#define TAGS      8U
#define UNIT      1024U /* one guess in a score */
#define SCORE_MAX (64U * UNIT)
#define MINUTE    UINT64_C(60000)
#define AGE_MAX   (10 * 1440 * MINUTE)
#define LAYOUT    UINT64_C(0x313030737365756b) /* another number for another layout of what outlives us */

enum scope { SCOPE_PAIR, SCOPE_NETWORK, SCOPE_AROUND, SCOPE_ACCOUNT, SCOPES };

/* free: times guess_settings.free. A household or an office behind one address may have some who mistype. */
static const struct {
    uint64_t half_life_ms;
    uint32_t free;
} scopes[SCOPES] = {
    [SCOPE_PAIR] = {15 * MINUTE, 1},
    [SCOPE_NETWORK] = {30 * MINUTE, 4},
    [SCOPE_AROUND] = {60 * MINUTE, 10},
    [SCOPE_ACCOUNT] = {240 * MINUTE, 3}, /* long: slow guessing from many places adds up */
};

struct record {
    uint8_t key[16];
    int64_t touched_ms; /* when score was right; 0: empty; below 0: before this boot */
    uint32_t score;
    uint32_t next_tag;
    uint32_t tags[TAGS]; /* wrong passwords seen lately */
};

struct good {
    uint8_t key[16];
    uint64_t until_ms; /* 0: empty */
};

/* What stands before the tables. */
struct header {
    uint64_t layout; /* LAYOUT when the rest is there */
    uint64_t records, good_records;
    uint8_t boot_id[16];
    uint8_t key_hash[16];
    uint64_t seen_ms; /* the clock at the last change */
};

struct guess {
    uint8_t key[GUESS_KEY_LEN];
    uint8_t tag_key[GUESS_KEY_LEN];
    struct guess_settings settings;
    size_t records_mask, good_mask;
    struct header *header;
    struct record *records;
    struct good *good; /* apart: only who knows the password writes here, so guessing cannot push anyone out */
};

size_t guess_octets(size_t records, size_t good_records)
{
    return sizeof(struct header) + records * sizeof(struct record) + good_records * sizeof(struct good);
}

/* How long ago, where nothing is left of a score after AGE_MAX. */
static uint64_t age_of(int64_t at_ms, uint64_t now_ms)
{
    uint64_t age = at_ms < (int64_t)now_ms ? now_ms - (uint64_t)at_ms : 0;
    return age < AGE_MAX ? age : AGE_MAX;
}

/* The same moment in the clock of now; of another boot: as long ago as it was when that boot was last seen. */
static int64_t moved(const struct header *h, bool same_boot, int64_t at_ms, uint64_t now_ms)
{
    int64_t at = (int64_t)now_ms - (int64_t)age_of(at_ms, same_boot ? now_ms : h->seen_ms);
    return at != 0 ? at : -1;
}

/* What an earlier process counted. It may have died in the middle of a change, or a power cut may have torn it. */
static void adopt(struct guess *g, bool same_boot, uint64_t now_ms)
{
    const struct header *h = g->header;
    for (size_t i = 0; i <= g->records_mask; i++) {
        struct record *r = &g->records[i];
        if (r->touched_ms != 0) {
            r->touched_ms = moved(h, same_boot, r->touched_ms, now_ms);
            r->score = r->score < SCORE_MAX ? r->score : SCORE_MAX;
            r->next_tag = 0;
            memset(r->tags, 0, sizeof(r->tags));
        }
    }
    for (size_t i = 0; i <= g->good_mask; i++) {
        struct good *r = &g->good[i];
        if (r->until_ms != 0) {
            uint64_t left = r->until_ms > h->seen_ms ? r->until_ms - h->seen_ms : 0;
            left = left < g->settings.good_ms ? left : g->settings.good_ms;
            r->until_ms = (same_boot && h->seen_ms < now_ms ? h->seen_ms : now_ms) + left;
        }
    }
}

static void seen(struct guess *g, uint64_t now_ms)
{
    g->header->seen_ms = now_ms;
}

static void begin_tables(struct guess *g, const struct guess_start *start)
{
    struct header like = {.layout = LAYOUT, .records = start->records, .good_records = start->good_records};
    memcpy(like.boot_id, start->boot_id, sizeof(like.boot_id));
    (void)crypto_shorthash_siphashx24(like.key_hash, start->key, sizeof(start->key), start->key);
    struct header *h = g->header;
    if (h->layout == LAYOUT && h->records == like.records && h->good_records == like.good_records &&
        memcmp(h->key_hash, like.key_hash, sizeof(h->key_hash)) == 0) {
        static const uint8_t unknown[16] = {0};
        adopt(g,
              memcmp(h->boot_id, like.boot_id, sizeof(h->boot_id)) == 0 && memcmp(h->boot_id, unknown, 16) != 0 &&
                  h->seen_ms <= start->now_ms,
              start->now_ms);
    } else if (h->layout != 0) {
        memset(g->header, 0, guess_octets(start->records, start->good_records));
    }
    *h = like;
    seen(g, start->now_ms);
}

struct guess *guess_new(const struct guess_start *start, const struct guess_settings *settings)
{
    assert((start->records & (start->records - 1)) == 0 && (start->good_records & (start->good_records - 1)) == 0);
    struct guess *g = calloc(1, sizeof(*g));
    if (g == NULL) {
        return NULL;
    }
    memcpy(g->key, start->key, sizeof(g->key));
    randombytes_buf(g->tag_key, sizeof(g->tag_key));
    g->settings = *settings;
    g->records_mask = start->records - 1;
    g->good_mask = start->good_records - 1;
    g->header = start->memory;
    g->records = (struct record *)(g->header + 1);
    g->good = (struct good *)(g->records + start->records);
    begin_tables(g, start);
    return g;
}

void guess_free(struct guess **gp)
{
    struct guess *g = *gp;
    *gp = NULL;
    if (g != NULL) {
        explicit_bzero(g, sizeof(*g));
        free(g);
    }
}

void guess_configure(struct guess *g, const struct guess_settings *settings)
{
    g->settings = *settings;
}

void guess_network(const struct net_address *peer, uint8_t ret[static 16])
{
    memcpy(ret, peer->bytes, 16);
    if (!net_address_is_v4(peer)) {
        memset(ret + 8, 0, 8);
    }
}

/* Names longer than an account's can be were refused before. */
static void scope_key(const struct guess *g, const struct guess_who *who, enum scope scope, uint8_t ret[static 16])
{
    uint8_t bytes[1 + 16 + 256] = {(uint8_t)scope};
    size_t len = 17;
    if (scope != SCOPE_ACCOUNT) {
        guess_network(&who->peer, bytes + 1);
    }
    if (scope == SCOPE_AROUND && !net_address_is_v4(&who->peer)) {
        memset(bytes + 1 + 6, 0, 10);
    }
    if (scope == SCOPE_PAIR || scope == SCOPE_ACCOUNT) {
        size_t name = who->account.len < 256 ? who->account.len : 256;
        if (name > 0) {
            memcpy(bytes + len, who->account.ptr, name);
        }
        len += name;
    }
    (void)crypto_shorthash_siphashx24(ret, bytes, len, g->key);
}

static size_t home(const uint8_t key[static 16])
{
    size_t h;
    memcpy(&h, key, sizeof(h));
    return h;
}

/* Halves every half_life_ms, straight lines between. */
static uint32_t decayed(const struct record *r, uint64_t half_life_ms, uint64_t now_ms)
{
    uint64_t age = age_of(r->touched_ms, now_ms);
    uint64_t halvings = age / half_life_ms, rest = age % half_life_ms;
    if (halvings >= 32) {
        return 0;
    }
    uint32_t score = r->score >> halvings;
    return score - (uint32_t)((uint64_t)score * rest / half_life_ms / 2);
}

static struct record *find(const struct guess *g, const uint8_t key[static 16])
{
    for (size_t i = 0; i < PROBE; i++) {
        struct record *r = &g->records[(home(key) + i) & g->records_mask];
        if (r->touched_ms != 0 && memcmp(r->key, key, 16) == 0) {
            return r;
        }
    }
    return NULL;
}

/* The record of key, made if need be in the place of the one in the probe that counts least: measured with the longest
 * half-life, so that what was touched last and counted most stays. */
static struct record *find_or_make(struct guess *g, const uint8_t key[static 16], uint64_t now_ms)
{
    struct record *r = find(g, key), *least = NULL;
    uint32_t least_score = 0;
    for (size_t i = 0; i < PROBE && r == NULL; i++) {
        struct record *c = &g->records[(home(key) + i) & g->records_mask];
        uint32_t score = c->touched_ms == 0 ? 0 : 1 + decayed(c, scopes[SCOPE_ACCOUNT].half_life_ms, now_ms);
        if (least == NULL || score < least_score) {
            least = c;
            least_score = score;
        }
    }
    if (r == NULL) {
        r = least;
        *r = (struct record){.touched_ms = (int64_t)now_ms};
        memcpy(r->key, key, 16);
    }
    return r;
}

static uint32_t scope_score(const struct guess *g, const struct guess_who *who, enum scope scope, uint64_t now_ms)
{
    uint8_t key[16];
    scope_key(g, who, scope, key);
    const struct record *r = find(g, key);
    return r != NULL ? decayed(r, scopes[scope].half_life_ms, now_ms) : 0;
}

static uint64_t scope_wait_ms(const struct guess *g, const struct guess_who *who, enum scope scope, uint64_t now_ms)
{
    uint32_t score = scope_score(g, who, scope, now_ms), allowed = g->settings.free * scopes[scope].free;
    /* Half a guess counts as one, so that a count does not fall below its limit the moment after it got there. */
    uint32_t guesses = (score + UNIT / 2) / UNIT;
    uint64_t wait_ms = guesses > allowed ? g->settings.first_ms : 0;
    for (uint32_t i = allowed + 1; i < guesses && wait_ms < g->settings.max_ms; i++) {
        wait_ms *= 2;
    }
    return wait_ms < g->settings.max_ms ? wait_ms : g->settings.max_ms;
}

static struct good *find_good(const struct guess *g, const uint8_t key[static 16])
{
    for (size_t i = 0; i < PROBE; i++) {
        struct good *r = &g->good[(home(key) + i) & g->good_mask];
        if (r->until_ms != 0 && memcmp(r->key, key, 16) == 0) {
            return r;
        }
    }
    return NULL;
}

bool guess_is_known(const struct guess *g, const struct guess_who *who, uint64_t now_ms)
{
    uint8_t key[16];
    scope_key(g, who, SCOPE_PAIR, key);
    const struct good *r = find_good(g, key);
    return r != NULL && r->until_ms > now_ms;
}

uint64_t guess_wait_ms(const struct guess *g, const struct guess_who *who, uint64_t now_ms)
{
    size_t last = guess_is_known(g, who, now_ms) ? SCOPE_PAIR : SCOPE_ACCOUNT;
    uint64_t wait_ms = 0;
    for (size_t s = SCOPE_PAIR; s <= last; s++) {
        uint64_t w = scope_wait_ms(g, who, (enum scope)s, now_ms);
        wait_ms = w > wait_ms ? w : wait_ms;
    }
    return wait_ms;
}

uint64_t guess_network_wait_ms(const struct guess *g, const struct guess_who *who, uint64_t now_ms)
{
    uint64_t a = scope_wait_ms(g, who, SCOPE_NETWORK, now_ms), b = scope_wait_ms(g, who, SCOPE_AROUND, now_ms);
    uint64_t c = scope_wait_ms(g, who, SCOPE_PAIR, now_ms);
    a = a > b ? a : b;
    return a > c ? a : c;
}

static bool has_tag(const struct record *r, uint32_t tag)
{
    for (size_t i = 0; i < TAGS; i++) {
        if (tag != 0 && r->tags[i] == tag) {
            return true;
        }
    }
    return false;
}

/* true: it was there already. */
static bool note_tag(struct record *r, uint32_t tag)
{
    if (tag == 0 || has_tag(r, tag)) {
        return tag != 0;
    }
    r->tags[r->next_tag++ % TAGS] = tag;
    return false;
}

static void count(struct record *r, enum scope scope, uint64_t now_ms)
{
    uint32_t score = decayed(r, scopes[scope].half_life_ms, now_ms) + UNIT;
    r->score = score < SCORE_MAX ? score : SCORE_MAX;
    r->touched_ms = (int64_t)now_ms;
}

static uint32_t make_tag(const struct guess *g, struct span what)
{
    uint8_t hash[16];
    uint32_t tag;
    if (what.len == 0) {
        return 0;
    }
    (void)crypto_shorthash_siphashx24(hash, what.ptr, what.len, g->tag_key);
    memcpy(&tag, hash, sizeof(tag));
    return tag != 0 ? tag : 1;
}

struct guess_outcome guess_failed(struct guess *g, const struct guess_who *who, struct span what, uint64_t now_ms)
{
    struct guess_outcome o = {0};
    uint32_t tag = make_tag(g, what);
    now_ms = now_ms > 0 ? now_ms : 1; /* 0 marks the empty record */
    for (size_t s = SCOPE_PAIR; s < SCOPES && !o.repeated; s++) {
        uint8_t key[16];
        scope_key(g, who, (enum scope)s, key);
        struct record *r = find_or_make(g, key, now_ms);
        bool seen = (s == SCOPE_PAIR || s == SCOPE_ACCOUNT) && note_tag(r, tag);
        o.repeated = seen && s == SCOPE_PAIR;
        if (!seen) { /* at the account: the same stale password from another place is not news either */
            count(r, (enum scope)s, now_ms);
        }
    }
    seen(g, now_ms);
    o.wait_ms = guess_wait_ms(g, who, now_ms);
    return o;
}

void guess_succeeded(struct guess *g, const struct guess_who *who, uint64_t now_ms)
{
    uint8_t key[16];
    scope_key(g, who, SCOPE_PAIR, key);
    struct good *r = find_good(g, key), *c = NULL;
    for (size_t i = 0; i < PROBE && r == NULL; i++) {
        struct good *at = &g->good[(home(key) + i) & g->good_mask];
        c = c == NULL || at->until_ms < c->until_ms ? at : c;
    }
    r = r != NULL ? r : c;
    memcpy(r->key, key, 16);
    r->until_ms = now_ms + g->settings.good_ms;
    seen(g, now_ms);
}

uint32_t guess_count(const struct guess *g, const struct guess_who *who, uint64_t now_ms)
{
    return (scope_score(g, who, SCOPE_ACCOUNT, now_ms) + UNIT / 2) / UNIT;
}
