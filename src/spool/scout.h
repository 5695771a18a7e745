/*
 * scout.h: reads ahead of recovery, several segments at once: header and records of each batch, which stand far apart
 * when the octets of messages lie between. A disk gives much more to four who ask than to one who waits for each
 * answer.
 *
 * Advice only: it fills the page cache, nothing that it saw is believed, and without it recovery only takes longer.
 */
#ifndef KIDOBAN_SPOOL_SCOUT_H
#define KIDOBAN_SPOOL_SCOUT_H

#include "spool/disk.h"

struct scout;

/* From the batch at `offset` of segment `from` on, to the end of segment `to`. NULL: none (one segment only, or no
 * memory); that is no error. */
struct scout *scout_start(const struct spool_disk *disk, uint64_t from, uint64_t offset, uint64_t to);
void scout_stop(struct scout **s); /* it need not have finished */

#endif
