#include "spool/segment.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/id.h"
#include "spool/log.h"

#define WINDOW_FIRST  (32U * 1024U) /* covers header and records of a common batch in one read */
#define SEARCH_CHUNK  (256U * 1024U)
#define OCTETS_CHUNK  (256U * 1024U)
#define SET_ASIDE_MAX (64U * 1024U * 1024U)

static int window_fill(struct segment_reader *r, uint64_t at, size_t want)
{
    if (want > r->window_cap) {
        uint8_t *grown = realloc(r->window, want);
        if (grown == NULL) {
            return -ENOMEM;
        }
        r->window = grown;
        r->window_cap = want;
    }
    int64_t n = r->disk->read(r->disk->arg, r->fd, r->window, want, at);
    r->window_len = n > 0 ? (size_t)n : 0; /* what cannot be read does not verify */
    r->unreadable |= n < 0;
    return 0;
}

/* A batch at `at`, of any life. */
static int batch_at(struct segment_reader *r, uint64_t at, struct segment_batch *ret)
{
    struct batch_header h;
    int e = window_fill(r, at, WINDOW_FIRST);
    if (e < 0 || batch_header_peek((struct span){r->window, r->window_len}, &h) < 0) {
        return e < 0 ? e : 0;
    }
    if (h.segment != r->seq) {
        return 0;
    }
    size_t need = BATCH_HEADER_SIZE + (size_t)h.meta_length;
    if (need > r->window_len && (e = window_fill(r, at, need)) < 0) {
        return e;
    }
    e = batch_verify((struct span){r->window, r->window_len}, &ret->header);
    if (e < 0) {
        return e == -EPROTONOSUPPORT ? e : 0;
    }
    ret->offset = at;
    ret->meta = (struct span){r->window + BATCH_HEADER_SIZE, h.meta_length};
    ret->octets_at = at + need;
    ret->octets_at_else = 0;
    return 1;
}

/* Its header, or, when that is damaged, the batch that always follows it. */
static int life_find(struct segment_reader *r)
{
    struct segment_header h;
    struct segment_batch b;
    int e = window_fill(r, 0, SPOOL_BLOCK);
    if (e < 0) {
        return e;
    }
    e = segment_header_decode((struct span){r->window, r->window_len}, &h);
    if (e == 0 && h.seq == r->seq) {
        r->life = h.life;
        r->previous_batch = h.previous_batch;
        return 1;
    }
    if (e == -EPROTONOSUPPORT) {
        return e;
    }
    e = batch_at(r, SPOOL_BLOCK, &b);
    if (e == 1) {
        r->life = b.header.life;
        r->previous_batch = b.header.seq - 1;
        r->header_damaged = true;
    }
    return e == 0 && r->unreadable ? -EIO : e;
}

int segment_reader_open(struct segment_reader *r, const struct spool_disk *disk, uint64_t seq)
{
    char name[SEGMENT_NAME_SIZE];
    segment_name(seq, name);
    *r = (struct segment_reader){.disk = disk, .seq = seq, .fd = disk->open(disk->arg, name, DISK_READ)};
    if (r->fd < 0) {
        return r->fd;
    }
    int64_t size = disk->size(disk->arg, r->fd);
    r->size = size > 0 ? (uint64_t)size : 0;
    int e = size < 0 ? (int)size : life_find(r);
    if (e < 0) {
        segment_reader_close(r);
    }
    return e;
}

void segment_reader_close(struct segment_reader *r)
{
    if (r->fd >= 0) {
        r->disk->close(r->disk->arg, r->fd);
    }
    free(r->window);
    *r = (struct segment_reader){.fd = -1};
}

int segment_read_batch(struct segment_reader *r, uint64_t at, struct segment_batch *ret)
{
    int e = batch_at(r, at, ret);
    return e == 1 && ret->header.life != r->life ? 0 : e;
}

static bool header_is_ours(const struct segment_reader *r, const uint8_t *at, size_t len, struct batch_header *h)
{
    return batch_header_peek((struct span){at, len}, h) == 0 && h->segment == r->seq && h->life == r->life;
}

bool segment_claims(struct segment_reader *r, uint64_t at, uint64_t *ret_size)
{
    struct batch_header h;
    if (at >= r->size || window_fill(r, at, SPOOL_BLOCK) < 0) {
        return false;
    }
    struct span bytes = {r->window, r->window_len};
    uint64_t left = r->size - at;
    bool whole = batch_header_peek(bytes, &h) == 0 && batch_size(&h) <= left;
    *ret_size = whole ? batch_size(&h) : left;
    return batch_claims(bytes, r->seq, r->life);
}

/* Where a chain of good records ends: the end of the records when only the header is damaged. */
static size_t chain_end(struct span meta, uint64_t life)
{
    struct record rec;
    size_t end = 0, size;
    while (record_salvage((struct span){meta.ptr + end, meta.len - end}, life, &rec, &size) == 1) {
        end += size;
    }
    return end;
}

int segment_salvage(struct segment_reader *r, uint64_t at, uint64_t size,
                    int (*each)(void *arg, const struct segment_batch *b, const struct record *rec), void *arg)
{
    size_t want = size < BATCH_META_MAX ? (size_t)size : BATCH_META_MAX;
    int e = window_fill(r, at, want);
    if (e < 0 || r->window_len < BATCH_HEADER_SIZE) {
        return e;
    }
    struct segment_batch b = {.offset = at};
    struct batch_header h = {0};
    struct span meta = {r->window + BATCH_HEADER_SIZE, r->window_len - BATCH_HEADER_SIZE};
    size_t chain = chain_end(meta, r->life);
    (void)batch_header_peek((struct span){r->window, r->window_len}, &h);
    b.octets_at = at + BATCH_HEADER_SIZE + chain; /* right when only the header is damaged */
    if (h.meta_length > chain && h.meta_length <= meta.len) {
        meta.len = h.meta_length;
        b.octets_at_else = at + BATCH_HEADER_SIZE + h.meta_length; /* right when the header is good */
    } else {
        meta.len = chain;
    }
    b.meta = meta;
    b.header = (struct batch_header){.segment = r->seq, .life = r->life, .octets_length = r->size - at};
    for (size_t i = 0, step; e == 0 && i < meta.len; i += step) {
        struct record rec;
        if (record_salvage((struct span){meta.ptr + i, meta.len - i}, r->life, &rec, &step) == 1) {
            e = each(arg, &b, &rec);
        } else {
            step = 1;
        }
    }
    return e;
}

