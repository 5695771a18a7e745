#include "spool/recover.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/id.h"
#include "spool/recover_int.h"
#include "spool/scout.h"
#include "spool/snapshot.h"

#define DOWNTIME_MAX_MS (60U * 60 * 1000) /* what a wall clock may claim about the time we were down */
#define CHANGES_MAX     (64U * 1024U * 1024U)
#define PROVE_CHUNK     (256U * 1024U)

const char *recover_event_words(enum recover_event e)
{
    static const char *const words[RECOVER_EVENT_COUNT] = {
        [RECOVER_TORN] = "the last batch is not whole; it was never acknowledged",
        [RECOVER_DAMAGED_BATCH] = "a batch does not match its checksum",
        [RECOVER_DAMAGED_RECORD] = "a record cannot be read",
        [RECOVER_DAMAGED_HEADER] = "a segment's header does not match its checksum; its batches were read without it",
        [RECOVER_DAMAGED_SEGMENT] = "nothing in a segment matches its checksum",
        [RECOVER_UNREADABLE_SEGMENT] = "the disk does not give a segment; it was set aside",
        [RECOVER_MISSING_SEGMENT] = "a segment is missing",
        [RECOVER_TORN_MESSAGE] = "octets of a message in the last batch do not match their checksum",
        [RECOVER_MISSING_LARGE] = "the file of a large message is missing",
        [RECOVER_NAMELESS_LARGE] =
            "nothing names the file of a large message, and something that might have is damaged",
        [RECOVER_MISSING_OCTETS] = "the segment of a message is missing",
        [RECOVER_DAMAGED_SNAPSHOT] = "the snapshot cannot be used; the log was replayed",
        [RECOVER_PROGRESS] = "progress",
    };
    return words[e];
}

/* --- what files there are --- */

static int file_each(void *arg, const char *name)
{
    struct recovering *rc = arg;
    uint64_t seq;
    if (segment_name_parse(name, &seq) < 0) {
        return 0;
    }
    if (!recover_array_room((void **)&rc->found, &rc->found_cap, rc->found_count, sizeof(*rc->found))) {
        return -ENOMEM;
    }
    rc->found[rc->found_count++] = (struct found_segment){.seq = seq};
    return 0;
}

static int found_compare(const void *a, const void *b)
{
    uint64_t x = ((const struct found_segment *)a)->seq, y = ((const struct found_segment *)b)->seq;
    return x < y ? -1 : x > y;
}

static const struct found_segment *found_at(const struct recovering *rc, uint64_t seq)
{
    struct found_segment key = {.seq = seq};
    return rc->found_count == 0 ? NULL : bsearch(&key, rc->found, rc->found_count, sizeof(key), found_compare);
}

/* The disk does not give a segment: it is put where it is neither read nor written over, and told. */
static int segment_park(struct recovering *rc, uint64_t seq)
{
    char from[SEGMENT_NAME_SIZE], to[SEGMENT_NAME_SIZE + 32];
    segment_name(seq, from);
    (void)snprintf(to, sizeof(to), "damaged/%s-%llx", from, (unsigned long long)clock_wall_ms());
    int r = rc->options->read_only ? 0 : rc->disk->rename(rc->disk->arg, from, to);
    if (r == 0) {
        recover_tell(rc, RECOVER_UNREADABLE_SEGMENT, 0, seq, 0, 0, rc->options->read_only ? NULL : strchr(to, '/') + 1);
    }
    return r;
}

/* 1: f says what it is; 0: it is parked; -errno. */
static int segment_look(struct recovering *rc, struct found_segment *f)
{
    struct segment_reader reader;
    int r = segment_reader_open(&reader, rc->disk, f->seq);
    if (r == -EIO) { /* what cannot be read the first time sometimes can the second */
        r = segment_reader_open(&reader, rc->disk, f->seq);
    }
    if (r < 0) {
        return recover_must_stop(r) ? r : segment_park(rc, f->seq);
    }
    f->lived = r == 1;
    f->size = reader.size;
    f->previous_batch = reader.previous_batch;
    segment_reader_close(&reader);
    return 1;
}

