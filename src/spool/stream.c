/*
 * stream.c: messages too large for one PUT: their octets go to large/ID as they come, on a worker of their own; never
 * whole in memory. Steps 2 and 3 of docs/spool-format.md; then the record goes the way of every message.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/hash.h"

#include "common/fault.h"
#include "common/log.h"
#include "spool/spool_int.h"

#define WRITE_BEHIND (4U * 1024U * 1024U) /* octets after which the kernel is asked to begin writing */

struct stream {
    struct task task; /* open, finish, remove: one at a time at the ends of its life */
    struct spool *sp;
    UT_hash_handle hh;
    uint64_t id, ticket;
    uint64_t declared, received;
    bool committing, dead;
    size_t envelope_length;
    int result;    /* of open or finish, for its done() */
    uint64_t xxh3; /* with finish */
    /* The worker's alone: */
    int fd, error;
    uint64_t written, hinted;
    XXH3_state_t *hash;
    uint8_t envelope_raw[];
};

struct chunk {
    struct task task;
    struct stream *st;
    int result;
    size_t length;
    uint8_t octets[];
};

static struct stream *stream_find(const struct spool *sp, uint64_t id)
{
    struct stream *st = NULL;
    HASH_FIND(hh, sp->streams, &id, sizeof(id), st);
    return st;
}

static void stream_free(struct stream *st)
{
    (void)XXH3_freeState(st->hash);
    free(st);
}

/* --- on the worker --- */

static void open_run(struct task *t)
{
    struct stream *st = (struct stream *)t;
    const struct spool_disk *disk = st->sp->disk;
    char name[24];
    large_name(st->id, name);
    int r = FAULT_POINT("spool.large.create");
    r = r < 0 ? r : disk->open(disk->arg, name, DISK_CREATE);
    st->fd = r < 0 ? -1 : r;
    st->error = r >= 0 && st->declared > 0 ? disk->allocate(disk->arg, st->fd, st->declared) : r < 0 ? r : 0;
    st->result = st->error;
}

static void chunk_run(struct task *t)
{
    struct chunk *c = (struct chunk *)t;
    struct stream *st = c->st;
    const struct spool_disk *disk = st->sp->disk;
    c->result = st->error;
    if (st->error < 0) {
        return;
    }
    int r = FAULT_POINT("spool.large.write");
    c->result = st->error = r < 0 ? r : disk_write(disk, st->fd, c->octets, c->length, st->written);
    (void)XXH3_64bits_update(st->hash, c->octets, c->length);
    st->written += c->length;
    if (st->written - st->hinted >= WRITE_BEHIND) {
        disk->write_behind(disk->arg, st->fd, st->hinted, st->written - st->hinted);
        st->hinted = st->written;
    }
}

static void finish_run(struct task *t)
{
    struct stream *st = (struct stream *)t;
    const struct spool_disk *disk = st->sp->disk;
    int r = st->error;
    r = r < 0 ? r : FAULT_POINT("spool.large.sync");
    r = r < 0 ? r : disk->sync(disk->arg, st->fd);
    r = r < 0 ? r : FAULT_POINT("spool.large.dirsync");
    st->result = r < 0 ? r : disk->sync_dir(disk->arg, "large");
    st->xxh3 = XXH3_64bits_digest(st->hash);
}

static void close_run(struct task *t)
{
    struct stream *st = (struct stream *)t;
    if (st->fd >= 0) {
        st->sp->disk->close(st->sp->disk->arg, st->fd);
    }
}

static void remove_run(struct task *t)
{
    struct stream *st = (struct stream *)t;
    char name[24];
    bool ours = st->fd >= 0;
    close_run(t);
    large_name(st->id, name);
    if (ours) {
        (void)st->sp->disk->unlink(st->sp->disk->arg, name);
    }
}

/* --- on the loop --- */

static void stream_submit(struct stream *st, void (*run)(struct task *t), void (*done)(struct task *t))
{
    st->task = (struct task){.run = run, .done = done};
    worker_submit(st->sp->streams_worker, &st->task);
}

