#include "deliver/queue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"

struct queue_lane {
    struct queue_item *first, *last;
    struct queue_lane *prev, *next; /* ring */
    UT_hash_handle hh;
    size_t name_len;
    char name[];
};

void queue_init(struct queue *q)
{
    *q = (struct queue){0};
}

void queue_fini(struct queue *q)
{
    queue_init(q);
}

static void ring_add(struct queue *q, struct queue_lane *lane)
{
    if (q->turn == NULL) {
        lane->prev = lane->next = q->turn = lane;
        return;
    }
    lane->next = q->turn; /* last to be served */
    lane->prev = q->turn->prev;
    lane->prev->next = lane->next->prev = lane;
}

static void lane_free(struct queue *q, struct queue_lane *lane)
{
    lane->prev->next = lane->next;
    lane->next->prev = lane->prev;
    if (q->turn == lane) {
        q->turn = lane->next != lane ? lane->next : NULL;
    }
    HASH_DEL(q->lanes, lane);
    free(lane);
}

static struct queue_lane *lane_of(struct queue *q, struct span name)
{
    struct queue_lane *lane;
    HASH_FIND(hh, q->lanes, name.len > 0 ? (const char *)name.ptr : "", name.len, lane);
    if (lane != NULL) {
        return lane;
    }
    lane = calloc(1, sizeof(*lane) + name.len + 1);
    if (lane == NULL) {
        return NULL;
    }
    if (name.len > 0) {
        memcpy(lane->name, name.ptr, name.len);
    }
    lane->name_len = name.len;
    HASH_ADD_KEYPTR(hh, q->lanes, lane->name, lane->name_len, lane);
    if (lane->hh.tbl == NULL) {
        free(lane);
        return NULL;
    }
    ring_add(q, lane);
    return lane;
}

int queue_push(struct queue *q, struct span name, struct queue_item *item)
{
    struct queue_lane *lane = lane_of(q, name);
    if (lane == NULL) {
        return -ENOMEM;
    }
    item->next = NULL;
    *(lane->last != NULL ? &lane->last->next : &lane->first) = item;
    lane->last = item;
    q->count++;
    return 0;
}

int queue_push_front(struct queue *q, struct span name, struct queue_item *item)
{
    struct queue_lane *lane = lane_of(q, name);
    if (lane == NULL) {
        return -ENOMEM;
    }
    item->next = lane->first;
    lane->first = item;
    if (lane->last == NULL) {
        lane->last = item;
    }
    q->turn = lane;
    q->count++;
    return 0;
}

struct queue_item *queue_pop(struct queue *q)
{
    struct queue_lane *lane = q->turn;
    if (lane == NULL) {
        return NULL;
    }
    struct queue_item *item = lane->first;
    lane->first = item->next;
    item->next = NULL;
    q->count--;
    q->turn = lane->next;
    if (lane->first == NULL) {
        lane_free(q, lane);
    }
    return item;
}
