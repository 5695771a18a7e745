/* tidy.c: what the spool does for itself: looks at the room on the disk, moves long-lived mail on, writes snapshots. */
#include <errno.h>
#include <stdlib.h>
#include <xxhash.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "spool/spool_int.h"

#define SPACE_EVERY_MS    1000U
#define MOVES_MAX         64U                    /* messages being moved at once */
#define MOVE_LOOK_MAX     2000U                  /* messages looked at for one to move */
#define ROUND_LEAST       (16U * SPOOL_BLOCK)    /* dead octets that are worth moving all others for */
#define SEGMENTS_KEPT     4U                     /* a log this short is not tidied */
#define SNAPSHOT_AFTER    (512U * 1024U * 1024U) /* octets of log since the last one ... */
#define SNAPSHOT_RETRY_MS (60U * 1000U)
#define SNAPSHOT_PER_MSG  1024U /* ... and so many for each message in the index */

/* Room goes by segments and large files: a new one of either is a reason to look before the second is over. */
void tidy_space(struct spool *sp, uint64_t now_ms)
{
    struct disk_space space;
    uint64_t made = log_segments_made(sp->log);
    if (made != sp->segments_made) {
        sp->segments_made = made;
        sp->space_checked_ms = 0;
    }
    if (sp->space_checked_ms != 0 && now_ms - sp->space_checked_ms < SPACE_EVERY_MS) {
        return;
    }
    sp->space_checked_ms = now_ms > 0 ? now_ms : 1;
    if (sp->disk->space(sp->disk->arg, &space) == 0) {
        sp->space = space;
    }
}

/* --- moving on --- */

struct move {
    struct task task;
    struct spool *sp;
    uint64_t id;
    struct octets_place place;
    uint8_t *octets;
    int error;
};

static void move_run(struct task *t)
{
    struct move *mv = (struct move *)t;
    mv->error = octets_read(mv->sp->disk, &mv->place, (size_t)mv->place.length, &mv->octets);
}

/* Appends m again with its state; octets are inline unless it is large. */
static int move_log(struct spool *sp, struct message *m, const uint8_t *octets)
{
    struct record_message r;
    struct span body = {octets, (size_t)m->length};
    const struct log_note note = {.kind = NOTE_MOVE, .type = RECORD_MESSAGE, .id = m->id};
    bool large = (m->state & INDEX_LARGE) != 0;
    size_t need = m->envelope_length + (size_t)m->recipients_count * (RECORD_WORDS_MAX + 32U) + RECORD_SLACK;
    struct log_batch *b = log_gather(sp->log, need + (large ? 0 : body.len));
    if (b == NULL) {
        return -ENOMEM;
    }
    index_record(m, &r, &sp->scratch);
    r.place.kind = large ? PLACE_LARGE : PLACE_INLINE;
    r.place.segment = 0;
    int e = spool_message_log(sp, b, &r, large ? (struct span){0} : body, &note);
    if (e == 0) {
        m->state |= INDEX_MOVING;
    }
    return e;
}

static void move_done(struct task *t)
{
    struct move *mv = (struct move *)t;
    struct spool *sp = mv->sp;
    struct message *m = index_find(sp->ix, mv->id);
    sp->moving--;
    if (m != NULL) {
        m->state &= (uint8_t)~INDEX_MOVING;
        if (mv->error == -EILSEQ) {
            damage_check_start(sp, m);
        } else if (mv->error == 0 && !m->removing && m->segment == mv->place.segment) {
            (void)move_log(sp, m, mv->octets); /* out of memory: another time */
        }
    }
    free(mv->octets);
    free(mv);
}

static void move_start(struct spool *sp, struct message *m)
{
    if ((m->state & INDEX_LARGE) != 0) { /* only its record moves */
        (void)move_log(sp, m, NULL);
        return;
    }
    struct move *mv = calloc(1, sizeof(*mv));
    if (mv != NULL) {
        *mv = (struct move){.task = {.run = move_run, .done = move_done}, .sp = sp, .id = m->id};
        mv->place = spool_place(m);
        m->state |= INDEX_MOVING;
        sp->moving++;
        worker_submit(sp->house, &mv->task);
    }
}

