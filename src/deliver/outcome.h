/*
 * outcome.h: what became of recipients, as OUTCOME frames to the spool. Each recipient of a job is settled once; what
 * is said twice is a bug of ours and asserted. Words of next hops are made one printable line here.
 *
 * Results that follow one another with the same words for the same job leave in one frame: outcome_flush() after each
 * event of a connection.
 */
#ifndef KIDOBAN_DELIVER_OUTCOME_H
#define KIDOBAN_DELIVER_OUTCOME_H

#include "deliver/book.h"
#include "deliver/job.h"

#define OUTCOME_RESULTS_MAX 300 /* in a frame: with the longest text still within FRAME_PAYLOAD_MAX */

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

struct outcome_sink {
    /* Gets a frame's content for the message with that id; views are valid during the call. */
    void (*send)(void *arg, uint64_t id, uint64_t generation, const struct deliver_outcome *m);
    void *arg;
    uint64_t counts[DELIVER_RESULT_MAX + 1]; /* recipients by result, for the status */
    /* Not yet sent. */
    uint64_t id, generation;
    struct outcome_peer peer; /* views; flush before they die */
    struct outcome_said said; /* its text is `text` */
    char text[DELIVER_TEXT_MAX];
    size_t count;
    struct deliver_recipient_result results[OUTCOME_RESULTS_MAX];
};

/* peer's views must live until the flush. */
void outcome_one(struct outcome_sink *sink, struct job *j, size_t recipient, const struct outcome_peer *peer,
                 const struct outcome_said *said);
/* The same for all that are still open. */
void outcome_rest(struct outcome_sink *sink, struct job *j, const struct outcome_peer *peer,
                  const struct outcome_said *said);
void outcome_flush(struct outcome_sink *sink);
/* All that are open, as nobody's doing: the job was cancelled; flushed. */
void outcome_rest_cancelled(struct outcome_sink *sink, struct job *j);
/* All that are open, with our or an earlier host's words, from no one in particular; flushed. */
void outcome_rest_refused(struct outcome_sink *sink, struct job *j, const struct refusal *why);

/* Control octets become spaces, what is no UTF-8 '?'; at most DELIVER_TEXT_MAX octets, never half a character. The
 * length. */
size_t outcome_text_clean(struct span text, char out[static DELIVER_TEXT_MAX]);

#endif
