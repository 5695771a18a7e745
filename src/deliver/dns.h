/*
 * dns.h: what we make of DNS answers: rdata to mail hosts and addresses, their order, and our own place among them.
 *
 * Pure: no sockets, clocks, libunbound. The rdata comes from strangers and is checked octet by octet; libunbound hands
 * it over uncompressed. A record that does not parse counts as absent, not as an empty one. Names become text in lower
 * case, without the final dot, with letters, digits, '-' and '_' only: what else a name may hold has no place in
 * a certificate, a log or another query.
 */
#ifndef KIDOBAN_DELIVER_DNS_H
#define KIDOBAN_DELIVER_DNS_H

#include "common/buf.h"
#include "wire/address.h"

#define DNS_NAME_MAX      253 /* octets of text */
#define DNS_MX_MAX        16  /* mail hosts used of one domain: the best ones */
#define DNS_MX_READ_MAX   256 /* records looked at to find them */
#define DNS_HOST_MAX      8   /* addresses used of one host, both families together */
#define DNS_PREFERENCE_NO 0   /* of a host that no MX record names: the only one of its list */

enum dns_type { DNS_TYPE_A = 1, DNS_TYPE_MX = 15, DNS_TYPE_AAAA = 28 };

/* An uncompressed name in wire form at the start of `in`; the root is the empty text. The octets taken, or -EBADMSG. */
int dns_name_parse(struct span in, char text[static DNS_NAME_MAX + 1]);

struct dns_mx {
    uint16_t preference;
    char host[DNS_NAME_MAX + 1]; /* empty: the root, RFC 7505 */
};
/* 0 or -EBADMSG (short, trailing octets, a name that is none). */
int dns_mx_parse(struct span rdata, struct dns_mx *ret);

/* A or AAAA. 0; -EBADMSG for a wrong length; -EADDRNOTAVAIL for an address that no mail host has (0.0.0.0/8, ::,
 * multicast, broadcast; also as IPv4-mapped). port is 0. */
int dns_address_parse(enum dns_type type, struct span rdata, struct net_address *ret);

struct dns_mx_list {
    struct dns_mx entries[DNS_MX_MAX];
    size_t count;
    bool null_mx; /* RFC 7505: the domain takes no mail; count is 0 */
    bool any;     /* there was a record that parsed */
};
/* Keeps the DNS_MX_MAX best and drops those that do not parse. A root host beside real ones is no null MX: ignored. */
void dns_mx_list_build(struct dns_mx_list *list, const struct span *rdata, size_t count);
/* By preference; equals in an order that random chooses (RFC 5321 section 5.1). random(arg): uniform 32 bits. */
void dns_mx_list_order(struct dns_mx_list *list, uint32_t (*random)(void *arg), void *arg);

/* RFC 5321 section 5.1: if we are in the list, only what is better than us may be tried. How many of the first count
 * hosts remain, given that host number self is ours (self < count; hosts ordered by preference). */
size_t dns_self_cut(const uint16_t *preference, size_t count, size_t self);

/* Takes turns between the families, IPv6 first, each in the order given; at most max. The number written to out. */
size_t dns_interleave(const struct net_address *v6, size_t v6_count, const struct net_address *v4, size_t v4_count,
                      struct net_address *out, size_t max);

/* A domain of an address: 0 and its address when it is a literal ("[192.0.2.1]", "[IPv6:2001:db8::1]"; RFC 5321
 * section 4.1.3), -EINVAL when it is a literal that names no address, -ENOENT when it is a name. */
int dns_literal_parse(struct span domain, struct net_address *ret);

/* The form to ask for: UTF-8 to A-labels (IDNA 2008), lower case, no final dot. 0 or -EINVAL: no name of the DNS. */
int dns_domain_to_ascii(struct span domain, char text[static DNS_NAME_MAX + 1]);

#endif
