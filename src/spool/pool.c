#include "spool/pool.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <utlist.h>

#define REGION_SIZE ((size_t)2 * 1024 * 1024) /* and alignment: an object's region is found by masking */

#ifdef __SANITIZE_ADDRESS__
#define POOL_OFF 1 /* let the sanitizer see every object */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POOL_OFF 1
#endif
#endif
#ifndef POOL_OFF
#define POOL_OFF 0
#endif

struct pool_free {
    struct pool_free *next;
};

struct pool_region {
    struct pool_region *prev, *next; /* in pool.open[] */
    struct pool_free *free;
    size_t used, capacity, fresh; /* objects: in use; that fit; never used are those from `fresh` on */
};

#define REGION_HEAD (((sizeof(struct pool_region) + POOL_GRAIN - 1) / POOL_GRAIN) * POOL_GRAIN)

static void *map_aligned(size_t size, bool huge)
{
    uint8_t *raw = mmap(NULL, size + REGION_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED) {
        return NULL;
    }
    size_t skip = (REGION_SIZE - (uintptr_t)raw % REGION_SIZE) % REGION_SIZE;
    if (skip > 0) {
        (void)munmap(raw, skip);
    }
    (void)munmap(raw + skip + size, REGION_SIZE - skip);
    if (huge) {
        (void)madvise(raw + skip, size, MADV_HUGEPAGE);
    }
    return raw + skip;
}

static struct pool_region *region_new(struct pool *p, size_t class_)
{
    struct pool_region *r = map_aligned(REGION_SIZE, p->regions[class_] > 0);
    if (r != NULL) {
        *r = (struct pool_region){.capacity = (REGION_SIZE - REGION_HEAD) / ((class_ + 1) * POOL_GRAIN)};
        DL_APPEND(p->open[class_], r);
        p->regions[class_]++;
    }
    return r;
}

void *pool_get(struct pool *p, size_t size)
{
    size_t class_ = (size + POOL_GRAIN - 1) / POOL_GRAIN - 1;
    if (POOL_OFF || size == 0 || class_ >= POOL_CLASSES) {
        return calloc(1, size);
    }
    struct pool_region *r = p->open[class_] != NULL ? p->open[class_] : region_new(p, class_);
    if (r == NULL) {
        return NULL;
    }
    void *object = r->free;
    if (object != NULL) {
        r->free = r->free->next;
        memset(object, 0, size);
    } else {
        object = (uint8_t *)r + REGION_HEAD + r->fresh++ * (class_ + 1) * POOL_GRAIN; /* zeroed by the kernel */
    }
    if (++r->used == r->capacity) {
        DL_DELETE(p->open[class_], r);
    }
    return object;
}

void pool_put(struct pool *p, void *object, size_t size)
{
    size_t class_ = (size + POOL_GRAIN - 1) / POOL_GRAIN - 1;
    if (POOL_OFF || size == 0 || class_ >= POOL_CLASSES) {
        free(object);
        return;
    }
    struct pool_region *r = (struct pool_region *)((uintptr_t)object & ~(uintptr_t)(REGION_SIZE - 1));
    struct pool_free *f = object;
    f->next = r->free;
    r->free = f;
    if (r->used-- == r->capacity) {
        DL_APPEND(p->open[class_], r);
    }
    if (r->used == 0 && p->regions[class_] > 1) { /* the last one stays: the next message is not far */
        DL_DELETE(p->open[class_], r);
        p->regions[class_]--;
        (void)munmap(r, REGION_SIZE);
    }
}

void pool_fini(struct pool *p)
{
    for (size_t i = 0; i < POOL_CLASSES; i++) {
        while (p->open[i] != NULL) {
            struct pool_region *r = p->open[i];
            DL_DELETE(p->open[i], r);
            (void)munmap(r, REGION_SIZE);
        }
        p->regions[i] = 0;
    }
}

void *pool_array_get(size_t size)
{
    return size >= REGION_SIZE ? map_aligned(size, true) : calloc(1, size);
}

void pool_array_put(void *array, size_t size)
{
    if (size >= REGION_SIZE) {
        (void)munmap(array, size);
    } else {
        free(array);
    }
}
