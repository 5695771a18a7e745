/*
 * index.h: what the spool knows of its messages, in memory: envelopes, the state of each recipient, where the octets
 * are.
 *
 * One allocation a message (about 450 octets with a common envelope), a keyed table by id, a list in the order of the
 * log. The functions that change a state are the same at work and in recovery: the index after replaying the log is the
 * index that wrote it.
 */
#ifndef KIDOBAN_SPOOL_INDEX_H
#define KIDOBAN_SPOOL_INDEX_H

#include "spool/record.h"
#include "spool/schedule.h"

enum message_state {
    INDEX_COMMITTING = 1, /* its batch is not durable yet: nobody may see or try it */
    INDEX_HELD = 2,
    INDEX_MOVING = 4,    /* being appended again */
    INDEX_REPORTING = 8, /* a DSN is being made */
    INDEX_LARGE = 16,    /* octets in large/ID */
    INDEX_FROM_NULL = 32,
    INDEX_DSN = 64,
    INDEX_NO_DEADLINE = 128, /* was released late: do not expire before it was tried */
};

struct index_recipient {
    char *words; /* last said, or NULL */
    uint16_t job;
    uint16_t code;
    uint8_t enhanced[3];
    uint8_t state;    /* enum recipient_state */
    uint8_t reported; /* enum report_kind */
    uint8_t notify;   /* enum envelope_notify */
    bool out;         /* in the JOB that is out, no result yet */
};

struct message {
    struct message *prev, *next; /* in the order of the log */
    uint64_t id, born_ms;
    uint64_t segment, offset, length, xxh3; /* of its record; of the octets, in the segment or the large file */
    struct heap_node deadline;              /* spool time: delay warning, then end of life */
    char *words;                            /* why it is held, or NULL */
    struct index_recipient *recipients;     /* behind the jobs, in the same allocation */
    const uint8_t *envelope_raw;            /* behind the recipients */
    uint32_t envelope_length;
    uint16_t recipients_count, jobs_count;
    uint16_t queued; /* recipients */
    uint16_t out;    /* jobs */
    uint8_t state;   /* enum message_state */
    bool removing;   /* its REMOVE is written; it goes when no job of it is out */
    struct schedule_job jobs[];
};

struct index_config {
    uint32_t shards;
    struct schedule_config schedule;
    uint64_t seed;
};

struct index;
/* A place in the list that survives removals. */
struct index_cursor {
    struct message *at; /* the next one; NULL at the end */
    struct index_cursor *next_cursor;
};

struct index *index_new(const struct index_config *config);
void index_free(struct index **ix);
void index_clear(struct index *ix); /* forgets every message and suspension */

struct schedule *index_schedule_of(struct index *ix, uint32_t shard);
uint32_t index_shards(const struct index *ix);
uint32_t index_job_shard(const struct index *ix, const struct schedule_job *j);

/*
 * Adds a decoded message at the end of the list; its jobs are idle. segment and offset are absolute. An older one with
 * the same id is replaced (replay). NULL: out of memory.
 */
struct message *index_put(struct index *ix, const struct record_message *m, uint64_t segment, uint64_t offset);
struct message *index_find(const struct index *ix, uint64_t id);
void index_find_soon(const struct index *ix, uint64_t id); /* it will be asked for: the processor may fetch its slot */
void index_remove(struct index *ix, struct message *m);    /* none of its jobs is out */
struct message *index_first(const struct index *ix);
size_t index_count(const struct index *ix);
void index_to_end(struct index *ix, struct message *m); /* its record was appended again */

/* Decodes the envelope into e with the scratch; views into m. */
void index_envelope(const struct message *m, struct envelope *e, struct record_scratch *scratch);
/* The whole message as a record; place.kind is the caller's. Views into m and the scratch. */
void index_record(const struct message *m, struct record_message *ret, struct record_scratch *scratch);

/* --- changes of state; none of them writes or schedules --- */
void index_apply_outcome(struct index *ix, struct message *m, const struct record_outcome *o);
void index_apply_hold(struct index *ix, struct message *m, struct span words);
void index_apply_release(struct index *ix, struct message *m);
void index_apply_retry(struct message *m, uint64_t next_ms);
void index_apply_report(struct message *m, const struct record_report *r);
int index_suspend(struct index *ix, struct span account, struct span words); /* 0 or -ENOMEM */
void index_resume(struct index *ix, struct span account);
bool index_is_suspended(const struct index *ix, struct span account);
/* Calls each with every suspended account. */
void index_suspensions(const struct index *ix, void (*each)(void *arg, const struct record_account *a), void *arg);
/* Those not suspended again since the last call with start true are resumed through each, which must not change the
 * set. */
void index_suspensions_confirm(struct index *ix, bool start, void (*each)(void *arg, struct span account), void *arg);

/* Puts the idle jobs that have queued recipients into the schedule, unless the message is held or committing. */
void index_schedule(struct index *ix, struct message *m, uint64_t now_ms);
void index_unschedule(struct index *ix, struct message *m); /* takes out what waits or is ready */
struct message *index_of_job(struct schedule_job *j);
bool index_job_has_queued(const struct message *m, const struct schedule_job *j);
bool index_job_is_out(const struct message *m, const struct schedule_job *j); /* a recipient of it has no result yet */

/* Which recipients are to be reported now; numbers has room for all. 0: none. */
uint16_t index_unreported(const struct message *m, enum report_kind kind, uint16_t *numbers);
bool index_is_done(const struct message *m); /* nobody queued, nothing to report */
/* Octets that keep a segment from being given back: message, envelope and overhead. */
uint64_t index_weight(const struct message *m);

struct heap *index_deadlines(struct index *ix);
struct message *index_of_deadline(struct heap_node *n);

void index_cursor_open(struct index *ix, struct index_cursor *c, struct message *at);
void index_cursor_close(struct index *ix, struct index_cursor *c);

struct index_figures {
    uint64_t messages, held, octets, recipients_queued;
    uint64_t oldest_ms; /* spool time of arrival of the first in the list; 0: none */
};
void index_figures(const struct index *ix, struct index_figures *ret);

#endif
