#include "spool/record.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>

#include "wire/guard.h"

/* wire_put_* and the headers below write host order: the format is little-endian. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the spool format is little-endian");

#define SEGMENT_MAGIC  0x4745534bU /* KSEG */
#define BATCH_MAGIC    0x5441424bU /* KBAT */
#define SNAPSHOT_MAGIC 0x504e534bU /* KSNP */

struct segment_disk {
    uint32_t magic;
    uint16_t version, reserved;
    uint64_t seq, life, size, previous_batch, wall_ms, reserved2, xxh3;
};
_Static_assert(sizeof(struct segment_disk) == SEGMENT_HEADER_SIZE, "segment header");

struct batch_disk {
    uint32_t magic;
    uint16_t version, flags;
    uint64_t segment, life, seq, tail, spool_ms, wall_ms;
    uint32_t meta_length, records;
    uint64_t octets_length, reserved[2], xxh3;
};
_Static_assert(sizeof(struct batch_disk) == BATCH_HEADER_SIZE, "batch header");

struct record_disk {
    uint8_t type, zero;
    uint16_t zero2;
    uint32_t length;
    uint64_t xxh3; /* of the payload, seeded with the life: what a stranger wrote into a payload is never taken for a
                      record */
};
_Static_assert(sizeof(struct record_disk) == RECORD_HEADER_SIZE, "record header");

struct snapshot_disk {
    uint32_t magic;
    uint16_t version, reserved;
    uint64_t segment, offset, batch, tail, spool_ms, reserved2, xxh3;
};
_Static_assert(sizeof(struct snapshot_disk) == SNAPSHOT_HEADER_SIZE, "snapshot header");
_Static_assert(sizeof(struct snapshot_block) == SNAPSHOT_BLOCK_SIZE, "snapshot block header");

void segment_header_encode(const struct segment_header *h, uint8_t to[static SEGMENT_HEADER_SIZE])
{
    struct segment_disk d = {
        .magic = SEGMENT_MAGIC,
        .version = SPOOL_VERSION,
        .seq = h->seq,
        .life = h->life,
        .size = h->size,
        .previous_batch = h->previous_batch,
        .wall_ms = h->wall_ms,
    };
    d.xxh3 = XXH3_64bits(&d, offsetof(struct segment_disk, xxh3));
    memcpy(to, &d, sizeof(d));
}

int segment_header_decode(struct span from, struct segment_header *ret)
{
    struct segment_disk d;
    if (from.len < sizeof(d)) {
        return -EBADMSG;
    }
    memcpy(&d, from.ptr, sizeof(d));
    if (d.magic != SEGMENT_MAGIC || d.xxh3 != XXH3_64bits(&d, offsetof(struct segment_disk, xxh3))) {
        return -EBADMSG;
    }
    if (d.version != SPOOL_VERSION) {
        return -EPROTONOSUPPORT;
    }
    *ret = (struct segment_header){d.seq, d.life, d.size, d.previous_batch, d.wall_ms};
    return 0;
}

static uint64_t batch_hash(const uint8_t *head, size_t meta_length)
{
    uint64_t seed = XXH3_64bits(head, offsetof(struct batch_disk, xxh3));
    return XXH3_64bits_withSeed(head + BATCH_HEADER_SIZE, meta_length, seed);
}

static uint64_t record_hash(const struct record_disk *d, const uint8_t *payload, uint64_t life)
{
    return XXH3_64bits_withSeed(payload, d->length, life ^ ((uint64_t)d->type << 32 | d->length));
}

static void records_seal(uint8_t *meta, size_t length, uint64_t life)
{
    for (size_t at = 0; at < length;) {
        struct record_disk d;
        memcpy(&d, meta + at, sizeof(d));
        d.xxh3 = record_hash(&d, meta + at + sizeof(d), life);
        memcpy(meta + at, &d, sizeof(d));
        at += sizeof(d) + d.length;
    }
}

void batch_seal(const struct batch_header *h, uint8_t *head)
{
    struct batch_disk d = {
        .magic = BATCH_MAGIC,
        .version = SPOOL_VERSION,
        .segment = h->segment,
        .life = h->life,
        .seq = h->seq,
        .tail = h->tail,
        .spool_ms = h->spool_ms,
        .wall_ms = h->wall_ms,
        .meta_length = h->meta_length,
        .records = h->records,
        .octets_length = h->octets_length,
    };
    records_seal(head + BATCH_HEADER_SIZE, h->meta_length, h->life);
    memcpy(head, &d, sizeof(d));
    d.xxh3 = batch_hash(head, h->meta_length);
    memcpy(head + offsetof(struct batch_disk, xxh3), &d.xxh3, sizeof(d.xxh3));
}

