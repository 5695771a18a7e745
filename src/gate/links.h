/*
 * links.h: the network interfaces of this network namespace, as the kernel tells of them by netlink: all of them, and
 * each that changes from then on. Believes the kernel, and takes its messages apart with care all the same.
 */
#ifndef KIDOBAN_GATE_LINKS_H
#define KIDOBAN_GATE_LINKS_H

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

struct link {
    uint32_t index;
    char name[IF_NAMESIZE];
    uint16_t type;       /* ARPHRD_* */
    char kind[16];       /* "veth", "ppp"; "": a device of its own driver */
    bool point_to_point; /* has one far end, and only one */
    bool gone;
    uint32_t native_id, generic_id; /* of the XDP programs that sit there, whosever; or 0 */
};

/* Who is told of it. filters: of the device with that index TC filters came, went or changed; NULL: not wanted. */
struct links_ops {
    void (*seen)(void *arg, const struct link *l);
    void (*filters)(void *arg, uint32_t index);
};

/* A socket that is told of every change; non-blocking. A descriptor or -errno. */
int links_watch_open(void);
/* Asks for all links, and hands over what came, until nothing more is there (watch) or all were told (list). 0;
 * -ENOBUFS: changes were lost, list them all; or -errno. */
int links_watch(int fd, const struct links_ops *ops, void *arg);
int links_list(const struct links_ops *ops, void *arg);

#endif
