/*
 * route.h: which way a recipient's domain goes, as the operator wrote it, with all that the way needs to be walked from
 * within the sandbox: passwords and CA certificates are read when the table is made.
 *
 * Places left for later: what a domain demands of its mail hosts by DANE (RFC 7672; resolver_answer.secure is there for
 * it) or MTA-STS (RFC 8461) is a policy of one destination: it will stand beside route.tls and be merged in
 * destination.c, where the hosts are known, before a connection is opened.
 */
#ifndef KIDOBAN_DELIVER_ROUTE_H
#define KIDOBAN_DELIVER_ROUTE_H

#include <openssl/ssl.h>

#include "common/buf.h"
#include "config/config.h"
#include "deliver/dns.h"

#define ROUTE_PASSWORD_MAX 1024
#define ROUTE_CA_FILE      "/etc/ssl/certs/ca-certificates.crt"

struct route {
    uint32_t number; /* its place in the table */
    enum config_via via;
    enum config_tls tls;
    bool implicit_tls;     /* TLS from the first octet (port 465) */
    bool lookup_mx;        /* MX, and a smart host that is a domain */
    const char *host;      /* SMARTHOST, LMTP by TCP: name or address; else NULL */
    const char *unix_path; /* LMTP; else NULL */
    uint16_t port;
    const char *username; /* AUTH; NULL: none */
    struct buf password;  /* with a NUL behind it; empty: none */
    const char *words;    /* ERROR */
};

struct routes;

/* Reads password files: call where they may be read. old (may be NULL) lends the content of those that cannot be read
 * any more, as after a reload within the sandbox. config is borrowed for the life of the table. NULL after logging why.
 */
struct routes *routes_new(const struct config *config, const struct routes *old);
void routes_free(struct routes **r); /* wipes the passwords */

/* domain: as in the address, lower case, UTF-8 or a literal; ascii: its A-labels, or NULL for a literal or a name that
 * is none. Never NULL: what no route names goes by MX. */
const struct route *routes_find(const struct routes *r, struct span domain, const char *ascii);
/* The client context for what a route demands; borrowed. */
SSL_CTX *routes_tls(const struct routes *r, const struct route *route);

#endif
