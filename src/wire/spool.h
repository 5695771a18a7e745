/*
 * spool.h (wire): submit hands messages to the spool. frame.id is the message's id, minted by submit.
 *
 * PUT: an envelope, then the octets of the message to the end of the payload. For a larger one BEGIN (envelope and the
 * declared size), CHUNKs of octets, COMMIT with the total; ABORT at any point. The spool answers PUT and COMMIT with
 * STORED when it is on disk, or with REFUSED; it may send REFUSED at any time after BEGIN, later CHUNKs are dropped.
 */
#ifndef KIDOBAN_WIRE_SPOOL_H
#define KIDOBAN_WIRE_SPOOL_H

#include "wire/envelope.h"
#include "wire/frame.h"

#define SPOOL_INLINE_MAX (256U * 1024U) /* octets of a message in one PUT */
#define SPOOL_CHUNK_MAX  (128U * 1024U)
#define SPOOL_TEXT_MAX   512

enum spool_type {
    SPOOL_PUT = 1, /* struct spool_put */
    SPOOL_BEGIN,   /* struct spool_begin */
    SPOOL_CHUNK,   /* octets */
    SPOOL_COMMIT,  /* u64: octets in all */
    SPOOL_ABORT,   /* no payload */
    SPOOL_STORED,  /* no payload: the promise holds */
    SPOOL_REFUSED, /* struct spool_refused */
    SPOOL_STATE,   /* spool -> submit, id 0: struct spool_state; when a channel opens and when it changes */
};

struct spool_put {
    struct envelope envelope;
    struct span octets;
};

struct spool_begin {
    struct envelope envelope;
    uint64_t declared; /* expected octets, 0 when unknown */
};

struct spool_refused {
    uint16_t code;       /* 451 or 452 */
    uint8_t enhanced[3]; /* 4,3,0 */
    struct span text;
    uint8_t duplicate; /* 1: an id that the spool holds already; mint another */
};

/* Whether MAIL can be taken now. Told before DATA, so that clients need not send octets in vain. */
struct spool_state {
    uint8_t accepting; /* 0: answer MAIL with code and text */
    uint16_t code;
    struct span text;
};

void spool_put_encode(struct wire_writer *w, const struct spool_put *m);
int spool_put_decode(struct span payload, struct spool_put *m); /* m->envelope.recipients set by the caller */
void spool_begin_encode(struct wire_writer *w, const struct spool_begin *m);
int spool_begin_decode(struct span payload, struct spool_begin *m);
void spool_refused_encode(struct wire_writer *w, const struct spool_refused *m);
int spool_refused_decode(struct span payload, struct spool_refused *m);
void spool_state_encode(struct wire_writer *w, const struct spool_state *m);
int spool_state_decode(struct span payload, struct spool_state *m);

#endif