static int segments_look(struct recovering *rc)
{
    int r = rc->disk->list(rc->disk->arg, ".", file_each, rc);
    if (r < 0) {
        return r;
    }
    if (rc->found_count > 0) {
        qsort(rc->found, rc->found_count, sizeof(*rc->found), found_compare);
    }
    size_t kept = 0;
    for (size_t i = 0; i < rc->found_count; i++) {
        struct found_segment f = rc->found[i];
        r = segment_look(rc, &f);
        if (r < 0) {
            return r;
        }
        if (r == 1) {
            rc->found[kept++] = f;
        }
    }
    rc->found_count = kept;
    return 0;
}

/* Every batch of a segment that verifies, in order, and the gaps between. */
struct walk {
    struct recovering *rc;
    struct segment_reader reader;
    uint64_t after;    /* batches up to this number are not expected here */
    uint64_t expected; /* the segment holds batches up to this number at least */
    bool search;       /* look behind what does not verify in any case */
    uint64_t at;
    bool unread;                   /* what stands there could not be read */
    uint64_t gap_from, gap_length; /* before the batch just returned; length 0: none */
};

/* 1: the next batch; 0: the end, w->at is where; -errno. */
static int walk_next(struct walk *w, struct segment_batch *ret)
{
    bool before = w->reader.unreadable;
    w->reader.unreadable = false;
    int r = segment_read_batch(&w->reader, w->at, ret);
    w->unread = w->reader.unreadable;
    w->reader.unreadable |= before;
    w->gap_length = 0;
    if (r == 1 && ret->header.seq <= w->after) {
        r = 0;
    }
    if (r == 0 && (w->search || w->expected > w->after)) {
        uint64_t found;
        r = segment_search(&w->reader, w->at + SPOOL_BLOCK, w->after, &found);
        if (r == 1) {
            w->gap_from = w->at;
            w->gap_length = found - w->at;
            w->at = found;
            r = segment_read_batch(&w->reader, w->at, ret);
        }
    }
    if (r == 1) {
        w->after = ret->header.seq;
        w->at += batch_size(&ret->header);
    }
    return r;
}

/* Reads the highest segment that has a batch: what it says is the tail. */
static int tail_find(struct recovering *rc)
{
    for (size_t i = rc->found_count; i > 0; i--) {
        if (!rc->found[i - 1].lived) {
            continue;
        }
        struct segment_batch b;
        struct walk w = {.rc = rc, .search = true, .at = SPOOL_BLOCK};
        uint64_t tail = 0;
        int r = segment_reader_open(&w.reader, rc->disk, rc->found[i - 1].seq);
        while (r == 1 && (r = walk_next(&w, &b)) == 1) {
            tail = b.header.tail > tail ? b.header.tail : tail;
        }
        segment_reader_close(&w.reader);
        if (r < 0) {
            return r;
        }
        if (rc->head == 0 && tail != 0) {
            rc->head = rc->found[i - 1].seq;
        }
        if (tail != 0) {
            rc->tail = tail <= rc->head ? tail : rc->head;
            return 0;
        }
    }
    return 0;
}

/* --- replay --- */

/* What the next segment that lived says was acknowledged before it. */
static uint64_t acknowledged_before_next(const struct recovering *rc, uint64_t seq)
{
    for (size_t i = 0; i < rc->found_count; i++) {
        if (rc->found[i].seq > seq && rc->found[i].seq <= rc->head && rc->found[i].lived) {
            return rc->found[i].previous_batch;
        }
    }
    return 0;
}

static int segment_end(struct recovering *rc, struct walk *w, bool is_head)
{
    uint64_t size = 0;
    size_t salvaged = rc->out->salvaged_count;
    int r = 0;
    if (w->expected > w->after) {
        r = recover_salvage(rc, &w->reader, RECOVER_DAMAGED_BATCH, w->at, w->reader.size);
    } else if (is_head && segment_claims(&w->reader, w->at, &size)) {
        r = recover_salvage(rc, &w->reader, RECOVER_TORN, w->at, w->at + size);
    } else if (is_head && w->unread) {
        recover_set_aside(rc, &w->reader, RECOVER_DAMAGED_BATCH, "batch", w->at, w->reader.size - w->at);
    }
    if (is_head) {
        rc->head_end = w->at;
        rc->head_sealed = rc->out->salvaged_count > salvaged || w->reader.unreadable;
    }
    return r;
}

