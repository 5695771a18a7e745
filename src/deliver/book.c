#include "deliver/book.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"

#define KEY_LEN 26

struct entry {
    uint8_t key[KEY_LEN]; /* address, port, scope */
    uint64_t down_until_ms, tls_broken_until_ms;
    struct refusal why;
    UT_hash_handle hh;
};

struct book {
    struct entry *entries; /* uthash keeps the order of insertion: the first is the oldest */
};

void refusal_set(struct refusal *r, bool permanent, uint16_t code, uint8_t subject, uint8_t detail, const char *fmt,
                 ...)
{
    r->permanent = permanent;
    r->code = code;
    r->enhanced[0] = permanent ? 5 : 4;
    r->enhanced[1] = subject;
    r->enhanced[2] = detail;
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(r->words, sizeof(r->words), fmt, ap);
    va_end(ap);
}

struct book *book_new(void)
{
    return calloc(1, sizeof(struct book));
}

static void entry_free(struct book *b, struct entry *e)
{
    HASH_DEL(b->entries, e);
    free(e);
}

void book_free(struct book **bp)
{
    struct book *b = *bp;
    *bp = NULL;
    while (b != NULL && b->entries != NULL) {
        entry_free(b, b->entries);
    }
    free(b);
}

static void key_make(const struct net_address *a, uint64_t scope, uint8_t key[static KEY_LEN])
{
    memcpy(key, a->bytes, sizeof(a->bytes));
    memcpy(key + sizeof(a->bytes), &a->port, sizeof(a->port));
    memcpy(key + sizeof(a->bytes) + sizeof(a->port), &scope, sizeof(scope));
}

static struct entry *entry_find(const struct book *b, const struct net_address *a, uint64_t scope)
{
    uint8_t key[KEY_LEN];
    struct entry *e;
    key_make(a, scope, key);
    HASH_FIND(hh, b->entries, key, KEY_LEN, e);
    return e;
}

static struct entry *entry_make(struct book *b, const struct net_address *a, uint64_t scope)
{
    struct entry *e = entry_find(b, a, scope);
    if (e != NULL) {
        return e;
    }
    if (HASH_COUNT(b->entries) >= BOOK_MAX) {
        entry_free(b, b->entries);
    }
    e = calloc(1, sizeof(*e));
    if (e == NULL) {
        return NULL;
    }
    key_make(a, scope, e->key);
    HASH_ADD(hh, b->entries, key, KEY_LEN, e);
    if (e->hh.tbl == NULL) {
        free(e);
        return NULL;
    }
    return e;
}

void book_set_down(struct book *b, const struct net_address *a, uint64_t scope, const struct refusal *why,
                   uint64_t until_ms)
{
    struct entry *e = entry_make(b, a, scope);
    if (e != NULL) {
        e->why = *why;
        e->down_until_ms = until_ms;
    }
}

const struct refusal *book_down(const struct book *b, const struct net_address *a, uint64_t scope, uint64_t now_ms)
{
    const struct entry *all = entry_find(b, a, 0), *own = scope != 0 ? entry_find(b, a, scope) : NULL;
    return all != NULL && now_ms < all->down_until_ms   ? &all->why
           : own != NULL && now_ms < own->down_until_ms ? &own->why
                                                        : NULL;
}

static void set_up(struct book *b, struct entry *e)
{
    if (e == NULL) {
        return;
    }
    e->down_until_ms = 0;
    if (e->tls_broken_until_ms == 0) {
        entry_free(b, e);
    }
}

void book_set_up(struct book *b, const struct net_address *a, uint64_t scope)
{
    set_up(b, entry_find(b, a, 0));
    if (scope != 0) {
        set_up(b, entry_find(b, a, scope));
    }
}

void book_set_tls_broken(struct book *b, const struct net_address *a, uint64_t now_ms)
{
    struct entry *e = entry_make(b, a, 0);
    if (e != NULL) {
        e->tls_broken_until_ms = now_ms + BOOK_TLS_MS;
    }
}

bool book_tls_broken(const struct book *b, const struct net_address *a, uint64_t now_ms)
{
    const struct entry *e = entry_find(b, a, 0);
    return e != NULL && now_ms < e->tls_broken_until_ms;
}

size_t book_count(const struct book *b)
{
    return HASH_COUNT(b->entries);
}