static int batch_load(struct span from, struct batch_disk *d)
{
    if (from.len < sizeof(*d)) {
        return -EBADMSG;
    }
    memcpy(d, from.ptr, sizeof(*d));
    bool bad = d->magic != BATCH_MAGIC || d->meta_length > BATCH_META_MAX || d->octets_length > INT64_MAX / 2;
    return bad ? -EBADMSG : 0;
}

static void batch_unpack(const struct batch_disk *d, struct batch_header *ret)
{
    *ret = (struct batch_header){.segment = d->segment,
                                 .life = d->life,
                                 .seq = d->seq,
                                 .tail = d->tail,
                                 .spool_ms = d->spool_ms,
                                 .wall_ms = d->wall_ms,
                                 .meta_length = d->meta_length,
                                 .records = d->records,
                                 .octets_length = d->octets_length};
}

int batch_header_peek(struct span from, struct batch_header *ret)
{
    struct batch_disk d;
    int r = batch_load(from, &d);
    if (r == 0) {
        batch_unpack(&d, ret);
    }
    return r;
}

int batch_verify(struct span from, struct batch_header *ret)
{
    struct batch_disk d;
    int r = batch_load(from, &d);
    if (r < 0) {
        return r;
    }
    if (from.len - sizeof(d) < d.meta_length || batch_hash(from.ptr, d.meta_length) != d.xxh3) {
        return -EBADMSG;
    }
    if (d.version != SPOOL_VERSION || d.flags != 0) {
        return -EPROTONOSUPPORT;
    }
    batch_unpack(&d, ret);
    return 0;
}

bool batch_claims(struct span from, uint64_t segment, uint64_t life)
{
    struct batch_disk d;
    if (from.len < sizeof(d)) {
        return false;
    }
    memcpy(&d, from.ptr, sizeof(d));
    return (d.magic == BATCH_MAGIC) + (d.segment == segment) + (d.life == life) >= 2;
}

uint64_t batch_size(const struct batch_header *h)
{
    uint64_t raw = BATCH_HEADER_SIZE + (uint64_t)h->meta_length + h->octets_length;
    return (raw + SPOOL_BLOCK - 1) / SPOOL_BLOCK * SPOOL_BLOCK;
}

int record_next(struct span *meta, struct record *ret)
{
    struct record_disk d;
    if (meta->len == 0) {
        return 0;
    }
    if (meta->len < sizeof(d)) {
        return -1;
    }
    memcpy(&d, meta->ptr, sizeof(d));
    if (d.zero != 0 || d.zero2 != 0 || d.length > meta->len - sizeof(d)) {
        return -1;
    }
    ret->type = (enum record_type)d.type;
    ret->payload = (struct span){meta->ptr + sizeof(d), d.length};
    meta->ptr += sizeof(d) + d.length;
    meta->len -= sizeof(d) + d.length;
    return 1;
}

int record_salvage(struct span from, uint64_t life, struct record *ret, size_t *ret_size)
{
    struct span rest = from;
    struct record_disk d;
    if (from.len < sizeof(d) || from.ptr[0] < RECORD_MESSAGE || from.ptr[0] > RECORD_RESUME ||
        record_next(&rest, ret) != 1) {
        return 0;
    }
    memcpy(&d, from.ptr, sizeof(d));
    *ret_size = sizeof(d) + d.length;
    return d.xxh3 == record_hash(&d, ret->payload.ptr, life);
}

size_t record_begin(struct wire_writer *w, enum record_type type)
{
    static const uint8_t zeros[RECORD_HEADER_SIZE - 1];
    size_t start = w->out->len;
    wire_put_u8(w, (uint8_t)type);
    wire_put_fixed(w, zeros, sizeof(zeros));
    return start;
}

int record_end(struct wire_writer *w, size_t start)
{
    if (w->error != 0) {
        w->out->len = start;
        return w->error;
    }
    uint32_t length = (uint32_t)(w->out->len - start - RECORD_HEADER_SIZE);
    memcpy(w->out->data + start + offsetof(struct record_disk, length), &length, sizeof(length));
    return 0;
}

static void recipient_encode(struct wire_writer *w, const struct record_recipient *s)
{
    wire_put_u8(w, s->state);
    wire_put_u16(w, s->code);
    wire_put_fixed(w, s->enhanced, sizeof(s->enhanced));
    wire_put_bytes(w, s->words);
}

