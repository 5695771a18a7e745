/*
 * record.h: the octets of segment headers, batches and records (docs/spool-format.md): pure, bytes in, bytes out.
 *
 * What is read here was written by us, and is trusted no more than a stranger's bytes: disks rot. Decoders return views
 * into their input, 0 or -EBADMSG; -EPROTONOSUPPORT when it is whole but of a newer version.
 */
#ifndef KIDOBAN_SPOOL_RECORD_H
#define KIDOBAN_SPOOL_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "wire/envelope.h"

#define SPOOL_BLOCK          4096U
#define SPOOL_VERSION        1
#define SEGMENT_HEADER_SIZE  64U
#define BATCH_HEADER_SIZE    96U
#define RECORD_HEADER_SIZE   16U
#define RECORD_WORDS_MAX     512U
#define BATCH_META_MAX       (16U * 1024U * 1024U)
#define SNAPSHOT_HEADER_SIZE 64U
#define SNAPSHOT_BLOCK_SIZE  16U

struct segment_header {
    uint64_t seq, life, size, previous_batch, wall_ms;
};

struct batch_header {
    uint64_t segment, life, seq, tail, spool_ms, wall_ms;
    uint32_t meta_length, records;
    uint64_t octets_length;
};

void segment_header_encode(const struct segment_header *h, uint8_t to[static SEGMENT_HEADER_SIZE]);
int segment_header_decode(struct span from, struct segment_header *ret);

/* head: BATCH_HEADER_SIZE octets for the header, then meta_length octets of records, already there; fills in the header
 * and the records' checksums. */
void batch_seal(const struct batch_header *h, uint8_t *head);
/* Whether this was meant to be a batch of that segment and life, damaged as it may be: two of magic, segment and life
 * agree. */
bool batch_claims(struct span from, uint64_t segment, uint64_t life);
/* The header alone, its checksum not looked at: enough to know how much to read. */
int batch_header_peek(struct span from, struct batch_header *ret);
/* from: header and records (more may follow). 0 when the checksum holds. */
int batch_verify(struct span from, struct batch_header *ret);
/* Octets of the batch on disk, whole blocks. */
uint64_t batch_size(const struct batch_header *h);

enum record_type {
    RECORD_MESSAGE = 1,
    RECORD_OUTCOME,
    RECORD_HOLD,
    RECORD_RELEASE,
    RECORD_RETRY,
    RECORD_REMOVE,
    RECORD_REPORT,
    RECORD_SUSPEND,
    RECORD_RESUME,
};

struct record {
    enum record_type type;
    struct span payload;
};

/* Takes the next record off the front of meta. 1, 0 at the end, -1: what is left is no record. */
int record_next(struct span *meta, struct record *ret);
/* For what is left of a damaged batch: a record at the front of from whose own checksum holds. 1 and *ret_size, or 0.
 */
int record_salvage(struct span from, uint64_t life, struct record *ret, size_t *ret_size);
/* Writes the header of a record whose payload follows; end fills in the length. start: where it began in w->out. */
size_t record_begin(struct wire_writer *w, enum record_type type);
/* 0, or the first error of the writer, with everything since start taken back. */
int record_end(struct wire_writer *w, size_t start);

enum record_place_kind { PLACE_INLINE = 1, PLACE_EMBEDDED, PLACE_LARGE, PLACE_ABSOLUTE, PLACE_ABSOLUTE_LARGE };

struct record_place {
    uint8_t kind;     /* enum record_place_kind */
    uint64_t segment; /* ABSOLUTE, ABSOLUTE_LARGE: where the record is */
    uint64_t offset;  /* INLINE: from the batch's octets; ABSOLUTE: in the segment */
    uint64_t length;
    uint64_t xxh3;
};

