/*
 * snapshot.h: the index written aside now and then, so that a start need not replay the whole log
 * (docs/spool-format.md).
 *
 * The writer walks the index in slices between other work; each slice is written on the house worker. It becomes the
 * snapshot only when the caller says that all it may have seen is durable.
 */
#ifndef KIDOBAN_SPOOL_SNAPSHOT_H
#define KIDOBAN_SPOOL_SNAPSHOT_H

#include "spool/disk.h"
#include "spool/index.h"
#include "spool/worker.h"

struct snapshot;

enum snapshot_phase {
    SNAPSHOT_WALKING,
    SNAPSHOT_WALKED,    /* all is in the file: call snapshot_commit when it may count */
    SNAPSHOT_FINISHING, /* sync, rename, sync of the directory */
    SNAPSHOT_DONE,
    SNAPSHOT_FAILED,
};

/* header: the position of the log that it stands for. NULL: out of memory. The index must not be freed before it. */
struct snapshot *snapshot_start(const struct spool_disk *disk, struct worker *house, struct index *ix,
                                const struct snapshot_header *header);
/* Serialises the next slice unless one is being written. */
enum snapshot_phase snapshot_step(struct snapshot *s);
void snapshot_commit(struct snapshot *s);
/* Only when DONE, FAILED or WALKED, or the house worker is idle. */
void snapshot_free(struct snapshot **s);

/* Fills ix from index.snap. 1 and *ret when it is whole; 0 when there is none or it is not (ix is empty then); -errno.
 */
int snapshot_load(const struct spool_disk *disk, struct index *ix, struct snapshot_header *ret);

#endif
