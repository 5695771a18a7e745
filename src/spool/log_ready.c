/* log_ready.c: the segment after the head is made ready on the house worker, and becomes the head. Steps 0 and 1 of
 * docs/spool-format.md. */
#include <errno.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/fault.h"
#include "spool/log_int.h"

#define ZERO_CHUNK (1024U * 1024U)

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
        r = FAULT_POINT("spool.segment.recycle");
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
    l->prepare_at = p->error < 0 ? clock_mono_ms() + LOG_RETRY_MS : 0;
    if (p->error == 0 &&
        p->seq != l->head_seq + 1) { /* the head failed meanwhile: make it ready under its right name */
        l->disk->close(l->disk->arg, p->fd);
        p->fd = -1;
        log_spare_add(l, p->seq);
        return;
    }
    l->next_ready = p->error == 0;
}

void log_prepare(struct log *l, uint64_t size)
{
    if (l->preparing || l->next_ready) {
        return;
    }
    uint64_t spare = log_spare_take(l, l->head_seq + 1);
    if (spare != 0 && spare != l->head_seq + 1 && size != l->config.segment_size) {
        log_spare_add(l, spare);
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

void log_head_close(struct log *l)
{
    if (l->fd >= 0) {
        l->disk->close(l->disk->arg, l->fd);
        l->fd = -1;
    }
}

/* The prepared segment becomes the head. */
int log_head_adopt(struct log *l)
{
    struct log_segment s = {.seq = l->next.seq, .size = l->next.size};
    int r = log_segments_push(l, &s);
    if (r < 0) {
        return r;
    }
    log_head_close(l);
    l->fd = l->next.fd;
    l->next.fd = -1;
    l->next_ready = false;
    l->head_seq = s.seq;
    l->life = l->config.random(l->config.random_arg);
    l->offset = SPOOL_BLOCK;
    l->first = true;
    return 0;
}
