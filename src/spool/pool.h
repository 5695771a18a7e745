/*
 * pool.h: memory for a million small objects of some hundred octets: regions of 2 MiB, each for one size, given back
 * when empty. Where there are many, huge pages hold them: a start with a million messages is otherwise mostly page
 * faults.
 */
#ifndef KIDOBAN_SPOOL_POOL_H
#define KIDOBAN_SPOOL_POOL_H

#include <stddef.h>

#define POOL_GRAIN   64U
#define POOL_CLASSES 64U /* objects up to 4 KiB; larger ones come from malloc */

struct pool_region;

struct pool {
    struct pool_region *open[POOL_CLASSES]; /* with room */
    size_t regions[POOL_CLASSES];
};

void *pool_get(struct pool *p, size_t size);              /* zeroed, or NULL */
void pool_put(struct pool *p, void *object, size_t size); /* the size it was got with */
void pool_fini(struct pool *p);                           /* every object was put back */
/* A large array, zeroed, on huge pages where that is worth it. */
void *pool_array_get(size_t size);
void pool_array_put(void *array, size_t size);

#endif