enum recipient_state {
    RECIPIENT_QUEUED = 1,
    RECIPIENT_DELIVERED, /* into a mailbox */
    RECIPIENT_FAILED,
    RECIPIENT_EXPIRED,
    RECIPIENT_RELAYED,     /* a host without DSN has it */
    RECIPIENT_HANDED_OVER, /* a host with DSN has it, and the duty to tell */
};
enum report_kind { REPORT_FAILURE = 1, REPORT_DELAY = 2, REPORT_SUCCESS = 4 };

struct record_recipient {
    uint16_t number;
    uint8_t state;    /* enum recipient_state */
    uint8_t reported; /* enum report_kind, what was told already */
    uint8_t enhanced[3];
    uint16_t code;
    uint32_t attempts;
    uint64_t next_ms;  /* spool time */
    struct span words; /* what was said last */
};

enum record_message_flag { MESSAGE_HELD = 1, MESSAGE_HAS_STATES = 2 };

struct record_message {
    uint64_t id;
    uint64_t born_ms; /* spool time */
    struct record_place place;
    uint8_t flags;                   /* enum record_message_flag */
    struct span envelope_raw;        /* as envelope_encode wrote it */
    struct envelope envelope;        /* decode: of envelope_raw, recipients in the scratch. Encode: not used */
    uint16_t recipients_count;       /* encode: of states */
    struct record_recipient *states; /* with MESSAGE_HAS_STATES; decode: in the scratch */
    struct span words;               /* of the hold */
    struct span embedded;            /* PLACE_EMBEDDED: the octets */
};

/* Room that decoders fill; large, so it is the caller's and reused. */
struct record_scratch {
    struct envelope_recipient recipients[ENVELOPE_RECIPIENTS_MAX];
    struct record_recipient states[ENVELOPE_RECIPIENTS_MAX];
    uint16_t numbers[ENVELOPE_RECIPIENTS_MAX];
};

struct record_outcome {
    uint64_t id;
    uint32_t attempts;
    uint64_t next_ms; /* of the recipients still queued */
    uint16_t count;
    struct record_recipient *results; /* number, state, code, enhanced, words; decode: in the scratch */
};

enum remove_reason { REMOVE_OPERATOR = 1, REMOVE_REFUSED, REMOVE_TORN, REMOVE_DAMAGED };

struct record_change { /* HOLD, RELEASE, RETRY, REMOVE */
    uint64_t id;
    uint64_t next_ms;  /* RETRY */
    uint8_t reason;    /* REMOVE: enum remove_reason */
    struct span words; /* HOLD */
};

struct record_report {
    uint64_t id, dsn;
    uint8_t kind; /* enum report_kind */
    uint16_t count;
    uint16_t *numbers; /* decode: in the scratch */
};

struct record_account { /* SUSPEND, RESUME */
    struct span account, words;
};

/* Encoders write a whole record; 0 or -errno, nothing written then. */
int record_message_encode(struct wire_writer *w, const struct record_message *m);
int record_outcome_encode(struct wire_writer *w, const struct record_outcome *m);
int record_change_encode(struct wire_writer *w, enum record_type type, const struct record_change *m);
int record_report_encode(struct wire_writer *w, const struct record_report *m);
int record_account_encode(struct wire_writer *w, enum record_type type, const struct record_account *m);

int record_message_decode(struct span payload, struct record_message *m, struct record_scratch *scratch);
int record_outcome_decode(struct span payload, struct record_outcome *m, struct record_scratch *scratch);
int record_change_decode(const struct record *r, struct record_change *m);
int record_report_decode(struct span payload, struct record_report *m, struct record_scratch *scratch);
int record_account_decode(const struct record *r, struct record_account *m);

struct snapshot_header {
    uint64_t segment, offset, batch, tail, spool_ms;
};
struct snapshot_block {
    uint32_t length, records;
    uint64_t xxh3;
};
void snapshot_header_encode(const struct snapshot_header *h, uint8_t to[static SNAPSHOT_HEADER_SIZE]);
int snapshot_header_decode(struct span from, struct snapshot_header *ret);

#endif
