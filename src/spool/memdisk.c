#include "spool/memdisk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define NAME_MAX_OCTETS 80
#define FDS_MAX         256
#define UNIT            512U

/* An inode: what reads see, what lasts, and which units differ. */
struct node {
    uint8_t *now, *lasting;
    size_t size, lasting_size, cap;
    uint8_t *dirty; /* a bit for each unit */
};

struct entry {
    char path[NAME_MAX_OCTETS];
    struct node *node;
};

struct directory {
    struct entry *entries;
    size_t count;
};

/* A change of names that no sync has made last: from goes (empty: nothing goes), to is node (empty: nothing comes). */
struct change {
    char from[NAME_MAX_OCTETS], to[NAME_MAX_OCTETS];
    struct node *node;
};

struct memdisk {
    struct node **nodes;
    size_t nodes_count;
    struct directory now, lasting;
    struct change *pending; /* from lasting to now, in order */
    size_t pending_count;
    struct node *fds[FDS_MAX];
    bool locked;
    uint64_t total, free_octets, inodes;
    uint64_t calls, syncs, fail_at, fail_times, cut_at;
    int fail_error;
    void (*watch)(void *arg);
    void *watch_arg;
};

unsigned memdisk_allocating;

void *memdisk_alloc(void *old, size_t size)
{
    memdisk_allocating++;
    void *p = realloc(old, size);
    memdisk_allocating--;
    if (p == NULL) {
        abort();
    }
    return p;
}

static void *zero_alloc(size_t size)
{
    return memset(memdisk_alloc(NULL, size), 0, size);
}

struct memdisk *memdisk_new(uint64_t total)
{
    struct memdisk *d = zero_alloc(sizeof(*d));
    d->total = d->free_octets = total;
    d->inodes = 100000;
    return d;
}

void memdisk_free(struct memdisk **dp)
{
    struct memdisk *d = *dp;
    for (size_t i = 0; i < d->nodes_count; i++) {
        free(d->nodes[i]->now);
        free(d->nodes[i]->lasting);
        free(d->nodes[i]->dirty);
        free(d->nodes[i]);
    }
    free(d->nodes);
    free(d->now.entries);
    free(d->lasting.entries);
    free(d->pending);
    free(d);
    *dp = NULL;
}

/* Something has changed and is not on the disk for good. */
static void watched(struct memdisk *d)
{
    if (d->watch != NULL) {
        d->watch(d->watch_arg);
    }
}

/* 0: go on; else what the call returns. */
static int counted(struct memdisk *d)
{
    d->calls++;
    if (d->cut_at != 0 && d->calls >= d->cut_at) {
        return -EIO;
    }
    bool fails = d->fail_at != 0 && d->calls >= d->fail_at && d->calls - d->fail_at < d->fail_times;
    return fails ? -d->fail_error : 0;
}

static struct entry *entry_find(struct directory *dir, const char *path)
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
    struct entry *e = path[0] != '\0' ? entry_find(dir, path) : NULL;
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

static void change_apply(struct directory *dir, const struct change *c)
{
    entry_remove(dir, c->from);
    if (c->to[0] != '\0') {
        entry_put(dir, c->to, c->node);
    }
}

