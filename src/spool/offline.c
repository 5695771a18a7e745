#include "spool/offline.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/id.h"
#include "spool/json.h"
#include "spool/recover.h"
#include "spool/segment.h"

#define PROGRESS_EVERY 256U
#define COPY_CHUNK     (256U * 1024U)

struct offline {
    const struct offline_ops *ops;
    void *arg;
    struct offline_result *result;
    struct spool_disk disk;
    int directory_fd, to_fd;
    struct record_scratch *scratch;
    uint64_t now_ms;
};

static void found(struct offline *o, const struct offline_finding *f)
{
    o->result->findings++;
    if (o->ops->finding != NULL) {
        o->ops->finding(o->arg, f);
    }
}

static void progress(struct offline *o, uint64_t done, uint64_t of)
{
    if (o->ops->progress != NULL) {
        o->ops->progress(o->arg, done, of);
    }
}

static void recover_found(void *arg, const struct recover_report *report)
{
    struct offline *o = arg;
    if (report->event == RECOVER_PROGRESS) {
        progress(o, report->offset, report->length);
        return;
    }
    found(o, &(struct offline_finding){recover_event_words(report->event), report->id, report->segment, report->offset,
                                       report->length});
}

static int file_new(const struct offline *o, const char *name, const char *suffix)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "%s%s", name, suffix);
    int fd = openat(o->to_fd, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd < 0 ? -errno : fd;
}

static int write_all(int fd, const uint8_t *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, bytes, len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -errno : -EIO;
        }
        bytes += n;
        len -= (size_t)n;
    }
    return 0;
}

static int octets_copy(struct offline *o, const struct octets_place *p, int to)
{
    int fd = octets_open(&o->disk, p);
    uint8_t *chunk = malloc(COPY_CHUNK);
    int r = fd < 0 ? fd : chunk == NULL ? -ENOMEM : 0;
    for (uint64_t at = 0; r == 0 && at < p->length; at += COPY_CHUNK) {
        size_t len = p->length - at < COPY_CHUNK ? (size_t)(p->length - at) : COPY_CHUNK;
        r = disk_read_all(&o->disk, fd, chunk, len, p->offset + at);
        r = r < 0 ? r : write_all(to, chunk, len);
    }
    if (fd >= 0) {
        o->disk.close(o->disk.arg, fd);
    }
    free(chunk);
    return r;
}

static int message_write(struct offline *o, const struct message *m, const struct octets_place *p)
{
    char id[ID_TEXT_LEN + 1];
    id_format(m->id, id);
    int fd = file_new(o, id, ".eml");
    int r = fd < 0 ? fd : octets_copy(o, p, fd);
    if (fd >= 0 && close(fd) < 0 && r == 0) {
        r = -errno;
    }
    if (r < 0) {
        return r;
    }
    json_t *json = json_message_full(m, o->now_ms, o->scratch);
    char *text = json != NULL ? json_dumps(json, JSON_INDENT(2)) : NULL;
    fd = text == NULL ? -ENOMEM : file_new(o, id, ".json");
    r = fd < 0 ? fd : write_all(fd, (const uint8_t *)text, strlen(text));
    if (fd >= 0 && close(fd) < 0 && r == 0) {
        r = -errno;
    }
    free(text);
    json_decref(json);
    o->result->written += r == 0;
    return r;
}

static int messages_read(struct offline *o, const struct index *ix)
{
    uint64_t done = 0;
    for (const struct message *m = index_first(ix); m != NULL; m = m->next, done++) {
        struct octets_place p = {m->id, m->segment, m->offset, m->length, m->xxh3, (m->state & INDEX_LARGE) != 0};
        uint8_t *head = NULL;
        int r = octets_read(&o->disk, &p, 0, &head);
        if (r == -ENOMEM) {
            return r;
        }
        if (r < 0) {
            found(o, &(struct offline_finding){r == -EILSEQ ? "octets of a message do not match their checksum"
                                                            : "octets of a message cannot be read",
                                               m->id, p.large ? 0 : m->segment, m->offset, m->length});
        } else if (o->to_fd >= 0 && (r = message_write(o, m, &p)) < 0) {
            return r;
        }
        if (done % PROGRESS_EVERY == 0) {
            progress(o, done, index_count(ix));
        }
    }
    return 0;
}

static int index_read(struct offline *o, struct index *ix)
{
    struct recovery rec;
    const struct recover_options options = {.read_only = true, .found = recover_found, .arg = o};
    int r = recover_run(&o->disk, ix, &options, &rec);
    if (r < 0) {
        return r;
    }
    struct index_figures f;
    index_figures(ix, &f);
    o->now_ms = rec.spool_ms;
    o->result->segments = rec.log.segments_count;
    o->result->batches = rec.replayed;
    o->result->records = rec.records;
    o->result->messages = f.messages;
    o->result->held = f.held;
    o->result->octets = f.octets;
    free(rec.log.segments);
    recovery_fini(&rec);
    return messages_read(o, ix);
}

static int run(struct offline *o, const char *directory)
{
    const struct index_config config = {.shards = 1, .schedule = schedule_config_default()};
    o->directory_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (o->directory_fd < 0) {
        return -errno;
    }
    o->disk = disk_kernel(&o->directory_fd);
    o->scratch = malloc(sizeof(*o->scratch));
    struct index *ix = index_new(&config);
    int r = ix == NULL || o->scratch == NULL ? -ENOMEM : index_read(o, ix);
    index_free(&ix);
    free(o->scratch);
    (void)close(o->directory_fd);
    return r;
}

int offline_verify(const char *directory, const struct offline_ops *ops, void *arg, struct offline_result *ret)
{
    struct offline o = {.ops = ops, .arg = arg, .result = ret, .to_fd = -1};
    *ret = (struct offline_result){0};
    return run(&o, directory);
}

int offline_export(const char *directory, const char *to, const struct offline_ops *ops, void *arg,
                   struct offline_result *ret)
{
    struct offline o = {.ops = ops, .arg = arg, .result = ret};
    *ret = (struct offline_result){0};
    if (mkdir(to, 0700) < 0 && errno != EEXIST) {
        return -errno;
    }
    o.to_fd = open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (o.to_fd < 0) {
        return -errno;
    }
    int r = run(&o, directory);
    (void)close(o.to_fd);
    return r;
}
