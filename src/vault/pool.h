/*
 * pool.h: a few threads that do what is slow on purpose, with a bounded queue before them.
 *
 * Two lanes: those who were right from there before, and strangers. Each has its own bound and the first is always
 * served first, so guessing cannot keep users out; the threads run at a lower priority than all else. That is not
 * enough to keep guessing from slowing everybody's mail: what the threads do not leave to the sessions, the rest of the
 * machine does not get either. So the processor time of strangers' jobs that came to nothing comes out of two budgets,
 * and strangers' next job waits until there is something in both. The pace is small and soon filled again: a crowd of
 * them is spread over some time, and answered. The allowance is what such jobs may take in the long run, saved up for
 * many minutes when it was not used: it is only gone when somebody really floods. One whose job was good (`free`) pays
 * nothing, so that a morning on which everybody comes from somewhere new is served at full speed. Who would have to
 * wait too long is refused at once (454). libuv's own threads are not used: file operations share them.
 */
#ifndef KIDOBAN_VAULT_POOL_H
#define KIDOBAN_VAULT_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pool_lane { POOL_KNOWN, POOL_STRANGER, POOL_LANES };

enum pool_budget { POOL_PACE, POOL_ALLOWANCE, POOL_BUDGETS };

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
    struct {
        unsigned share_permille; /* of the threads' time, for strangers' jobs that are not free; 1000: all */
        uint64_t saved_ms;       /* so much of it, of processor time, can be saved up; it begins full */
    } budgets[POOL_BUDGETS];
    uint64_t wait_ms;   /* a stranger who would wait longer for the budgets is refused */
    void (*idle)(void); /* on a pool thread without a job for idle_ms, and before it ends; may be NULL */
    uint64_t idle_ms;
    void (*notify)(void *arg); /* on a pool thread, when something is to be reaped: may only wake the owner */
    void *arg;
};

/* Copies. NULL: no threads or no memory. */
struct pool *pool_new(const struct pool_settings *settings);
/* Waits for what runs; what waits is handed to done with dropped set. */
void pool_free(struct pool **p);
/* 0: taken until done; -EAGAIN: the lane is full, or the wait for what it may use too long. */
int pool_submit(struct pool *p, enum pool_lane lane, struct pool_job *job);
void pool_reap(struct pool *p);
size_t pool_waiting(struct pool *p, enum pool_lane lane);

#endif
