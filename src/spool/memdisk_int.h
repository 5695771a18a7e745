/* memdisk_int.h: what memdisk.c (the calls) and memdisk_power.c (what of them lasts) share. */
#ifndef KIDOBAN_SPOOL_MEMDISK_INT_H
#define KIDOBAN_SPOOL_MEMDISK_INT_H

#include "spool/memdisk.h"

#define NAME_MAX_OCTETS 80
#define FDS_MAX         1024
#define UNIT            512U

/* An inode: what reads see, what lasts, and which units differ. */
struct node {
    uint8_t *now, *lasting;
    size_t size, lasting_size, cap, allocated;
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
    struct {
        uint64_t calls, at, times;
        int error;
    } kinds[MEMDISK_CALLS];
    bool hushed;
    uint64_t limit; /* 0: none */
    void (*watch)(void *arg);
    void *watch_arg;
};

void *memdisk_zero_alloc(size_t size);

/* --- memdisk_power.c --- */
struct entry *memdisk_entry_find(struct directory *dir, const char *path); /* NULL: none */
void memdisk_change_apply(struct directory *dir, const struct change *c);
/* The first `keep` of a directory's pending changes last; the others stay pending. */
void memdisk_names_last(struct memdisk *d, const char *directory, size_t keep);
void memdisk_node_grow(struct node *n, size_t size);
/* What is dirty lasts, and nothing else: what a failed sync took for clean stays as it is on the disk. */
void memdisk_node_sync(struct node *n);
/* The kernel says that it failed, once, and takes the pages for clean. All, some or nothing has reached the disk. */
void memdisk_node_sync_fails(struct node *n, uint64_t chance);

#endif
