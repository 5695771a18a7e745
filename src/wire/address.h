/* address.h: a network address as our processes tell each other: IPv4 is written as an IPv4-mapped IPv6 address. */
#ifndef KIDOBAN_WIRE_ADDRESS_H
#define KIDOBAN_WIRE_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "wire/frame.h"

struct net_address {
    uint8_t bytes[16]; /* network order; ::ffff:a.b.c.d for IPv4 */
    uint16_t port;     /* host order */
};

struct net_prefix {
    uint8_t bytes[16];
    uint8_t bits; /* 0..128; an IPv4 /24 is 120 */
};

bool net_address_is_v4(const struct net_address *a);
bool net_prefix_contains(const struct net_prefix *p, const struct net_address *a);
#define NET_ADDRESS_TEXT 46
/* Without port or brackets: "192.0.2.1", "2001:db8::1". */
void net_address_format(const struct net_address *a, char text[static NET_ADDRESS_TEXT]);
int net_address_parse(const char *text, struct net_address *ret); /* 0 or -EINVAL; port 0 */

void wire_put_address(struct wire_writer *w, const struct net_address *a);
void wire_get_address(struct wire_reader *r, struct net_address *a);

#endif