static void names_change(struct memdisk *d, const char *from, const char *to, struct node *n)
{
    d->pending = memdisk_alloc(d->pending, (d->pending_count + 1) * sizeof(struct change));
    struct change *c = &d->pending[d->pending_count++];
    (void)snprintf(c->from, sizeof(c->from), "%s", from);
    (void)snprintf(c->to, sizeof(c->to), "%s", to);
    c->node = n;
    change_apply(&d->now, c);
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
static void names_last(struct memdisk *d, const char *directory, size_t keep)
{
    size_t left = 0;
    for (size_t i = 0; i < d->pending_count; i++) {
        struct change c = d->pending[i];
        if (keep > 0 && change_is_in(&c, directory)) {
            change_apply(&d->lasting, &c);
            keep--;
        } else {
            d->pending[left++] = c;
        }
    }
    d->pending_count = left;
}

static void node_grow(struct node *n, size_t size)
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

static struct node *node_new(struct memdisk *d)
{
    struct node *n = zero_alloc(sizeof(*n));
    d->nodes = memdisk_alloc(d->nodes, (d->nodes_count + 1) * sizeof(struct node *));
    d->nodes[d->nodes_count++] = n;
    node_grow(n, UNIT);
    return n;
}

static int fd_new(struct memdisk *d, struct node *n)
{
    for (int i = 0; i < FDS_MAX; i++) {
        if (d->fds[i] == NULL) {
            d->fds[i] = n;
            return i + 1000;
        }
    }
    return -EMFILE;
}

static struct node *fd_node(struct memdisk *d, int fd)
{
    return fd >= 1000 && fd < 1000 + FDS_MAX ? d->fds[fd - 1000] : NULL;
}

static int mem_open(void *arg, const char *path, enum disk_open how)
{
    struct memdisk *d = arg;
    struct entry *e = entry_find(&d->now, path);
    if (how == DISK_READ || how == DISK_WRITE) {
        return e == NULL ? -ENOENT : fd_new(d, e->node);
    }
    int r = counted(d);
    if (r < 0) {
        return r;
    }
    if (how == DISK_CREATE && e != NULL) {
        return -EEXIST;
    }
    struct node *n = node_new(d); /* DISK_RENEW: truncation is as good as a new file here */
    names_change(d, "", path, n);
    watched(d);
    return fd_new(d, n);
}

static void mem_close(void *arg, int fd)
{
    struct memdisk *d = arg;
    if (fd == 999) {
        d->locked = false;
    } else if (fd_node(d, fd) != NULL) {
        d->fds[fd - 1000] = NULL;
    }
}

static int64_t mem_read(void *arg, int fd, void *to, size_t len, uint64_t offset)
{
    const struct node *n = fd_node(arg, fd);
    if (n == NULL) {
        return -EBADF;
    }
    if (offset >= n->size) {
        return 0;
    }
    size_t have = n->size - (size_t)offset < len ? n->size - (size_t)offset : len;
    memcpy(to, n->now + offset, have);
    return (int64_t)have;
}

static void node_write(struct node *n, const uint8_t *from, size_t len, size_t offset)
{
    size_t end = offset + len;
    node_grow(n, end);
    memcpy(n->now + offset, from, len);
    for (size_t u = offset / UNIT; u <= (end - 1) / UNIT; u++) {
        n->dirty[u / 8] |= (uint8_t)(1U << (u % 8));
    }
    n->size = end > n->size ? end : n->size;
}

static int mem_write(void *arg, int fd, struct iovec *iov, int count, uint64_t offset)
{
    struct memdisk *d = arg;
    struct node *n = fd_node(d, fd);
    int r = n == NULL ? -EBADF : counted(d);
    if (n == NULL || memdisk_is_cut(d)) {
        return r;
    }
    size_t room = r == 0 ? SIZE_MAX : d->calls % 2 * UNIT * 3; /* one that fails may have written some of it */
    for (int i = 0; i < count; i++) {
        size_t len = iov[i].iov_len < room ? iov[i].iov_len : room;
        if (len > 0) {
            node_write(n, iov[i].iov_base, len, (size_t)offset);
        }
        room -= len;
        offset += len;
    }
    watched(d);
    return r;
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

/* The kernel says that it failed, once, and takes the pages for clean. All, some or nothing has reached the disk. */
static void node_sync_fails(struct node *n, uint64_t chance)
{
    for (size_t u = 0; u < n->cap / UNIT; u++) {
        bool lasts = chance % 3 == 0 || (chance % 3 == 1 && u % 2 == 0);
        if (unit_is_pending(n, u) && lasts) {
            unit_last(n, u);
        }
    }
}

static int mem_sync(void *arg, int fd)
{
    struct memdisk *d = arg;
    struct node *n = fd_node(d, fd);
    int r = n == NULL ? -EBADF : counted(d);
    d->syncs++;
    if (n == NULL || memdisk_is_cut(d)) {
        return r;
    }
    if (r == 0) {
        memcpy(n->lasting, n->now, n->cap);
        n->lasting_size = n->size;
    } else {
        node_sync_fails(n, d->calls);
    }
    node_clean(n);
    watched(d);
    return r;
}

static int mem_sync_dir(void *arg, const char *path)
{
    struct memdisk *d = arg;
    int r = counted(d);
    d->syncs++;
    if (r == 0) {
        names_last(d, path, SIZE_MAX);
        watched(d);
    }
    return r;
}

static int mem_allocate(void *arg, int fd, uint64_t len)
{
    struct memdisk *d = arg;
    int r = counted(d);
    (void)fd;
    return r < 0 ? r : len > d->free_octets ? -ENOSPC : 0;
}

static int64_t mem_size(void *arg, int fd)
{
    const struct node *n = fd_node(arg, fd);
    return n == NULL ? -EBADF : (int64_t)n->size;
}

static void mem_write_behind(void *arg, int fd, uint64_t offset, uint64_t len)
{
    (void)arg, (void)fd, (void)offset, (void)len;
}

static int mem_rename(void *arg, const char *from, const char *to)
{
    struct memdisk *d = arg;
    int r = counted(d);
    const struct entry *e = entry_find(&d->now, from);
    if (r < 0 || e == NULL) {
        return r < 0 ? r : -ENOENT;
    }
    if (strcmp(from, to) == 0) {
        return 0;
    }
    names_change(d, from, to, e->node);
    watched(d);
    return 0;
}

static int mem_unlink(void *arg, const char *path)
{
    struct memdisk *d = arg;
    int r = counted(d);
    const struct entry *e = entry_find(&d->now, path);
    if (r < 0 || e == NULL) {
        return r < 0 ? r : -ENOENT;
    }
    names_change(d, path, "", NULL);
    watched(d);
    return 0;
}

static int mem_mkdir(void *arg, const char *path)
{
    (void)arg, (void)path;
    return 0;
}

static int mem_list(void *arg, const char *path, int (*each)(void *each_arg, const char *name), void *each_arg)
{
    struct memdisk *d = arg;
    size_t prefix = strcmp(path, ".") == 0 ? 0 : strlen(path) + 1;
    int r = 0;
    for (size_t i = 0; r == 0 && i < d->now.count; i++) {
        const char *name = d->now.entries[i].path;
        if (prefix == 0 ? strchr(name, '/') == NULL : strncmp(name, path, prefix - 1) == 0 && name[prefix - 1] == '/') {
            r = each(each_arg, name + prefix);
        }
    }
    return r;
}

static int mem_space(void *arg, struct disk_space *ret)
{
    const struct memdisk *d = arg;
    *ret = (struct disk_space){d->total, d->free_octets, d->inodes};
    return 0;
}

static int mem_lock(void *arg, const char *path)
{
    struct memdisk *d = arg;
    (void)path;
    if (d->locked) {
        return -EBUSY;
    }
    d->locked = true;
    return 999;
}

struct spool_disk memdisk_calls(struct memdisk *d)
{
    return (struct spool_disk){
        .arg = d,
        .open = mem_open,
        .close = mem_close,
        .read = mem_read,
        .write = mem_write,
        .sync = mem_sync,
        .sync_dir = mem_sync_dir,
        .allocate = mem_allocate,
        .size = mem_size,
        .write_behind = mem_write_behind,
        .rename = mem_rename,
        .unlink = mem_unlink,
        .mkdir = mem_mkdir,
        .list = mem_list,
        .space = mem_space,
        .lock = mem_lock,
    };
}

void memdisk_fail(struct memdisk *d, uint64_t at, uint64_t times, int error)
{
    d->fail_at = at;
    d->fail_times = times;
    d->fail_error = error;
}

void memdisk_cut(struct memdisk *d, uint64_t at)
{
    d->cut_at = at;
}

bool memdisk_is_cut(const struct memdisk *d)
{
    return d->cut_at != 0 && d->calls >= d->cut_at;
}

uint64_t memdisk_calls_made(const struct memdisk *d)
{
    return d->calls;
}

uint64_t memdisk_syncs(const struct memdisk *d)
{
    return d->syncs;
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
        names_last(d, directory, mode == 0 ? count : mode == 1 ? 0 : (size_t)(random_next(&l->random) % (count + 1)));
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
}

void memdisk_watch(struct memdisk *d, void (*changed)(void *arg), void *arg)
{
    d->watch = changed;
    d->watch_arg = arg;
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

uint8_t *memdisk_octets(struct memdisk *d, const char *path, size_t *ret_size)
{
    struct entry *e = entry_find(&d->now, path);
    if (e == NULL) {
        return NULL;
    }
    *ret_size = e->node->size;
    return e->node->now;
}

int memdisk_truncate(struct memdisk *d, const char *path, size_t size)
{
    struct entry *e = entry_find(&d->now, path);
    if (e == NULL || size > e->node->size) {
        return -ENOENT;
    }
    memset(e->node->now + size, 0, e->node->size - size);
    e->node->size = size;
    return 0;
}

static struct node *node_copy(const struct node *n)
{
    struct node *to = zero_alloc(sizeof(*to));
    node_grow(to, n->cap);
    memcpy(to->now, n->now, n->cap);
    memcpy(to->lasting, n->lasting, n->cap);
    memcpy(to->dirty, n->dirty, n->cap / UNIT / 8 + 1);
    to->size = n->size;
    to->lasting_size = n->lasting_size;
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
    return d;
}

void memdisk_set_free(struct memdisk *d, uint64_t free_octets, uint64_t inodes)
{
    d->free_octets = free_octets;
    d->inodes = inodes;
}

size_t memdisk_open_files(const struct memdisk *d)
{
    size_t count = 0;
    for (int i = 0; i < FDS_MAX; i++) {
        count += d->fds[i] != NULL;
    }
    return count;
}
