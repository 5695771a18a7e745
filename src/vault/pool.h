/*
 * pool.h: a few threads that do what is slow on purpose, with a bounded queue before them.
 *
 * Two lanes: those who were right from there before, and strangers. Each has its own bound and the first is always
 * served first, so guessing cannot keep users out; the threads run at a lower priority than all else. That is not
 * enough to keep guessing from slowing everybody's mail: what the threads do not leave to the sessions, the rest of the
 * machine does not get either. So the processor time of strangers' jobs that came to nothing is bounded too: a share of
 * what the threads could use, saved up for a while when it was not used. One whose job was good (`free`) pays nothing,
 * so that a morning on which everybody comes from somewhere new is served at full speed. Full is an answer (454), never
 * a wait, and while the share is used up few may queue. libuv's own threads are not used: file operations share them.
 */
#ifndef KIDOBAN_VAULT_POOL_H
#define KIDOBAN_VAULT_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pool_lane { POOL_KNOWN, POOL_STRANGER, POOL_LANES };

struct pool;

struct pool_job {
    void (*run)(struct pool_job *job);  /* on a thread; touches nothing but the job */
    void (*done)(struct pool_job *job); /* on the owner's thread, from pool_reap() or pool_free(); may free the job */
    bool dropped;                       /* in done: run was never called */
    bool free;                          /* set by run: its time is not charged to the strangers */
    struct pool_job *next;
};

struct pool_settings {
    unsigned threads;
    size_t lane_max[POOL_LANES];
    size_t starved_max;        /* strangers that may queue while their share is used up */
    unsigned share_permille;   /* of the threads' time, for strangers' jobs that are not free; 1000: all */
    uint64_t saved_ms;         /* so much of it, of processor time, can be saved up */
    void (*notify)(void *arg); /* on a pool thread, when something is to be reaped: may only wake the owner */
    void *arg;
};

/* Copies. NULL: no threads or no memory. */
struct pool *pool_new(const struct pool_settings *settings);
/* Waits for what runs; what waits is handed to done with dropped set. */
void pool_free(struct pool **p);
/* 0: taken until done; -EAGAIN: the lane is full, or has nothing left of its share and enough that wait for it. */
int pool_submit(struct pool *p, enum pool_lane lane, struct pool_job *job);
void pool_reap(struct pool *p);
size_t pool_waiting(struct pool *p, enum pool_lane lane);

#endif
