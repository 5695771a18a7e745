/*
 * sasl.h: the server's side of SASL exchanges as messages: PLAIN (RFC 4616), LOGIN, SCRAM-SHA-1/-256 with and without
 * channel binding (RFC 5802, RFC 7677, RFC 9266), EXTERNAL (RFC 4422 appendix A). Octets are decoded already (no base64
 * here).
 *
 * No verifier ever comes here: salt and iterations are asked for, the proof is judged by the owner, a good one is
 * answered with the server's signature. What is judged here: syntax, UTF-8, limits, the GS2 header, channel binding and
 * its downgrade, nonces, the order of attributes. Strings are not prepared (RFC 4013); the verifier does that.
 */
#ifndef KIDOBAN_SMTP_SASL_H
#define KIDOBAN_SMTP_SASL_H

#include <stdbool.h>

#include "common/buf.h"
#include "smtp/server.h"

#define SASL_NAME_MAX     255
#define SASL_PASSWORD_MAX 1024
#define SASL_SALT_MAX     64
#define SASL_MESSAGE_MAX  4096 /* octets of one message of the client */
#define SASL_NONCE_MAX    64   /* octets of the server's part */

struct sasl;

struct sasl_setup {
    enum smtp_mechanism mechanism;
    bool plus_offered; /* the same hash was offered with -PLUS: a client that says "y" was lied to */
    struct span nonce; /* the server's part: printable ASCII without comma, fresh, at most SASL_NONCE_MAX */
    /* As in struct smtp_server_ops; NULL: none. */
    size_t (*binding)(void *arg, enum smtp_binding type, uint8_t octets[static SMTP_BINDING_MAX]);
    void *arg;
};

enum sasl_outcome {
    SASL_CHALLENGE,    /* send sasl_challenge(), then sasl_step() with the answer */
    SASL_ASK_PASSWORD, /* sasl_password() is the question; the exchange ends with the answer */
    SASL_ASK_EXTERNAL, /* sasl_name() is the authorisation identity, may be empty */
    SASL_ASK_SALT,     /* sasl_name(); go on with sasl_salt() */
    SASL_ASK_PROOF,    /* sasl_proof(); go on with sasl_signature() when it was good */
    SASL_DONE,         /* the client took the server's signature */
    SASL_MALFORMED,    /* ended: 501 5.5.2 */
    SASL_BINDING,      /* ended: channel binding missing, wrong or downgraded */
    SASL_AUTHZID,      /* ended: another identity was wanted */
    SASL_MEMORY,       /* ended */
};

struct sasl *sasl_new(const struct sasl_setup *setup); /* NULL: out of memory */
void sasl_free(struct sasl **s);                       /* wipes it */

/* initial: NULL when the client sent none. Views in the answer are into it or into s. */
enum sasl_outcome sasl_start(struct sasl *s, const struct span *initial);
enum sasl_outcome sasl_step(struct sasl *s, struct span response);
enum sasl_outcome sasl_salt(struct sasl *s, struct span salt, uint32_t iterations); /* SASL_CHALLENGE or _MEMORY */
enum sasl_outcome sasl_signature(struct sasl *s, struct span signature);            /* SASL_CHALLENGE or _MEMORY */

struct span sasl_challenge(const struct sasl *s); /* octets; may be empty */
enum smtp_mechanism sasl_mechanism(const struct sasl *s);
struct span sasl_name(const struct sasl *s);
const struct smtp_auth_password *sasl_password(const struct sasl *s); /* spans valid until the next call */
const struct smtp_auth_proof *sasl_proof(const struct sasl *s);

#endif
