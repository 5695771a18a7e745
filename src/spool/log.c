#include "spool/log.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fault.h"

#define FAILURES_MAX   3    /* in a row: writing is down */
#define RETRY_MS       5000 /* while down */
#define META_BUF_MAX   (BATCH_META_MAX + BATCH_HEADER_SIZE)
#define OCTETS_BUF_MAX (64U * 1024U * 1024U)
#define KEEP_CAPACITY  (2U * 1024U * 1024U) /* a batch's buffers larger than this are not kept for the next */
#define ZERO_CHUNK     (1024U * 1024U)
#define SPARES         4

static const uint8_t zero_block[SPOOL_BLOCK];

/* A segment made ready, or being made ready, on the house worker. */
struct prepare {
    struct task task;
    struct log *log;
    uint64_t seq, size;
    uint64_t from; /* the dead segment that is renamed; 0: a fresh one */
    int fd, error;
};

/* A file that goes, on the house worker. */
struct removal {
    struct task task;
    struct log *log;
    char path[32];
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
    uint64_t spares[SPARES];

    struct log_batch *queue, **queue_end; /* to be written, in order */
    struct log_batch *writing;
    struct log_batch *idle;
    uint64_t gather_turn, durable_turn;
    uint64_t retry_at, prepare_at;
    unsigned failures;
    bool down;
    uint64_t commits, failed_commits, made;
};

void segment_name(uint64_t seq, char name[static SEGMENT_NAME_SIZE])
{
    (void)snprintf(name, SEGMENT_NAME_SIZE, "%012" PRIu64 ".seg", seq % UINT64_C(1000000000000));
}

int segment_name_parse(const char *name, uint64_t *ret_seq)
{
    uint64_t seq = 0;
    if (strlen(name) != 16 || strcmp(name + 12, ".seg") != 0) {
        return -EINVAL;
    }
    for (int i = 0; i < 12; i++) {
        if (name[i] < '0' || name[i] > '9') {
            return -EINVAL;
        }
        seq = seq * 10 + (uint64_t)(name[i] - '0');
    }
    *ret_seq = seq;
    return seq == 0 ? -EINVAL : 0;
}

/* --- batches --- */

static void batch_free(struct log_batch *b)
{
    if (b != NULL) {
        buf_fini(&b->meta);
        buf_fini(&b->octets);
        free(b->notes);
        free(b->block);
        free(b);
    }
}

static int batch_reset(struct log_batch *b)
{
    static const uint8_t header[BATCH_HEADER_SIZE];
    if (b->meta.cap > KEEP_CAPACITY) {
        buf_fini(&b->meta);
    }
    if (b->octets.cap > KEEP_CAPACITY) {
        buf_fini(&b->octets);
    }
    buf_clear(&b->meta);
    buf_clear(&b->octets);
    free(b->block);
    b->block = NULL;
    b->notes_count = 0;
    b->records = 0;
    b->first = false;
    b->error = 0;
    b->next = NULL;
    return buf_append(&b->meta, header, sizeof(header));
}

static struct log_batch *batch_new(struct log *l)
{
    struct log_batch *b = l->idle;
    l->idle = NULL;
    if (b == NULL) {
        b = calloc(1, sizeof(*b));
        if (b == NULL) {
            return NULL;
        }
        b->log = l;
        buf_init(&b->meta, META_BUF_MAX);
        buf_init(&b->octets, OCTETS_BUF_MAX);
    }
    if (batch_reset(b) < 0) {
        batch_free(b);
        return NULL;
    }
    return b;
}

static void batch_retire(struct log *l, struct log_batch *b)
{
    if (l->idle == NULL && batch_reset(b) == 0) {
        l->idle = b;
    } else {
        batch_free(b);
    }
}

static uint64_t batch_octets(const struct log_batch *b)
{
    return b->meta.len + b->octets.len;
}

static void queue_append(struct log *l, struct log_batch *b)
{
    *l->queue_end = b;
    l->queue_end = &b->next;
}

/* The batch that is gathering: the last in the queue. */
static struct log_batch *queue_last(struct log *l)
{
    struct log_batch *b = l->queue;
    while (b != NULL && b->next != NULL) {
        b = b->next;
    }
    return b;
}

struct log_batch *log_gather(struct log *l, size_t octets)
{
    struct log_batch *b = queue_last(l);
    if (b != NULL && (batch_octets(b) + octets <= l->config.batch_max || b->records == 0)) {
        return b;
    }
    b = batch_new(l);
    if (b != NULL) {
        b->turn = ++l->gather_turn;
        queue_append(l, b);
    }
    return b;
}

