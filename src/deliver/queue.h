/*
 * queue.h: the jobs that wait for one destination, a lane for each account that sent them. Lanes take turns, so that
 * one account's ten thousand messages to a large provider do not stand before everybody else's one.
 *
 * Pure. The items belong to the caller; the queue links them.
 */
#ifndef KIDOBAN_DELIVER_QUEUE_H
#define KIDOBAN_DELIVER_QUEUE_H

#include "common/buf.h"

struct queue_item {
    struct queue_item *next;
};

struct queue_lane;

struct queue {
    struct queue_lane *lanes; /* by name */
    struct queue_lane *turn;  /* ring of lanes that hold something; the next to be served */
    size_t count;
};

void queue_init(struct queue *q);
void queue_fini(struct queue *q); /* the queue must be empty */

/* At the end of its lane; name is copied. 0 or -ENOMEM. */
int queue_push(struct queue *q, struct span lane, struct queue_item *item);
/* Before all others: an item that was taken and must be tried again. 0 or -ENOMEM. */
int queue_push_front(struct queue *q, struct span lane, struct queue_item *item);
struct queue_item *queue_pop(struct queue *q); /* NULL when empty */

#endif
