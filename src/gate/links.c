#include "gate/links.h"

#include <errno.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdalign.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ROOM         (64U * 1024U)
#define WATCH_BUFFER (4 * 1024 * 1024)

static uint32_t number_of(const struct rtattr *a)
{
    uint32_t n = 0;
    if (RTA_PAYLOAD(a) >= sizeof(n)) {
        memcpy(&n, RTA_DATA(a), sizeof(n));
    }
    return n;
}

/* Without what does not fit: names of the kernel always do. */
static void text_of(const struct rtattr *a, char *to, size_t size)
{
    size_t len = strnlen(RTA_DATA(a), RTA_PAYLOAD(a));
    len = len < size ? len : size - 1;
    memcpy(to, RTA_DATA(a), len);
    to[len] = '\0';
}

static void read_xdp(const struct rtattr *outer, struct link *l)
{
    int len = (int)RTA_PAYLOAD(outer);
    uint8_t attached = XDP_ATTACHED_NONE;
    uint32_t only = 0;
    for (const struct rtattr *a = RTA_DATA(outer); RTA_OK(a, len); a = RTA_NEXT(a, len)) {
        switch (a->rta_type & NLA_TYPE_MASK) {
        case IFLA_XDP_ATTACHED:
            attached = RTA_PAYLOAD(a) >= 1 ? *(const uint8_t *)RTA_DATA(a) : attached;
            break;
        case IFLA_XDP_PROG_ID:
            only = number_of(a);
            break;
        case IFLA_XDP_DRV_PROG_ID:
            l->native_id = number_of(a);
            break;
        case IFLA_XDP_SKB_PROG_ID:
            l->generic_id = number_of(a);
            break;
        default:
            break;
        }
    }
    l->native_id = attached == XDP_ATTACHED_DRV && only != 0 ? only : l->native_id;
    l->generic_id = attached == XDP_ATTACHED_SKB && only != 0 ? only : l->generic_id;
}

static void read_info(const struct rtattr *outer, struct link *l)
{
    int len = (int)RTA_PAYLOAD(outer);
    for (const struct rtattr *a = RTA_DATA(outer); RTA_OK(a, len); a = RTA_NEXT(a, len)) {
        if ((a->rta_type & NLA_TYPE_MASK) == IFLA_INFO_KIND) {
            text_of(a, l->kind, sizeof(l->kind));
        }
    }
}

static bool read_link(const struct nlmsghdr *h, struct link *l)
{
    const struct ifinfomsg *info = NLMSG_DATA(h);
    if (h->nlmsg_len < NLMSG_LENGTH(sizeof(*info)) || info->ifi_family != AF_UNSPEC || info->ifi_index <= 0) {
        return false; /* a bridge tells of its ports in a family of its own */
    }
    int len = (int)IFLA_PAYLOAD(h);
    *l = (struct link){.index = (uint32_t)info->ifi_index,
                       .type = info->ifi_type,
                       .point_to_point = (info->ifi_flags & (IFF_POINTOPOINT | IFF_BROADCAST)) == IFF_POINTOPOINT,
                       .gone = h->nlmsg_type == RTM_DELLINK};
    for (const struct rtattr *a = IFLA_RTA(info); RTA_OK(a, len); a = RTA_NEXT(a, len)) {
        switch (a->rta_type & NLA_TYPE_MASK) {
        case IFLA_IFNAME:
            text_of(a, l->name, sizeof(l->name));
            break;
        case IFLA_LINKINFO:
            read_info(a, l);
            break;
        case IFLA_XDP:
            read_xdp(a, l);
            break;
        default:
            break;
        }
    }
    return l->name[0] != '\0';
}

/* A filter goes by itself, or with the qdisc it hangs on. */
static bool tells_of_filters(const struct nlmsghdr *h)
{
    return (h->nlmsg_type == RTM_NEWTFILTER || h->nlmsg_type == RTM_DELTFILTER || h->nlmsg_type == RTM_DELQDISC) &&
           h->nlmsg_len >= NLMSG_LENGTH(sizeof(struct tcmsg));
}

/* 1: the list is at its end, 0: more may come, or -errno. */
static int read_messages(const void *octets, size_t size, const struct links_ops *ops, void *arg)
{
    struct link l;
    unsigned len = (unsigned)size;
    for (const struct nlmsghdr *h = octets; NLMSG_OK(h, len); h = NLMSG_NEXT(h, len)) {
        if (h->nlmsg_type == NLMSG_DONE) {
            return 1;
        }
        if (h->nlmsg_type == NLMSG_ERROR) {
            const struct nlmsgerr *e = NLMSG_DATA(h);
            return h->nlmsg_len >= NLMSG_LENGTH(sizeof(*e)) && e->error < 0 ? e->error : -EPROTO;
        }
        if ((h->nlmsg_type == RTM_NEWLINK || h->nlmsg_type == RTM_DELLINK) && read_link(h, &l)) {
            ops->seen(arg, &l);
        } else if (ops->filters != NULL && tells_of_filters(h)) {
            const struct tcmsg *t = NLMSG_DATA(h);
            ops->filters(arg, (uint32_t)t->tcm_ifindex);
        }
    }
    return 0;
}

static int read_socket(int fd, int flags, const struct links_ops *ops, void *arg)
{
    alignas(struct nlmsghdr) static uint8_t room[ROOM];
    int r = 0;
    while (r == 0) {
        ssize_t n = recv(fd, room, sizeof(room), flags);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -errno : -EPROTO;
        }
        r = read_messages(room, (size_t)n, ops, arg);
    }
    return r < 0 ? r : 0;
}

static int open_socket(uint32_t groups)
{
    struct sockaddr_nl nl = {.nl_family = AF_NETLINK, .nl_groups = groups};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0) {
        return -errno;
    }
    if (bind(fd, (struct sockaddr *)&nl, sizeof(nl)) != 0) {
        int err = errno;
        (void)close(fd);
        return -err;
    }
    return fd;
}

int links_watch_open(void)
{
    int size = WATCH_BUFFER, fd = open_socket(RTMGRP_LINK | RTMGRP_TC);
    if (fd >= 0) {
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
    }
    return fd;
}

int links_watch(int fd, const struct links_ops *ops, void *arg)
{
    int r = read_socket(fd, MSG_DONTWAIT, ops, arg);
    return r == -EAGAIN ? 0 : r;
}

int links_list(const struct links_ops *ops, void *arg)
{
    struct {
        struct nlmsghdr h;
        struct ifinfomsg info;
    } ask = {.h = {.nlmsg_len = sizeof(ask),
                   .nlmsg_type = RTM_GETLINK,
                   .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
                   .nlmsg_seq = 1}};
    int fd = open_socket(0);
    if (fd < 0) {
        return fd;
    }
    int r = send(fd, &ask, sizeof(ask), 0) == (ssize_t)sizeof(ask) ? 0 : -errno;
    r = r == 0 ? read_socket(fd, 0, ops, arg) : r;
    (void)close(fd);
    return r;
}
