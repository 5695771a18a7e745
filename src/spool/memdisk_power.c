/* memdisk_power.c: what lasts of names and octets when the power goes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "spool/memdisk_int.h"

struct entry *memdisk_entry_find(struct directory *dir, const char *path)
{
    for (size_t i = 0; i < dir->count; i++) {
        if (strcmp(dir->entries[i].path, path) == 0) {
            return &dir->entries[i];
        }
    }
    return NULL;
}

static void entry_remove(struct directory *dir, const char *path)
{
    struct entry *e = path[0] != '\0' ? memdisk_entry_find(dir, path) : NULL;
    if (e != NULL) {
        *e = dir->entries[--dir->count];
    }
}

static void entry_put(struct directory *dir, const char *path, struct node *n)
{
    entry_remove(dir, path);
    dir->entries = memdisk_alloc(dir->entries, (dir->count + 1) * sizeof(struct entry));
    struct entry *e = &dir->entries[dir->count++];
    (void)snprintf(e->path, sizeof(e->path), "%s", path);
    e->node = n;
}

void memdisk_change_apply(struct directory *dir, const struct change *c)
{
    entry_remove(dir, c->from);
    if (c->to[0] != '\0') {
        entry_put(dir, c->to, c->node);
    }
}

/* The directory of a path: what stands before the slash, or ".". */
static size_t directory_of(const char *path, char to[static NAME_MAX_OCTETS])
{
    const char *slash = strchr(path, '/');
    size_t len = slash == NULL ? 1 : (size_t)(slash - path);
    memcpy(to, slash == NULL ? "." : path, len);
    to[len] = '\0';
    return len;
}

static bool change_is_in(const struct change *c, const char *directory)
{
    char own[NAME_MAX_OCTETS];
    (void)directory_of(c->to[0] != '\0' ? c->to : c->from, own);
    return strcmp(own, directory) == 0;
}

/* The first `keep` of a directory's pending changes last; the others stay pending. */
void memdisk_names_last(struct memdisk *d, const char *directory, size_t keep)
{
    size_t left = 0;
    for (size_t i = 0; i < d->pending_count; i++) {
        struct change c = d->pending[i];
        if (keep > 0 && change_is_in(&c, directory)) {
            memdisk_change_apply(&d->lasting, &c);
            keep--;
        } else {
            d->pending[left++] = c;
        }
    }
    d->pending_count = left;
}

void memdisk_node_grow(struct node *n, size_t size)
{
    if (size > n->cap) {
        size_t cap = (size + UNIT * 8 - 1) / (UNIT * 8) * (UNIT * 8);
        n->now = memdisk_alloc(n->now, cap);
        n->lasting = memdisk_alloc(n->lasting, cap);
        n->dirty = memdisk_alloc(n->dirty, cap / UNIT / 8 + 1);
        memset(n->now + n->cap, 0, cap - n->cap);
        memset(n->lasting + n->cap, 0, cap - n->cap);
        memset(n->dirty + n->cap / UNIT / 8, 0, cap / UNIT / 8 + 1 - n->cap / UNIT / 8);
        n->cap = cap;
    }
}

static void node_clean(struct node *n)
{
    memset(n->dirty, 0, n->cap / UNIT / 8 + 1);
}

/* Reads see it, and it would be missing after a cut. */
static bool unit_is_pending(const struct node *n, size_t u)
{
    bool dirty = (n->dirty[u / 8] >> (u % 8) & 1) != 0;
    return dirty && ((u + 1) * UNIT > n->lasting_size || memcmp(n->now + u * UNIT, n->lasting + u * UNIT, UNIT) != 0);
}

static void unit_last(struct node *n, size_t u)
{
    memcpy(n->lasting + u * UNIT, n->now + u * UNIT, UNIT);
    size_t end = (u + 1) * UNIT < n->size ? (u + 1) * UNIT : n->size;
    n->lasting_size = end > n->lasting_size ? end : n->lasting_size;
}