static int segment_replay(struct recovering *rc, uint64_t seq, uint64_t from)
{
    struct segment_batch b;
    struct walk w = {.rc = rc, .at = from, .after = rc->batch, .search = seq == rc->head};
    const struct found_segment *f = found_at(rc, seq);
    if (f == NULL) {
        recover_tell(rc, RECOVER_MISSING_SEGMENT, 0, seq, 0, 0, NULL);
        return 0;
    }
    int r = segment_reader_open(&w.reader, rc->disk, seq);
    if (r <= 0) {
        if (r == 0) {
            recover_set_aside(rc, &w.reader, RECOVER_DAMAGED_SEGMENT, "segment", 0, w.reader.size);
            segment_reader_close(&w.reader);
        }
        return r; /* it could be read a moment ago: the next start looks again */
    }
    if (w.reader.header_damaged) {
        recover_tell(rc, RECOVER_DAMAGED_HEADER, 0, seq, 0, 0, NULL);
    }
    w.expected = acknowledged_before_next(rc, seq);
    while ((r = walk_next(&w, &b)) == 1) {
        if (w.gap_length > 0) {
            r = recover_salvage(rc, &w.reader, RECOVER_DAMAGED_BATCH, w.gap_from, w.gap_from + w.gap_length);
            r = r < 0 ? r : segment_read_batch(&w.reader, b.offset, &b) == 1 ? 0 : -EIO; /* the window was used */
        }
        if (r >= 0 && w.expected > 0 && b.header.seq > w.expected) {
            break; /* it failed, and what may not be lost of it stands in the next segment; moved mail is where it was
                    */
        }
        r = r < 0 ? r : recover_batch_replay(rc, &w.reader, &b);
        if (r < 0) {
            break;
        }
    }
    r = r < 0 ? r : segment_end(rc, &w, seq == rc->head);
    segment_reader_close(&w.reader);
    return r;
}

static int log_replay(struct recovering *rc, const struct snapshot_header *snapshot)
{
    uint64_t seq = snapshot != NULL ? snapshot->segment : rc->tail;
    uint64_t at = snapshot != NULL ? snapshot->offset : SPOOL_BLOCK;
    rc->batch = snapshot != NULL ? snapshot->batch : 0;
    rc->last_spool_ms = snapshot != NULL ? snapshot->spool_ms : 0;
    struct scout *scout = rc->options->read_ahead ? scout_start(rc->disk, seq, at, rc->head) : NULL;
    int r = 0;
    for (; r == 0 && seq <= rc->head; seq++, at = SPOOL_BLOCK) {
        recover_tell(rc, RECOVER_PROGRESS, 0, seq, seq - rc->tail, rc->head - rc->tail + 1, NULL);
        r = segment_replay(rc, seq, at);
    }
    scout_stop(&scout);
    return r;
}

/* --- after the replay --- */

static int stretch_rewrite(struct recovering *rc, int fd, uint64_t from, uint64_t end)
{
    uint8_t *chunk = malloc(PROVE_CHUNK);
    int r = chunk == NULL ? -ENOMEM : 0;
    int64_t n = 1;
    for (uint64_t at = from; r == 0 && n > 0 && at < end; at += PROVE_CHUNK) { /* end is what the batch claims */
        size_t len = end - at < PROVE_CHUNK ? (size_t)(end - at) : PROVE_CHUNK;
        n = rc->disk->read(rc->disk->arg, fd, chunk, len, at);
        r = n < 0 ? (int)n : disk_write(rc->disk, fd, chunk, (size_t)n, at);
    }
    free(chunk);
    return r < 0 ? r : rc->disk->sync(rc->disk->arg, fd);
}

/* The last batch is there for reads, but its sync may have failed, or not have been: then the kernel may take pages for
 * clean that are not on the disk, and a sync of them proves nothing. So they are written over themselves first. What
 * cannot be made durable so is appended again. */
