/* guard_int.h: what the files of the guard's process share. */
#ifndef KIDOBAN_GUARD_GUARD_INT_H
#define KIDOBAN_GUARD_GUARD_INT_H

#include "guard/limits.h"
#include "guard/suspend.h"
#include "process/audit.h"
#include "process/child.h"
#include "process/control.h"
#include "process/peers.h"

#define GUARD_TABLE_FILE "limits.table"
#define GUARD_SLOTS_MAX  (UINT64_C(1) << 22) /* 256 MiB, four million senders at once */

struct guard_process {
    struct child *child;
    struct table *table;
    struct limits *limits;
    struct suspend *suspend;
    struct audit *audit;
    struct control *control;
    struct peers peers;
    uint8_t boot_id[16];
    uv_timer_t grace;
    struct {
        uint64_t checks, deferred, rejected, held, suspended, refunds;
    } figures;
};

extern const struct control_verb guard_verbs[];

struct limits_moment guard_moment(const struct guard_process *g);
/* To submit, vault and spool. */
void guard_push(struct guard_process *g, enum guard_type type, const char *account, const char *words);
void guard_figures(const struct guard_process *g, json_t *into);

#endif
