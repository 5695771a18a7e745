/*
 * outcome.h: what became of recipients, as OUTCOME frames to the spool. Each recipient of a job is settled once; what
 * is said twice is a bug of ours and asserted. Words of next hops are made one printable line here.
 */
#ifndef KIDOBAN_DELIVER_OUTCOME_H
#define KIDOBAN_DELIVER_OUTCOME_H

#include "deliver/book.h"
#include "deliver/job.h"

struct outcome_sink {
    /* Gets the frame's content; views are valid during the call. */
    void (*send)(void *arg, const struct job *j, const struct deliver_outcome *m);
    void *arg;
    uint64_t delivered, temporary, permanent, damaged; /* recipients, for the status */
};

/* Whom we talked to; all may be empty. */
struct outcome_peer {
    struct span remote, address, tls;
};

struct outcome_said {
    enum deliver_result result;
    uint16_t code;
    uint8_t enhanced[3];
    struct span text;
};

void outcome_one(struct outcome_sink *sink, struct job *j, size_t recipient, const struct outcome_peer *peer,
                 const struct outcome_said *said);
/* The same for all that are still open. */
void outcome_rest(struct outcome_sink *sink, struct job *j, const struct outcome_peer *peer,
                  const struct outcome_said *said);
void outcome_rest_refused(struct outcome_sink *sink, struct job *j, const struct outcome_peer *peer,
                          const struct refusal *why);

/* Control octets become spaces, what is no UTF-8 '?'; at most DELIVER_TEXT_MAX octets, never half a character. The
 * length. */
size_t outcome_text_clean(struct span text, char out[static DELIVER_TEXT_MAX]);

#endif