static void end_done(struct task *t)
{
    stream_free((struct stream *)t);
}

/* The stream is over; what waits for the worker before this still runs. */
static void stream_end(struct stream *st, bool keep_file)
{
    struct spool *sp = st->sp;
    HASH_DELETE(hh, sp->streams, st);
    sp->streams_count--;
    st->dead = true;
    stream_submit(st, keep_file ? close_run : remove_run, end_done);
}

static void stream_fail(struct stream *st, int error)
{
    spool_refuse(st->sp, st->ticket, st->id, error);
    stream_end(st, false);
}

static int message_log(struct stream *st)
{
    struct spool *sp = st->sp;
    struct record_message m = {.id = st->id, .born_ms = spool_now(sp), .place = {.kind = PLACE_LARGE}};
    const struct log_note note = {.kind = NOTE_PUT, .type = RECORD_MESSAGE, .id = st->id, .ticket = st->ticket};
    m.envelope_raw = (struct span){st->envelope_raw, st->envelope_length};
    m.envelope.recipients = sp->scratch.recipients;
    struct wire_reader r = wire_reader(m.envelope_raw);
    (void)envelope_decode(&r, &m.envelope); /* we wrote it */
    m.flags = (m.envelope.flags & ENVELOPE_HOLD) != 0 ? MESSAGE_HELD : 0;
    m.words = m.envelope.hold_words;
    m.place.length = st->received;
    m.place.xxh3 = st->xxh3;
    struct log_batch *b = log_gather(sp->log, st->envelope_length + RECORD_SLACK);
    return b == NULL ? -ENOMEM : spool_message_log(sp, b, &m, (struct span){0}, &note);
}

static void finish_done(struct task *t)
{
    struct stream *st = (struct stream *)t;
    int r = st->result;
    if (st->dead) { /* the client went away meanwhile */
        stream_submit(st, remove_run, end_done);
        return;
    }
    r = r < 0 ? r : message_log(st);
    if (r < 0) {
        stream_fail(st, r);
    } else {
        stream_end(st, true);
    }
}

/* The task object is busy until this: an end that was asked for meanwhile comes now. */
static void open_done(struct task *t)
{
    struct stream *st = (struct stream *)t;
    st->task.run = NULL;
    if (st->dead) {
        stream_submit(st, remove_run, end_done);
    } else if (st->result < 0) {
        stream_fail(st, st->result);
    } else if (st->committing) {
        stream_submit(st, finish_run, finish_done);
    }
}

static void chunk_done(struct task *t)
{
    struct chunk *c = (struct chunk *)t;
    struct stream *st = c->st;
    struct spool *sp = st->sp;
    bool dead = st->dead;
    int result = c->result;
    sp->stream_octets -= c->length;
    free(c);
    if (!dead && !st->committing && result < 0) {
        stream_fail(st, result);
    }
}

void spool_begin(struct spool *sp, uint64_t ticket, uint64_t id, const struct spool_begin *begin)
{
    struct envelope e = begin->envelope;
    int r = sp->state.accepting ? 0 : sp->state.code == 452 ? -ENOSPC : -EIO;
    r = r < 0 ? r : id == 0 || index_find(sp->ix, id) != NULL || stream_find(sp, id) != NULL ? -EEXIST : 0;
    r = r < 0 ? r : begin->declared > sp->space.free ? -ENOSPC : 0;
    r = r < 0 ? r : spool_envelope_take(sp, &e);
    struct stream *st = r == 0 ? calloc(1, sizeof(*st) + sp->envelope.len) : NULL;
    if (st != NULL) {
        st->hash = XXH3_createState();
    }
    if (st == NULL || st->hash == NULL || XXH3_64bits_reset(st->hash) != XXH_OK) {
        if (st != NULL) {
            stream_free(st);
        }
        spool_refuse(sp, ticket, id, r < 0 ? r : -ENOMEM);
        return;
    }
    st->sp = sp;
    st->id = id;
    st->ticket = ticket;
    st->declared = begin->declared;
    st->fd = -1;
    st->envelope_length = sp->envelope.len;
    memcpy(st->envelope_raw, sp->envelope.data, sp->envelope.len);
    HASH_ADD(hh, sp->streams, id, sizeof(st->id), st);
    if (st->hh.tbl == NULL) {
        stream_free(st);
        spool_refuse(sp, ticket, id, -ENOMEM);
        return;
    }
    sp->streams_count++;
    sp->space_checked_ms = 0;
    stream_submit(st, open_run, open_done);
}