void tidy_batch_moved(struct spool *sp, const struct log_batch *b, const struct log_note *n)
{
    struct message *m = index_find(sp->ix, n->id);
    if (m == NULL || (m->state & INDEX_MOVING) == 0) {
        return; /* it ended meanwhile */
    }
    log_live_drop(sp->log, m->segment, index_weight(m));
    m->segment = b->header.segment;
    m->offset = (m->state & INDEX_LARGE) != 0 ? 0 : log_octets_offset(b, n->octets_at);
    m->state &= (uint8_t)~INDEX_MOVING;
    log_live_add(sp->log, m->segment, index_weight(m));
    index_to_end(sp->ix, m);
}

void tidy_move_failed(struct spool *sp, uint64_t id)
{
    struct message *m = index_find(sp->ix, id);
    if (m != NULL) {
        m->state &= (uint8_t)~INDEX_MOVING;
    }
}

int tidy_move_now(struct spool *sp, struct message *m)
{
    struct octets_place p = spool_place(m);
    uint8_t *octets = NULL;
    bool large = (m->state & INDEX_LARGE) != 0;
    int r = large ? 0 : octets_read(sp->disk, &p, (size_t)p.length, &octets);
    r = r < 0 ? r : move_log(sp, m, octets);
    free(octets);
    return r;
}

/* --- while the disk is full --- */

/* What stands in the log and is no message alive: changes of state, padding, what has ended. */
static uint64_t dead_octets(const struct spool *sp)
{
    struct log_figures f;
    log_figures(sp->log, &f);
    uint64_t used = f.octets - f.head_room;
    return used > f.live_octets ? used - f.live_octets : 0;
}

/* Moving the tail on takes so much before it gives its segment back; any tail. */
static uint64_t tail_needs(const struct log_segment *tail)
{
    return tail->octets + tail->octets / 8 + 2U * SPOOL_BLOCK;
}

static uint64_t round_needs(const struct spool *sp)
{
    return sp->segment_size + sp->segment_size / 4 + ROUND_LEAST;
}

static bool disk_is_full(const struct spool *sp)
{
    return sp->state.code == 452;
}

/* What the log can still take: the disk gives whole segments. */
static uint64_t room(const struct spool *sp)
{
    return log_room(sp->log) + sp->space.free / (sp->segment_size + SPOOL_BLOCK) * sp->segment_size;
}

/* What a round would give back. The floor is what the last one could not: padding, records longer than a weight says.
 * It begins before the room that it needs is gone. */
static bool round_is_worth(const struct spool *sp)
{
    uint64_t dead = dead_octets(sp), have = room(sp), needs = round_needs(sp);
    uint64_t win = dead > sp->round_floor ? dead - sp->round_floor : 0;
    return win >= ROUND_LEAST && (win >= intake_reserve(sp) / 4 || win >= (have > needs ? have - needs : 0) / 2);
}

void tidy_batch_written(struct spool *sp, const struct log_batch *b)
{
    sp->snapshot_octets += b->size;
    sp->round_waste += b->octets.len == 0 ? b->size : 0;
    for (size_t i = 0; i < b->notes_count; i++) {
        sp->round_waste += b->notes[i].kind == NOTE_END ? b->notes[i].octets_length : 0;
    }
}

/*
 * Outcomes that trickle in take a block each, and stand behind messages that may stay for days. So when the disk is
 * full, and they have taken a part of the reserve, the whole log is moved on once: every message and its state, closely
 * packed, and nothing else.
 */
static void round_update(struct spool *sp, const struct log_segment *tail)
{
    struct log_figures f;
    if (sp->round_end != 0 && (tail == NULL || tail->seq > sp->round_end)) {
        uint64_t dead = dead_octets(sp);
        sp->round_floor = dead > sp->round_waste ? dead - sp->round_waste : 0;
        sp->round_end = 0;
    }
    if (sp->round_end == 0 && tail != NULL && disk_is_full(sp) && round_is_worth(sp)) {
        log_figures(sp->log, &f);
        sp->round_end = f.head;
        sp->round_waste = 0;
    }
    bool quiet = sp->moving == 0 && log_pending(sp->log) == 0 && tail != NULL && tail->pins == 0;
    if (quiet && room(sp) < tail_needs(tail)) {
        sp->round_end = 0; /* somebody else took the room */
    }
}

bool tidy_has_room(const struct spool *sp, uint64_t octets, bool may_end)
{
    const struct log_segment *tail = log_segment_tail(sp->log);
    uint64_t have = room(sp), all = octets + sp->owed + log_pending(sp->log);
    if (have >= all + round_needs(sp)) {
        return true;
    }
    bool round_helps = sp->round_end != 0 || (tail != NULL && round_is_worth(sp) && have >= tail_needs(tail));
    return may_end && !round_helps && have >= all && (all <= ROUND_LEAST || sp->owed == 0);
}

