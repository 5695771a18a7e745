/* time.c: what happens next, the clocks, chance, and the trace that two runs of a seed must share. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/clock.h"
#include "simulation/sim.h"

#define EVENTS_MAX    100000U /* armed at once */
#define SEQUENCE_BITS 20U     /* events of one millisecond happen in the order in which they were armed */
#define WALL_START_MS UINT64_C(1790000000000)

struct sim *sim_now;

static uint64_t mono_ns(void *arg)
{
    (void)arg;
    return (sim_now->now_ms - sim_now->boot_ms + 1000) * 1000000U;
}

static uint64_t wall_ms(void *arg)
{
    (void)arg;
    return (uint64_t)((int64_t)(WALL_START_MS + sim_now->now_ms) + sim_now->wall_offset_ms);
}

static const struct clock_source clocks = {mono_ns, wall_ms, NULL};

void sim_init(struct sim *s, uint64_t seed, const struct sim_weather *weather)
{
    *s = (struct sim){.seed = seed, .weather = *weather, .random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1};
    heap_init(&s->events);
    if (heap_reserve(&s->events, EVENTS_MAX) < 0) {
        abort();
    }
    sim_now = s;
    clock_override(&clocks);
}

void sim_fini(struct sim *s)
{
    heap_fini(&s->events);
    free(s->messages);
    clock_override(NULL);
    sim_now = NULL;
}

void sim_in(struct sim *s, struct sim_event *e, uint64_t ms, void (*fire)(void *arg), void *arg)
{
    heap_remove(&s->events, &e->node);
    e->fire = fire;
    e->arg = arg;
    if (s->events.count >= EVENTS_MAX) {
        abort();
    }
    uint64_t order = s->sequence++ & ((1U << SEQUENCE_BITS) - 1);
    heap_add(&s->events, &e->node, (s->now_ms + ms) << SEQUENCE_BITS | order);
}

void sim_cancel(struct sim *s, struct sim_event *e)
{
    heap_remove(&s->events, &e->node);
}

void sim_run(struct sim *s, uint64_t until_ms)
{
    struct heap_node *n;
    while (!s->broken && (n = heap_first(&s->events)) != NULL && n->key >> SEQUENCE_BITS <= until_ms) {
        struct sim_event *e = (struct sim_event *)n; /* its first member */
        heap_remove(&s->events, n);
        s->now_ms = n->key >> SEQUENCE_BITS;
        s->events_fired++;
        e->fire(e->arg);
    }
    s->now_ms = s->now_ms > until_ms ? s->now_ms : until_ms;
}

uint64_t sim_random(struct sim *s)
{
    s->random ^= s->random << 13;
    s->random ^= s->random >> 7;
    s->random ^= s->random << 17;
    return s->random * UINT64_C(0x2545f4914f6cdd1d);
}

uint64_t sim_below(struct sim *s, uint64_t bound)
{
    return (sim_random(s) >> 16) % bound;
}

bool sim_chance(struct sim *s, unsigned per_thousand)
{
    return sim_below(s, 1000) < per_thousand;
}

bool sim_healed(const struct sim *s)
{
    return s->now_ms >= SIM_HEALED_AT;
}

void sim_trace(struct sim *s, const char *what, uint64_t a, uint64_t b)
{
    const uint64_t event[4] = {s->now_ms, a, b, s->random};
    s->trace = XXH3_64bits_withSeed(event, sizeof(event), s->trace ^ XXH3_64bits(what, strlen(what)));
    if (getenv("SIMULATION_TRACE") != NULL) {
        (void)fprintf(stderr, "%12.3f %-20s %llx %llu\n", (double)s->now_ms / 1000, what, (unsigned long long)a,
                      (unsigned long long)b);
    }
}

void sim_broken(struct sim *s, const char *fmt, ...)
{
    if (!s->broken) {
        int n = snprintf(s->why, sizeof(s->why), "day %.3f: ", (double)s->now_ms / (double)DAY);
        va_list ap;
        va_start(ap, fmt);
        (void)vsnprintf(s->why + n, sizeof(s->why) - (size_t)n, fmt, ap);
        va_end(ap);
        s->broken = true;
    }
}
