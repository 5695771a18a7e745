#include "deliver/job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/hash.h"

struct file {
    uint64_t number;
    int fd;
    size_t holders; /* jobs, and the table */
    UT_hash_handle hh;
};

struct files {
    struct file *table;
};

struct files *files_new(void)
{
    return calloc(1, sizeof(struct files));
}

static void file_drop(struct file *f)
{
    if (--f->holders == 0) {
        (void)close(f->fd);
        free(f);
    }
}

void files_free(struct files **fp)
{
    struct files *f = *fp;
    *fp = NULL;
    while (f != NULL && f->table != NULL) {
        struct file *first = f->table;
        HASH_DEL(f->table, first);
        file_drop(first);
    }
    free(f);
}

static struct file *file_find(const struct files *f, uint64_t number)
{
    struct file *found;
    HASH_FIND(hh, f->table, &number, sizeof(number), found);
    return found;
}

int files_add(struct files *f, uint64_t number, int take_fd)
{
    struct file *made = file_find(f, number) == NULL ? calloc(1, sizeof(*made)) : NULL;
    if (made == NULL) {
        (void)close(take_fd);
        return file_find(f, number) != NULL ? -EEXIST : -ENOMEM;
    }
    *made = (struct file){.number = number, .fd = take_fd, .holders = 1};
    HASH_ADD(hh, f->table, number, sizeof(made->number), made);
    if (made->hh.tbl == NULL) {
        file_drop(made);
        return -ENOMEM;
    }
    return 0;
}

int files_forget(struct files *f, uint64_t number)
{
    struct file *found = file_find(f, number);
    if (found == NULL) {
        return -ENOENT;
    }
    HASH_DEL(f->table, found);
    file_drop(found);
    return 0;
}

size_t files_count(const struct files *f)
{
    return HASH_COUNT(f->table);
}

static size_t memory;
static TAILQ_HEAD(jobs, job) all = TAILQ_HEAD_INITIALIZER(all);

struct job *job_next(const struct job *j, uint64_t id)
{
    struct job *next = j != NULL ? TAILQ_NEXT(j, in_all) : TAILQ_FIRST(&all);
    while (next != NULL && next->id != id) {
        next = TAILQ_NEXT(next, in_all);
    }
    return next;
}

void job_cancel_all(void)
{
    struct job *j;
    TAILQ_FOREACH(j, &all, in_all)
    {
        j->cancelled = true;
    }
}

size_t job_memory(void)
{
    return memory;
}

/* Room behind the structure: recipients, settled, the payload's copy. */
static size_t job_size(size_t recipients, size_t payload)
{
    return sizeof(struct job) + recipients * (sizeof(struct envelope_recipient) + sizeof(bool)) + payload;
}

static int job_make(uint64_t id, struct span payload, const struct deliver_job *m, struct file *file,
                    struct job **ret_job)
{
    size_t count = m->envelope.recipients_count;
    size_t size = job_size(count, payload.len);
    struct job *j = calloc(1, size);
    if (j == NULL) {
        return -ENOMEM;
    }
    struct envelope_recipient *recipients = (struct envelope_recipient *)(j + 1);
    j->settled = (bool *)(recipients + count);
    uint8_t *copy = (uint8_t *)(j->settled + count);
    memcpy(copy, payload.ptr, payload.len);
    *j = (struct job){.id = id,
                      .file = file,
                      .fd = file->fd,
                      .wire = *m,
                      .open = (uint16_t)count,
                      .settled = j->settled,
                      .octets = size};
    struct envelope *e = &j->wire.envelope;
    memcpy(recipients, e->recipients, count * sizeof(*recipients));
    e->recipients = recipients;
    /* The same views, moved from the frame to the copy. */
    struct span *views[] = {&j->wire.domain, &e->sender, &e->account, &e->envid, &e->message_id, &e->hold_words};
    for (size_t i = 0; i < sizeof(views) / sizeof(views[0]); i++) {
        views[i]->ptr = views[i]->len > 0 ? copy + (views[i]->ptr - payload.ptr) : NULL;
    }
    for (size_t i = 0; i < count; i++) {
        struct envelope_recipient *r = &recipients[i];
        r->address.ptr = r->address.len > 0 ? copy + (r->address.ptr - payload.ptr) : NULL;
        r->orcpt.ptr = r->orcpt.len > 0 ? copy + (r->orcpt.ptr - payload.ptr) : NULL;
    }
    file->holders++;
    memory += size;
    TAILQ_INSERT_TAIL(&all, j, in_all);
    *ret_job = j;
    return 0;
}

int job_new(uint64_t id, struct span payload, struct files *files, struct job **ret_job)
{
    static struct envelope_recipient recipients[ENVELOPE_RECIPIENTS_MAX];
    struct deliver_job m = {.envelope.recipients = recipients};
    if (deliver_job_decode(payload, &m) < 0 || m.envelope.recipients_count == 0) {
        return -EBADMSG;
    }
    struct file *file = file_find(files, m.file);
    return file == NULL ? -ENOENT : job_make(id, payload, &m, file, ret_job);
}

void job_free(struct job **jp)
{
    struct job *j = *jp;
    *jp = NULL;
    if (j != NULL) {
        memory -= j->octets;
        TAILQ_REMOVE(&all, j, in_all);
        file_drop(j->file);
        free(j);
    }
}

int job_read(const struct job *j, uint64_t at, void *room, size_t len)
{
    size_t done = 0;
    if (at > j->wire.length || len > j->wire.length - at) {
        return -EINVAL;
    }
    while (done < len) {
        ssize_t n = pread(j->fd, (uint8_t *)room + done, len - done, (off_t)(j->wire.offset + at + done));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n == 0 ? -EBADMSG : -errno;
        }
        done += (size_t)n;
    }
    return 0;
}
