/* log_segments.c: the segments tail .. head, what keeps each of them, and giving them back from the tail. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fault.h"
#include "spool/log_int.h"

/* A file that goes, on the house worker. */
struct removal {
    struct task task;
    struct log *log;
    char path[32];
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

int log_segments_push(struct log *l, const struct log_segment *s)
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
uint64_t log_tail_wanted(const struct log *l)
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
    (void)FAULT_POINT("spool.segment.remove");
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

void log_spare_add(struct log *l, uint64_t seq)
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
uint64_t log_spare_take(struct log *l, uint64_t seq)
{
    size_t best = LOG_SPARES;
    for (size_t i = 0; i < LOG_SPARES; i++) {
        if (l->spares[i] != 0 && (best == LOG_SPARES || l->spares[i] == seq)) {
            best = i;
        }
    }
    uint64_t taken = best < LOG_SPARES ? l->spares[best] : 0;
    if (taken != 0) {
        l->spares[best] = 0;
    }
    return taken;
}

/* Segments below the durable tail are nobody's: kept as spares when they may be written over, else removed. */
void log_segments_release(struct log *l)
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
            log_spare_add(l, s->seq);
        }
    }
    if (gone > 0) {
        l->segments_count -= gone;
        memmove(l->segments, l->segments + gone, l->segments_count * sizeof(*l->segments));
    }
}
