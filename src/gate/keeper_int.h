/*
 * keeper_int.h: what the files of the gate keeper's process share. process.c is its life; pins.c what outlives it;
 * interfaces.c who is gated where; apply.c the one place where a policy is made and put into force; rows.c which class
 * counts where; figures.c what the kernel has counted; observe.c and top.c what it saw; changes.c what operators change
 * meanwhile; watch.c who is told; verbs.c and change_verbs.c what may be asked at gate.sock.
 */
#ifndef KIDOBAN_GATE_KEEPER_INT_H
#define KIDOBAN_GATE_KEEPER_INT_H

#include <jansson.h>
#include <uv.h>

#include "gate/hook.h"
#include "gate/links.h"
#include "gate/pins.h"
#include "gate/runtime.h"
#include "policy/compile.h"
#include "process/audit.h"
#include "process/child.h"
#include "process/control.h"

/* XDP at the one, TC at the others: by a link or by a filter, both only while the one takes the place of the other. */
enum interface_slot { SLOT_XDP, SLOT_TCX_INGRESS, SLOT_INGRESS, SLOT_TCX_EGRESS, SLOT_EGRESS, SLOTS };

struct interface {
    struct link link;
    bool wanted, uplink;
    bool preceded;            /* somebody else's program sees packets first, and the log knows */
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
    bool open;   /* an operator took everything away: opening.c */
    size_t cpus; /* that counters have parts of */
    struct interface *interfaces;
    int watch_fd;
    uv_poll_t watch;
    struct policy_rows rows;
    struct keeper_policy in_force;
    /* changes.c, watch.c */
    bool running; /* the timers are there */
    struct runtime *runtime;
    struct audit *audit;
    int state_fd, clock_fd;
    uv_timer_t ends, heartbeat;
    uv_poll_t clock;
    uint64_t changes; /* of the policy in force, its ends too: who waits is told another number */
    struct watcher *watchers;
    size_t watchers_count;
    struct control *control;
    struct observe *observe; /* NULL: there is nothing to observe */
};

/* apply.c */
/* The configuration's policy with what was changed at run time becomes cells, and these are put into force in one step.
 * 0, or -errno after logging why: what was in force still is. */
int keeper_apply(struct keeper *k);
struct runtime_moment keeper_now(void);

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
void interfaces_filters(void *arg, uint32_t index);    /* arg: struct keeper. Somebody set up TC there */
void interfaces_check(struct keeper *k);               /* what the kernel does not tell of: now and then */
void interfaces_free(struct keeper *k);                /* the programs stay where they are */

/* figures.c */
json_t *figures_brief(const struct keeper *k); /* for `kidoban status` */
json_t *figures_interfaces(const struct keeper *k);
json_t *figures_programs(const struct keeper *k);
json_t *figures_policy(const struct keeper *k);
json_t *figures_classes(const struct keeper *k);
json_t *figures_reasons(const struct keeper *k);

/* changes.c */
struct change {
    const char *verb;                            /* "gate.detach" */
    const char *subject, *reason, *on_behalf_of; /* NULL: none */
};
/* A line of the audit log; rq NULL: by the house itself. False after logging why: then the act is not done. */
bool changes_log(struct keeper *k, struct control_request *rq, const struct change *what);
/* Reads what was changed before, opens the log. 0 or -errno after logging why. */
int changes_open(struct keeper *k);
int changes_run(struct keeper *k); /* in the loop */
/* Saves it, and puts it into force; takes next. An error: everything is as it was. */
int changes_commit(struct keeper *k, struct runtime **take_next);
void changes_wait(struct keeper *k); /* for the next end */
/* A reload has succeeded. before: the configuration until then, or NULL: the first. */
void changes_reloaded(struct keeper *k, const struct config_gate *before);
void changes_free(struct keeper *k);

/* watch.c */
int watchers_run(struct keeper *k);
void watchers_tell(struct keeper *k); /* the policy in force is another */

/* opening.c */
int opening_load(struct keeper *k); /* is it open? In the directory of the pins, with full rights. 0 or -errno */
void verb_detach(void *arg, struct control_request *rq, const json_t *request);
void verb_attach(void *arg, struct control_request *rq, const json_t *request);

/* verbs.c, change_verbs.c, watch.c */
extern const struct control_verb gate_verbs[];
json_t *changes_modes(const struct keeper *k); /* of the whole and of each class, with where they come from */
void verb_exempt_add(void *arg, struct control_request *rq, const json_t *request);
void verb_exempt_list(void *arg, struct control_request *rq, const json_t *request);
void verb_exempt_remove(void *arg, struct control_request *rq, const json_t *request);
void verb_mode(void *arg, struct control_request *rq, const json_t *request);
void verb_runtime(void *arg, struct control_request *rq, const json_t *request);
void verb_audit(void *arg, struct control_request *rq, const json_t *request);
void verb_watch(void *arg, struct control_request *rq, const json_t *request);
void verb_export(void *arg, struct control_request *rq, const json_t *request);

#endif