static void recipient_decode(struct wire_reader *r, struct record_recipient *s)
{
    s->state = wire_get_u8(r);
    s->code = wire_get_u16(r);
    wire_get_fixed(r, s->enhanced, sizeof(s->enhanced));
    s->words = wire_get_bytes(r, RECORD_WORDS_MAX);
    r->bad |= s->state < RECIPIENT_QUEUED || s->state > RECIPIENT_HANDED_OVER || s->code > 599;
}

int record_message_encode(struct wire_writer *w, const struct record_message *m)
{
    size_t start = record_begin(w, RECORD_MESSAGE);
    wire_put_u64(w, m->id);
    wire_put_u64(w, m->born_ms);
    wire_put_u8(w, m->place.kind);
    wire_put_u64(w, m->place.segment);
    wire_put_u64(w, m->place.offset);
    wire_put_u64(w, m->place.length);
    wire_put_u64(w, m->place.xxh3);
    wire_put_u8(w, m->flags);
    wire_put_bytes(w, m->envelope_raw);
    for (size_t i = 0; (m->flags & MESSAGE_HAS_STATES) != 0 && i < m->recipients_count; i++) {
        recipient_encode(w, &m->states[i]);
        wire_put_u8(w, m->states[i].reported);
        wire_put_u32(w, m->states[i].attempts);
        wire_put_u64(w, m->states[i].next_ms);
    }
    wire_put_bytes(w, m->words);
    if (m->place.kind == PLACE_EMBEDDED) {
        wire_put_bytes(w, m->embedded);
    }
    return record_end(w, start);
}

static void place_decode(struct wire_reader *r, struct record_place *p)
{
    p->kind = wire_get_u8(r);
    p->segment = wire_get_u64(r);
    p->offset = wire_get_u64(r);
    p->length = wire_get_u64(r);
    p->xxh3 = wire_get_u64(r);
    r->bad |= p->kind < PLACE_INLINE || p->kind > PLACE_ABSOLUTE_LARGE || p->offset > INT64_MAX / 2 ||
              p->length > INT64_MAX / 2 || (p->kind < PLACE_ABSOLUTE && p->segment != 0);
}

static void states_decode(struct wire_reader *r, struct record_message *m)
{
    for (size_t i = 0; i < m->envelope.recipients_count && !r->bad; i++) {
        struct record_recipient *s = &m->states[i];
        recipient_decode(r, s);
        s->number = (uint16_t)i;
        s->reported = wire_get_u8(r);
        s->attempts = wire_get_u32(r);
        s->next_ms = wire_get_u64(r);
    }
}

int record_message_decode(struct span payload, struct record_message *m, struct record_scratch *scratch)
{
    struct wire_reader r = wire_reader(payload);
    m->envelope.recipients = scratch->recipients;
    m->states = scratch->states;
    m->id = wire_get_u64(&r);
    m->born_ms = wire_get_u64(&r);
    place_decode(&r, &m->place);
    m->flags = wire_get_u8(&r);
    m->envelope_raw = wire_get_bytes(&r, FRAME_PAYLOAD_MAX);
    struct wire_reader inner = wire_reader(m->envelope_raw);
    if (r.bad || m->id == 0 || envelope_decode(&inner, &m->envelope) < 0 || wire_reader_end(&inner) < 0) {
        return -EBADMSG;
    }
    m->recipients_count = m->envelope.recipients_count;
    if ((m->flags & MESSAGE_HAS_STATES) != 0) {
        states_decode(&r, m);
    }
    m->words = wire_get_bytes(&r, RECORD_WORDS_MAX);
    m->embedded = m->place.kind == PLACE_EMBEDDED ? wire_get_bytes(&r, FRAME_PAYLOAD_MAX) : (struct span){0};
    r.bad |= m->place.kind == PLACE_EMBEDDED && m->embedded.len != m->place.length;
    return wire_reader_end(&r);
}

int record_outcome_encode(struct wire_writer *w, const struct record_outcome *m)
{
    size_t start = record_begin(w, RECORD_OUTCOME);
    wire_put_u64(w, m->id);
    wire_put_u32(w, m->attempts);
    wire_put_u64(w, m->next_ms);
    wire_put_u16(w, m->count);
    for (size_t i = 0; i < m->count; i++) {
        wire_put_u16(w, m->results[i].number);
        recipient_encode(w, &m->results[i]);
    }
    return record_end(w, start);
}

