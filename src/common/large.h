/*
 * large.h: memory for tables of millions of records.
 */
#ifndef KIDOBAN_COMMON_LARGE_H
#define KIDOBAN_COMMON_LARGE_H

#include <stddef.h>

/* As malloc(), and free() takes it; in large pages where the kernel has some, since to fault in a hundred megabytes of
 * small ones takes longer than to fill them. Pages that are not touched cost nothing. NULL: no memory, or the size
 * overflows. */
void *large_alloc(size_t count, size_t size);

#endif
