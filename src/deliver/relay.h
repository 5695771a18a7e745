/*
 * relay.h: the heart of deliver without the process around it: jobs in, outcomes out. process.c feeds it from the
 * spool's channel; the tests feed it by hand.
 *
 * A destination is what shares a queue: a domain (by MX) or a whole route (smart host, LMTP). It lives while it has
 * jobs or connections. It knows no event loop: time comes by common/clock.h and relay_tick(), connections by
 * process/stream.h, the DNS by resolver.h, long reads by verify.h; a simulation links its own of these. Merging domains
 * that have the same mail hosts into one destination has its place in destination.c, where the hosts become known.
 */
#ifndef KIDOBAN_DELIVER_RELAY_H
#define KIDOBAN_DELIVER_RELAY_H

#include "deliver/settings.h"

struct relay;

#define RELAY_TICK_MS 1000

/* tick(arg, true): call relay_tick() every RELAY_TICK_MS from now on; false: no more. sink is borrowed for the life of
 * the relay. NULL: out of memory. */
struct relay *relay_new(struct outcome_sink *sink, struct settings *take, void (*tick)(void *arg, bool wanted),
                        void *arg);
void relay_tick(struct relay *r);
/* For all that begins from now on; jobs that wait go by the new routes. */
void relay_reload(struct relay *r, struct settings *take);
const struct settings *relay_settings(const struct relay *r);

/* Takes the job. Its outcomes follow, now or later. */
void relay_job(struct relay *r, struct job *take);
/* The jobs of that message are not wanted any more: those that wait are settled at once (DELIVER_CANCELLED), those in a
 * transaction when the next hop asks for the data; after the end of data it is too late. */
void relay_cancel(struct relay *r, uint64_t id);
/* The channel that brought the jobs is gone: nobody waits for them. Only transactions in their last breath go on. */
void relay_forget_jobs(struct relay *r);
/* Nothing new is begun; idle connections quit; done(arg) when the last one is gone, from the loop or at once. Jobs not
 * begun are dropped: they have no outcome. */
void relay_stop(struct relay *r, void (*done)(void *arg), void *arg);
void relay_free(struct relay **r); /* after relay_stop()'s done */

struct relay_figures {
    size_t destinations, connections, idle, waiting;
};
void relay_figures(const struct relay *r, struct relay_figures *ret);

#endif
