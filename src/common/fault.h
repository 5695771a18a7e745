/*
 * fault.h: named points at which a test makes the process die, fail or wait. They exist only in builds with
 * -Dfaults=true (KIDOBAN_FAULTS); elsewhere FAULT_POINT() is the constant 0. A point whose step cannot fail is written
 * (void)FAULT_POINT(...): there only death and delay mean something.
 *
 * The plan is a file that the harness makes and names in KIDOBAN_FAULT_PLAN: an array of struct fault_slot, mapped
 * shared by every process from before it gives up its rights, so that counts go on over deaths and restarts and the
 * harness can change the plan while the daemon runs. Without the variable nothing happens.
 *
 * A slot's name is that of a point, or ROLE/POINT for the processes of one role: points in src/process are reached by
 * all. A point may have several slots. To arm one, write `left` last: 0 means that it only counts.
 */
#ifndef KIDOBAN_COMMON_FAULT_H
#define KIDOBAN_COMMON_FAULT_H

#include <stdint.h>

#define FAULT_SLOTS    64
#define FAULT_NAME_MAX 40

enum fault_action {
    FAULT_KILL,  /* SIGKILL to this process */
    FAULT_ERROR, /* FAULT_POINT() is -value */
    FAULT_DELAY, /* sleep for value milliseconds */
};

struct fault_slot {
    char name[FAULT_NAME_MAX]; /* NUL-terminated; empty: unused */
    uint64_t hits;             /* times the point was reached, by all processes; grows atomically */
    uint64_t nth;              /* act from this hit on, 1 the first ... */
    uint64_t left;             /* ... so many times; counts down; UINT64_MAX: for ever */
    uint32_t action;           /* enum fault_action */
    uint32_t value;            /* errno or milliseconds */
};
_Static_assert(sizeof(struct fault_slot) == 72, "the harness writes this layout");

#ifdef KIDOBAN_FAULTS
/* 0 to go on, or -errno to be taken as the result of the step. */
int fault_hit(const char *name);
#define FAULT_POINT(name) fault_hit(name)
#else
#define FAULT_POINT(name) 0
#endif

#endif
