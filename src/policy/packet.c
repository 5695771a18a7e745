#include "policy/packet.h"

#include <string.h>

#define ETHERNET_LEN 14
#define TAG_LEN      4
#define TAGS_MAX     4
#define PPPOE_LEN    6
#define IPV4_LEN     20
#define IPV6_LEN     40
#define CHAIN_MAX    32
#define PORTS_LEN    4
#define TCP_LEN      20
#define FLAGS_AT     13
#define FLAG_SYN     0x02
#define FLAG_ACK     0x10

enum { HOP_BY_HOP = 0, IPIP = 4, TCP = 6, IPV6 = 41, ROUTING = 43, FRAGMENT = 44, AH = 51, DESTINATION = 60 };
enum { MOBILITY = 135, HIP = 139, SHIM6 = 140 };
enum { OPTION_END = 0, OPTION_NOP = 1, OPTION_LSRR = 131, OPTION_SSRR = 137 };

struct reader {
    struct packet *p;
    enum packet_side side;
    bool (*tunnel_end)(const void *arg, const struct policy_address *far);
    const void *arg;
    bool cut;       /* octets may be missing at the end: this packet, or one around it, is a first fragment */
    bool own_cut;   /* by this packet's own fragment header */
    unsigned chain; /* headers passed in this packet */
};

static void read_ipv4(struct reader *r, struct span s);
static void read_ipv6(struct reader *r, struct span s);

static uint16_t u16(struct span s, size_t at)
{
    return (uint16_t)(s.ptr[at] << 8 | s.ptr[at + 1]);
}

static struct span from(struct span s, size_t at)
{
    return (struct span){s.ptr + at, s.len - at};
}

static void is(struct reader *r, enum packet_kind kind)
{
    r->p->kind = kind;
}

/* Octets are missing: lawful in a first fragment, else what `whole` says. */
static void missing(struct reader *r, enum packet_kind whole)
{
    is(r, r->cut ? PACKET_FIRST_FRAGMENT : whole);
}

static void add_layer(struct reader *r, struct span source, struct span destination, bool v6)
{
    struct packet_layer *l = &r->p->layers[r->p->layers_count++];
    l->source.v6 = l->destination.v6 = v6;
    memcpy(l->source.bytes, source.ptr, v6 ? 16 : 4);
    memcpy(l->destination.bytes, destination.ptr, v6 ? 16 : 4);
}

/* TCP */

static void read_tcp(struct reader *r, struct span s)
{
    if (s.len < PORTS_LEN) {
        missing(r, PACKET_MALFORMED);
        return;
    }
    if (r->p->v6 && r->own_cut && s.len < TCP_LEN) { /* RFC 7112: the whole chain, the TCP header too */
        is(r, PACKET_FIRST_FRAGMENT);
        return;
    }
    is(r, PACKET_TCP);
    r->p->source_port = u16(s, 0);
    r->p->destination_port = u16(s, 2);
    r->p->flags_present = s.len > FLAGS_AT;
    if (r->p->flags_present) {
        r->p->syn = (s.ptr[FLAGS_AT] & FLAG_SYN) != 0;
        r->p->ack = (s.ptr[FLAGS_AT] & FLAG_ACK) != 0;
    }
}

/* Tunnels */

static void read_tunnel(struct reader *r, struct span s, bool v6)
{
    const struct packet_layer *l = &r->p->layers[r->p->layers_count - 1];
    const struct policy_address *far = r->side == PACKET_SUBSCRIBER ? &l->destination : &l->source;
    if (r->p->layers_count == PACKET_LAYERS_MAX || !r->tunnel_end(r->arg, far)) {
        is(r, PACKET_OTHER);
        return;
    }
    r->own_cut = false;
    r->chain = 0;
    if (v6) {
        read_ipv6(r, s);
    } else {
        read_ipv4(r, s);
    }
}

/* Chains of headers. Each of these returns true when the chain goes on, with *s behind the header and *next. */

