/*
 * pool.h: a few threads that do what is slow on purpose, with a bounded queue before them.
 *
 * Two lanes: those who were right from there before, and strangers. Each has its own bound and the first is always
 * served first, so guessing cannot keep users out; the threads run at a lower priority than all else, so it cannot slow
 * their mail either. Full is an answer (454), never a wait. libuv's own threads are not used: file operations share
 * them.
 */
#ifndef KIDOBAN_VAULT_POOL_H
#define KIDOBAN_VAULT_POOL_H

#include <stdbool.h>
#include <stddef.h>

enum pool_lane { POOL_KNOWN, POOL_STRANGER, POOL_LANES };

struct pool;

struct pool_job {
    void (*run)(struct pool_job *job);  /* on a thread; touches nothing but the job */
    void (*done)(struct pool_job *job); /* on the owner's thread, from pool_reap() or pool_free(); may free the job */
    bool dropped;                       /* in done: run was never called */
    struct pool_job *next;
};

/* notify runs on a pool thread whenever something is to be reaped: it may only wake the owner (uv_async_send). NULL:
 * no threads or no memory. */
struct pool *pool_new(unsigned threads, const size_t lane_max[static POOL_LANES], void (*notify)(void *arg), void *arg);
/* Waits for what runs; what waits is handed to done with dropped set. */
void pool_free(struct pool **p);
/* 0: taken until done; -EAGAIN: the lane is full. */
int pool_submit(struct pool *p, enum pool_lane lane, struct pool_job *job);
void pool_reap(struct pool *p);
size_t pool_waiting(struct pool *p, enum pool_lane lane);

#endif