int log_note_add(struct log_batch *b, const struct log_note *note)
{
    if (b->notes_count == b->notes_cap) {
        size_t cap = b->notes_cap == 0 ? 64 : b->notes_cap * 2;
        struct log_note *grown = reallocarray(b->notes, cap, sizeof(*grown));
        if (grown == NULL) {
            return -ENOMEM;
        }
        b->notes = grown;
        b->notes_cap = cap;
    }
    b->notes[b->notes_count++] = *note;
    b->records += note->kind != NOTE_END;
    return 0;
}

struct log_mark log_mark(const struct log_batch *b)
{
    return (struct log_mark){b->meta.len, b->octets.len, b->notes_count, b->records};
}

void log_rollback(struct log_batch *b, const struct log_mark *mark)
{
    b->meta.len = mark->meta;
    b->octets.len = mark->octets;
    b->notes_count = mark->notes;
    b->records = mark->records;
}

uint64_t log_octets_offset(const struct log_batch *b, uint64_t octets_at)
{
    return b->offset + b->meta.len + octets_at;
}

uint64_t log_meta_offset(const struct log_batch *b, size_t meta_at)
{
    return b->offset + meta_at;
}

/* --- segments --- */

struct log_segment *log_segment_find(struct log *l, uint64_t seq)
{
    if (l->segments_count == 0 || seq < l->segments[0].seq || seq - l->segments[0].seq >= l->segments_count) {
        return NULL;
    }
    return &l->segments[seq - l->segments[0].seq];
}

struct log_segment *log_segment_tail(struct log *l)
{
    return l->segments_count > 1 ? &l->segments[0] : NULL;
}

void log_live_add(struct log *l, uint64_t seq, uint64_t octets)
{
    struct log_segment *s = log_segment_find(l, seq);
    if (s != NULL) {
        s->live++;
        s->octets += octets;
    }
}

void log_live_drop(struct log *l, uint64_t seq, uint64_t octets)
{
    struct log_segment *s = log_segment_find(l, seq);
    if (s != NULL) {
        assert(s->live > 0 && s->octets >= octets);
        s->live--;
        s->octets -= octets;
    }
}

void log_pin(struct log *l, uint64_t seq)
{
    struct log_segment *s = log_segment_find(l, seq);
    if (s != NULL) {
        s->pins++;
    }
}

bool log_unpin(struct log *l, uint64_t seq, bool tainted)
{
    struct log_segment *s = log_segment_find(l, seq);
    if (s == NULL) {
        return false;
    }
    assert(s->pins > 0);
    s->pins--;
    s->tainted |= tainted;
    return s->pins == 0 && seq + 2 <= l->head_seq;
}

static int segments_push(struct log *l, const struct log_segment *s)
{
    if (l->segments_count == l->segments_cap) {
        size_t cap = l->segments_cap == 0 ? 16 : l->segments_cap * 2;
        struct log_segment *grown = reallocarray(l->segments, cap, sizeof(*grown));
        if (grown == NULL) {
            return -ENOMEM;
        }
        l->segments = grown;
        l->segments_cap = cap;
    }
    l->segments[l->segments_count++] = *s;
    return 0;
}

/* The oldest segment that is needed now. */
static uint64_t tail_wanted(const struct log *l)
{
    size_t i = 0;
    while (i + 1 < l->segments_count && l->segments[i].live == 0 && l->segments[i].pins == 0) {
        i++;
    }
    return l->segments_count > 0 ? l->segments[i].seq : 0;
}

static void removal_run(struct task *t)
{
    struct removal *r = (struct removal *)t;
    (void)r->log->disk->unlink(r->log->disk->arg, r->path);
}

static void removal_done(struct task *t)
{
    free(t);
}

/* What cannot be removed now (no memory) is found and removed at the next start. */
static void path_remove(struct log *l, const char *path)
{
    struct removal *r = calloc(1, sizeof(*r));
    if (r != NULL) {
        r->task = (struct task){.run = removal_run, .done = removal_done};
        r->log = l;
        (void)snprintf(r->path, sizeof(r->path), "%s", path);
        worker_submit(l->house, &r->task);
    }
}

static void spare_add(struct log *l, uint64_t seq)
{
    if (l->spares[0] == 0) { /* one is enough: the rest goes back to the file system */
        l->spares[0] = seq;
        return;
    }
    char name[SEGMENT_NAME_SIZE];
    segment_name(seq, name);
    path_remove(l, name);
}