static bool one_more(struct reader *r)
{
    if (r->chain == CHAIN_MAX) {
        is(r, PACKET_MALFORMED);
        return false;
    }
    r->chain++;
    return true;
}

static bool pass_header(struct reader *r, struct span *s, uint8_t *next, size_t plus, size_t unit)
{
    if (s->len < 2 || (s->ptr[1] + plus) * unit > s->len) {
        missing(r, PACKET_UNPARSED);
        return false;
    }
    if (*next == ROUTING && s->ptr[3] > 0) {
        r->p->source_routed = true;
    }
    *next = s->ptr[0];
    *s = from(*s, (s->ptr[1] + plus) * unit);
    return true;
}

static bool pass_fragment(struct reader *r, struct span *s, uint8_t *next)
{
    if (s->len < 8) {
        missing(r, PACKET_UNPARSED);
        return false;
    }
    unsigned offset = u16(*s, 2) >> 3;
    *next = s->ptr[0];
    if (offset > 0) {
        is(r, *next == TCP && offset == 1 ? PACKET_OVERWRITE : PACKET_TAIL);
        return false;
    }
    if ((s->ptr[3] & 1) != 0) {
        r->cut = r->own_cut = true;
    }
    *s = from(*s, 8);
    return true;
}

static bool is_plain_extension(uint8_t next)
{
    return next == HOP_BY_HOP || next == ROUTING || next == DESTINATION || next == MOBILITY || next == HIP ||
           next == SHIM6;
}

static void read_upper(struct reader *r, struct span s, uint8_t next)
{
    switch (next) {
    case TCP:
        read_tcp(r, s);
        break;
    case IPIP:
        read_tunnel(r, s, false);
        break;
    case IPV6:
        read_tunnel(r, s, true);
        break;
    default:
        is(r, PACKET_OTHER);
        break;
    }
}

static void read_chain4(struct reader *r, struct span s, uint8_t next)
{
    while (next == AH) {
        if (!one_more(r) || !pass_header(r, &s, &next, 2, 4)) {
            return;
        }
    }
    read_upper(r, s, next);
}

static void read_chain6(struct reader *r, struct span s, uint8_t next)
{
    while (is_plain_extension(next) || next == AH || next == FRAGMENT) {
        if (!one_more(r)) {
            return;
        }
        bool on = next == FRAGMENT ? pass_fragment(r, &s, &next)
                                   : pass_header(r, &s, &next, next == AH ? 2 : 1, next == AH ? 4 : 8);
        if (!on) {
            return;
        }
    }
    read_upper(r, s, next);
}

/* IPv4 */

/* RFC 791, section 3.1. What does not parse may be anything to another reader. */
static bool options_route(struct span options)
{
    for (size_t at = 0; at < options.len && options.ptr[at] != OPTION_END;) {
        uint8_t type = options.ptr[at];
        if (type == OPTION_NOP) {
            at++;
            continue;
        }
        bool parses = at + 1 < options.len && options.ptr[at + 1] >= 2 && options.ptr[at + 1] <= options.len - at;
        if (type == OPTION_LSRR || type == OPTION_SSRR || !parses) {
            return true;
        }
        at += options.ptr[at + 1];
    }
    return false;
}

static void read_ipv4(struct reader *r, struct span s)
{
    r->p->v6 = false;
    r->p->source_routed = false;
    if (s.len < IPV4_LEN) {
        missing(r, PACKET_UNPARSED);
        return;
    }
    if (s.ptr[0] >> 4 != 4) {
        is(r, PACKET_UNPARSED);
        return;
    }
    add_layer(r, from(s, 12), from(s, 16), false);
    size_t header = (s.ptr[0] & 15U) * 4U, total = u16(s, 2);
    uint8_t protocol = s.ptr[9];
    if (header < IPV4_LEN || total < header || (!r->cut && total > s.len)) {
        is(r, protocol == TCP ? PACKET_MALFORMED : PACKET_UNPARSED);
        return;
    }
    if (header > s.len) {
        is(r, PACKET_FIRST_FRAGMENT);
        return;
    }
    s.len = total < s.len ? total : s.len;
    r->p->source_routed = options_route((struct span){s.ptr + IPV4_LEN, header - IPV4_LEN});
    unsigned offset = u16(s, 6) & 0x1fffU;
    if (offset > 0) {
        is(r, protocol == TCP && offset == 1 ? PACKET_OVERWRITE : PACKET_TAIL);
        return;
    }
    if ((s.ptr[6] & 0x20) != 0) {
        r->cut = r->own_cut = true;
    }
    read_chain4(r, from(s, header), protocol);
}

