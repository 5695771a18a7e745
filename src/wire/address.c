#include "wire/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool net_address_is_v4(const struct net_address *a)
{
    return memcmp(a->bytes, mapped, sizeof(mapped)) == 0;
}

bool net_prefix_contains(const struct net_prefix *p, const struct net_address *a)
{
    size_t whole = p->bits / 8;
    unsigned rest = p->bits % 8;
    if (memcmp(p->bytes, a->bytes, whole) != 0) {
        return false;
    }
    return rest == 0 || ((p->bytes[whole] ^ a->bytes[whole]) & (0xff << (8 - rest)) & 0xff) == 0;
}

void net_address_format(const struct net_address *a, char text[static NET_ADDRESS_TEXT])
{
    if (net_address_is_v4(a)) {
        (void)inet_ntop(AF_INET, a->bytes + sizeof(mapped), text, NET_ADDRESS_TEXT);
    } else {
        (void)inet_ntop(AF_INET6, a->bytes, text, NET_ADDRESS_TEXT);
    }
}

int net_address_parse(const char *text, struct net_address *ret)
{
    struct net_address a = {0};
    if (inet_pton(AF_INET, text, a.bytes + sizeof(mapped)) == 1) {
        memcpy(a.bytes, mapped, sizeof(mapped));
    } else if (inet_pton(AF_INET6, text, a.bytes) != 1) {
        return -EINVAL;
    }
    *ret = a;
    return 0;
}

void wire_put_address(struct wire_writer *w, const struct net_address *a)
{
    wire_put_fixed(w, a->bytes, sizeof(a->bytes));
    wire_put_u16(w, a->port);
}

void wire_get_address(struct wire_reader *r, struct net_address *a)
{
    wire_get_fixed(r, a->bytes, sizeof(a->bytes));
    a->port = wire_get_u16(r);
}