/* A spare to become segment seq: the file of that very name first, since any other would be renamed over it, and its
 * entry here would then mean a segment in use. */
static uint64_t spare_take(struct log *l, uint64_t seq)
{
    size_t best = SPARES;
    for (size_t i = 0; i < SPARES; i++) {
        if (l->spares[i] != 0 && (best == SPARES || l->spares[i] == seq)) {
            best = i;
        }
    }
    uint64_t taken = best < SPARES ? l->spares[best] : 0;
    if (taken != 0) {
        l->spares[best] = 0;
    }
    return taken;
}

/* Segments below the durable tail are nobody's: kept as spares when they may be written over, else removed. */
static void segments_release(struct log *l)
{
    size_t gone = 0;
    while (gone + 1 < l->segments_count && l->segments[gone].seq < l->tail_durable && l->segments[gone].pins == 0) {
        gone++;
    }
    for (size_t i = 0; i < gone; i++) {
        struct log_segment *s = &l->segments[i];
        char name[SEGMENT_NAME_SIZE];
        l->ops->segment_gone(l->arg, s->seq);
        if (s->tainted || s->size != l->config.segment_size) {
            segment_name(s->seq, name);
            path_remove(l, name);
        } else {
            spare_add(l, s->seq);
        }
    }
    if (gone > 0) {
        l->segments_count -= gone;
        memmove(l->segments, l->segments + gone, l->segments_count * sizeof(*l->segments));
    }
}

/* --- the next segment --- */

static int zeros_write(struct log *l, int fd, uint64_t size)
{
    uint8_t *zeros = calloc(1, ZERO_CHUNK);
    int r = zeros == NULL ? -ENOMEM : l->disk->allocate(l->disk->arg, fd, size);
    for (uint64_t at = 0; r == 0 && at < size; at += ZERO_CHUNK) {
        uint64_t len = size - at < ZERO_CHUNK ? size - at : ZERO_CHUNK;
        r = disk_write(l->disk, fd, zeros, (size_t)len, at);
    }
    free(zeros);
    return r;
}

/* Step 0 of docs/spool-format.md. */
static int fresh_make(struct log *l, uint64_t size)
{
    int r = FAULT_POINT("spool.segment.create");
    int fd = r < 0 ? r : l->disk->open(l->disk->arg, "next.tmp", DISK_RENEW);
    if (fd < 0) {
        return fd;
    }
    r = zeros_write(l, fd, size);
    r = r < 0 ? r : FAULT_POINT("spool.segment.sync");
    r = r < 0 ? r : l->disk->sync(l->disk->arg, fd);
    l->disk->close(l->disk->arg, fd);
    if (r < 0) {
        (void)l->disk->unlink(l->disk->arg, "next.tmp");
    }
    return r;
}

/* Step 1. */
static void prepare_run(struct task *t)
{
    struct prepare *p = (struct prepare *)t;
    struct log *l = p->log;
    char from[SEGMENT_NAME_SIZE] = "next.tmp", to[SEGMENT_NAME_SIZE];
    int r = 0;
    segment_name(p->seq, to);
    if (p->from != 0) {
        segment_name(p->from, from);
    } else {
        r = fresh_make(l, p->size);
    }
    r = r < 0 ? r : FAULT_POINT("spool.segment.rename");
    r = r < 0 ? r : l->disk->rename(l->disk->arg, from, to);
    if (r == -ENOENT && p->from != 0) { /* the spare is gone: never mind */
        r = fresh_make(l, p->size);
        r = r < 0 ? r : l->disk->rename(l->disk->arg, "next.tmp", to);
    }
    r = r < 0 ? r : FAULT_POINT("spool.segment.dirsync");
    r = r < 0 ? r : l->disk->sync_dir(l->disk->arg, ".");
    r = r < 0 ? r : l->disk->open(l->disk->arg, to, DISK_WRITE);
    p->fd = r < 0 ? -1 : r;
    p->error = r < 0 ? r : 0;
}

static void prepare_done(struct task *t)
{
    struct prepare *p = (struct prepare *)t;
    struct log *l = p->log;
    l->preparing = false;
    l->made++;
    l->prepare_error = l->prepare_wanted ? p->error : 0;
    l->prepare_wanted = false;
    l->prepare_at = p->error < 0 ? clock_mono_ms() + RETRY_MS : 0;
    if (p->error == 0 &&
        p->seq != l->head_seq + 1) { /* the head failed meanwhile: make it ready under its right name */
        l->disk->close(l->disk->arg, p->fd);
        p->fd = -1;
        spare_add(l, p->seq);
        return;
    }
    l->next_ready = p->error == 0;
}

