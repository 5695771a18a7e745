#include "spool/snapshot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/fault.h"

#define SLICE_OCTETS (512U * 1024U)
#define BLOCK_MAX    (8U * 1024U * 1024U)

struct snapshot {
    struct task task;
    const struct spool_disk *disk;
    struct worker *house;
    struct index *ix;
    struct snapshot_header header;
    enum snapshot_phase phase;
    struct index_cursor cursor;
    struct buf block; /* SNAPSHOT_BLOCK_SIZE octets kept free, then records */
    uint32_t records;
    uint64_t total, offset;
    int fd, error;
    bool busy, suspensions_done, last_done;
    struct record_scratch scratch;
};

static void write_run(struct task *t)
{
    struct snapshot *s = (struct snapshot *)t;
    struct snapshot_block b = {.length = (uint32_t)(s->block.len - SNAPSHOT_BLOCK_SIZE), .records = s->records};
    int r = FAULT_POINT("spool.snapshot.write");
    if (r == 0 && s->fd < 0) {
        uint8_t header[SNAPSHOT_HEADER_SIZE];
        s->fd = r = s->disk->open(s->disk->arg, "index.snap.tmp", DISK_RENEW);
        snapshot_header_encode(&s->header, header);
        r = r < 0 ? r : disk_write(s->disk, s->fd, header, sizeof(header), 0);
        s->offset = sizeof(header);
    }
    if (s->records == 0) { /* the end: how many there were */
        memcpy(s->block.data + SNAPSHOT_BLOCK_SIZE, &s->total, sizeof(s->total));
        b.length = sizeof(s->total);
        s->block.len = SNAPSHOT_BLOCK_SIZE + sizeof(s->total);
    }
    b.xxh3 = XXH3_64bits_withSeed(s->block.data + SNAPSHOT_BLOCK_SIZE, b.length, b.records);
    memcpy(s->block.data, &b, sizeof(b));
    r = r < 0 ? r : disk_write(s->disk, s->fd, s->block.data, s->block.len, s->offset);
    s->offset += s->block.len;
    s->error = r < 0 ? r : 0;
    if (r < 0) {
        (void)s->disk->unlink(s->disk->arg, "index.snap.tmp");
    }
}

static void write_done(struct task *t)
{
    struct snapshot *s = (struct snapshot *)t;
    s->busy = false;
    s->phase = s->error < 0 ? SNAPSHOT_FAILED : s->last_done ? SNAPSHOT_WALKED : SNAPSHOT_WALKING;
}

struct snapshot *snapshot_start(const struct spool_disk *disk, struct worker *house, struct index *ix,
                                const struct snapshot_header *header)
{
    struct snapshot *s = calloc(1, sizeof(*s));
    if (s != NULL) {
        s->disk = disk;
        s->house = house;
        s->ix = ix;
        s->header = *header;
        s->fd = -1;
        buf_init(&s->block, BLOCK_MAX);
        index_cursor_open(ix, &s->cursor, index_first(ix));
    }
    return s;
}

static void suspension_each(void *arg, const struct record_account *a)
{
    struct snapshot *s = arg;
    struct wire_writer w = {.out = &s->block};
    if (record_account_encode(&w, RECORD_SUSPEND, a) == 0) {
        s->records++;
    } else {
        s->error = -ENOMEM;
    }
}

static void message_add(struct snapshot *s, const struct message *m)
{
    struct wire_writer w = {.out = &s->block};
    struct record_message r;
    index_record(m, &r, &s->scratch);
    r.place.kind = (m->state & INDEX_LARGE) != 0 ? PLACE_ABSOLUTE_LARGE : PLACE_ABSOLUTE;
    if (record_message_encode(&w, &r) == 0) {
        s->records++;
    } else {
        s->error = -ENOMEM;
    }
}

enum snapshot_phase snapshot_step(struct snapshot *s)
{
    static const uint8_t room[SNAPSHOT_BLOCK_SIZE + sizeof(uint64_t)];
    if (s->busy || s->phase != SNAPSHOT_WALKING) {
        return s->phase;
    }
    buf_clear(&s->block);
    s->records = 0;
    s->error = buf_append(&s->block, room, SNAPSHOT_BLOCK_SIZE);
    if (!s->suspensions_done) {
        s->suspensions_done = true;
        index_suspensions(s->ix, suspension_each, s);
    }
    while (s->error == 0 && s->cursor.at != NULL && s->block.len < SLICE_OCTETS) {
        const struct message *m = s->cursor.at;
        s->cursor.at = m->next;
        if ((m->state & INDEX_COMMITTING) == 0 && !m->removing) {
            message_add(s, m);
        }
    }
    s->total += s->records;
    s->last_done = s->records == 0;
    if (s->error == 0 && s->last_done) {
        s->error = buf_append(&s->block, room, sizeof(s->total));
    }
    if (s->error < 0) {
        s->phase = SNAPSHOT_FAILED;
        return s->phase;
    }
    s->busy = true;
    s->task = (struct task){.run = write_run, .done = write_done};
    worker_submit(s->house, &s->task);
    return SNAPSHOT_WALKING;
}