static int last_batch_prove(struct recovering *rc)
{
    struct segment_reader reader;
    char name[SEGMENT_NAME_SIZE];
    uint64_t end = rc->last_offset + rc->last_size;
    if (rc->last_size == 0 || rc->options->read_only) {
        return 0;
    }
    segment_name(rc->last_segment, name);
    int fd = rc->disk->open(rc->disk->arg, name, DISK_WRITE);
    int r = fd < 0 ? fd : stretch_rewrite(rc, fd, rc->last_offset > SPOOL_BLOCK ? rc->last_offset : 0, end);
    if (fd >= 0) {
        rc->disk->close(rc->disk->arg, fd);
    }
    if (r == 0 || recover_must_stop(r)) {
        return r;
    }
    r = segment_reader_open(&reader, rc->disk, rc->last_segment);
    if (r == 1) {
        r = recover_salvage(rc, &reader, RECOVER_TORN, rc->last_offset, end);
        rc->head_sealed = true;
    }
    segment_reader_close(&reader);
    return r;
}

/* The octets of the message are not there. One that was moved on is where it was before: the tail passes that place
 * only when the move is durable. */
static int last_message_torn(struct recovering *rc, struct message *m, const struct last_message *last)
{
    if (last->old_segment == 0) {
        return recover_message_torn(rc, m, RECOVER_TORN_MESSAGE);
    }
    m->segment = last->old_segment;
    m->offset = last->old_offset;
    return recover_ids_add(&rc->out->salvaged, &rc->out->salvaged_count, m->id);
}

/* The last batch may be torn behind its records. */
static int last_batch_check(struct recovering *rc)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < rc->last_count; i++) {
        struct message *m = index_find(rc->ix, rc->last[i].id);
        if (m == NULL || m->segment != rc->last_segment || m->offset != rc->last[i].offset) {
            continue;
        }
        struct octets_place p = {m->id, m->segment, m->offset, m->length, m->xxh3, false};
        uint8_t *head = NULL;
        r = octets_read(rc->disk, &p, 0, &head);
        if (r == -EILSEQ) {
            r = last_message_torn(rc, m, &rc->last[i]);
        } else if (r < 0 && !recover_must_stop(r)) {
            r = 0; /* nothing is known: they are verified again before they are sent */
        }
    }
    return r;
}

struct large_names {
    uint64_t *ids;
    size_t count, cap;
};

static int large_each(void *arg, const char *name)
{
    struct large_names *l = arg;
    uint64_t id;
    if (id_parse(name, &id) < 0) {
        return 0;
    }
    if (!recover_array_room((void **)&l->ids, &l->cap, l->count, sizeof(*l->ids))) {
        return -ENOMEM;
    }
    l->ids[l->count++] = id;
    return 0;
}

static int id_compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* No record names it: it was never acknowledged, or its record is among what is damaged. */
static void large_file_clear(struct recovering *rc, uint64_t id)
{
    char from[24], to[40];
    large_name(id, from);
    (void)snprintf(to, sizeof(to), "damaged/%s.eml", strchr(from, '/') + 1);
    if (!rc->out->damaged) {
        (void)rc->disk->unlink(rc->disk->arg, from);
    } else if (rc->disk->rename(rc->disk->arg, from, to) == 0) {
        recover_tell(rc, RECOVER_NAMELESS_LARGE, id, 0, 0, 0, strchr(to, '/') + 1);
    }
}

/* Files that no record names go; messages whose file is gone are told. */
static int large_check(struct recovering *rc)
{
    struct large_names l = {0};
    int r = rc->disk->list(rc->disk->arg, "large", large_each, &l);
    if (r == -ENOENT) {
        r = 0;
    }
    if (l.count > 0) {
        qsort(l.ids, l.count, sizeof(*l.ids), id_compare);
    }
    for (size_t i = 0; r == 0 && !rc->options->read_only && i < l.count; i++) {
        const struct message *m = index_find(rc->ix, l.ids[i]);
        if (m == NULL || (m->state & INDEX_LARGE) == 0) {
            large_file_clear(rc, l.ids[i]);
        }
    }
    struct message *next;
    for (struct message *m = index_first(rc->ix); r == 0 && m != NULL; m = next) {
        next = m->next;
        if ((m->state & INDEX_LARGE) != 0 &&
            (l.count == 0 || bsearch(&m->id, l.ids, l.count, sizeof(m->id), id_compare) == NULL)) {
            r = recover_message_torn(rc, m, RECOVER_MISSING_LARGE);
        }
    }
    free(l.ids);
    return r;
}

