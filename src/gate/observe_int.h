/* observe_int.h: what observe.c and top.c share. */
#ifndef KIDOBAN_GATE_OBSERVE_INT_H
#define KIDOBAN_GATE_OBSERVE_INT_H

#include "gate/active.h"
#include "gate/history.h"
#include "gate/observe.h"

#define SLICE      4096                           /* sources read between two turns of the loop */
#define SLICES_MAX (4 * GATE_SOURCES_MAX / SLICE) /* while it is read, the table changes: some end */
#define WAITING    16

struct ring_buffer;

struct observe {
    struct keeper *keeper;
    struct active *active;
    struct history *history;
    uint8_t boot_id[16];
    bool started, failing; /* failing: the log was told */
    struct ring_buffer *ring;
    size_t read; /* events of this turn of the loop */
    uv_poll_t poll;
    uv_timer_t again, turn, minute;
    uv_idle_t idle;
    /* The sweep under way. */
    bool sweeping;
    size_t slices;
    uint32_t batch;
    struct gate_source_key keys[SLICE];
    struct gate_source sources[SLICE];
    struct control_request *waiting[WAITING]; /* for its end */
    size_t waiting_count;
};

#endif
