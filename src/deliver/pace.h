/*
 * pace.h: how many connections a destination may have at once: few at first, one more for each message that went well,
 * half when one fails. Pure. Here is the place for rates that are learned from answers (421, 450 4.7.x).
 */
#ifndef KIDOBAN_DELIVER_PACE_H
#define KIDOBAN_DELIVER_PACE_H

#define PACE_START 5

struct pace {
    unsigned limit, max; /* limit: 1..max */
};

void pace_init(struct pace *p, unsigned max); /* max: 1 at least */
void pace_set_max(struct pace *p, unsigned max);
void pace_success(struct pace *p);
void pace_failure(struct pace *p);

#endif