static int segments_table(struct recovering *rc)
{
    struct log_state *s = &rc->out->log;
    s->segments_count = rc->head == 0 ? 0 : (size_t)(rc->head - rc->tail + 1);
    if (s->segments_count == 0) {
        return 0;
    }
    s->segments = calloc(s->segments_count, sizeof(*s->segments));
    if (s->segments == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < s->segments_count; i++) {
        const struct found_segment *f = found_at(rc, rc->tail + i);
        s->segments[i].seq = rc->tail + i;
        s->segments[i].size = f != NULL ? f->size : 0;
    }
    return 0;
}

/* Counts what is alive in each segment. A message whose segment is not there is damage. */
static int live_count(struct recovering *rc)
{
    struct log_state *s = &rc->out->log;
    struct message *next;
    for (struct message *m = index_first(rc->ix); m != NULL; m = next) {
        next = m->next;
        if (m->segment < rc->tail || m->segment > rc->head || found_at(rc, m->segment) == NULL) {
            int r = recover_message_torn(rc, m, RECOVER_MISSING_OCTETS);
            if (r < 0) {
                return r;
            }
            continue;
        }
        s->segments[m->segment - rc->tail].live++;
        s->segments[m->segment - rc->tail].octets += index_weight(m);
    }
    return 0;
}

/* A segment above the head: its very first batch is torn, or rotten; nothing in it was replayed. */
static int unborn_salvage(struct recovering *rc, uint64_t seq)
{
    struct segment_reader r;
    uint64_t size;
    int e = segment_reader_open(&r, rc->disk, seq);
    if (e == 1 && segment_claims(&r, SPOOL_BLOCK, &size)) {
        e = recover_salvage(rc, &r, RECOVER_TORN, SPOOL_BLOCK, SPOOL_BLOCK + size);
    }
    segment_reader_close(&r);
    return recover_must_stop(e) ? e : 0;
}

/* What was salvaged above the head becomes part of the log's range, sealed, until it is moved on. */
static int unborn_check(struct recovering *rc)
{
    uint64_t head = rc->head;
    for (size_t i = 0; i < rc->found_count; i++) {
        size_t before = rc->out->salvaged_count;
        if (!rc->found[i].lived || rc->found[i].seq <= head) {
            continue;
        }
        int r = unborn_salvage(rc, rc->found[i].seq);
        if (r < 0) {
            return r;
        }
        if (rc->out->salvaged_count > before) {
            rc->tail = rc->head == 0 ? rc->found[i].seq : rc->tail;
            rc->head = rc->found[i].seq;
            rc->head_sealed = true;
        }
    }
    return 0;
}

/* Files that are no part of the log: kept as spares when they have the right size, else removed. */
static void leftovers(struct recovering *rc)
{
    struct log_state *s = &rc->out->log;
    size_t spares = 0;
    for (size_t i = rc->found_count; i > 0; i--) {
        const struct found_segment *f = &rc->found[i - 1];
        if (rc->head != 0 && f->seq >= rc->tail && f->seq <= rc->head) {
            continue;
        }
        if (f->size == rc->options->segment_size && spares < 2) {
            s->spares[spares++] = f->seq;
        } else {
            char name[SEGMENT_NAME_SIZE];
            segment_name(f->seq, name);
            (void)rc->disk->unlink(rc->disk->arg, name);
        }
    }
    (void)rc->disk->unlink(rc->disk->arg, "next.tmp");
    (void)rc->disk->unlink(rc->disk->arg, "index.snap.tmp");
}