static void prepare_start(struct log *l, uint64_t size)
{
    if (l->preparing || l->next_ready) {
        return;
    }
    uint64_t spare = spare_take(l, l->head_seq + 1);
    if (spare != 0 && spare != l->head_seq + 1 && size != l->config.segment_size) {
        spare_add(l, spare);
    }
    l->preparing = true;
    l->next = (struct prepare){
        .task = {.run = prepare_run, .done = prepare_done},
        .log = l,
        .seq = l->head_seq + 1,
        .size = size,
        .from = size == l->config.segment_size ? spare : 0,
        .fd = -1,
    };
    worker_submit(l->house, &l->next.task);
}

static uint64_t size_for(const struct log *l, uint64_t batch)
{
    uint64_t size = l->config.segment_size;
    while (size < batch + SPOOL_BLOCK) {
        size *= 2;
    }
    return size;
}

static void head_close(struct log *l)
{
    if (l->fd >= 0) {
        l->disk->close(l->disk->arg, l->fd);
        l->fd = -1;
    }
}

/* The prepared segment becomes the head. */
static int head_adopt(struct log *l)
{
    struct log_segment s = {.seq = l->next.seq, .size = l->next.size};
    int r = segments_push(l, &s);
    if (r < 0) {
        return r;
    }
    head_close(l);
    l->fd = l->next.fd;
    l->next.fd = -1;
    l->next_ready = false;
    l->head_seq = s.seq;
    l->life = l->config.random(l->config.random_arg);
    l->offset = SPOOL_BLOCK;
    l->first = true;
    return 0;
}

/* --- commit --- */

static uint8_t *segment_block(struct log *l, const struct batch_header *h)
{
    uint8_t *block = calloc(1, SPOOL_BLOCK);
    const struct log_segment *s = log_segment_find(l, h->segment);
    if (block != NULL) {
        struct segment_header header = {.seq = h->segment,
                                        .life = h->life,
                                        .size = s->size,
                                        .previous_batch = l->durable_batch,
                                        .wall_ms = h->wall_ms};
        segment_header_encode(&header, block);
    }
    return block;
}

/* Steps 4 and 5, on the commit worker: one write, one sync. */
static void commit_run(struct task *t)
{
    struct log_batch *b = (struct log_batch *)t;
    struct log *l = b->log;
    uint64_t raw = b->meta.len + b->octets.len;
    struct iovec iov[4];
    int count = 0;
    batch_seal(&b->header, b->meta.data);
    if (b->first) {
        iov[count++] = (struct iovec){b->block, SPOOL_BLOCK};
    }
    iov[count++] = (struct iovec){b->meta.data, b->meta.len};
    iov[count++] = (struct iovec){b->octets.data, b->octets.len};
    iov[count++] = (struct iovec){(void *)zero_block, b->size - raw};
    int r = FAULT_POINT("spool.batch.write");
    r = r < 0 ? r : l->disk->write(l->disk->arg, b->fd, iov, count, b->first ? 0 : b->offset);
    r = r < 0 ? r : FAULT_POINT("spool.batch.sync");
    r = r < 0 ? r : l->disk->sync(l->disk->arg, b->fd);
    b->error = r < 0 ? r : FAULT_POINT("spool.batch.synced");
}

static void health_set(struct log *l, int error)
{
    bool down = error < 0;
    if (down != l->down) {
        l->down = down;
        l->ops->health(l->arg, error);
    }
}

static void batch_committed(struct log *l, struct log_batch *b)
{
    l->offset = b->offset + b->size;
    l->durable_batch = b->header.seq;
    l->tail_durable = b->header.tail;
    l->durable_turn = b->turn;
    l->first = false;
    l->failures = 0;
    l->retry_at = 0;
    l->commits++;
    l->ops->committed(l->arg, b);
    health_set(l, 0);
    segments_release(l);
    batch_retire(l, b);
}

