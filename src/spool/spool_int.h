/* spool_int.h: what the parts of the spool (spool.c, stream.c, report.c, tidy.c) share. For this folder only. */
#ifndef KIDOBAN_SPOOL_SPOOL_INT_H
#define KIDOBAN_SPOOL_SPOOL_INT_H

#include "common/id.h"
#include "spool/segment.h"
#include "spool/snapshot.h"
#include "spool/spool.h"

#define LARGE_FILE_FLAG (UINT64_C(1) << 63) /* in a file number: the file of a large message, not a segment */

struct stream;
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
    uint32_t large_out; /* jobs of large messages that are out */

    struct buf envelope;
    struct record_scratch scratch;
    struct envelope_recipient job_recipients[ENVELOPE_RECIPIENTS_MAX];
    struct spool_figures totals;
};

/* --- spool.c --- */
void spool_refuse(struct spool *sp, uint64_t ticket, uint64_t id, int error);
/* Encodes the envelope into sp->envelope: recipients numbered, what only we may say taken out. 0 or -errno. */
int spool_envelope_take(struct spool *sp, struct envelope *e);
/* Adds a message to the batch: record, note, index (committing). 0 or -errno, nothing changed then. octets:
 * PLACE_INLINE. */
int spool_message_log(struct spool *sp, struct log_batch *b, struct record_message *m, struct span octets,
                      const struct log_note *note);
/* Adds a change of state. Out of memory is logged: the change holds in memory and is found again by chance only. */
void spool_change_log(struct spool *sp, enum record_type type, const struct record_change *c);
void spool_outcome_log(struct spool *sp, const struct record_outcome *o);
/* Whatever follows from the state of m: a report, its end. m may be gone afterwards. */
void spool_message_settle(struct spool *sp, struct message *m);
struct octets_place spool_place(const struct message *m);
void spool_deadline_set(struct spool *sp, struct message *m);
uint64_t spool_mint(struct spool *sp);

/* --- report.c --- */
void report_start(struct spool *sp, struct message *m);
void damage_check_start(struct spool *sp, const struct message *m);

/* --- stream.c --- */
void stream_abort_all(struct spool *sp, uint64_t ticket, bool every);
void stream_file_remove(struct spool *sp, uint64_t id); /* on the house worker */

/* --- tidy.c --- */
void tidy_space(struct spool *sp, uint64_t now_ms);
void tidy_move(struct spool *sp);
void tidy_snapshot(struct spool *sp);
void tidy_batch_moved(struct spool *sp, const struct log_batch *b, const struct log_note *n);
void tidy_move_failed(struct spool *sp, uint64_t id);
/* Appends a message again at once, reading on this thread: at the start only. 0 or -errno. */
int tidy_move_now(struct spool *sp, struct message *m);

#endif