int record_outcome_decode(struct span payload, struct record_outcome *m, struct record_scratch *scratch)
{
    struct wire_reader r = wire_reader(payload);
    m->id = wire_get_u64(&r);
    m->attempts = wire_get_u32(&r);
    m->next_ms = wire_get_u64(&r);
    m->count = wire_get_u16(&r);
    m->results = scratch->states;
    r.bad |= m->count > ENVELOPE_RECIPIENTS_MAX;
    for (size_t i = 0; i < m->count && !r.bad; i++) {
        m->results[i].number = wire_get_u16(&r);
        recipient_decode(&r, &m->results[i]);
    }
    return wire_reader_end(&r);
}

int record_change_encode(struct wire_writer *w, enum record_type type, const struct record_change *m)
{
    size_t start = record_begin(w, type);
    wire_put_u64(w, m->id);
    if (type == RECORD_RETRY) {
        wire_put_u64(w, m->next_ms);
    } else if (type == RECORD_REMOVE) {
        wire_put_u8(w, m->reason);
    } else if (type == RECORD_HOLD) {
        wire_put_bytes(w, m->words);
    }
    return record_end(w, start);
}

int record_change_decode(const struct record *rec, struct record_change *m)
{
    struct wire_reader r = wire_reader(rec->payload);
    *m = (struct record_change){.id = wire_get_u64(&r)};
    if (rec->type == RECORD_RETRY) {
        m->next_ms = wire_get_u64(&r);
    } else if (rec->type == RECORD_REMOVE) {
        m->reason = wire_get_u8(&r);
    } else if (rec->type == RECORD_HOLD) {
        m->words = wire_get_bytes(&r, RECORD_WORDS_MAX);
    }
    return wire_reader_end(&r);
}

int record_report_encode(struct wire_writer *w, const struct record_report *m)
{
    size_t start = record_begin(w, RECORD_REPORT);
    wire_put_u64(w, m->id);
    wire_put_u64(w, m->dsn);
    wire_put_u8(w, m->kind);
    wire_put_u16(w, m->count);
    for (size_t i = 0; i < m->count; i++) {
        wire_put_u16(w, m->numbers[i]);
    }
    return record_end(w, start);
}

int record_report_decode(struct span payload, struct record_report *m, struct record_scratch *scratch)
{
    struct wire_reader r = wire_reader(payload);
    m->id = wire_get_u64(&r);
    m->dsn = wire_get_u64(&r);
    m->kind = wire_get_u8(&r);
    m->count = wire_get_u16(&r);
    m->numbers = scratch->numbers;
    r.bad |= m->count > ENVELOPE_RECIPIENTS_MAX || m->kind == 0 ||
             m->kind > (REPORT_FAILURE | REPORT_DELAY | REPORT_SUCCESS);
    for (size_t i = 0; i < m->count && !r.bad; i++) {
        m->numbers[i] = wire_get_u16(&r);
    }
    return wire_reader_end(&r);
}

int record_account_encode(struct wire_writer *w, enum record_type type, const struct record_account *m)
{
    size_t start = record_begin(w, type);
    wire_put_bytes(w, m->account);
    if (type == RECORD_SUSPEND) {
        wire_put_bytes(w, m->words);
    }
    return record_end(w, start);
}

int record_account_decode(const struct record *rec, struct record_account *m)
{
    struct wire_reader r = wire_reader(rec->payload);
    m->account = wire_get_bytes(&r, GUARD_NAME_MAX);
    m->words = rec->type == RECORD_SUSPEND ? wire_get_bytes(&r, RECORD_WORDS_MAX) : (struct span){0};
    return wire_reader_end(&r);
}

void snapshot_header_encode(const struct snapshot_header *h, uint8_t to[static SNAPSHOT_HEADER_SIZE])
{
    struct snapshot_disk d = {.magic = SNAPSHOT_MAGIC,
                              .version = SPOOL_VERSION,
                              .segment = h->segment,
                              .offset = h->offset,
                              .batch = h->batch,
                              .tail = h->tail,
                              .spool_ms = h->spool_ms};
    d.xxh3 = XXH3_64bits(&d, offsetof(struct snapshot_disk, xxh3));
    memcpy(to, &d, sizeof(d));
}

int snapshot_header_decode(struct span from, struct snapshot_header *ret)
{
    struct snapshot_disk d;
    if (from.len < sizeof(d)) {
        return -EBADMSG;
    }
    memcpy(&d, from.ptr, sizeof(d));
    if (d.magic != SNAPSHOT_MAGIC || d.xxh3 != XXH3_64bits(&d, offsetof(struct snapshot_disk, xxh3))) {
        return -EBADMSG;
    }
    if (d.version != SPOOL_VERSION) {
        return -EPROTONOSUPPORT;
    }
    *ret = (struct snapshot_header){d.segment, d.offset, d.batch, d.tail, d.spool_ms};
    return 0;
}
