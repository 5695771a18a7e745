#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "spool/memdisk_int.h"

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

void *memdisk_zero_alloc(size_t size)
{
    return memset(memdisk_alloc(NULL, size), 0, size);
}

struct memdisk *memdisk_new(uint64_t total)
{
    struct memdisk *d = memdisk_zero_alloc(sizeof(*d));
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
static int kind_fails(struct memdisk *d, enum memdisk_call kind)
{
    uint64_t call = d->hushed ? 0 : ++d->kinds[kind].calls;
    uint64_t at = d->kinds[kind].at;
    return at != 0 && call >= at && call - at < d->kinds[kind].times ? -d->kinds[kind].error : 0;
}

static int counted(struct memdisk *d, enum memdisk_call kind)
{
    d->calls++;
    if (d->cut_at != 0 && d->calls >= d->cut_at) {
        return -EIO;
    }
    bool fails = d->fail_at != 0 && d->calls >= d->fail_at && d->calls - d->fail_at < d->fail_times;
    return fails ? -d->fail_error : kind_fails(d, kind);
}

static uint64_t used(const struct memdisk *d)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < d->now.count; i++) {
        const struct node *n = d->now.entries[i].node;
        sum += (n->size > n->allocated ? n->size : n->allocated) + UNIT;
    }
    return sum;
}

static bool fits(const struct memdisk *d, const struct node *n, uint64_t end)
{
    uint64_t has = n->size > n->allocated ? n->size : n->allocated;
    return d->limit == 0 || end <= has || used(d) + (end - has) <= d->limit;
}

static void names_change(struct memdisk *d, const char *from, const char *to, struct node *n)
{
    d->pending = memdisk_alloc(d->pending, (d->pending_count + 1) * sizeof(struct change));
    struct change *c = &d->pending[d->pending_count++];
    (void)snprintf(c->from, sizeof(c->from), "%s", from);
    (void)snprintf(c->to, sizeof(c->to), "%s", to);
    c->node = n;
    memdisk_change_apply(&d->now, c);
}

static struct node *node_new(struct memdisk *d)
{
    struct node *n = memdisk_zero_alloc(sizeof(*n));
    d->nodes = memdisk_alloc(d->nodes, (d->nodes_count + 1) * sizeof(struct node *));
    d->nodes[d->nodes_count++] = n;
    memdisk_node_grow(n, UNIT);
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
    struct entry *e = memdisk_entry_find(&d->now, path);
    if (how == DISK_READ || how == DISK_WRITE) {
        int r = kind_fails(d, MEMDISK_OPEN);
        return r < 0 ? r : e == NULL ? -ENOENT : fd_new(d, e->node);
    }
    int r = counted(d, MEMDISK_CREATE);
    r = r == 0 && d->limit > 0 && used(d) + UNIT > d->limit ? -ENOSPC : r;
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
    int r = n == NULL ? -EBADF : kind_fails(arg, MEMDISK_READ);
    if (r < 0) {
        return r;
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
    memdisk_node_grow(n, end);
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
    int r = n == NULL ? -EBADF : counted(d, MEMDISK_WRITE);
    if (n == NULL || memdisk_is_cut(d)) {
        return r;
    }
    uint64_t end = offset;
    for (int i = 0; i < count; i++) {
        end += iov[i].iov_len;
    }
    if (r == 0 && !fits(d, n, end)) {
        return -ENOSPC;
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

static int mem_sync(void *arg, int fd)
{
    struct memdisk *d = arg;
    struct node *n = fd_node(d, fd);
    int r = n == NULL ? -EBADF : counted(d, MEMDISK_SYNC);
    d->syncs++;
    if (n == NULL || memdisk_is_cut(d)) {
        return r;
    }
    if (r == 0) {
        memdisk_node_sync(n);
    } else {
        memdisk_node_sync_fails(n, d->calls);
    }
    watched(d);
    return r;
}

static int mem_sync_dir(void *arg, const char *path)
{
    struct memdisk *d = arg;
    int r = counted(d, MEMDISK_SYNC_DIR);
    d->syncs++;
    if (r == 0) {
        memdisk_names_last(d, path, SIZE_MAX);
        watched(d);
    }
    return r;
}

static int mem_allocate(void *arg, int fd, uint64_t len)
{
    struct memdisk *d = arg;
    struct node *n = fd_node(d, fd);
    int r = n == NULL ? -EBADF : counted(d, MEMDISK_ALLOCATE);
    r = r == 0 && (len > d->free_octets || !fits(d, n, len)) ? -ENOSPC : r;
    if (r == 0) {
        n->allocated = len > n->allocated ? (size_t)len : n->allocated;
    }
    return r;
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
    int r = counted(d, MEMDISK_RENAME);
    const struct entry *e = memdisk_entry_find(&d->now, from);
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
    int r = counted(d, MEMDISK_UNLINK);
    const struct entry *e = memdisk_entry_find(&d->now, path);
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
    int r = kind_fails(d, MEMDISK_LIST);
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
    if (d->limit > 0) {
        uint64_t taken = used(d);
        *ret = (struct disk_space){d->limit, taken < d->limit ? d->limit - taken : 0, d->inodes};
    }
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

void memdisk_restart(struct memdisk *d)
{
    d->cut_at = 0;
    d->locked = false;
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

void memdisk_watch(struct memdisk *d, void (*changed)(void *arg), void *arg)
{
    d->watch = changed;
    d->watch_arg = arg;
}

uint8_t *memdisk_octets(struct memdisk *d, const char *path, size_t *ret_size)
{
    struct entry *e = memdisk_entry_find(&d->now, path);
    if (e == NULL) {
        return NULL;
    }
    *ret_size = e->node->size;
    return e->node->now;
}

int memdisk_truncate(struct memdisk *d, const char *path, size_t size)
{
    struct entry *e = memdisk_entry_find(&d->now, path);
    if (e == NULL || size > e->node->size) {
        return -ENOENT;
    }
    memset(e->node->now + size, 0, e->node->size - size);
    e->node->size = size;
    return 0;
}

void memdisk_set_free(struct memdisk *d, uint64_t free_octets, uint64_t inodes)
{
    d->free_octets = free_octets;
    d->inodes = inodes;
}

void memdisk_set_limit(struct memdisk *d, uint64_t octets)
{
    d->limit = octets;
}

void memdisk_fail_call(struct memdisk *d, enum memdisk_call kind, uint64_t at, uint64_t times, int error)
{
    d->kinds[kind].calls = 0;
    d->kinds[kind].at = at;
    d->kinds[kind].times = times;
    d->kinds[kind].error = error;
}

uint64_t memdisk_calls_of(const struct memdisk *d, enum memdisk_call kind)
{
    return d->kinds[kind].calls;
}

void memdisk_hush(struct memdisk *d, bool on)
{
    d->hushed = on;
}

size_t memdisk_open_files(const struct memdisk *d)
{
    size_t count = 0;
    for (int i = 0; i < FDS_MAX; i++) {
        count += d->fds[i] != NULL;
    }
    return count;
}
