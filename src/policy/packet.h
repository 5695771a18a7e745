/*
 * packet.h: what a frame is to the gate, read octet by octet from docs/gate.md: links, IPv4, IPv6, chains of headers,
 * fragments, tunnels, ports. It knows no policy but the ends of tunnels. The octets are a stranger's; nothing outside
 * of them is read, whatever they say.
 */
#ifndef KIDOBAN_POLICY_PACKET_H
#define KIDOBAN_POLICY_PACKET_H

#include "policy/policy.h"

enum packet_link { PACKET_ETHERNET, PACKET_IP };

enum packet_side { PACKET_SUBSCRIBER, PACKET_UPLINK };

enum packet_kind {
    PACKET_OTHER,    /* nothing of TCP that an IP host reads */
    PACKET_TAIL,     /* a later fragment */
    PACKET_UNPARSED, /* broken, but not as TCP */
    PACKET_TCP,      /* with ports */
    PACKET_FIRST_FRAGMENT,
    PACKET_OVERWRITE,
    PACKET_MALFORMED,
};

#define PACKET_LAYERS_MAX 3 /* the packet, and tunnels two deep */

struct packet {
    enum packet_kind kind;
    struct packet_layer {
        struct policy_address source, destination;
    } layers[PACKET_LAYERS_MAX]; /* the outermost first; 0 when there is no IP packet with both addresses */
    size_t layers_count;
    /* Of the innermost packet. */
    bool v6;
    bool source_routed;
    uint16_t source_port, destination_port; /* PACKET_TCP only, like what follows */
    bool flags_present;
    bool syn, ack;
};

/* side says which address is the far end, that is asked for in tunnel_end. */
void packet_read(struct span frame, enum packet_link link, enum packet_side side,
                 bool (*tunnel_end)(const void *arg, const struct policy_address *far), const void *arg,
                 struct packet *ret);

#endif
