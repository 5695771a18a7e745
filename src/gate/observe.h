/*
 * observe.h: what the gate saw, told on: the keeper reads the kernel's ring buffer and table of sources, writes events
 * for lines (never one a packet), and keeps the history.
 *
 * Bounded whatever comes: so many events are read in a tenth of a second (what the ring cannot hold meanwhile the
 * kernel drops; its counters have it all the same), the table of active lines has a fixed size, the log gets at most so
 * many lines, and the table of sources is read in slices between which the loop turns.
 */
#ifndef KIDOBAN_GATE_OBSERVE_H
#define KIDOBAN_GATE_OBSERVE_H

#include "gate/keeper_int.h"

struct observe;

/* Before rights are dropped: it reads which boot this is. 0 and *ret, or -errno after logging why. k is borrowed. */
int observe_new(struct keeper *k, struct observe **ret);
/* In the loop, when the maps are there. What fails is logged: then nothing is observed, and the gate goes on. */
void observe_start(struct observe *o);
/* The configuration is another. */
void observe_configure(struct observe *o);
void observe_finish(struct observe *o); /* at the end: what is known is written */

/* Control verbs; o may be NULL: there is no gate. */
void observe_verb_save(struct observe *o, struct control_request *rq);
void observe_verb_top(struct observe *o, struct control_request *rq, const json_t *request);

#endif
