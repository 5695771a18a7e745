/*
 * active.h: the lines that something of was refused just now, from the events that the kernel sends: who is told in the
 * log, and where each of them wanted to go.
 *
 * A table of fixed size, in buckets: whoever has no room takes the place of the one in its bucket that was heard of
 * least, so that a flood of forged addresses, each heard of once, drives out nobody who stays. Pure but for its seed.
 */
#ifndef KIDOBAN_GATE_ACTIVE_H
#define KIDOBAN_GATE_ACTIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gate/gate.h"

#define ACTIVE_BUCKETS 1024
#define ACTIVE_WAYS    8
#define ACTIVE_LINES   (ACTIVE_BUCKETS * ACTIVE_WAYS)
#define ACTIVE_FARS    8

struct active_line {
    struct gate_source_key key;
    struct gate_event last;
    uint64_t first_ns;              /* boot clock, of the first event */
    uint32_t events;                /* 0: a free place */
    uint64_t told_ns, told_packets; /* boot clock and count when the log was told last; 0: never */
    uint64_t base_ns, base_packets; /* 10 to 20 seconds ago, to tell the rate from */
    uint64_t next_ns, next_packets; /* the next base */
    struct {
        uint8_t address[16];
        uint32_t count;
        bool ours;       /* the line began it */
    } fars[ACTIVE_FARS]; /* not yet in the history */
};

struct active {
    struct active_line lines[ACTIVE_LINES];
    uint64_t seed;
    uint64_t lost; /* events of lines that found no room, or whose place was taken */
};

void active_init(struct active *a, uint64_t seed);
/* The event's line. Its packets count from before this event, when it is new. */
struct active_line *active_take(struct active *a, const struct gate_event *event);
/* A line that is in use, from *position on, which begins with 0; NULL: no more. */
struct active_line *active_next(struct active *a, size_t *position);
/* Every ten seconds or so: rates are told from the base, and who was not heard of for idle_ns is forgotten. */
void active_turn(struct active *a, uint64_t now_ns, uint64_t idle_ns);
/* Packets a second, in thousandths, when the kernel has counted so many now. */
uint64_t active_rate_milli(const struct active_line *l, uint64_t now_ns, uint64_t packets);
void active_key(const uint8_t address[16], struct gate_source_key *ret); /* of an event's subject */

#endif
