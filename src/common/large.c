#include "common/large.h"

#include <stdlib.h>
#include <sys/mman.h>

#define PAGE (2UL << 20)

void *large_alloc(size_t count, size_t size)
{
    size_t octets;
    if (__builtin_mul_overflow(count, size, &octets) || octets > (size_t)-1 - PAGE) {
        return NULL;
    }
    if (octets < 2 * PAGE) {
        return malloc(octets > 0 ? octets : 1);
    }
    octets = (octets + PAGE - 1) & ~(PAGE - 1);
    void *p = aligned_alloc(PAGE, octets);
    if (p != NULL) {
        (void)madvise(p, octets, MADV_HUGEPAGE); /* a wish: without it all is the same, and slower */
    }
    return p;
}
