/* spool_int.h: what the parts of the spool share. For this folder only. */
#ifndef KIDOBAN_SPOOL_SPOOL_INT_H
#define KIDOBAN_SPOOL_SPOOL_INT_H

#include "common/id.h"
#include "spool/segment.h"
#include "spool/snapshot.h"
#include "spool/spool.h"

#define LARGE_FILE_FLAG (UINT64_C(1) << 63) /* in a file number: the file of a large message, not a segment */

#define RECORD_SLACK     512U                /* what a record needs beside its strings */
#define HELD_DEADLINE_MS (60U * 60U * 1000U) /* look again at what is held */

struct stream;
struct durable_wait;
struct spool {
    const struct spool_disk *disk;
    struct spool_config config;
    const struct spool_ops *ops;
    void *arg;
    struct worker *commit, *house, *streams_worker;
    struct index *ix;
    struct log *log;
    int lock_fd;
    uint64_t time_base_ms, mono_base_ms; /* spool time = base + monotonic - its base */
    uint64_t segment_size;
    struct id_minter minter;
    bool *shard_up;
    bool closing, draining;

    struct durable_wait *waits; /* durable.c */
    struct spool_state state;
    int log_error;
    struct disk_space space;
    uint64_t space_checked_ms, segments_made;
    bool pressure;

    struct stream *streams;
    size_t streams_count, stream_octets; /* octets of chunks not yet written */

    struct snapshot *snapshot;
    uint64_t snapshot_turn, snapshot_octets; /* log octets since the last one began */
    uint64_t snapshot_retry_ms;
    size_t moving;
    uint64_t round_end, round_floor, round_waste; /* tidy.c: while the disk is full */
    uint32_t large_out;                           /* jobs of large messages that are out */
    uint64_t owed; /* octets that outcomes of what is out, and reports being made, may take */

    struct buf envelope;
    struct record_scratch scratch;
    struct envelope_recipient job_recipients[ENVELOPE_RECIPIENTS_MAX];
    struct spool_figures totals;
};

/* --- spool.c --- */
struct octets_place spool_place(const struct message *m);
uint64_t spool_mint(struct spool *sp);

/* --- intake.c --- */
void spool_refuse(struct spool *sp, uint64_t ticket, uint64_t id, int error);
/* Encodes the envelope into sp->envelope: recipients numbered, what only we may say taken out. 0 or -errno. */
int spool_envelope_take(struct spool *sp, struct envelope *e);
/* Adds a message to the batch: record, note, index (committing). 0 or -errno, nothing changed then. octets:
 * PLACE_INLINE. */
int spool_message_log(struct spool *sp, struct log_batch *b, struct record_message *m, struct span octets,
                      const struct log_note *note);
struct spool_state intake_state(const struct spool *sp); /* as it would be now */
uint64_t intake_reserve(const struct spool *sp);         /* octets of the disk that new mail leaves free */
void intake_state_update(struct spool *sp);              /* tells when it has changed */
void intake_pressure_update(struct spool *sp);

/* --- change.c --- */
/* Adds a change of state: 0, or -ENOMEM, which is logged: who goes on then has it in memory only. */
int spool_change_log(struct spool *sp, enum record_type type, const struct record_change *c);
void spool_record_log(struct spool *sp, const struct record *rec); /* as it was read */
void spool_outcome_log(struct spool *sp, const struct record_outcome *o);
void change_account_log(struct log_batch *b, enum record_type type, const struct record_account *a);
/* The record that ends m is in this batch or an earlier one: when it is durable, its place is free. m is gone. */
void spool_message_end(struct spool *sp, struct message *m);
/* Whatever follows from the state of m: a report, its end. m may be gone afterwards. */
void spool_message_settle(struct spool *sp, struct message *m);

/* --- deadline.c --- */
void spool_deadline_set(struct spool *sp, struct message *m);
void deadline_postpone(struct spool *sp, struct message *m, uint64_t ms); /* from now */
uint64_t deadlines_tick(struct spool *sp, uint64_t now);                  /* when the next one is met */

/* --- jobs.c --- */
void jobs_dispatch(struct spool *sp);
/* The job is no longer out. */
void job_back(struct spool *sp, struct message *m, struct schedule_job *j, enum schedule_result result);
/* Asks deliver to give it up, when it is out. */
void job_cancel(struct spool *sp, struct schedule_job *j);

/* --- durable.c --- */
extern const struct log_ops durable_ops;
void durable_waits_tick(struct spool *sp, bool closing); /* answers those whose time has come; closing: all */

/* --- report.c --- */
void report_start(struct spool *sp, struct message *m);
void damage_check_start(struct spool *sp, const struct message *m);

/* --- stream.c --- */
void stream_abort_all(struct spool *sp, uint64_t ticket, bool every);
void stream_file_remove(struct spool *sp, uint64_t id); /* on the house worker */

/* --- tidy.c --- */
void tidy_space(struct spool *sp, uint64_t now_ms);
/*
 * Whether the log can take so many octets more, beside what is owed, and be moved on still. What may end a message (a
 * delivery, a bounce) gets the last room, when moving on would win none; the warning of a delay waits.
 */
bool tidy_has_room(const struct spool *sp, uint64_t octets, bool may_end);
bool tidy_is_gathering(const struct spool *sp); /* what is being moved shall be one batch: the log waits for it */
void tidy_move(struct spool *sp);
void tidy_snapshot(struct spool *sp);
void tidy_batch_written(struct spool *sp, const struct log_batch *b);
void tidy_batch_moved(struct spool *sp, const struct log_batch *b, const struct log_note *n);
void tidy_move_failed(struct spool *sp, uint64_t id);
/* Appends a message again at once, reading on this thread: at the start only. 0 or -errno. */
int tidy_move_now(struct spool *sp, struct message *m);

#endif
