/*
 * log.h: the log of commit groups: batches gather on the loop's thread, one at a time is written and synced on the
 * commit worker, segments are made ready and given back on the house worker. docs/spool-format.md has the states and
 * the order of writes.
 *
 * Everything here is called on the loop's thread; nothing here blocks. The log keeps what may not be lost in memory
 * (changes of state, bounces) until a batch with it is durable; it never answers for a message itself: ops do.
 */
#ifndef KIDOBAN_SPOOL_LOG_H
#define KIDOBAN_SPOOL_LOG_H

#include "spool/disk.h"
#include "spool/record.h"
#include "spool/worker.h"

#define SEGMENT_NAME_SIZE 24

void segment_name(uint64_t seq, char name[static SEGMENT_NAME_SIZE]); /* "000000000012.seg" */
int segment_name_parse(const char *name, uint64_t *ret_seq);          /* 0 or -EINVAL */

enum log_note_kind {
    NOTE_PUT,   /* a message that somebody waits for: lost when the batch fails */
    NOTE_MOVE,  /* a message appended again: forgotten when the batch fails */
    NOTE_STATE, /* kept: written again when the batch fails */
    NOTE_END,   /* no record: when the batch is durable, a message ends and its place is free */
};

struct log_note {
    uint8_t kind; /* enum log_note_kind */
    uint8_t type; /* enum record_type */
    uint64_t id;
    uint64_t ticket; /* the engine's; PUT: who waits */
    size_t record_at, record_length;
    uint64_t octets_at, octets_length; /* PUT, MOVE: in the batch's octets; END: octets_length of the message */
    uint64_t segment;                  /* END: where its record is */
    bool large;                        /* END: large/ID goes too */
};

struct log_batch {
    struct task task;
    struct log *log;
    struct log_batch *next;
    struct buf meta;   /* BATCH_HEADER_SIZE octets kept free, then records */
    struct buf octets; /* of the messages */
    struct log_note *notes;
    size_t notes_count, notes_cap;
    uint32_t records;
    uint32_t results; /* outcomes of deliveries among them */
    uint64_t turn;    /* order of gathering */
    /* Known once it is on its way: */
    struct batch_header header;
    uint64_t offset, size; /* in its segment */
    bool first;            /* in its segment: the segment's header goes with it */
    int fd;
    uint8_t *block; /* with first: the segment's first block */
    int error;
};

struct log_segment {
    uint64_t seq, size;
    uint64_t octets; /* of live messages in it */
    uint32_t live;   /* messages whose record is in it */
    uint32_t pins;   /* reads under way */
    bool tainted;    /* somebody may still read from it: unlink, never reuse */
};

struct log_config {
    uint64_t segment_size;
    size_t batch_max; /* octets on disk that a batch gathers */
    uint64_t (*random)(void *arg);
    void *random_arg;
};

struct log_ops {
    void (*committed)(void *arg, struct log_batch *b);
    /* PUTs are refused, MOVEs did not happen; kept records are already waiting in a new batch. */
    void (*failed)(void *arg, struct log_batch *b, int error);
    /* b is the first batch of a new segment: add what every segment begins with. */
    void (*segment_begins)(void *arg, struct log_batch *b);
    void (*segment_gone)(void *arg, uint64_t seq);
    void (*health)(void *arg, int error); /* -errno: writing has failed for good, for now; 0: it works again */
    uint64_t (*spool_ms)(void *arg);
};

/* What recovery found. */
struct log_state {
    struct log_segment *segments; /* tail .. head, taken over (heap) */
    size_t segments_count;
    int fd;            /* of the head, to write on in it; -1: begin a new one */
    uint64_t life;     /* of the head */
    uint64_t offset;   /* where its next batch begins */
    uint64_t head_seq; /* 0: no segment yet */
    uint64_t batch_seq;
    uint64_t spares[4]; /* names (sequences) of files that may be renamed; 0: none */
};

struct log;

struct log *log_new(const struct spool_disk *disk, struct worker *commit, struct worker *house,
                    const struct log_config *config, const struct log_ops *ops, void *arg);
/* Workers must be idle. What is not durable is dropped. */
void log_free(struct log **l);
int log_start(struct log *l, const struct log_state *state); /* 0 or -ENOMEM */

/* The batch that takes `octets` more of records and message; NULL: out of memory. Add, then log_kick(). */
struct log_batch *log_gather(struct log *l, size_t octets);
/* After a record_*_encode into b->meta that began at record_at (0 for NOTE_END). 0 or -ENOMEM: then roll back. */
int log_note_add(struct log_batch *b, const struct log_note *note);
/* To take back what was added since the mark. */
struct log_mark {
    size_t meta, octets, notes;
    uint32_t records;
};
struct log_mark log_mark(const struct log_batch *b);
void log_rollback(struct log_batch *b, const struct log_mark *mark);
/* Sends what has gathered on its way if nothing is. Call at the end of a turn of the loop, and at the time it returns
 * (clock_mono_ms; UINT64_MAX: never). */
uint64_t log_kick(struct log *l, uint64_t now_ms);

/* Absolute places, for notes of a committed batch. */
uint64_t log_octets_offset(const struct log_batch *b, uint64_t octets_at);
uint64_t log_meta_offset(const struct log_batch *b, size_t meta_at);

struct log_segment *log_segment_find(struct log *l, uint64_t seq); /* NULL when gone; valid until the next call */
struct log_segment *log_segment_tail(struct log *l);               /* the oldest, NULL when it is the head */
void log_live_add(struct log *l, uint64_t seq, uint64_t octets);
void log_live_drop(struct log *l, uint64_t seq, uint64_t octets);
void log_pin(struct log *l, uint64_t seq);
/* True when nobody reads from it now, and it is old enough that nobody soon will. */
bool log_unpin(struct log *l, uint64_t seq, bool tainted);

struct log_figures {
    uint64_t segments, octets, live_octets; /* octets: of all segments */
    uint64_t pending;                       /* gathered, not durable */
    uint64_t head_room;                     /* of octets: not written yet */
    uint64_t tail, head, offset, batch;     /* offset: end of the last durable batch in head */
    uint64_t commits, failures;             /* since the start */
    uint64_t gather_turn,
        durable_turn; /* everything gathered so far is durable when durable_turn reaches gather_turn */
    bool down;
};
uint64_t log_segments_made(const struct log *l);   /* grows when the log takes room on the disk */
uint64_t log_room(const struct log *l);            /* octets that batches can take before the disk must give more */
uint64_t log_pending(const struct log *l);         /* octets gathered and not durable */
uint64_t log_pending_results(const struct log *l); /* outcomes of deliveries gathered and not durable */
void log_figures(const struct log *l, struct log_figures *ret);

#endif
