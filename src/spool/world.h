/*
 * world.h: a small world round one spool, for its tests: clients that note every answer, a deliver that does what
 * chance says, and the ledger that is checked after every crash. Single-threaded, seeded, on a memory disk with its own
 * clock: the same seed, the same life.
 */
#ifndef KIDOBAN_SPOOL_WORLD_H
#define KIDOBAN_SPOOL_WORLD_H

#include "spool/memdisk.h"
#include "spool/spool.h"

enum world_fate { WORLD_SENT, WORLD_ACKED, WORLD_REFUSED, WORLD_DELIVERED, WORLD_FAILED, WORLD_REMOVED };

struct world_entry {
    uint64_t id;
    uint32_t length;
    uint8_t fate; /* enum world_fate */
    bool dsn_delivered;
    unsigned deliveries;
    uint64_t settled_turn; /* of the log: when it is durable, the first recipient's end is (0: no end yet) */
    bool settled;          /* in a fork: the end was durable at the cut */
};

struct world_job {
    uint64_t id;
    struct deliver_job job; /* its envelope is not kept */
    uint16_t numbers[4];
    uint16_t count;
    bool is_dsn, cancelled;
};

struct world {
    struct memdisk *mem;
    struct spool_disk disk;
    struct spool_config config;
    struct spool *sp;
    uint64_t random, mono_ms, wall_ms, next_id;
    struct world_entry *ledger;
    size_t ledger_count;
    struct world_job *jobs;
    size_t jobs_count;
    unsigned puts_weight, large_weight; /* out of 16: how often a step sends, and sends a large one */
    unsigned broken;                    /* what may never happen has happened; `why` has words */
    char why[160];
    size_t answers, refused;
    uint16_t last_code; /* of a refusal */
};

void world_init(struct world *w, uint64_t seed, uint64_t segment_size);
void world_fini(struct world *w);
int world_open(struct world *w);                                 /* recovers: 0 or -errno */
void world_drop(struct world *w);                                /* the process dies: memory is gone, the disk stays */
void world_step(struct world *w);                                /* something happens */
void world_end_one(struct world *w, enum deliver_result result); /* of the jobs that are out, by chance */
void world_send(struct world *w, uint32_t length, bool large);
void world_settle(struct world *w);      /* polls until nothing moves */
void world_deliver_all(struct world *w); /* every job succeeds, until the queue is empty or nothing moves */
/* The promises, on what stands in the index now: nothing acknowledged is missing, nothing is torn. Sets broken. */
void world_check(struct world *w);
/* What a start of the machine finds after a power cut now: a world of its own, on a copy of the disk, with what clients
 * know. w may be in the midst of a call. Until world_join(w), the clock is the fork's. */
void world_fork(const struct world *w, struct world *fork, enum memdisk_loss loss, uint64_t seed);
void world_join(struct world *w, struct world *fork); /* the fork ends */
uint64_t world_random(struct world *w);
void world_octets(uint64_t id, uint32_t length, uint8_t *to);

#endif
