/*
 * pins.h: the gate's directory of a bpffs: maps and programs that outlive the process, found again by name.
 *
 * The directory is the process's working directory, so that after the drop its names need no path. Names: map-NAME-N
 * (N: the version of the blob, so that a program never reads one it does not know), program-KIND-SIDE-BUILD (BUILD: the
 * object it came from), link-INDEX and program-at-INDEX-WAY (hook.h). Functions return 0 or -errno after logging why.
 */
#ifndef KIDOBAN_GATE_PINS_H
#define KIDOBAN_GATE_PINS_H

#include <sys/types.h>

#include "gate/program.h"

/* The kinds of programs that the keeper puts on interfaces, for one side each. */
enum pins_kind { PINS_XDP, PINS_TC, PINS_TC_IP, PINS_TC_OUT, PINS_TC_IP_OUT, PINS_KINDS };

struct pins {
    struct gate_maps maps;       /* -1: not there */
    int programs[PINS_KINDS][2]; /* by side: 1 is the uplink's; -1: not loaded */
    uint32_t ids[PINS_KINDS][2];
};

const char *pins_kind_name(enum pins_kind kind); /* "tc-ip" */
void pins_init(struct pins *p);
/* Makes the directory where it is not there, and steps into it. Its parent must be of a bpffs. */
int pins_enter(const char *directory, int *ret_fd);
/* Gives the directory to the user the process will be. */
int pins_leave_to(uid_t uid, gid_t gid);
/* Takes over what is pinned; loads and pins what is not there, or is of another build. outward: also the kinds that sit
 * where packets leave. */
int pins_load(struct pins *p, bool outward);
bool pins_have_policy(const struct pins *p); /* is one in force? */
/* Unpins the programs of other builds: after no interface needs them. */
void pins_tidy(const struct pins *p);
void pins_each(const char *prefix, void (*seen)(void *arg, const char *name), void *arg);

#endif