void memdisk_node_sync(struct node *n)
{
    for (size_t u = 0; u < n->cap / UNIT; u++) {
        if (unit_is_pending(n, u)) {
            unit_last(n, u);
        }
    }
    n->lasting_size = n->size;
    node_clean(n);
}

/* Of what it was for, all, each second unit, nothing, or the front has reached the disk. */
void memdisk_node_sync_fails(struct node *n, uint64_t chance)
{
    size_t pending = 0, seen = 0;
    for (size_t u = 0; u < n->cap / UNIT; u++) {
        pending += unit_is_pending(n, u);
    }
    for (size_t u = 0; u < n->cap / UNIT; u++) {
        if (!unit_is_pending(n, u)) {
            continue;
        }
        bool front = seen++ < pending / 2;
        if (chance % 4 == 0 || (chance % 4 == 1 && u % 2 == 0) || (chance % 4 == 3 && front)) {
            unit_last(n, u);
        }
    }
    node_clean(n);
}

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

size_t memdisk_pending_units(const struct memdisk *d)
{
    size_t count = 0;
    for (size_t i = 0; i < d->nodes_count; i++) {
        for (size_t u = 0; u < d->nodes[i]->cap / UNIT; u++) {
            count += unit_is_pending(d->nodes[i], u);
        }
    }
    return count;
}

size_t memdisk_pending_names(const struct memdisk *d)
{
    return d->pending_count;
}

/* What lasts of the units that are pending when the power goes. */
struct losing {
    enum memdisk_loss loss;
    uint64_t random;
    size_t at;     /* the unit in question ... */
    size_t number; /* ... and the one looked at */
    unsigned mode; /* RANDOM: of this file */
};

static bool unit_lasts(struct losing *l)
{
    size_t number = l->number++;
    uint64_t dice = random_next(&l->random) % 8;
    switch (l->loss) {
    case MEMDISK_LOSE_ALL:
        return false;
    case MEMDISK_LOSE_NONE:
        return true;
    case MEMDISK_LOSE_TAIL:
        return number < l->at;
    case MEMDISK_LOSE_HEAD:
        return number >= l->at;
    case MEMDISK_LOSE_ONE:
        return number != l->at;
    case MEMDISK_KEEP_ONE:
        return number == l->at;
    case MEMDISK_LOSE_RANDOM:
        break;
    }
    return l->mode == 1 || (l->mode == 2 && dice < 4) || (l->mode == 3 && dice > 0);
}

static void node_lose(struct node *n, struct losing *l)
{
    l->mode = (unsigned)(random_next(&l->random) % 4); /* all lost, all kept, half, most */
    for (size_t u = 0; u < n->cap / UNIT; u++) {
        if (unit_is_pending(n, u) && unit_lasts(l)) {
            unit_last(n, u);
        }
    }
    memcpy(n->now, n->lasting, n->cap);
    n->size = n->lasting_size;
    node_clean(n);
}

/* Each directory keeps a first part of its changes. */
static void names_lose(struct memdisk *d, struct losing *l)
{
    unsigned mode = (unsigned)(random_next(&l->random) % 3); /* all kept, all lost, by chance */
    mode = l->loss == MEMDISK_LOSE_NONE ? 0 : l->loss == MEMDISK_LOSE_ALL ? 1 : mode;
    while (d->pending_count > 0) {
        char directory[NAME_MAX_OCTETS];
        size_t count = 0;
        const struct change *first = &d->pending[0];
        (void)directory_of(first->to[0] != '\0' ? first->to : first->from, directory);
        for (size_t i = 0; i < d->pending_count; i++) {
            count += change_is_in(&d->pending[i], directory);
        }
        memdisk_names_last(d, directory,
                           mode == 0   ? count
                           : mode == 1 ? 0
                                       : (size_t)(random_next(&l->random) % (count + 1)));
        size_t left = 0;
        for (size_t i = 0; i < d->pending_count; i++) {
            if (!change_is_in(&d->pending[i], directory)) {
                d->pending[left++] = d->pending[i];
            }
        }
        d->pending_count = left;
    }
}

