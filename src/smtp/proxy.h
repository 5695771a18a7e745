/*
 * proxy.h: the header that a load balancer puts before a connection (PROXY protocol, versions 1 and 2, haproxy's
 * proxy-protocol.txt of 2020). Whether the peer may send one is the owner's to judge, before this is called: anybody
 * can write one.
 */
#ifndef KIDOBAN_SMTP_PROXY_H
#define KIDOBAN_SMTP_PROXY_H

#include "wire/address.h"

#define SMTP_PROXY_MAX 4096 /* octets of the longest header taken; give the parser a buffer that holds them */

struct smtp_proxy {
    bool addresses; /* source and destination are given. False for LOCAL (the balancer's own probe), UNKNOWN, unix
                       sockets */
    bool local;     /* version 2 LOCAL: the connection is the balancer's own; use the socket's addresses */
    struct net_address source, destination;
};

/*
 * in: everything received so far. 1: *ret is set, *ret_used octets were the header, what follows is the session (or
 * TLS). 0: more is needed. -1: it is none; *ret_error says why (static).
 */
int smtp_proxy_parse(struct span in, struct smtp_proxy *ret, size_t *ret_used, const char **ret_error);

#endif
