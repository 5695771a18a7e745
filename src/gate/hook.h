/*
 * hook.h: one of our programs at one place of one interface: put there, found again, exchanged, taken away.
 *
 * XDP programs, and those of TC where the kernel has tcx, sit there by a bpf_link, which is pinned in the working
 * directory (the gate's directory of a bpffs) as "link-INDEX", or "program-at-INDEX-ingress" or "-egress" (why, says
 * docs/decisions/0007-tcx.md): it outlives the process. Elsewhere TC programs are filters of the clsact qdisc, which
 * nobody holds; ours have priority 1, the handle HOOK_HANDLE and a program called gate_*. What is not ours is never
 * touched.
 *
 * Needs CAP_NET_ADMIN and CAP_BPF. Functions return 0 or -errno.
 */
#ifndef KIDOBAN_GATE_HOOK_H
#define KIDOBAN_GATE_HOOK_H

#include <stdbool.h>
#include <stdint.h>

#define HOOK_HANDLE 0x4b44424e

enum hook_place {
    HOOK_NONE,
    HOOK_NATIVE, /* XDP, by a link */
    HOOK_GENERIC,
    HOOK_TCX_INGRESS, /* TC by a link, in front of all others */
    HOOK_TCX_EGRESS,
    HOOK_INGRESS, /* TC by a filter */
    HOOK_EGRESS
};

struct hook {
    enum hook_place place;
    uint32_t index;      /* of the interface */
    uint32_t program_id; /* what sits there */
    int link_fd;         /* a filter: -1 */
};

/* What the pins of links are called at the beginning, XDP's and TC's. */
#define HOOK_PIN_XDP "link-"
#define HOOK_PIN_TCX "program-at-"

const char *hook_place_kind(enum hook_place place); /* "xdp", "tcx", "tc" */
const char *hook_place_name(enum hook_place place); /* "native", "ingress" */

/* -EBUSY or -EEXIST: something that is not ours sits there. Other errors: the device does not take it, or the kernel
 * has no such place (tcx before Linux 6.6: -EINVAL). */
int hook_attach(enum hook_place place, uint32_t index, int program_fd, struct hook *ret);
/* Another program in one step: every packet is judged by the one or the other. */
int hook_replace(struct hook *h, int program_fd);
int hook_remove(struct hook *h);  /* a device that is gone is no error */
void hook_forget(struct hook *h); /* closes what is held; the program stays where it is */

/* TC: is it still where it was put, and ours? One that went with its device counts as there. Of XDP the device's own
 * word tells. */
bool hook_stands(const struct hook *h);
/* TC by a link: does somebody else's program see packets first? */
bool hook_is_preceded(const struct hook *h);

/* The pinned link of that name. -ENODEV: its device is gone, or somebody took it off. Of XDP place becomes HOOK_NATIVE;
 * the device's word decides. */
int hook_find_link(const char *pin, struct hook *ret);
/* Ours at HOOK_INGRESS or HOOK_EGRESS; only with full rights. -ENOENT: none. */
int hook_find_filter(enum hook_place place, uint32_t index, struct hook *ret);

#endif
