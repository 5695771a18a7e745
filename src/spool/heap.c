#include "spool/heap.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

void heap_init(struct heap *h)
{
    *h = (struct heap){0};
}

void heap_fini(struct heap *h)
{
    free(h->nodes);
    *h = (struct heap){0};
}

int heap_reserve(struct heap *h, size_t count)
{
    if (count <= h->cap) {
        return 0;
    }
    size_t cap = h->cap == 0 ? 64 : h->cap * 2;
    cap = cap < count ? count : cap;
    struct heap_node **grown = reallocarray(h->nodes, cap, sizeof(struct heap_node *));
    if (grown == NULL) {
        return -ENOMEM;
    }
    h->nodes = grown;
    h->cap = cap;
    return 0;
}

static void place(struct heap *h, size_t i, struct heap_node *n)
{
    h->nodes[i] = n;
    n->at = (uint32_t)i + 1;
}

static void sift_up(struct heap *h, size_t i, struct heap_node *n)
{
    while (i > 0 && h->nodes[(i - 1) / 2]->key > n->key) {
        place(h, i, h->nodes[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    place(h, i, n);
}

static void sift_down(struct heap *h, size_t i, struct heap_node *n)
{
    for (;;) {
        size_t child = 2 * i + 1;
        if (child + 1 < h->count && h->nodes[child + 1]->key < h->nodes[child]->key) {
            child++;
        }
        if (child >= h->count || h->nodes[child]->key >= n->key) {
            break;
        }
        place(h, i, h->nodes[child]);
        i = child;
    }
    place(h, i, n);
}

void heap_add(struct heap *h, struct heap_node *n, uint64_t key)
{
    assert(n->at == 0 && h->count < h->cap);
    n->key = key;
    sift_up(h, h->count++, n);
}

void heap_remove(struct heap *h, struct heap_node *n)
{
    if (n->at == 0) {
        return;
    }
    size_t i = n->at - 1;
    struct heap_node *last = h->nodes[--h->count];
    n->at = 0;
    if (last != n) {
        if (i > 0 && h->nodes[(i - 1) / 2]->key > last->key) {
            sift_up(h, i, last);
        } else {
            sift_down(h, i, last);
        }
    }
}

struct heap_node *heap_first(const struct heap *h)
{
    return h->count > 0 ? h->nodes[0] : NULL;
}
