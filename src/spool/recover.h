/*
 * recover.h: from what stands on the disk to the index and the place where the log goes on (docs/spool-format.md).
 *
 * Runs at the start, blocking. Damage never stops it: what does not verify is set aside and reported through `found`.
 * A want of ours does (memory, descriptors): what could not be looked at then must not be taken for damage.
 * The same reading, without a write, serves `kidoban spool verify` and `export`.
 */
#ifndef KIDOBAN_SPOOL_RECOVER_H
#define KIDOBAN_SPOOL_RECOVER_H

#include "spool/disk.h"
#include "spool/index.h"
#include "spool/log.h"

enum recover_event {
    RECOVER_TORN,            /* the last batch is not whole: it was never acknowledged */
    RECOVER_DAMAGED_BATCH,   /* a batch followed by whole ones does not verify */
    RECOVER_DAMAGED_RECORD,  /* a record in a whole batch does not decode */
    RECOVER_DAMAGED_HEADER,  /* a segment's header; its batches were found without it */
    RECOVER_DAMAGED_SEGMENT, /* nothing in it verifies */
    RECOVER_UNREADABLE_SEGMENT,
    RECOVER_MISSING_SEGMENT,
    RECOVER_TORN_MESSAGE,   /* octets of a message of the last batch */
    RECOVER_MISSING_LARGE,  /* its file is not there */
    RECOVER_NAMELESS_LARGE, /* a file that no record names, where records have been damaged */
    RECOVER_MISSING_OCTETS, /* its segment is not there */
    RECOVER_DAMAGED_SNAPSHOT,
    RECOVER_PROGRESS, /* offset of length octets read */
    RECOVER_EVENT_COUNT
};
const char *recover_event_words(enum recover_event e);

struct recover_report {
    enum recover_event event;
    uint64_t id; /* of the message, or 0 */
    uint64_t segment, offset, length;
    const char *aside; /* name below damaged/, or NULL */
};

struct recover_options {
    bool read_only;   /* write, rename, remove, lock nothing */
    bool no_snapshot; /* replay from the tail whatever there is */
    bool read_ahead;  /* threads may read the disk meanwhile */
    uint64_t segment_size;
    void (*found)(void *arg, const struct recover_report *report);
    void *arg;
};

struct recovery {
    struct log_state log;
    uint64_t spool_ms; /* spool time, carried on */
    uint64_t replayed; /* batches */
    uint64_t records;
    bool from_snapshot;
    bool damaged;   /* records may be missing */
    uint64_t *torn; /* ids for which a REMOVE is to be written (heap) */
    size_t torn_count;
    uint64_t *salvaged; /* ids of messages from damaged batches: to be appended again before anything else (heap) */
    size_t salvaged_count;
    struct buf changes; /* records of a torn batch that are taken into ix: to be appended again as well */
};

/* ix is empty. 0 and *ret (log.segments goes to log_start or is freed, then recovery_fini), or -errno: the spool cannot
 * be used. */
int recover_run(const struct spool_disk *disk, struct index *ix, const struct recover_options *options,
                struct recovery *ret);
void recovery_fini(struct recovery *r);

#endif
