/*
 * memdisk.h: a disk in memory for tests and simulations: it knows what was synced and what was not, builds the states
 * that a power cut may leave, and fails the n-th call on demand. Not part of the daemon.
 *
 * Model: a write lasts in units of 512 octets, each unsynced unit on its own; fdatasync makes a file's octets and size
 * last, and a failed one forgets that they were dirty (as ext4, XFS and Btrfs do): reads see them until the power goes,
 * and no later sync makes them last; the names of one directory last in the order in which they were changed, at the
 * latest with that directory's sync.
 */
#ifndef KIDOBAN_SPOOL_MEMDISK_H
#define KIDOBAN_SPOOL_MEMDISK_H

#include <stdbool.h>

#include "spool/disk.h"

struct memdisk;

struct memdisk *memdisk_new(uint64_t total);
void memdisk_free(struct memdisk **d);
struct spool_disk memdisk_calls(struct memdisk *d);

/* Calls that change something or sync are counted from 1. The one with number `at` fails with -error (for `times`
 * calls). */
void memdisk_fail(struct memdisk *d, uint64_t at, uint64_t times, int error);
/* The same by kind, reading and looking too: from now on, number `at` of that kind fails. */
enum memdisk_call {
    MEMDISK_OPEN, /* an existing file */
    MEMDISK_CREATE,
    MEMDISK_READ,
    MEMDISK_WRITE,
    MEMDISK_SYNC,
    MEMDISK_SYNC_DIR,
    MEMDISK_ALLOCATE,
    MEMDISK_RENAME,
    MEMDISK_UNLINK,
    MEMDISK_LIST,
    MEMDISK_CALLS
};
void memdisk_fail_call(struct memdisk *d, enum memdisk_call kind, uint64_t at, uint64_t times, int error);
uint64_t memdisk_calls_of(const struct memdisk *d, enum memdisk_call kind);
/* Between these, calls are the test's own: not counted, and never fail. */
void memdisk_hush(struct memdisk *d, bool on);
/* From call number `at` on nothing has any effect (all fail with -EIO): the power is off. 0: never. */
void memdisk_cut(struct memdisk *d, uint64_t at);
/* The process is dead, the machine is not: calls work again, what was not synced is still not, and descriptors that
 * others hold stay open. */
void memdisk_restart(struct memdisk *d);
bool memdisk_is_cut(const struct memdisk *d);
uint64_t memdisk_calls_made(const struct memdisk *d);
uint64_t memdisk_syncs(const struct memdisk *d);

enum memdisk_loss {
    MEMDISK_LOSE_ALL,    /* nothing unsynced lasts */
    MEMDISK_LOSE_NONE,   /* everything lasts: a kill -9 */
    MEMDISK_LOSE_RANDOM, /* each unit and each name by chance */
    /* Of n pending units, with k = seed % (n + 1); names by chance: */
    MEMDISK_LOSE_TAIL, /* the first k last: torn */
    MEMDISK_LOSE_HEAD, /* all but the first k last: reordered */
    MEMDISK_LOSE_ONE,  /* all but number k */
    MEMDISK_KEEP_ONE,  /* only number k */
};
size_t memdisk_pending_units(const struct memdisk *d);
size_t memdisk_pending_names(const struct memdisk *d);
/* The disk as the next start finds it: descriptors and locks gone, calls work again. */
void memdisk_power_on(struct memdisk *d, enum memdisk_loss loss, uint64_t seed);

/* For damage: a file's octets as they are; NULL when there is none. Changes are the disk's. */
uint8_t *memdisk_octets(struct memdisk *d, const char *path, size_t *ret_size);
int memdisk_truncate(struct memdisk *d, const char *path, size_t size);
struct memdisk *memdisk_copy(const struct memdisk *d); /* with what is pending; no descriptor is open in it */
/* Called whenever something has changed or was synced, from within the call. NULL: not any more. */
void memdisk_watch(struct memdisk *d, void (*changed)(void *arg), void *arg);
uint64_t memdisk_hash(const struct memdisk *d); /* of all names and octets as reads see them */
void memdisk_set_free(struct memdisk *d, uint64_t free_octets, uint64_t inodes);
/* From now on files take room: what does not fit into `octets` gets -ENOSPC, and space() tells what is left. */
void memdisk_set_limit(struct memdisk *d, uint64_t octets);
size_t memdisk_open_files(const struct memdisk *d);

/* Memory of the tests themselves: never NULL. While it is being taken memdisk_allocating is not 0, so that an allocator
 * that fails for the spool's sake lets it pass. */
extern unsigned memdisk_allocating;
void *memdisk_alloc(void *old, size_t size);

#endif
