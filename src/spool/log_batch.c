/* log_batch.c: batches gather records, octets and notes until their turn to be written comes. */
#include <errno.h>
#include <stdlib.h>

#include "spool/log_int.h"

#define META_BUF_MAX   (BATCH_META_MAX + BATCH_HEADER_SIZE)
#define OCTETS_BUF_MAX (64U * 1024U * 1024U)
#define KEEP_CAPACITY  (2U * 1024U * 1024U) /* buffers larger than this are not kept for the next batch */

void log_batch_free(struct log_batch *b)
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
    b->results = 0;
    b->first = false;
    b->error = 0;
    b->next = NULL;
    return buf_append(&b->meta, header, sizeof(header));
}

struct log_batch *log_batch_new(struct log *l)
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
        log_batch_free(b);
        return NULL;
    }
    return b;
}

void log_batch_retire(struct log *l, struct log_batch *b)
{
    if (l->idle == NULL && batch_reset(b) == 0) {
        l->idle = b;
    } else {
        log_batch_free(b);
    }
}

uint64_t log_batch_octets(const struct log_batch *b)
{
    return b->meta.len + b->octets.len;
}

void log_queue_append(struct log *l, struct log_batch *b)
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

/* Octets that the last batch shall not grow beyond: one that does not fit into the rest of the head wastes it. */
static uint64_t batch_max(struct log *l, const struct log_batch *last)
{
    const struct log_segment *head = log_segment_find(l, l->head_seq);
    uint64_t end = l->writing != NULL ? l->writing->offset + l->writing->size : l->offset;
    for (const struct log_batch *b = l->queue; b != last; b = b->next) {
        end += (log_batch_octets(b) + SPOOL_BLOCK - 1) / SPOOL_BLOCK * SPOOL_BLOCK;
    }
    if (l->fd < 0 || head == NULL || end + log_batch_octets(last) > head->size) {
        return l->config.batch_max;
    }
    return head->size - end < l->config.batch_max ? head->size - end : l->config.batch_max;
}

struct log_batch *log_gather(struct log *l, size_t octets)
{
    struct log_batch *b = queue_last(l);
    if (b != NULL && (log_batch_octets(b) + octets <= batch_max(l, b) || b->records == 0)) {
        return b;
    }
    b = log_batch_new(l);
    if (b != NULL) {
        b->turn = ++l->gather_turn;
        log_queue_append(l, b);
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
    b->results += note->kind == NOTE_STATE && note->type == RECORD_OUTCOME;
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
