/*
 * peers.h: the channels of a process that many others talk to: one for each role and instance, replaced when the master
 * sends a new socket pair, told to the master when it breaks.
 */
#ifndef KIDOBAN_PROCESS_PEERS_H
#define KIDOBAN_PROCESS_PEERS_H

#include "process/child.h"

struct peer {
    struct peers *all;
    enum master_role role;
    uint32_t instance;
    struct channel *channel;
    struct peer *next;
};

struct peers_ops {
    /* 0, or -1: nonsense, the channel is closed. Descriptors that come along are closed: nobody here takes any. */
    int (*frame)(struct peer *p, const struct frame *f, struct span payload);
    /* It left the set (so peers_has() knows), and is freed after the call. May be NULL. */
    void (*gone)(struct peer *p);
};

struct peers {
    struct child *child; /* since the first came, which may be before the start */
    const struct peers_ops *ops;
    size_t size; /* of the process's own structure for one of them, which begins with a struct peer */
    void *arg;   /* the process's own */
    struct peer *first;
};

/* A zeroed structure of ps->size with its channel; it stands in for an older one of the same role and instance, and
 * belongs to the set. fd is taken. NULL when out of memory. */
struct peer *peers_take(struct peers *ps, struct child *c, enum master_role role, uint32_t instance, int fd);
bool peers_has(const struct peers *ps, enum master_role role);

#endif
