/* segment.h: reading segments: the batches in them, and the octets of one message, checked before anybody gets them. */
#ifndef KIDOBAN_SPOOL_SEGMENT_H
#define KIDOBAN_SPOOL_SEGMENT_H

#include "spool/disk.h"
#include "spool/record.h"

struct segment_reader {
    const struct spool_disk *disk;
    int fd;
    uint64_t seq, size;
    uint64_t life, previous_batch;
    bool header_damaged; /* life was taken from the first batch */
    bool unreadable;     /* a read has failed */
    uint8_t *window;     /* header and records of the batch read last */
    size_t window_cap, window_len;
};

struct segment_batch {
    struct batch_header header;
    uint64_t offset;                    /* in the segment */
    struct span meta;                   /* records; valid until the next read */
    uint64_t octets_at, octets_at_else; /* in the segment; salvage only: the other place where they may begin, or 0 */
};

/* 1: it has a life of its own; 0: it has none (made ready, never written); -errno, -EIO also when that cannot be read.
 * Close it in each case but the last. */
int segment_reader_open(struct segment_reader *r, const struct spool_disk *disk, uint64_t seq);
void segment_reader_close(struct segment_reader *r);
/* 1: a batch of this life begins at `at`; 0: none that verifies; -ENOMEM, -EPROTONOSUPPORT. */
int segment_read_batch(struct segment_reader *r, uint64_t at, struct segment_batch *ret);
/* The next place from `from` on where a batch with a number above `after` begins. 1, 0: none; -errno. */
int segment_search(struct segment_reader *r, uint64_t from, uint64_t after, uint64_t *ret_at);
/* Whether the block at `at` was meant to be a batch of this life: what a torn or rotten one leaves. Its octets on disk,
 * a guess that stays within the segment, go to *ret_size. */
bool segment_claims(struct segment_reader *r, uint64_t at, uint64_t *ret_size);
/*
 * What is left of a damaged batch: calls each with every record whose own checksum holds, in order. b has the place,
 * and of the header only segment and life. 0, or what each returned, or -ENOMEM.
 */
int segment_salvage(struct segment_reader *r, uint64_t at, uint64_t size,
                    int (*each)(void *arg, const struct segment_batch *b, const struct record *rec), void *arg);

/* Where the octets of a message are. */
struct octets_place {
    uint64_t id, segment, offset, length, xxh3;
    bool large;
};
void large_name(uint64_t id, char name[static 24]); /* "large/ID" */
/* Opens the file that holds them, read only; a descriptor or -errno. */
int octets_open(const struct spool_disk *disk, const struct octets_place *p);
/*
 * Reads and checks them all, and keeps at most max octets from the front in head (allocated, *ret_head; NULL when max
 * is 0). 0; -EILSEQ: they do not match their checksum or are not there; -errno: they could not be read now.
 */
int octets_read(const struct spool_disk *disk, const struct octets_place *p, size_t max, uint8_t **ret_head);
/* Copies a stretch of a file to damaged/NAME, as much of it as can be read. 0 or -errno. */
int octets_set_aside(const struct spool_disk *disk, int fd, uint64_t offset, uint64_t length, const char *name);

#endif