static void directory_copy(struct directory *to, const struct directory *from)
{
    to->entries = memdisk_alloc(to->entries, (from->count + 1) * sizeof(struct entry));
    to->count = from->count;
    if (from->count > 0) {
        memcpy(to->entries, from->entries, from->count * sizeof(struct entry));
    }
}

/* Files without a name are gone. */
static void nodes_forget(struct memdisk *d)
{
    size_t left = 0;
    for (size_t i = 0; i < d->nodes_count; i++) {
        struct node *n = d->nodes[i];
        bool named = false;
        for (size_t k = 0; k < d->now.count && !named; k++) {
            named = d->now.entries[k].node == n;
        }
        if (named) {
            d->nodes[left++] = n;
        } else {
            free(n->now);
            free(n->lasting);
            free(n->dirty);
            free(n);
        }
    }
    d->nodes_count = left;
}

void memdisk_power_on(struct memdisk *d, enum memdisk_loss loss, uint64_t seed)
{
    size_t units = memdisk_pending_units(d) + 1;
    struct losing l = {.loss = loss, .random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1, .at = (size_t)(seed % units)};
    for (size_t i = 0; i < d->nodes_count; i++) {
        node_lose(d->nodes[i], &l);
    }
    names_lose(d, &l);
    directory_copy(&d->now, &d->lasting);
    nodes_forget(d);
    memset(d->fds, 0, sizeof(d->fds));
    d->locked = false;
    d->calls = d->syncs = 0;
    d->fail_at = d->cut_at = 0;
    memset(d->kinds, 0, sizeof(d->kinds));
}

uint64_t memdisk_hash(const struct memdisk *d)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < d->now.count; i++) {
        const struct entry *e = &d->now.entries[i];
        uint64_t own = XXH3_64bits_withSeed(e->path, strlen(e->path), e->node->size);
        sum += XXH3_64bits_withSeed(e->node->now, e->node->size, own);
    }
    return sum;
}

static struct node *node_copy(const struct node *n)
{
    struct node *to = memdisk_zero_alloc(sizeof(*to));
    memdisk_node_grow(to, n->cap);
    memcpy(to->now, n->now, n->cap);
    memcpy(to->lasting, n->lasting, n->cap);
    memcpy(to->dirty, n->dirty, n->cap / UNIT / 8 + 1);
    to->size = n->size;
    to->lasting_size = n->lasting_size;
    to->allocated = n->allocated;
    return to;
}

struct memdisk *memdisk_copy(const struct memdisk *from)
{
    struct memdisk *d = memdisk_new(from->total);
    d->nodes = memdisk_alloc(NULL, (from->nodes_count + 1) * sizeof(struct node *));
    d->nodes_count = from->nodes_count;
    directory_copy(&d->now, &from->now);
    directory_copy(&d->lasting, &from->lasting);
    d->pending_count = from->pending_count;
    d->pending = memdisk_alloc(NULL, (from->pending_count + 1) * sizeof(struct change));
    memcpy(d->pending, from->pending, from->pending_count * sizeof(struct change));
    for (size_t i = 0; i < from->nodes_count; i++) {
        const struct node *old = from->nodes[i];
        struct node *copy = d->nodes[i] = node_copy(old);
        for (size_t k = 0; k < d->now.count; k++) {
            d->now.entries[k].node = d->now.entries[k].node == old ? copy : d->now.entries[k].node;
        }
        for (size_t k = 0; k < d->lasting.count; k++) {
            d->lasting.entries[k].node = d->lasting.entries[k].node == old ? copy : d->lasting.entries[k].node;
        }
        for (size_t k = 0; k < d->pending_count; k++) {
            d->pending[k].node = d->pending[k].node == old ? copy : d->pending[k].node;
        }
    }
    d->free_octets = from->free_octets;
    d->inodes = from->inodes;
    d->limit = from->limit;
    return d;
}
