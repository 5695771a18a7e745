/*
 * keeper_int.h: what the files of the gate keeper's process share. process.c is its life; pins.c what outlives it;
 * interfaces.c who is gated where; apply.c the one place where a policy is made and put into force; rows.c which class
 * counts where; figures.c what the kernel has counted; verbs.c what may be asked at gate.sock.
 */
#ifndef KIDOBAN_GATE_KEEPER_INT_H
#define KIDOBAN_GATE_KEEPER_INT_H

#include <jansson.h>
#include <uv.h>

#include "gate/hook.h"
#include "gate/links.h"
#include "gate/pins.h"
#include "policy/compile.h"
#include "process/child.h"
#include "process/control.h"

/* XDP at the one, TC at the others. */
enum interface_slot { SLOT_XDP, SLOT_INGRESS, SLOT_EGRESS, SLOTS };

struct interface {
    struct link link;
    bool wanted, uplink;
    bool fresh;               /* within interfaces_try(): nothing of ours was there before */
    struct hook hooks[SLOTS]; /* place HOOK_NONE: nothing of ours there */
    struct interface *next;
};

/* What is in force. */
struct keeper_policy {
    uint64_t generation; /* of the boot clock, so that it grows over restarts; 0: none yet */
    uint64_t since_ms;   /* wall clock */
    size_t cells, prefixes, destinations, classes, exemptions;
    bool monitor;
};

struct keeper {
    struct child *child;
    struct config_ref *before; /* the configuration in force before a reload; NULL at the start */
    struct pins pins;
    bool loaded; /* false: no interface is named, the kernel holds nothing */
    bool outward;
    size_t cpus; /* that counters have parts of */
    struct interface *interfaces;
    int watch_fd;
    uv_poll_t watch;
    struct policy_rows rows;
    /* Given at run time; both may be changed, and keeper_apply() called. */
    struct policy_exemption *exemptions;
    size_t exemptions_count;
    bool monitor_all; /* besides mode: monitor of the configuration */
    struct keeper_policy in_force;
    struct control *control;
};

/* apply.c */
/* The configuration's policy, the exemptions and the mode become cells, and these are put into force in one step. 0, or
 * -errno after logging why: what was in force still is. */
int keeper_apply(struct keeper *k);

/* rows.c: names of classes by their rows, in the state directory. 0 or -errno after logging why. */
int rows_load(struct policy_rows *rows, int directory_fd);
int rows_save(const struct policy_rows *rows, int directory_fd);

/* interfaces.c. 0 or -errno after logging why. */
bool interfaces_named(const struct config_gate *g);   /* is any named? */
bool interfaces_outward(const struct config_gate *g); /* does one list do the work of both? */
int interfaces_adopt(struct keeper *k);               /* what an earlier process left */
/* Attaches to what the configuration names and has nothing of ours yet. After an error nothing has changed. */
int interfaces_try(struct keeper *k);
/* Everything as the configuration says: programs and sides exchanged, what is no longer named let go. */
int interfaces_follow(struct keeper *k);
int interfaces_again(struct keeper *k);                /* the same, after looking what there is */
void interfaces_seen(void *arg, const struct link *l); /* arg: struct keeper. One came, went or changed */
void interfaces_free(struct keeper *k);                /* the programs stay where they are */

/* figures.c */
json_t *figures_brief(const struct keeper *k); /* for `kidoban status` */
json_t *figures_interfaces(const struct keeper *k);
json_t *figures_programs(const struct keeper *k);
json_t *figures_policy(const struct keeper *k);
json_t *figures_classes(const struct keeper *k);
json_t *figures_reasons(const struct keeper *k);

/* verbs.c */
extern const struct control_verb gate_verbs[];

#endif
