#include "spool/memdisk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

struct memdisk {
    struct node **nodes;
    size_t nodes_count;
    struct directory now;
    struct directory
        *history; /* names as they were after each change since the last sync of any directory; [0]: lasting */
    size_t history_count;
    struct node *fds[FDS_MAX];
    bool locked;
    uint64_t total, free_octets, inodes;
    uint64_t calls, syncs, fail_at, fail_times, cut_at;
    int fail_error;
};

static void *xalloc(void *old, size_t size)
{
    void *p = realloc(old, size);
    if (p == NULL) {
        abort();
    }
    return p;
}

static struct directory directory_copy(const struct directory *d)
{
    struct directory c = {.count = d->count};
    c.entries = xalloc(NULL, (d->count + 1) * sizeof(struct entry));
    memcpy(c.entries, d->entries, d->count * sizeof(struct entry));
    return c;
}

struct memdisk *memdisk_new(uint64_t total)
{
    struct memdisk *d = calloc(1, sizeof(*d));
    if (d == NULL) {
        abort();
    }
    d->now.entries = xalloc(NULL, sizeof(struct entry));
    d->history = xalloc(NULL, sizeof(struct directory));
    d->history[0] = directory_copy(&d->now);
    d->history_count = 1;
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
    for (size_t i = 0; i < d->history_count; i++) {
        free(d->history[i].entries);
    }
    free(d->history);
    free(d->nodes);
    free(d->now.entries);
    free(d);
    *dp = NULL;
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

/* Names changed: one more state that may be what lasts. */
static void names_changed(struct memdisk *d)
{
    d->history = xalloc(d->history, (d->history_count + 1) * sizeof(struct directory));
    d->history[d->history_count++] = directory_copy(&d->now);
}

static void entry_remove(struct memdisk *d, struct entry *e)
{
    *e = d->now.entries[--d->now.count];
}

static void entry_add(struct memdisk *d, const char *path, struct node *n)
{
    d->now.entries = xalloc(d->now.entries, (d->now.count + 2) * sizeof(struct entry));
    struct entry *e = &d->now.entries[d->now.count++];
    memset(e, 0, sizeof(*e));
    (void)snprintf(e->path, sizeof(e->path), "%s", path);
    e->node = n;
}

static void node_grow(struct node *n, size_t size)
{
    if (size > n->cap) {
        size_t cap = (size + UNIT * 8 - 1) / (UNIT * 8) * (UNIT * 8);
        n->now = xalloc(n->now, cap);
        n->lasting = xalloc(n->lasting, cap);
        n->dirty = xalloc(n->dirty, cap / UNIT / 8 + 1);
        memset(n->now + n->cap, 0, cap - n->cap);
        memset(n->lasting + n->cap, 0, cap - n->cap);
        memset(n->dirty + n->cap / UNIT / 8, 0, cap / UNIT / 8 + 1 - n->cap / UNIT / 8);
        n->cap = cap;
    }
}

static struct node *node_new(struct memdisk *d)
{
    struct node *n = calloc(1, sizeof(*n));
    if (n == NULL) {
        abort();
    }
    d->nodes = xalloc(d->nodes, (d->nodes_count + 1) * sizeof(struct node *));
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
    if (e != NULL) {
        e->node = n;
    } else {
        entry_add(d, path, n);
    }
    names_changed(d);
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

static int mem_write(void *arg, int fd, struct iovec *iov, int count, uint64_t offset)
{
    struct memdisk *d = arg;
    struct node *n = fd_node(d, fd);
    int r = n == NULL ? -EBADF : counted(d);
    for (int i = 0; r == 0 && i < count; i++) {
        size_t end = (size_t)offset + iov[i].iov_len;
        if (iov[i].iov_len == 0) {
            continue;
        }
        node_grow(n, end);
        memcpy(n->now + offset, iov[i].iov_base, iov[i].iov_len);
        for (size_t u = (size_t)offset / UNIT; u <= (end - 1) / UNIT; u++) {
            n->dirty[u / 8] |= (uint8_t)(1U << (u % 8));
        }
        n->size = end > n->size ? end : n->size;
        offset = end;
    }
    return r;
}

static void node_clean(struct node *n)
{
    memset(n->dirty, 0, n->cap / UNIT / 8 + 1);
}

static int mem_sync(void *arg, int fd)
{
    struct memdisk *d = arg;
    struct node *n = fd_node(d, fd);
    int r = n == NULL ? -EBADF : counted(d);
    d->syncs++;
    if (r == 0) {
        memcpy(n->lasting, n->now, n->cap);
        n->lasting_size = n->size;
    }
    if (n != NULL && !memdisk_is_cut(d)) {
        node_clean(n);
    }
    return r;
}

static void history_forget(struct memdisk *d, size_t keep)
{
    for (size_t i = 0; i < d->history_count; i++) {
        if (i != keep) {
            free(d->history[i].entries);
        }
    }
    d->history[0] = d->history[keep];
    d->history_count = 1;
}

static int mem_sync_dir(void *arg, const char *path)
{
    (void)path;
    struct memdisk *d = arg;
    int r = counted(d);
    d->syncs++;
    if (r == 0) {
        history_forget(d, d->history_count - 1);
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
    struct entry *e = entry_find(&d->now, from);
    if (r < 0 || e == NULL) {
        return r < 0 ? r : -ENOENT;
    }
    if (strcmp(from, to) == 0) {
        return 0;
    }
    struct node *n = e->node;
    entry_remove(d, e);
    e = entry_find(&d->now, to);
    if (e != NULL) {
        entry_remove(d, e);
    }
    entry_add(d, to, n);
    names_changed(d);
    return 0;
}

static int mem_unlink(void *arg, const char *path)
{
    struct memdisk *d = arg;
    int r = counted(d);
    struct entry *e = entry_find(&d->now, path);
    if (r < 0 || e == NULL) {
        return r < 0 ? r : -ENOENT;
    }
    entry_remove(d, e);
    names_changed(d);
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

static void node_lose(struct node *n, enum memdisk_loss loss, uint64_t *random)
{
    if (loss == MEMDISK_LOSE_NONE) {
        memcpy(n->lasting, n->now, n->cap);
        n->lasting_size = n->size;
    }
    unsigned mode = (unsigned)(random_next(random) % 4); /* all lost, all kept, half, most */
    for (size_t u = 0; loss == MEMDISK_LOSE_RANDOM && u < n->cap / UNIT; u++) {
        bool dirty = (n->dirty[u / 8] >> (u % 8) & 1) != 0;
        uint64_t dice = random_next(random) % 8;
        bool kept = mode == 1 || (mode == 2 && dice < 4) || (mode == 3 && dice > 0);
        if (dirty && kept) {
            memcpy(n->lasting + u * UNIT, n->now + u * UNIT, UNIT);
            size_t end = (u + 1) * UNIT < n->size ? (u + 1) * UNIT : n->size;
            n->lasting_size = end > n->lasting_size ? end : n->lasting_size;
        }
    }
    memcpy(n->now, n->lasting, n->cap);
    n->size = n->lasting_size;
    node_clean(n);
}

void memdisk_power_on(struct memdisk *d, enum memdisk_loss loss, uint64_t seed)
{
    uint64_t random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    size_t names = loss == MEMDISK_LOSE_ALL    ? 0
                   : loss == MEMDISK_LOSE_NONE ? d->history_count - 1
                                               : (size_t)(random_next(&random) % d->history_count);
    free(d->now.entries);
    d->now = directory_copy(&d->history[names]);
    history_forget(d, names);
    for (size_t i = 0; i < d->nodes_count; i++) {
        node_lose(d->nodes[i], loss, &random);
    }
    memset(d->fds, 0, sizeof(d->fds));
    d->locked = false;
    d->calls = d->syncs = 0;
    d->fail_at = d->cut_at = 0;
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

struct memdisk *memdisk_copy(const struct memdisk *from)
{
    struct memdisk *d = memdisk_new(from->total);
    for (size_t i = 0; i < from->now.count; i++) {
        const struct node *n = from->now.entries[i].node;
        struct node *to = node_new(d);
        node_grow(to, n->cap);
        memcpy(to->now, n->now, n->cap);
        memcpy(to->lasting, n->now, n->cap);
        to->size = to->lasting_size = n->size;
        entry_add(d, from->now.entries[i].path, to);
    }
    names_changed(d);
    history_forget(d, d->history_count - 1);
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
