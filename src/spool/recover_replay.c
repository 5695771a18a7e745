/* recover_replay.c: what records say, replayed over the index; and what is taken of a batch that does not verify. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/id.h"
#include "spool/recover_int.h"

#define NAME_ASIDE_SIZE 64
#define RECORDS_AHEAD   8

void recover_tell(const struct recovering *rc, enum recover_event event, uint64_t id, uint64_t segment, uint64_t offset,
                  uint64_t length, const char *aside)
{
    const struct recover_report report = {event, id, segment, offset, length, aside};
    rc->out->damaged |= event == RECOVER_DAMAGED_BATCH || event == RECOVER_DAMAGED_RECORD ||
                        event == RECOVER_DAMAGED_SEGMENT || event == RECOVER_UNREADABLE_SEGMENT ||
                        event == RECOVER_MISSING_SEGMENT;
    if (rc->options->found != NULL) {
        rc->options->found(rc->options->arg, &report);
    }
}

bool recover_must_stop(int error)
{
    return error == -ENOMEM || error == -EMFILE || error == -ENFILE || error == -EACCES || error == -EPERM ||
           error == -EPROTONOSUPPORT;
}

bool recover_array_room(void **array, size_t *cap, size_t count, size_t size)
{
    if (count < *cap) {
        return true;
    }
    size_t grown_cap = *cap == 0 ? 64 : *cap * 2;
    void *grown = reallocarray(*array, grown_cap, size);
    if (grown == NULL) {
        return false;
    }
    *array = grown;
    *cap = grown_cap;
    return true;
}

static void maybe_done(struct recovering *rc, struct message *m)
{
    if (index_is_done(m)) {
        index_remove(rc->ix, m);
    }
}

int recover_ids_add(uint64_t **ids, size_t *count, uint64_t id)
{
    uint64_t *grown = reallocarray(*ids, *count + 1, sizeof(*grown));
    if (grown == NULL) {
        return -ENOMEM;
    }
    *ids = grown;
    (*ids)[(*count)++] = id;
    return 0;
}

/* A message from a damaged batch is taken only when its octets are whole. 1, 0: left to what was set aside; -ENOMEM. */
static int salvage_allowed(struct recovering *rc, const struct record_message *m, uint64_t segment, uint64_t offset)
{
    struct octets_place p = {m->id, segment, offset, m->place.length, m->place.xxh3, m->place.kind == PLACE_LARGE};
    uint8_t *head = NULL;
    int r = octets_read(rc->disk, &p, 0, &head);
    if (r < 0) {
        return recover_must_stop(r) ? r : 0;
    }
    r = recover_ids_add(&rc->out->salvaged, &rc->out->salvaged_count, m->id);
    return r < 0 ? r : 1;
}

static int message_replay(struct recovering *rc, const struct segment_batch *b, const struct record *rec)
{
    struct record_message m;
    int r = record_message_decode(rec->payload, &m, rc->scratch);
    uint64_t offset = 0;
    if (r < 0) {
        return r;
    }
    if (m.place.kind == PLACE_INLINE) {
        if (m.place.offset > b->header.octets_length || m.place.length > b->header.octets_length - m.place.offset) {
            return -EBADMSG;
        }
        offset = b->octets_at + m.place.offset;
    } else if (m.place.kind == PLACE_EMBEDDED) {
        offset = b->offset + BATCH_HEADER_SIZE + (uint64_t)(m.embedded.ptr - b->meta.ptr);
    } else if (m.place.kind != PLACE_LARGE) {
        return -EBADMSG;
    }
    if (rc->salvaging) {
        r = salvage_allowed(rc, &m, b->header.segment, offset);
        if (r == 0 && m.place.kind == PLACE_INLINE && b->octets_at_else != 0) {
            offset = b->octets_at_else + m.place.offset;
            r = salvage_allowed(rc, &m, b->header.segment, offset);
        }
        if (r <= 0) {
            return r;
        }
    }
    const struct message *old = index_find(rc->ix, m.id);
    struct last_message last = {.id = m.id, .offset = offset};
    if (old != NULL && (old->state & INDEX_LARGE) == 0) {
        last.old_segment = old->segment;
        last.old_offset = old->offset;
    }
    struct message *put = index_put(rc->ix, &m, b->header.segment, offset);
    if (put == NULL) {
        return -ENOMEM;
    }
    if (m.place.kind == PLACE_INLINE && !rc->salvaging) {
        if (!recover_array_room((void **)&rc->last, &rc->last_cap, rc->last_count, sizeof(*rc->last))) {
            return -ENOMEM;
        }
        rc->last[rc->last_count++] = last;
    }
    maybe_done(rc, put);
    return 0;
}

