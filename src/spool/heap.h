/* heap.h: a binary heap of nodes that live inside other structures; the smallest key first. */
#ifndef KIDOBAN_SPOOL_HEAP_H
#define KIDOBAN_SPOOL_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct heap_node {
    uint64_t key;
    uint32_t at; /* 1-based place in the heap; 0: not in it */
};

struct heap {
    struct heap_node **nodes;
    size_t count, cap;
};

void heap_init(struct heap *h);
void heap_fini(struct heap *h);
/* Makes room for `count` nodes in all, so that heap_add cannot fail. 0 or -ENOMEM. */
int heap_reserve(struct heap *h, size_t count);
void heap_add(struct heap *h, struct heap_node *n, uint64_t key); /* n not in a heap; room was reserved */
void heap_remove(struct heap *h, struct heap_node *n);            /* nothing when it is in none */
struct heap_node *heap_first(const struct heap *h);               /* NULL when empty */

#endif
