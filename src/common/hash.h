/*
 * hash.h: uthash without its way of running out of memory, which is to end the process.
 *
 * HASH_ADD and its like may fail: the element is then in no table, and hash_added() of it false. Nothing else of uthash
 * allocates. Include this, never <uthash.h>; HASH_FUNCTION may be defined before.
 */
#ifndef KIDOBAN_COMMON_HASH_H
#define KIDOBAN_COMMON_HASH_H

#define HASH_NONFATAL_OOM 1
#define uthash_fatal(msg) abort() /* unreachable: HASH_NONFATAL_OOM */
#include <uthash.h>

/* handle: the element's UT_hash_handle, right after HASH_ADD. */
#define hash_added(handle) ((handle).tbl != NULL)

#endif