static int outcome_replay(struct recovering *rc, const struct record *rec)
{
    struct record_outcome o;
    int r = record_outcome_decode(rec->payload, &o, rc->scratch);
    struct message *m = r == 0 ? index_find(rc->ix, o.id) : NULL;
    if (m != NULL) {
        index_apply_outcome(rc->ix, m, &o);
        maybe_done(rc, m);
    }
    return r;
}

static int change_replay(struct recovering *rc, const struct record *rec)
{
    struct record_change c;
    int r = record_change_decode(rec, &c);
    struct message *m = r == 0 ? index_find(rc->ix, c.id) : NULL;
    if (m == NULL) {
        return r;
    }
    if (rec->type == RECORD_HOLD) {
        index_apply_hold(rc->ix, m, c.words);
    } else if (rec->type == RECORD_RELEASE) {
        index_apply_release(rc->ix, m);
    } else if (rec->type == RECORD_RETRY) {
        index_apply_retry(m, c.next_ms);
    } else {
        index_remove(rc->ix, m);
    }
    return 0;
}

static int report_replay(struct recovering *rc, const struct record *rec)
{
    struct record_report p;
    int r = record_report_decode(rec->payload, &p, rc->scratch);
    struct message *m = r == 0 ? index_find(rc->ix, p.id) : NULL;
    if (m != NULL) {
        index_apply_report(m, &p);
        maybe_done(rc, m);
    }
    return r;
}

static int account_replay(struct recovering *rc, const struct record *rec)
{
    struct record_account a;
    int r = record_account_decode(rec, &a);
    if (r == 0 && rec->type == RECORD_RESUME) {
        index_resume(rc->ix, a.account);
    }
    return r == 0 && rec->type == RECORD_SUSPEND ? index_suspend(rc->ix, a.account, a.words) : r;
}

static int record_replay(struct recovering *rc, const struct segment_batch *b, const struct record *rec)
{
    switch (rec->type) {
    case RECORD_MESSAGE:
        return message_replay(rc, b, rec);
    case RECORD_OUTCOME:
        return outcome_replay(rc, rec);
    case RECORD_HOLD:
    case RECORD_RELEASE:
    case RECORD_RETRY:
    case RECORD_REMOVE:
        return change_replay(rc, rec);
    case RECORD_REPORT:
        return report_replay(rc, rec);
    case RECORD_SUSPEND:
    case RECORD_RESUME:
        return account_replay(rc, rec);
    }
    return -EBADMSG;
}

static void aside_name(char name[static NAME_ASIDE_SIZE], const char *what, uint64_t segment, uint64_t offset)
{
    (void)snprintf(name, NAME_ASIDE_SIZE, "%s-%012" PRIu64 "-%08" PRIx64, what, segment, offset);
}

void recover_set_aside(struct recovering *rc, struct segment_reader *r, enum recover_event event, const char *what,
                       uint64_t offset, uint64_t length)
{
    char name[NAME_ASIDE_SIZE];
    aside_name(name, what, r->seq, offset);
    bool copied = !rc->options->read_only && octets_set_aside(rc->disk, r->fd, offset, length, name) == 0;
    recover_tell(rc, event, 0, r->seq, offset, length, copied ? name : NULL);
}