/* Searches one chunk; an unreadable one block by block. */
static int chunk_search(struct segment_reader *r, uint64_t from, uint8_t *chunk, uint64_t after, uint64_t *ret_at)
{
    struct batch_header h;
    struct segment_batch b;
    int64_t n = r->disk->read(r->disk->arg, r->fd, chunk, SEARCH_CHUNK, from);
    for (uint64_t at = 0; at < SEARCH_CHUNK; at += SPOOL_BLOCK) {
        int64_t have =
            n >= 0 ? n - (int64_t)at : r->disk->read(r->disk->arg, r->fd, chunk + at, SPOOL_BLOCK, from + at);
        if (have < (int64_t)BATCH_HEADER_SIZE || !header_is_ours(r, chunk + at, (size_t)have, &h) || h.seq <= after) {
            continue;
        }
        int e = segment_read_batch(r, from + at, &b);
        if (e != 0) {
            *ret_at = from + at;
            return e;
        }
    }
    return 0;
}

int segment_search(struct segment_reader *r, uint64_t from, uint64_t after, uint64_t *ret_at)
{
    uint8_t *chunk = malloc(SEARCH_CHUNK);
    int e = chunk == NULL ? -ENOMEM : 0;
    for (uint64_t at = from; e == 0 && at < r->size; at += SEARCH_CHUNK) {
        e = chunk_search(r, at, chunk, after, ret_at);
    }
    free(chunk);
    return e;
}

/* --- octets of a message --- */

void large_name(uint64_t id, char name[static 24])
{
    char text[ID_TEXT_LEN + 1];
    id_format(id, text);
    (void)snprintf(name, 24, "large/%s", text);
}

int octets_open(const struct spool_disk *disk, const struct octets_place *p)
{
    char name[24];
    if (p->large) {
        large_name(p->id, name);
    } else {
        segment_name(p->segment, name);
    }
    return disk->open(disk->arg, name, DISK_READ);
}

static int octets_hash(const struct spool_disk *disk, int fd, const struct octets_place *p, uint8_t *head, size_t max)
{
    uint8_t *chunk = malloc(OCTETS_CHUNK);
    XXH3_state_t *state = XXH3_createState();
    int e = chunk == NULL || state == NULL || XXH3_64bits_reset(state) != XXH_OK ? -ENOMEM : 0;
    for (uint64_t at = 0; e == 0 && at < p->length;) {
        size_t len = p->length - at < OCTETS_CHUNK ? (size_t)(p->length - at) : OCTETS_CHUNK;
        int64_t n = disk->read(disk->arg, fd, chunk, len, p->offset + at);
        e = n < 0 ? (int)n : (size_t)n < len ? -EILSEQ : 0;
        if (e == 0) {
            (void)XXH3_64bits_update(state, chunk, len);
            if (at < max) {
                memcpy(head + at, chunk, max - at < len ? max - at : len);
            }
        }
        at += len;
    }
    if (e == 0 && XXH3_64bits_digest(state) != p->xxh3) {
        e = -EILSEQ;
    }
    (void)XXH3_freeState(state);
    free(chunk);
    return e;
}

int octets_read(const struct spool_disk *disk, const struct octets_place *p, size_t max, uint8_t **ret_head)
{
    size_t keep = p->length < max ? (size_t)p->length : max;
    uint8_t *head = max > 0 ? malloc(keep + 1) : NULL;
    int fd = max > 0 && head == NULL ? -ENOMEM : octets_open(disk, p);
    int e = fd == -ENOENT ? -EILSEQ : fd < 0 ? fd : octets_hash(disk, fd, p, head, keep);
    if (fd >= 0) {
        disk->close(disk->arg, fd);
    }
    if (e < 0) {
        free(head);
        return e;
    }
    *ret_head = head;
    return 0;
}

int octets_set_aside(const struct spool_disk *disk, int fd, uint64_t offset, uint64_t length, const char *name)
{
    char path[80];
    (void)snprintf(path, sizeof(path), "damaged/%s", name);
    uint8_t *block = malloc(SPOOL_BLOCK);
    int to = block == NULL ? -ENOMEM : disk->open(disk->arg, path, DISK_RENEW);
    int e = to < 0 ? to : 0;
    length = length < SET_ASIDE_MAX ? length : SET_ASIDE_MAX;
    for (uint64_t at = 0; e == 0 && at < length; at += SPOOL_BLOCK) {
        size_t len = length - at < SPOOL_BLOCK ? (size_t)(length - at) : SPOOL_BLOCK;
        int64_t n = disk->read(disk->arg, fd, block, len, offset + at);
        if (n > 0) { /* what cannot be read stays a hole */
            e = disk_write(disk, to, block, (size_t)n, at);
        }
    }
    if (to >= 0) {
        e = e < 0 ? e : disk->sync(disk->arg, to);
        disk->close(disk->arg, to);
        e = e < 0 ? e : disk->sync_dir(disk->arg, "damaged");
    }
    free(block);
    return e;
}
