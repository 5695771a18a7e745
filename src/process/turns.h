/*
 * turns.h: work that waits until more urgent work is done, under libuv.
 *
 * What the loop's other callbacks do is urgent; what waits here runs after them, once the loop has looked for events,
 * the lower rank first, each rank in the order of arrival, and for a bounded time: then the loop looks again. So who is
 * served at once waits for one turn of the others at most, however many those are. The higher rank is passed over a few
 * times, not for ever: some who never run out of work would keep all others out. A turn is a field of its owner.
 */
#ifndef KIDOBAN_PROCESS_TURNS_H
#define KIDOBAN_PROCESS_TURNS_H

#include <stdbool.h>
#include <uv.h>

#define TURNS_RANKS       2U
#define TURNS_PASSED_OVER 16U /* turns of the lower rank for one of the higher, while some wait in both */

struct turns;

struct turn {
    void (*run)(struct turn *t); /* has left the queue; may free the owner, add and remove others */
    struct turns *waits;         /* NULL: it does not wait */
    struct turn *next, **link;
};

struct turns {
    uv_check_t check;
    uv_idle_t idle; /* while some wait the loop must not sleep */
    uint64_t budget_ns;
    unsigned passed_over; /* since the higher rank had a turn */
    struct {
        struct turn *first, **last;
    } ranks[TURNS_RANKS];
};

/* budget_us: how long those who wait may run before the loop looks for events again. Lives as long as the loop. */
void turns_init(struct turns *ts, uv_loop_t *loop, unsigned budget_us);
void turns_add(struct turns *ts, struct turn *t, unsigned rank); /* it must not wait yet */
void turns_remove(struct turn *t);                               /* also one that does not wait */
struct turn *turns_first(const struct turns *ts, unsigned rank); /* of those who wait, or NULL */

#endif