/* IPv6 */

static void read_ipv6(struct reader *r, struct span s)
{
    r->p->v6 = true;
    r->p->source_routed = false;
    if (s.len < IPV6_LEN) {
        missing(r, PACKET_UNPARSED);
        return;
    }
    if (s.ptr[0] >> 4 != 6) {
        is(r, PACKET_UNPARSED);
        return;
    }
    add_layer(r, from(s, 8), from(s, 24), true);
    size_t payload = u16(s, 4);
    uint8_t next = s.ptr[6];
    if (payload > 0 || next != HOP_BY_HOP) {
        if (!r->cut && IPV6_LEN + payload > s.len) {
            is(r, next == TCP ? PACKET_MALFORMED : PACKET_UNPARSED);
            return;
        }
        s.len = IPV6_LEN + payload < s.len ? IPV6_LEN + payload : s.len;
    }
    read_chain6(r, from(s, IPV6_LEN), next);
}

/* Links */

static bool is_tag(uint16_t type)
{
    return type == 0x8100 || type == 0x88a8 || type == 0x9100 || type == 0x9200 || type == 0x9300;
}

/* RFC 2516, sections 4 and 6; RFC 1661, section 6.5. */
static void read_pppoe(struct reader *r, struct span s)
{
    if (s.len < PPPOE_LEN || s.ptr[0] != 0x11 || s.ptr[1] != 0 || u16(s, 4) > s.len - PPPOE_LEN) {
        return;
    }
    s = (struct span){s.ptr + PPPOE_LEN, u16(s, 4)};
    size_t len = s.len > 0 && s.ptr[0] % 2 == 1 ? 1 : 2;
    if (s.len < len) {
        return;
    }
    unsigned protocol = len == 1 ? s.ptr[0] : u16(s, 0);
    if (protocol == 0x21) {
        read_ipv4(r, from(s, len));
    } else if (protocol == 0x57) {
        read_ipv6(r, from(s, len));
    }
}

static void read_ethernet(struct reader *r, struct span s)
{
    size_t at = ETHERNET_LEN;
    if (s.len < at) {
        return;
    }
    uint16_t type = u16(s, at - 2);
    for (unsigned tags = 0; is_tag(type); tags++) {
        if (tags == TAGS_MAX || s.len < at + TAG_LEN) {
            return;
        }
        at += TAG_LEN;
        type = u16(s, at - 2);
    }
    if (type == 0x0800) {
        read_ipv4(r, from(s, at));
    } else if (type == 0x86dd) {
        read_ipv6(r, from(s, at));
    } else if (type == 0x8864) {
        read_pppoe(r, from(s, at));
    }
}

static void read_bare(struct reader *r, struct span s)
{
    if (s.len > 0 && s.ptr[0] >> 4 == 4) {
        read_ipv4(r, s);
    } else if (s.len > 0 && s.ptr[0] >> 4 == 6) {
        read_ipv6(r, s);
    }
}

void packet_read(struct span frame, enum packet_link link, enum packet_side side,
                 bool (*tunnel_end)(const void *arg, const struct policy_address *far), const void *arg,
                 struct packet *ret)
{
    struct reader r = {.p = ret, .side = side, .tunnel_end = tunnel_end, .arg = arg};
    *ret = (struct packet){.kind = PACKET_OTHER};
    if (link == PACKET_ETHERNET) {
        read_ethernet(&r, frame);
    } else {
        read_bare(&r, frame);
    }
}
