/*
 * tcx.h: programs at a device's TC without a qdisc, by links (Linux 6.6 on): what libbpf 1.1 and the headers of Linux
 * 6.1 do not know, by bpf(2) itself. See the kernel's include/uapi/linux/bpf.h.
 *
 * Needs CAP_NET_ADMIN and CAP_BPF. Functions return 0 or -errno.
 */
#ifndef KIDOBAN_GATE_TCX_H
#define KIDOBAN_GATE_TCX_H

#include <stdbool.h>
#include <stdint.h>

/* A link in front of all that sit there. A descriptor; -EINVAL: the kernel has no tcx; -EEXIST: the program sits there
 * already; -ERANGE: the place is full. */
int tcx_link_new(int program_fd, uint32_t index, bool egress);

/* What a link is. -EINVAL: none of tcx; index 0: its device is gone, or somebody took it off. */
struct tcx_link {
    uint32_t index, program_id;
    bool egress;
};
int tcx_link_read(int fd, struct tcx_link *ret);

/* Where the program sits among all that sit there: 0 is the first. -ENOENT: it does not; -ENODEV: no such device. */
int tcx_place_of(uint32_t program_id, uint32_t index, bool egress);

#endif
