/* log_int.h: what the parts of the log (log*.c) share. For them only. */
#ifndef KIDOBAN_SPOOL_LOG_INT_H
#define KIDOBAN_SPOOL_LOG_INT_H

#include "spool/log.h"
#include "spool/segment.h"

#define LOG_RETRY_MS 5000 /* after a failure that may not last */
#define LOG_SPARES   4

/* A segment made ready, or being made ready, on the house worker. */
struct prepare {
    struct task task;
    struct log *log;
    uint64_t seq, size;
    uint64_t from; /* the dead segment that is renamed; 0: a fresh one */
    int fd, error;
};

struct log {
    const struct spool_disk *disk;
    struct worker *commit, *house;
    struct log_config config;
    const struct log_ops *ops;
    void *arg;

    struct log_segment *segments;
    size_t segments_count, segments_cap;
    uint64_t tail_durable; /* the tail that the last durable batch told */
    uint64_t head_seq;

    int fd; /* of the head; -1: the next batch begins a segment */
    uint64_t life, offset;
    uint64_t batch_seq, durable_batch;
    bool first; /* nothing of the head is durable */

    struct prepare next; /* the segment after the head */
    bool next_ready, preparing;
    bool prepare_wanted; /* a batch waits for it ... */
    int prepare_error;   /* ... and is told that it failed */
    uint64_t spares[LOG_SPARES];

    struct log_batch *queue, **queue_end; /* to be written, in order */
    struct log_batch *writing;
    struct log_batch *unkept; /* has failed, and no memory was there to keep what may not be lost of it */
    struct log_batch *idle;
    uint64_t gather_turn, durable_turn;
    uint64_t retry_at, prepare_at;
    unsigned failures;
    bool down;
    uint64_t commits, failed_commits, made;
};

/* --- log_batch.c --- */
struct log_batch *log_batch_new(struct log *l); /* empty; NULL: out of memory */
void log_batch_free(struct log_batch *b);
void log_batch_retire(struct log *l, struct log_batch *b); /* kept for the next one, or freed */
uint64_t log_batch_octets(const struct log_batch *b);
void log_queue_append(struct log *l, struct log_batch *b);

/* --- log_segments.c --- */
int log_segments_push(struct log *l, const struct log_segment *s); /* 0 or -ENOMEM */
uint64_t log_tail_wanted(const struct log *l);                     /* the oldest segment that is needed now */
/* Segments below the durable tail are nobody's: kept as spares when they may be written over, else removed. */
void log_segments_release(struct log *l);
void log_spare_add(struct log *l, uint64_t seq);
uint64_t log_spare_take(struct log *l, uint64_t seq); /* a spare to become segment seq; 0: none */

/* --- log_ready.c --- */
void log_prepare(struct log *l, uint64_t size); /* unless one is ready or on its way */
int log_head_adopt(struct log *l);              /* the prepared segment becomes the head: 0 or -ENOMEM */
void log_head_close(struct log *l);

#endif
