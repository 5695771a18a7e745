#include "spool/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fault.h"
#include "spool/log_int.h"

#define FAILURES_MAX 3 /* in a row: writing is down */

static const uint8_t zero_block[SPOOL_BLOCK];

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
    log_segments_release(l);
    log_batch_retire(l, b);
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

/* What may not be lost of a failed batch, in a new one. NULL when out of memory. */
static struct log_batch *batch_keep(struct log *l, const struct log_batch *b)
{
    struct log_batch *kept = log_batch_new(l);
    int r = kept == NULL ? -ENOMEM : 0;
    for (size_t i = 0; r == 0 && i < b->notes_count; i++) {
        r = b->notes[i].kind == NOTE_MOVE ? 0 : kept_copy(kept, b, &b->notes[i]);
    }
    if (r < 0) {
        log_batch_free(kept);
        return NULL;
    }
    kept->turn = b->turn;
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
        b->next = NULL;
        log_queue_append(l, kept != NULL ? kept : b); /* out of memory: then they wait after all */
        if (kept != NULL) {
            l->ops->failed(l->arg, b, error);
            log_batch_free(b);
        }
        b = next;
    }
}

/* The head is not written again. If nothing of it is durable, the next one takes its place. */
static void head_abandon(struct log *l)
{
    log_head_close(l);
    if (l->first && l->segments_count > 0) {
        l->segments_count--;
        l->head_seq--;
        l->first = false;
        if (l->next_ready) {
            l->disk->close(l->disk->arg, l->next.fd);
            l->next.fd = -1;
            l->next_ready = false;
            log_spare_add(l, l->next.seq);
        }
    }
}

/* False: there is no memory yet. Nothing is written before what was to be kept, which came first. */
static bool unkept_keep(struct log *l)
{
    struct log_batch *kept = l->unkept != NULL ? batch_keep(l, l->unkept) : NULL;
    if (kept != NULL) {
        kept->next = l->queue;
        l->queue = kept;
        l->queue_end = kept->next == NULL ? &kept->next : l->queue_end;
        log_batch_free(l->unkept);
        l->unkept = NULL;
    }
    return l->unkept == NULL;
}

static void batch_failed(struct log *l, struct log_batch *b, int error)
{
    l->failed_commits++;
    l->failures++;
    l->ops->failed(l->arg, b, error);
    l->unkept = b;
    if (!unkept_keep(l)) {
        l->retry_at = clock_mono_ms() + LOG_RETRY_MS;
        health_set(l, -ENOMEM);
        return;
    }
    if (l->failures >= FAILURES_MAX || error == -ENOSPC) {
        l->retry_at = clock_mono_ms() + LOG_RETRY_MS;
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

static uint64_t size_for(const struct log *l, uint64_t batch)
{
    uint64_t size = l->config.segment_size;
    while (size < batch + SPOOL_BLOCK) {
        size *= 2;
    }
    return size;
}

/* 1: the head has room for b. 0: wait for the house worker. -errno: there will be none. */
static int head_for(struct log *l, struct log_batch *b)
{
    uint64_t size = (log_batch_octets(b) + SPOOL_BLOCK - 1) / SPOOL_BLOCK * SPOOL_BLOCK;
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
        log_prepare(l, size_for(l, size));
        return 0;
    }
    int r = log_head_adopt(l);
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
        .tail = log_tail_wanted(l),
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
    bool tail_news = l->segments_count > 1 && log_tail_wanted(l) > l->tail_durable;
    if (l->queue == NULL && (tail_news || l->down)) {
        (void)log_gather(l, 0);
    }
    return l->queue != NULL;
}

uint64_t log_kick(struct log *l, uint64_t now_ms)
{
    while (l->writing == NULL && (l->unkept != NULL || queue_fill(l))) {
        if (l->retry_at > now_ms) {
            return l->retry_at;
        }
        if (!unkept_keep(l)) {
            l->retry_at = now_ms + LOG_RETRY_MS;
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
        log_prepare(l, l->config.segment_size);
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
    log_head_close(l);
    if (l->next.fd >= 0) {
        l->disk->close(l->disk->arg, l->next.fd);
    }
    while (l->queue != NULL) {
        log_batch_free(queue_take(l));
    }
    log_batch_free(l->idle);
    log_batch_free(l->unkept);
    free(l->segments);
    free(l);
    *lp = NULL;
}

uint64_t log_segments_made(const struct log *l)
{
    return l->made;
}

/* A head that is closed is full, whatever stands in it. */
static uint64_t head_room(const struct log *l)
{
    const struct log_segment *head = l->segments_count > 0 ? &l->segments[l->segments_count - 1] : NULL;
    return l->fd >= 0 && head != NULL && head->size > l->offset ? head->size - l->offset : 0;
}

uint64_t log_room(const struct log *l)
{
    uint64_t room = head_room(l) + (l->next_ready ? l->next.size : 0);
    for (size_t i = 0; i < LOG_SPARES; i++) {
        room += l->spares[i] != 0 ? l->config.segment_size : 0;
    }
    return room;
}

uint64_t log_pending_results(const struct log *l)
{
    uint64_t pending = l->writing != NULL ? l->writing->results : 0;
    pending += l->unkept != NULL ? l->unkept->results : 0;
    for (const struct log_batch *b = l->queue; b != NULL; b = b->next) {
        pending += b->results;
    }
    return pending;
}

uint64_t log_pending(const struct log *l)
{
    uint64_t pending = l->writing != NULL ? log_batch_octets(l->writing) : 0;
    pending += l->unkept != NULL ? log_batch_octets(l->unkept) : 0;
    for (const struct log_batch *b = l->queue; b != NULL; b = b->next) {
        pending += log_batch_octets(b);
    }
    return pending;
}

void log_figures(const struct log *l, struct log_figures *ret)
{
    *ret = (struct log_figures){.segments = l->segments_count,
                                .tail = l->segments_count > 0 ? l->segments[0].seq : 0,
                                .head = l->head_seq,
                                .head_room = head_room(l),
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
