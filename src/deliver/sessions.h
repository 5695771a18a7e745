/*
 * sessions.h: TLS sessions that next hops gave us, to be resumed by the next connection (RFC 5077, RFC 8446 section
 * 2.2): it saves both sides the signature.
 *
 * A session stands for what was verified when it was made, and resuming verifies nothing again. So the key is all that
 * decides what is demanded: the route, the host's name and address; and a table belongs to one configuration, so that
 * none outlives a change of routes or of trusted certificates.
 *
 * Octets of hosts are hostile: sessions are bounded in size, number and age. They are kept as octets, without the
 * certificate chain, and wiped. One of TLS 1.3 is offered once only (RFC 8446 appendix C.4).
 */
#ifndef KIDOBAN_DELIVER_SESSIONS_H
#define KIDOBAN_DELIVER_SESSIONS_H

#include <openssl/ssl.h>

#include "common/buf.h"
#include "wire/address.h"

#define SESSIONS_HOSTS_MAX 512
#define SESSIONS_EACH_MAX  4 /* for one host: as many as connections may begin at once */
#define SESSIONS_OCTETS    (8U * 1024U)
#define SESSIONS_AGE_MS    (60U * 60U * 1000U)

struct sessions;

struct sessions_key {
    uint32_t route;
    struct net_address address; /* of a unix socket: zeros */
    const char *name;
};

struct sessions *sessions_new(void); /* NULL: out of memory */
void sessions_free(struct sessions **s);

/* One connection's use of the table. Everything borrowed until sessions_end(). */
struct sessions_use {
    struct sessions *table;
    struct sessions_key key;
};
/* What hosts give to connections of that context is told to their sessions_use. */
void sessions_watch(SSL_CTX *ctx);
/* Before the handshake: offers the host a session, if there is one (true), and keeps what it gives from now on. */
bool sessions_begin(struct sessions_use *use, SSL *ssl);
void sessions_end(SSL *ssl); /* NULL is taken */

/* The table itself. put copies; what is too long is left. The newest comes first, and is taken out if once is said
 * with it; out must be able to hold SESSIONS_OCTETS. false: none. */
void sessions_put(struct sessions *s, const struct sessions_key *key, struct span octets, bool once, uint64_t now_ms);
bool sessions_get(struct sessions *s, const struct sessions_key *key, struct buf *out, uint64_t now_ms);
/* The host did not go on with one: none of them is tried again. */
void sessions_forget(struct sessions *s, const struct sessions_key *key);

#endif