bool tidy_is_gathering(const struct spool *sp)
{
    return disk_is_full(sp) && sp->moving > 0 && !sp->closing;
}

/* Mostly dead: the tail is worth less than a quarter of what it takes, or all segments together less than half. */
static bool tail_is_worth_moving(const struct spool *sp, const struct log_segment *tail)
{
    struct log_figures f;
    log_figures(sp->log, &f);
    if (f.down) {
        return false;
    }
    bool mostly_dead = tail->octets < tail->size / 4 || f.live_octets < f.octets / 2;
    return (f.segments > SEGMENTS_KEPT && mostly_dead) || (sp->round_end != 0 && room(sp) >= tail_needs(tail));
}

/* The list is in the order of the log: what keeps the tail alive stands at its front. */
void tidy_move(struct spool *sp)
{
    const struct log_segment *tail = log_segment_tail(sp->log);
    round_update(sp, tail);
    if (tail == NULL || tail->live == 0 || sp->moving >= MOVES_MAX / 2 || sp->closing ||
        !tail_is_worth_moving(sp, tail)) {
        return;
    }
    if (disk_is_full(sp) && (sp->moving > 0 || log_pending(sp->log) > 0)) {
        return; /* one batch for many */
    }
    uint64_t seq = tail->seq;
    size_t looked = 0;
    struct message *next;
    for (struct message *m = index_first(sp->ix); m != NULL && sp->moving < MOVES_MAX && looked < MOVE_LOOK_MAX;
         m = next, looked++) {
        next = m->next;
        if (m->segment == seq && (m->state & (INDEX_MOVING | INDEX_COMMITTING)) == 0 && !m->removing) {
            move_start(sp, m);
        }
    }
}

/* --- snapshots --- */

static void snapshot_begin(struct spool *sp)
{
    struct log_figures f;
    log_figures(sp->log, &f);
    struct snapshot_header header = {
        .segment = f.head, .offset = f.offset, .batch = f.batch, .tail = f.tail, .spool_ms = spool_now(sp)};
    sp->snapshot = snapshot_start(sp->disk, sp->house, sp->ix, &header);
    sp->snapshot_turn = 0;
    sp->snapshot_octets = 0;
}

static bool snapshot_is_due(const struct spool *sp)
{
    uint64_t after = SNAPSHOT_AFTER + index_count(sp->ix) * SNAPSHOT_PER_MSG;
    struct log_figures f;
    bool room =
        sp->space.free >= intake_reserve(sp) + index_count(sp->ix) * SNAPSHOT_PER_MSG; /* the reserve is not for it */
    bool asked = FAULT_POINT("spool.snapshot.due") < 0; /* a test cannot wait for half a gigabyte */
    if (sp->closing || !room || (!asked && (sp->snapshot_octets < after || clock_mono_ms() < sp->snapshot_retry_ms))) {
        return false;
    }
    log_figures(sp->log, &f);
    return !f.down && f.offset > SPOOL_BLOCK &&
           (asked || f.segments > SEGMENTS_KEPT); /* a short log is replayed as fast */
}

static void snapshot_end(struct spool *sp, bool good)
{
    if (!good) {
        log_warn("spool.snapshot.failed", LF_UINT("messages", index_count(sp->ix)));
        sp->snapshot_retry_ms = clock_mono_ms() + SNAPSHOT_RETRY_MS;
        sp->snapshot_octets = SNAPSHOT_AFTER;
    }
    snapshot_free(&sp->snapshot);
}

void tidy_snapshot(struct spool *sp)
{
    struct log_figures f;
    if (sp->snapshot == NULL) {
        if (snapshot_is_due(sp)) {
            snapshot_begin(sp);
        }
        return;
    }
    switch (snapshot_step(sp->snapshot)) {
    case SNAPSHOT_WALKING:
    case SNAPSHOT_FINISHING:
        break;
    case SNAPSHOT_WALKED: /* what the walk may have seen must be durable before it counts */
        log_figures(sp->log, &f);
        if (sp->snapshot_turn == 0) {
            sp->snapshot_turn = f.gather_turn + 1;
        }
        if (f.durable_turn + 1 >= sp->snapshot_turn) {
            snapshot_commit(sp->snapshot);
        }
        break;
    case SNAPSHOT_DONE:
        snapshot_end(sp, true);
        break;
    case SNAPSHOT_FAILED:
        snapshot_end(sp, false);
        break;
    }
}