static void finish_run(struct task *t)
{
    struct snapshot *s = (struct snapshot *)t;
    int r = FAULT_POINT("spool.snapshot.sync");
    r = r < 0 ? r : s->disk->sync(s->disk->arg, s->fd);
    r = r < 0 ? r : FAULT_POINT("spool.snapshot.rename");
    r = r < 0 ? r : s->disk->rename(s->disk->arg, "index.snap.tmp", "index.snap");
    r = r < 0 ? r : FAULT_POINT("spool.snapshot.dirsync");
    r = r < 0 ? r : s->disk->sync_dir(s->disk->arg, ".");
    s->error = r < 0 ? r : FAULT_POINT("spool.snapshot.done");
    if (r < 0) {
        (void)s->disk->unlink(s->disk->arg, "index.snap.tmp");
    }
}

static void finish_done(struct task *t)
{
    struct snapshot *s = (struct snapshot *)t;
    s->busy = false;
    s->phase = s->error < 0 ? SNAPSHOT_FAILED : SNAPSHOT_DONE;
}

void snapshot_commit(struct snapshot *s)
{
    s->phase = SNAPSHOT_FINISHING;
    s->busy = true;
    s->task = (struct task){.run = finish_run, .done = finish_done};
    worker_submit(s->house, &s->task);
}

void snapshot_free(struct snapshot **sp)
{
    struct snapshot *s = *sp;
    if (s == NULL) {
        return;
    }
    index_cursor_close(s->ix, &s->cursor);
    if (s->fd >= 0) {
        s->disk->close(s->disk->arg, s->fd);
    }
    buf_fini(&s->block);
    free(s);
    *sp = NULL;
}

/* --- reading --- */

static int record_load(struct index *ix, const struct record *rec, struct record_scratch *scratch)
{
    struct record_message m;
    struct record_account a;
    int r;
    switch (rec->type) {
    case RECORD_MESSAGE:
        r = record_message_decode(rec->payload, &m, scratch);
        if (r == 0 && m.place.kind < PLACE_ABSOLUTE) {
            r = -EBADMSG;
        }
        return r < 0 ? r : index_put(ix, &m, m.place.segment, m.place.offset) == NULL ? -ENOMEM : 0;
    case RECORD_SUSPEND:
        r = record_account_decode(rec, &a);
        return r < 0 ? r : index_suspend(ix, a.account, a.words);
    default:
        return -EBADMSG;
    }
}

/* 1: a block; 0: the last one, with the right total; -EBADMSG. */
static int block_load(struct index *ix, struct span bytes, const struct snapshot_block *b, uint64_t *total,
                      struct record_scratch *scratch)
{
    struct record rec;
    uint64_t said;
    int r = 1;
    if (XXH3_64bits_withSeed(bytes.ptr, bytes.len, b->records) != b->xxh3) {
        return -EBADMSG;
    }
    if (b->records == 0) {
        memcpy(&said, bytes.ptr, bytes.len == sizeof(said) ? sizeof(said) : 0);
        return bytes.len == sizeof(said) && said == *total ? 0 : -EBADMSG;
    }
    *total += b->records;
    while (r == 1 && (r = record_next(&bytes, &rec)) == 1) {
        int e = record_load(ix, &rec, scratch);
        r = e < 0 ? e : 1;
    }
    return r == 0 ? 1 : r == -1 ? -EBADMSG : r;
}

static int blocks_load(const struct spool_disk *disk, int fd, struct index *ix, struct record_scratch *scratch)
{
    uint64_t offset = SNAPSHOT_HEADER_SIZE, total = 0;
    uint8_t *bytes = malloc(BLOCK_MAX);
    int r = bytes == NULL ? -ENOMEM : 1;
    while (r == 1) {
        struct snapshot_block b;
        r = disk_read_all(disk, fd, &b, sizeof(b), offset);
        r = r == 0 && b.length > BLOCK_MAX ? -EBADMSG : r;
        r = r < 0 ? r : disk_read_all(disk, fd, bytes, b.length, offset + sizeof(b));
        r = r < 0 ? r : block_load(ix, (struct span){bytes, b.length}, &b, &total, scratch);
        offset += sizeof(b) + b.length;
    }
    free(bytes);
    return r;
}

int snapshot_load(const struct spool_disk *disk, struct index *ix, struct snapshot_header *ret)
{
    uint8_t header[SNAPSHOT_HEADER_SIZE];
    int fd = disk->open(disk->arg, "index.snap", DISK_READ);
    struct record_scratch *scratch = malloc(sizeof(*scratch));
    int r = fd < 0 ? -ENOENT : scratch == NULL ? -ENOMEM : disk_read_all(disk, fd, header, sizeof(header), 0);
    r = r < 0 ? r : snapshot_header_decode((struct span){header, sizeof(header)}, ret);
    r = r < 0 ? r : blocks_load(disk, fd, ix, scratch);
    if (fd >= 0) {
        disk->close(disk->arg, fd);
    }
    free(scratch);
    if (r == 0) {
        return 1;
    }
    index_clear(ix);
    return r == -ENOMEM || r == -EPROTONOSUPPORT ? r : 0;
}