/* A REPORT without the DSN beside it would lose a bounce: it is not salvaged, the bounce is made again. */
static int salvage_each(void *arg, const struct segment_batch *b, const struct record *rec)
{
    struct recovering *rc = arg;
    int r = rec->type == RECORD_REPORT ? 0 : record_replay(rc, b, rec);
    if (r == 0 && rc->rewriting && rec->type != RECORD_MESSAGE && rec->type != RECORD_REPORT) {
        struct wire_writer w = {.out = &rc->out->changes};
        size_t start = record_begin(&w, rec->type);
        wire_put_fixed(&w, rec->payload.ptr, rec->payload.len);
        r = record_end(&w, start); /* too many: the rest is as if it had never been written */
    }
    return recover_must_stop(r) ? r : 0;
}

int recover_salvage(struct recovering *rc, struct segment_reader *r, enum recover_event event, uint64_t from,
                    uint64_t end)
{
    int e = 0;
    uint64_t size;
    recover_set_aside(rc, r, event, event == RECOVER_TORN ? "torn" : "batch", from, end - from);
    rc->salvaging = true;
    rc->rewriting = event == RECOVER_TORN;
    for (uint64_t at = from; e == 0 && at < end; at += SPOOL_BLOCK) {
        if (segment_claims(r, at, &size)) {
            e = segment_salvage(r, at, size < end - at ? size : end - at, salvage_each, rc);
        }
    }
    rc->salvaging = false;
    return e;
}

/* The index is larger than any cache: its slots are fetched while earlier records are read. */
static void record_ahead(const struct recovering *rc, struct span *meta)
{
    struct record rec;
    uint64_t id;
    if (record_next(meta, &rec) == 1 && rec.payload.len >= sizeof(id)) { /* nearly every record begins with an id */
        memcpy(&id, rec.payload.ptr, sizeof(id));
        index_find_soon(rc->ix, id);
    }
}

int recover_batch_replay(struct recovering *rc, struct segment_reader *reader, struct segment_batch *b)
{
    struct span meta = b->meta, ahead = b->meta;
    struct record rec;
    int r;
    rc->last_count = 0;
    rc->last_segment = b->header.segment;
    rc->last_offset = b->offset;
    rc->last_size = batch_size(&b->header);
    for (int i = 0; i < RECORDS_AHEAD; i++) {
        record_ahead(rc, &ahead);
    }
    while ((r = record_next(&meta, &rec)) == 1) {
        record_ahead(rc, &ahead);
        int e = record_replay(rc, b, &rec);
        if (recover_must_stop(e)) {
            return e;
        }
        if (e < 0) {
            uint64_t at = b->offset + BATCH_HEADER_SIZE + (uint64_t)(rec.payload.ptr - b->meta.ptr);
            recover_set_aside(rc, reader, RECOVER_DAMAGED_RECORD, "record", at, rec.payload.len);
        }
        rc->out->records++;
    }
    if (r < 0) {
        uint64_t at = b->offset + BATCH_HEADER_SIZE + (uint64_t)(meta.ptr - b->meta.ptr);
        recover_set_aside(rc, reader, RECOVER_DAMAGED_RECORD, "record", at, meta.len);
    }
    rc->out->replayed++;
    rc->batch = b->header.seq;
    rc->last_spool_ms = b->header.spool_ms > rc->last_spool_ms ? b->header.spool_ms : rc->last_spool_ms;
    rc->last_wall_ms = b->header.wall_ms;
    return 0;
}

int recover_message_torn(struct recovering *rc, struct message *m, enum recover_event event)
{
    struct octets_place p = {m->id, m->segment, m->offset, m->length, m->xxh3, (m->state & INDEX_LARGE) != 0};
    char name[NAME_ASIDE_SIZE], id[ID_TEXT_LEN + 1];
    bool copied = false;
    id_format(m->id, id);
    (void)snprintf(name, sizeof(name), "%s.eml", id);
    int fd = rc->options->read_only ? -1 : octets_open(rc->disk, &p);
    if (fd >= 0) {
        copied = octets_set_aside(rc->disk, fd, p.offset, p.length, name) == 0;
        rc->disk->close(rc->disk->arg, fd);
    }
    recover_tell(rc, event, m->id, m->segment, m->offset, m->length, copied ? name : NULL);
    int r = recover_ids_add(&rc->out->torn, &rc->out->torn_count, m->id);
    index_remove(rc->ix, m);
    return r;
}