void spool_chunk(struct spool *sp, uint64_t ticket, uint64_t id, struct span octets)
{
    struct stream *st = stream_find(sp, id);
    if (st == NULL || st->ticket != ticket || st->committing || octets.len == 0) {
        return; /* refused before, or nobody's */
    }
    struct chunk *c = malloc(sizeof(*c) + octets.len);
    if (c == NULL || octets.len > sp->space.free || !sp->state.accepting) {
        free(c);
        int error = c == NULL ? -ENOMEM : -ENOSPC;
        if (st->task.run == NULL) {
            stream_fail(st, error);
        } else {
            spool_abort(sp, ticket, id);
            spool_refuse(sp, ticket, id, error);
        }
        return;
    }
    c->task = (struct task){.run = chunk_run, .done = chunk_done};
    c->st = st;
    c->length = octets.len;
    memcpy(c->octets, octets.ptr, octets.len);
    st->received += octets.len;
    sp->stream_octets += octets.len;
    worker_submit(sp->streams_worker, &c->task);
}

/* Takes a stream out of sight. Its task object may be under way: then done() goes on with the end. */
static void stream_drop(struct stream *st)
{
    if (st->task.run == NULL) {
        stream_end(st, false);
        return;
    }
    HASH_DELETE(hh, st->sp->streams, st);
    st->sp->streams_count--;
    st->dead = true;
}

void spool_commit(struct spool *sp, uint64_t ticket, uint64_t id, uint64_t total)
{
    struct stream *st = stream_find(sp, id);
    if (st == NULL || st->ticket != ticket || st->committing) {
        return;
    }
    if (total != st->received) {
        spool_refuse(sp, ticket, id, -EPROTO);
        stream_drop(st);
        return;
    }
    st->committing = true;
    if (st->task.run == NULL) {
        stream_submit(st, finish_run, finish_done);
    }
}

void spool_abort(struct spool *sp, uint64_t ticket, uint64_t id)
{
    struct stream *st = stream_find(sp, id);
    if (st != NULL && st->ticket == ticket) {
        stream_drop(st);
    }
}

void stream_abort_all(struct spool *sp, uint64_t ticket, bool every)
{
    struct stream *st, *tmp;
    HASH_ITER(hh, sp->streams, st, tmp)
    {
        if (every || st->ticket == ticket) {
            stream_drop(st);
        }
    }
}

void spool_client_gone(struct spool *sp, uint64_t ticket)
{
    stream_abort_all(sp, ticket, false);
}

struct file_removal {
    struct task task;
    struct spool *sp;
    uint64_t id;
};

static void removal_run(struct task *t)
{
    struct file_removal *r = (struct file_removal *)t;
    char name[24];
    large_name(r->id, name);
    if (FAULT_POINT("spool.large.unlink") == 0) {
        (void)r->sp->disk->unlink(r->sp->disk->arg, name);
    }
}

static void removal_done(struct task *t)
{
    free(t);
}

void stream_file_remove(struct spool *sp, uint64_t id)
{
    struct file_removal *r = calloc(1, sizeof(*r));
    if (r != NULL) { /* else the next start removes it */
        *r = (struct file_removal){.task = {.run = removal_run, .done = removal_done}, .sp = sp, .id = id};
        worker_submit(sp->house, &r->task);
    }
}