/* The log goes on in its head if that is durable as it stands, else in a new segment. */
static void head_open(struct recovering *rc)
{
    struct log_state *s = &rc->out->log;
    struct segment_reader reader;
    char name[SEGMENT_NAME_SIZE];
    s->fd = -1;
    s->head_seq = rc->head;
    s->batch_seq = rc->batch;
    if (rc->head == 0 || segment_reader_open(&reader, rc->disk, rc->head) < 0) {
        return;
    }
    s->life = reader.life;
    s->offset = rc->head_end;
    bool header_good = !reader.header_damaged;
    segment_reader_close(&reader);
    segment_name(rc->head, name);
    int fd = rc->disk->open(rc->disk->arg, name, DISK_WRITE);
    if (fd >= 0 && header_good && !rc->head_sealed && rc->head_end > SPOOL_BLOCK) {
        s->fd = fd;
    } else if (fd >= 0) {
        rc->disk->close(rc->disk->arg, fd);
    }
}

static uint64_t time_carried_on(const struct recovering *rc)
{
    uint64_t now = clock_wall_ms();
    uint64_t down = now > rc->last_wall_ms && rc->last_wall_ms != 0 ? now - rc->last_wall_ms : 0;
    return rc->last_spool_ms + (down < DOWNTIME_MAX_MS ? down : DOWNTIME_MAX_MS);
}

static int snapshot_use(struct recovering *rc, struct snapshot_header *header)
{
    int r = rc->options->no_snapshot || rc->head == 0 ? 0 : snapshot_load(rc->disk, rc->ix, header);
    if (r != 1) {
        return r;
    }
    const struct found_segment *f = found_at(rc, header->segment);
    if (header->segment < rc->tail || header->segment > rc->head || f == NULL || !f->lived) {
        index_clear(rc->ix);
        return 0;
    }
    return 1;
}

static int recover_steps(struct recovering *rc)
{
    struct snapshot_header header;
    int r = segments_look(rc);
    r = r < 0 ? r : tail_find(rc);
    (void)FAULT_POINT("spool.recover.tail");
    r = r < 0 ? r : snapshot_use(rc, &header);
    if (r < 0) {
        return r;
    }
    rc->out->from_snapshot = r == 1;
    r = rc->head == 0 ? 0 : log_replay(rc, r == 1 ? &header : NULL);
    (void)FAULT_POINT("spool.recover.replayed");
    r = r < 0 ? r : last_batch_prove(rc);
    r = r < 0 ? r : unborn_check(rc);
    r = r < 0 ? r : last_batch_check(rc);
    r = r < 0 ? r : large_check(rc);
    r = r < 0 ? r : segments_table(rc);
    r = r < 0 ? r : live_count(rc);
    if (r == 0 && !rc->options->read_only) {
        (void)FAULT_POINT("spool.recover.checked");
        leftovers(rc);
        (void)FAULT_POINT("spool.recover.cleared");
        head_open(rc);
    }
    rc->out->spool_ms = time_carried_on(rc);
    return r;
}

void recovery_fini(struct recovery *r)
{
    free(r->torn);
    free(r->salvaged);
    buf_fini(&r->changes);
    *r = (struct recovery){.log = {.fd = -1}};
}

int recover_run(const struct spool_disk *disk, struct index *ix, const struct recover_options *options,
                struct recovery *ret)
{
    *ret = (struct recovery){.log = {.fd = -1}};
    buf_init(&ret->changes, CHANGES_MAX);
    struct recovering rc = {.disk = disk, .ix = ix, .options = options, .out = ret};
    rc.scratch = malloc(sizeof(*rc.scratch));
    int r = rc.scratch == NULL ? -ENOMEM : 0;
    if (r == 0 && !options->read_only) {
        r = disk->mkdir(disk->arg, "large");
        r = r < 0 ? r : disk->mkdir(disk->arg, "damaged");
        r = r < 0 ? r : disk->sync_dir(disk->arg, ".");
    }
    r = r < 0 ? r : recover_steps(&rc);
    if (r < 0) {
        free(ret->log.segments);
        recovery_fini(ret);
    }
    free(rc.scratch);
    free(rc.found);
    free(rc.last);
    return r;
}