static int kept_copy(struct log_batch *to, const struct log_batch *from, const struct log_note *n)
{
    struct log_note copy = *n;
    int r = 0;
    copy.record_at = to->meta.len;
    if (n->kind == NOTE_PUT) {
        struct wire_writer w = {.out = &to->meta};
        struct record_change refused = {.id = n->id, .reason = REMOVE_REFUSED};
        copy = (struct log_note){.kind = NOTE_STATE, .type = RECORD_REMOVE, .id = n->id, .record_at = to->meta.len};
        r = record_change_encode(&w, RECORD_REMOVE, &refused);
        copy.record_length = to->meta.len - copy.record_at;
    } else if (n->kind == NOTE_STATE) {
        r = buf_append(&to->meta, from->meta.data + n->record_at, n->record_length);
    }
    return r < 0 ? r : log_note_add(to, &copy);
}

/*
 * What may not be lost of a failed batch, in a new one. NULL when out of memory: then outcomes are forgotten, and tried
 * again after a restart; no message is lost by that.
 */
static struct log_batch *batch_keep(struct log *l, const struct log_batch *b)
{
    struct log_batch *kept = batch_new(l);
    int r = kept == NULL ? -ENOMEM : 0;
    for (size_t i = 0; r == 0 && i < b->notes_count; i++) {
        r = b->notes[i].kind == NOTE_MOVE ? 0 : kept_copy(kept, b, &b->notes[i]);
    }
    if (kept != NULL) {
        kept->turn = b->turn;
    }
    return kept;
}

/* Nobody waits in a batch whose turn may not come soon. */
static void queue_refuse_puts(struct log *l, int error)
{
    struct log_batch *b = l->queue;
    l->queue = NULL;
    l->queue_end = &l->queue;
    while (b != NULL) {
        struct log_batch *next = b->next;
        struct log_batch *kept = batch_keep(l, b);
        if (kept != NULL) {
            queue_append(l, kept);
        }
        l->ops->failed(l->arg, b, error);
        batch_free(b);
        b = next;
    }
}

/* The head is not written again. If nothing of it is durable, the next one takes its place. */
static void head_abandon(struct log *l)
{
    head_close(l);
    if (l->first && l->segments_count > 0) {
        l->segments_count--;
        l->head_seq--;
        l->first = false;
        if (l->next_ready) {
            l->disk->close(l->disk->arg, l->next.fd);
            l->next.fd = -1;
            l->next_ready = false;
            spare_add(l, l->next.seq);
        }
    }
}

static void batch_failed(struct log *l, struct log_batch *b, int error)
{
    struct log_batch *kept = batch_keep(l, b);
    l->failed_commits++;
    l->failures++;
    if (kept != NULL) { /* before everything that gathered since */
        kept->next = l->queue;
        l->queue = kept;
        l->queue_end = kept->next == NULL ? &kept->next : l->queue_end;
    }
    l->ops->failed(l->arg, b, error);
    batch_free(b);
    if (l->failures >= FAILURES_MAX || error == -ENOSPC) {
        l->retry_at = clock_mono_ms() + RETRY_MS;
        queue_refuse_puts(l, error);
        health_set(l, error);
    }
}

static void commit_done(struct task *t)
{
    struct log_batch *b = (struct log_batch *)t;
    struct log *l = b->log;
    l->writing = NULL;
    if (b->error == 0) {
        batch_committed(l, b);
    } else {
        head_abandon(l);
        batch_failed(l, b, b->error);
    }
    (void)log_kick(l, clock_mono_ms());
}

static struct log_batch *queue_take(struct log *l)
{
    struct log_batch *b = l->queue;
    l->queue = b->next;
    if (l->queue == NULL) {
        l->queue_end = &l->queue;
    }
    b->next = NULL;
    return b;
}

/* 1: the head has room for b. 0: wait for the house worker. -errno: there will be none. */
static int head_for(struct log *l, struct log_batch *b)
{
    uint64_t size = (batch_octets(b) + SPOOL_BLOCK - 1) / SPOOL_BLOCK * SPOOL_BLOCK;
    const struct log_segment *head = log_segment_find(l, l->head_seq);
    if (l->fd >= 0 && head != NULL && l->offset + size <= head->size) {
        return 1;
    }
    if (l->prepare_error < 0) {
        int r = l->prepare_error;
        l->prepare_error = 0;
        return r;
    }
    if (l->next_ready && l->next.size < size + SPOOL_BLOCK) { /* rare: one record larger than a segment */
        l->disk->close(l->disk->arg, l->next.fd);
        l->next_ready = false;
    }
    if (!l->next_ready) {
        l->prepare_wanted = true;
        prepare_start(l, size_for(l, size));
        return 0;
    }
    int r = head_adopt(l);
    if (r == 0) {
        l->ops->segment_begins(l->arg, b);
    }
    return r < 0 ? r : 1;
}

