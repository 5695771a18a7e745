#include "spool/scout.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "spool/log.h"

#define SCOUTS      4U
#define LOOK_OCTETS (64U * 1024U) /* header and records of a common batch */

struct scout_task {
    struct task task;
    struct scout *scout;
    struct worker *worker;
    uint8_t look[LOOK_OCTETS];
};

struct scout {
    const struct spool_disk *disk;
    uint64_t from, offset, to;
    atomic_uint_fast64_t next; /* segment that nobody has taken yet */
    atomic_bool stop;
    struct scout_task tasks[SCOUTS];
};

static void on_wake(void *arg)
{
    (void)arg; /* nobody waits for it */
}

/* The header stays in look; what follows is read for the sake of reading. False: there is no batch. */
static bool batch_look(struct scout_task *t, int fd, uint64_t seq, uint64_t at, uint64_t *ret_size)
{
    const struct spool_disk *d = t->scout->disk;
    struct batch_header h;
    int64_t n = d->read(d->arg, fd, t->look, LOOK_OCTETS, at);
    if (n < (int64_t)BATCH_HEADER_SIZE || batch_header_peek((struct span){t->look, (size_t)n}, &h) < 0 ||
        h.segment != seq) {
        return false;
    }
    uint64_t end = at + BATCH_HEADER_SIZE + h.meta_length;
    for (at += LOOK_OCTETS; at < end && !atomic_load(&t->scout->stop); at += LOOK_OCTETS) {
        size_t len = end - at < LOOK_OCTETS ? (size_t)(end - at) : LOOK_OCTETS;
        if (d->read(d->arg, fd, t->look, len, at) < (int64_t)len) {
            return false;
        }
    }
    *ret_size = batch_size(&h);
    return true;
}

static void segment_scout(struct scout_task *t, uint64_t seq, uint64_t at)
{
    const struct spool_disk *d = t->scout->disk;
    char name[SEGMENT_NAME_SIZE];
    segment_name(seq, name);
    int fd = d->open(d->arg, name, DISK_READ);
    uint64_t size = 0;
    while (fd >= 0 && !atomic_load(&t->scout->stop) && batch_look(t, fd, seq, at, &size)) {
        at += size;
    }
    if (fd >= 0) {
        d->close(d->arg, fd);
    }
}

static void scout_run(struct task *task)
{
    struct scout_task *t = (struct scout_task *)task;
    struct scout *s = t->scout;
    uint64_t seq;
    while (!atomic_load(&s->stop) && (seq = atomic_fetch_add(&s->next, 1)) <= s->to) {
        segment_scout(t, seq, seq == s->from ? s->offset : SPOOL_BLOCK);
    }
}

static void scout_done(struct task *task)
{
    (void)task;
}

struct scout *scout_start(const struct spool_disk *disk, uint64_t from, uint64_t offset, uint64_t to)
{
    struct scout *s = from < to ? calloc(1, sizeof(*s)) : NULL; /* one segment recovery reads as fast itself */
    if (s == NULL) {
        return NULL;
    }
    s->disk = disk;
    s->from = from;
    s->offset = offset;
    s->to = to;
    atomic_init(&s->next, from);
    for (size_t i = 0; i < SCOUTS && i <= to - from; i++) {
        struct scout_task *t = &s->tasks[i];
        t->task = (struct task){.run = scout_run, .done = scout_done};
        t->scout = s;
        t->worker = worker_new(true, on_wake, s);
        if (t->worker != NULL) {
            worker_submit(t->worker, &t->task);
        }
    }
    return s;
}

void scout_stop(struct scout **sp)
{
    struct scout *s = *sp;
    if (s == NULL) {
        return;
    }
    atomic_store(&s->stop, true);
    for (size_t i = 0; i < SCOUTS; i++) {
        worker_free(&s->tasks[i].worker);
    }
    free(s);
    *sp = NULL;
}
