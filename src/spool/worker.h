/*
 * worker.h: one thread that does one kind of disk work in order, and hands the results back to the loop's thread.
 *
 * In a simulation (threaded false) there is no thread: tasks run inside worker_collect(), in order, at a time that the
 * caller chooses.
 */
#ifndef KIDOBAN_SPOOL_WORKER_H
#define KIDOBAN_SPOOL_WORKER_H

#include <stdbool.h>

struct task {
    void (*run)(struct task *t);  /* on the worker */
    void (*done)(struct task *t); /* in worker_collect(); may free the task and submit others */
    struct task *next;            /* the worker's */
};

struct worker;

/* wake: called from the worker's thread when something is to be collected. NULL: out of memory or no thread. */
struct worker *worker_new(bool threaded, void (*wake)(void *arg), void *arg);
void worker_submit(struct worker *w, struct task *t);
/* Runs done() of what has finished. True when there was something. */
bool worker_collect(struct worker *w);
bool worker_is_idle(struct worker *w); /* nothing submitted that is not collected */
void worker_wait(struct worker *w);    /* until everything submitted has run; then collect */
/* Runs what was submitted, ends the thread. done() of uncollected tasks is called. */
void worker_free(struct worker **w);

#endif