static void batch_send(struct log *l, struct log_batch *b)
{
    b->header = (struct batch_header){
        .segment = l->head_seq,
        .life = l->life,
        .seq = ++l->batch_seq,
        .tail = tail_wanted(l),
        .spool_ms = l->ops->spool_ms(l->arg),
        .wall_ms = clock_wall_ms(),
        .meta_length = (uint32_t)(b->meta.len - BATCH_HEADER_SIZE),
        .records = b->records,
        .octets_length = b->octets.len,
    };
    b->offset = l->offset;
    b->size = batch_size(&b->header);
    b->fd = l->fd;
    b->first = l->first;
    b->task = (struct task){.run = commit_run, .done = commit_done};
    if (b->first && (b->block = segment_block(l, &b->header)) == NULL) {
        head_abandon(l);
        batch_failed(l, b, -ENOMEM);
        return;
    }
    l->writing = b;
    worker_submit(l->commit, &b->task);
}

/* Something to write: an empty batch when only the tail has news, or to see whether writing works again. */
static bool queue_fill(struct log *l)
{
    bool tail_news = l->segments_count > 1 && tail_wanted(l) > l->tail_durable;
    if (l->queue == NULL && (tail_news || l->down)) {
        (void)log_gather(l, 0);
    }
    return l->queue != NULL;
}

uint64_t log_kick(struct log *l, uint64_t now_ms)
{
    while (l->writing == NULL && queue_fill(l)) {
        if (l->retry_at > now_ms) {
            return l->retry_at;
        }
        int r = head_for(l, l->queue);
        if (r == 0) {
            return UINT64_MAX; /* prepare_done, then the caller's next kick */
        }
        struct log_batch *b = queue_take(l);
        if (r < 0) {
            batch_failed(l, b, r);
        } else {
            batch_send(l, b);
        }
    }
    if (l->prepare_at <= now_ms) {
        prepare_start(l, l->config.segment_size);
    }
    return l->prepare_at > now_ms ? l->prepare_at : UINT64_MAX;
}

/* --- life --- */

struct log *log_new(const struct spool_disk *disk, struct worker *commit, struct worker *house,
                    const struct log_config *config, const struct log_ops *ops, void *arg)
{
    struct log *l = calloc(1, sizeof(*l));
    if (l != NULL) {
        l->disk = disk;
        l->commit = commit;
        l->house = house;
        l->config = *config;
        l->ops = ops;
        l->arg = arg;
        l->fd = -1;
        l->next.fd = -1;
        l->queue_end = &l->queue;
    }
    return l;
}

int log_start(struct log *l, const struct log_state *state)
{
    l->segments = state->segments;
    l->segments_count = l->segments_cap = state->segments_count;
    l->fd = state->fd;
    l->life = state->life;
    l->offset = state->offset;
    l->head_seq = state->head_seq;
    l->batch_seq = l->durable_batch = state->batch_seq;
    l->tail_durable = l->segments_count > 0 ? l->segments[0].seq : 0;
    memcpy(l->spares, state->spares, sizeof(l->spares));
    return 0;
}

void log_free(struct log **lp)
{
    struct log *l = *lp;
    if (l == NULL) {
        return;
    }
    head_close(l);
    if (l->next.fd >= 0) {
        l->disk->close(l->disk->arg, l->next.fd);
    }
    while (l->queue != NULL) {
        batch_free(queue_take(l));
    }
    batch_free(l->idle);
    free(l->segments);
    free(l);
    *lp = NULL;
}

uint64_t log_segments_made(const struct log *l)
{
    return l->made;
}

uint64_t log_pending(const struct log *l)
{
    uint64_t pending = l->writing != NULL ? batch_octets(l->writing) : 0;
    for (const struct log_batch *b = l->queue; b != NULL; b = b->next) {
        pending += batch_octets(b);
    }
    return pending;
}

void log_figures(const struct log *l, struct log_figures *ret)
{
    *ret = (struct log_figures){.segments = l->segments_count,
                                .tail = l->segments_count > 0 ? l->segments[0].seq : 0,
                                .head = l->head_seq,
                                .offset = l->offset,
                                .batch = l->durable_batch,
                                .commits = l->commits,
                                .failures = l->failed_commits,
                                .gather_turn = l->gather_turn,
                                .durable_turn = l->durable_turn,
                                .down = l->down};
    for (size_t i = 0; i < l->segments_count; i++) {
        ret->octets += l->segments[i].size;
        ret->live_octets += l->segments[i].octets;
    }
    ret->pending = log_pending(l);
}
