/*
 * table.h: what every subject has used of every limit, in a mapped file that outlives the process.
 *
 * A slot is 64 octets: a 128-bit keyed hash of (limit, subject) and the last two states of its number, each with a
 * generation and a checksum. A change is written into the older of the two: no system call, and kill -9 at any
 * instant leaves either the state before or the state after. A power cut loses what the kernel had not yet written
 * (half a minute) and what it tore, which the checksums find; both only ever in the sender's favour.
 *
 * Open addressing with a bounded probe. A slot whose time is past is free. When a probe finds no free slot the table
 * doubles (a new file, synced, renamed over the old one) up to its maximum; after that the entry in the probe that
 * comes free first gives way: the one that has least left to remember. Such evictions are counted.
 *
 * Time in the table is its own: monotonic nanoseconds plus an offset kept in the file while the machine runs, so a step
 * of the wall clock changes nothing; after a boot it starts at the wall clock or at the last time seen in the file,
 * whichever is later, so it never goes back.
 */
#ifndef KIDOBAN_GUARD_TABLE_H
#define KIDOBAN_GUARD_TABLE_H

#include <stdbool.h>

#include "common/buf.h"

#define TABLE_SLOTS_MIN 1024U
#define TABLE_SLOTS_MAX (UINT64_C(1) << 26)

struct table;

struct table_clock {
    uint8_t boot_id[16]; /* all zero: unknown, taken for another boot */
    uint64_t mono_ns;    /* both read at the same moment */
    uint64_t wall_ns;
};

struct table_key {
    uint8_t bytes[16];
};

struct table_figures {
    uint64_t slots, evicted, damaged, rebuilt;
    bool persistent; /* false: the file could not be made, counts live in memory only */
};

/* Opens or makes the file `name` below directory_fd (may be O_PATH). slots_max is rounded down to a power of two.
 * Damage costs entries, not the start. 0, or -ENOMEM. */
int table_open(int directory_fd, const char *name, const struct table_clock *clock, uint64_t slots_max,
               struct table **ret_table);
void table_close(struct table **t); /* syncs */

uint64_t table_now(const struct table *t, uint64_t mono_ns); /* the table's time, for every function below */
void table_key_make(const struct table *t, struct span limit, struct span subject, struct table_key *ret_key);
/* true: an entry stands and its tat is still to come. */
bool table_get(const struct table *t, const struct table_key *key, uint64_t now_ns, uint64_t *ret_tat_ns,
               uint64_t *ret_interval_ns);
/* Stores; always succeeds, perhaps at another's expense. A tat that is past frees the slot. */
void table_set(struct table *t, const struct table_key *key, uint64_t now_ns, uint64_t tat_ns, uint64_t interval_ns);
void table_figures(const struct table *t, struct table_figures *ret);
uint64_t table_live(const struct table *t, uint64_t now_ns); /* entries that still count; walks the table */

#endif
