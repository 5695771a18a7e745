/*
 * deliver.h (wire): the spool gives jobs, deliver gives outcomes. frame.id is the message's id.
 *
 * FILE comes before the first JOB that names its number, with a read-only descriptor; FORGET when nothing will name it
 * again. A JOB is one message and its recipients of one domain. Each recipient of a JOB gets exactly one result, in one
 * or more OUTCOMEs. If the channel closes, everything without a result is queued again.
 *
 * CANCEL: the jobs of that message are not wanted any more. What has not sent its end of data is given up, with
 * DELIVER_CANCELLED for its recipients; for the others it is too late and their results come as ever.
 */
#ifndef KIDOBAN_WIRE_DELIVER_H
#define KIDOBAN_WIRE_DELIVER_H

#include "wire/envelope.h"
#include "wire/frame.h"

enum deliver_type {
    DELIVER_FILE = 1, /* u64 file number; the descriptor rides along */
    DELIVER_FORGET,   /* u64 file number */
    DELIVER_JOB,      /* struct deliver_job */
    DELIVER_OUTCOME,  /* struct deliver_outcome */
    DELIVER_CANCEL,   /* empty */
};

#define DELIVER_TEXT_MAX 1024
#define DELIVER_HOST_MAX 255

enum deliver_job_flag {
    DELIVER_JOB_ANEW = 1, /* the operator wants it tried now: what is remembered of its hosts does not count */
};

struct deliver_job {
    uint64_t file;   /* number of a FILE */
    uint64_t offset; /* where the octets begin in it */
    uint64_t length;
    uint64_t xxh3;            /* XXH3_64bits of the octets: checked before the first byte leaves */
    uint32_t attempt;         /* 1 for the first */
    uint8_t flags;            /* enum deliver_job_flag */
    struct span domain;       /* of these recipients, as in their addresses, lower case */
    struct envelope envelope; /* only the recipients of this job */
};

enum deliver_result {
    DELIVER_DELIVERED = 1, /* to a mailbox, by LMTP: final */
    DELIVER_TEMPORARY,     /* try again by the schedule */
    DELIVER_PERMANENT,     /* failed: bounce */
    DELIVER_DAMAGED,       /* the octets do not match their checksum: nothing was sent */
    DELIVER_RELAYED,       /* taken by a host without DSN: a success is ours to tell (RFC 3461 section 5.2.2 c) */
    DELIVER_HANDED_OVER,   /* taken by a host with DSN, NOTIFY and all: what is to be told is its duty (5.2.2 a) */
    DELIVER_CANCELLED,     /* given up as CANCEL asked: it was not taken, and this was no attempt */
};
#define DELIVER_RESULT_MAX DELIVER_CANCELLED

struct deliver_recipient_result {
    uint16_t number; /* envelope_recipient.number */
    uint8_t result;  /* enum deliver_result */
    uint16_t code;   /* the remote's code, or 0 when the words are ours */
    uint8_t enhanced[3];
    struct span text; /* the remote's words or ours, printable, one line */
};

struct deliver_outcome {
    struct span remote;  /* host name of the next hop, may be empty */
    struct span address; /* its address in text, may be empty */
    struct span tls;     /* "TLSv1.3 CIPHER" or empty for clear text */
    uint16_t results_count;
    struct deliver_recipient_result *results; /* decode: the caller's array of ENVELOPE_RECIPIENTS_MAX */
};

void deliver_job_encode(struct wire_writer *w, const struct deliver_job *m);
int deliver_job_decode(struct span payload, struct deliver_job *m); /* m->envelope.recipients set by the caller */
void deliver_outcome_encode(struct wire_writer *w, const struct deliver_outcome *m);
int deliver_outcome_decode(struct span payload, struct deliver_outcome *m); /* m->results set by the caller */

#endif
