/* recover_int.h: what the parts of recovery share: what files there are (recover.c), what their records say
 * (recover_replay.c). */
#ifndef KIDOBAN_SPOOL_RECOVER_INT_H
#define KIDOBAN_SPOOL_RECOVER_INT_H

#include "spool/recover.h"
#include "spool/segment.h"

/* A segment file as it was found. */
struct found_segment {
    uint64_t seq, size, previous_batch;
    bool lived;
};

/* A message of the last batch: its octets are looked at, since it may be torn. */
struct last_message {
    uint64_t id, offset;
    uint64_t old_segment, old_offset; /* it was moved on: where it was before; 0: it is new */
};

struct recovering {
    const struct spool_disk *disk;
    struct index *ix;
    const struct recover_options *options;
    struct recovery *out;
    struct found_segment *found;
    size_t found_count, found_cap;
    uint64_t tail, head;
    uint64_t batch; /* number of the last one replayed */
    uint64_t last_spool_ms, last_wall_ms;
    uint64_t last_segment, last_offset, last_size; /* of the last batch replayed; size 0: none was */
    struct last_message *last;
    size_t last_count, last_cap;
    uint64_t head_end; /* where the head's next batch begins */
    bool head_sealed;  /* something at its end may not be written over */
    bool salvaging;
    bool rewriting; /* what is salvaged now will be written over: it is kept in out->changes */
    struct record_scratch *scratch;
    int error;
};

/* --- recover_replay.c --- */
/* Replays a batch that verifies. What does not decode is set aside and told. 0 or -ENOMEM. */
int recover_batch_replay(struct recovering *rc, struct segment_reader *reader, struct segment_batch *b);
/* Every batch that was meant to be between from and end: set aside as it is, and what is whole in it taken. */
int recover_salvage(struct recovering *rc, struct segment_reader *r, enum recover_event event, uint64_t from,
                    uint64_t end);
/* Copies what does not verify to damaged/ and tells. A disk that cannot take the copy must not stop recovery. */
void recover_set_aside(struct recovering *rc, struct segment_reader *r, enum recover_event event, const char *what,
                       uint64_t offset, uint64_t length);
/* Sets what there is of a message aside, forgets it, and has a REMOVE written. 0 or -ENOMEM. */
int recover_message_torn(struct recovering *rc, struct message *m, enum recover_event event);
/* The want is ours and says nothing about the disk, or a newer version wrote it: recovery ends here. */
bool recover_must_stop(int error);
void recover_tell(const struct recovering *rc, enum recover_event event, uint64_t id, uint64_t segment, uint64_t offset,
                  uint64_t length, const char *aside);
/* Room for one element more of that size. False: out of memory. */
bool recover_array_room(void **array, size_t *cap, size_t count, size_t size);
int recover_ids_add(uint64_t **ids, size_t *count, uint64_t id); /* 0 or -ENOMEM */

#endif
