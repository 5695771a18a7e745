/*
 * vault.h (wire): submit asks, vault answers; once a login. Secrets go one way only.
 * frame.id is submit's number for the question. Every decoder returns 0 or -EBADMSG; spans are views into the payload.
 */
#ifndef KIDOBAN_WIRE_VAULT_H
#define KIDOBAN_WIRE_VAULT_H

#include "wire/address.h"
#include "wire/frame.h"

enum vault_type {
    VAULT_VERIFY = 1,      /* struct vault_verify; answered by VAULT_VERDICT */
    VAULT_SCRAM_SALT,      /* struct vault_scram_salt; answered by VAULT_SALT */
    VAULT_SCRAM_PROOF,     /* struct vault_scram_proof; answered by VAULT_VERDICT */
    VAULT_CERTIFICATE,     /* struct vault_certificate; answered by VAULT_VERDICT */
    VAULT_SALT,            /* struct vault_salt */
    VAULT_VERDICT,         /* struct vault_verdict */
    VAULT_CANCEL,          /* no payload: the session is gone; no answer wanted */
    VAULT_ACCOUNT_CHANGED, /* vault -> submit, id 0: span account name; identities or password changed, or removed */
};

#define VAULT_NAME_MAX       255
#define VAULT_PASSWORD_MAX   1024
#define VAULT_IDENTITIES_MAX 256
#define VAULT_IDENTITY_MAX   320
#define VAULT_TEXT_MAX       512

enum vault_hash { VAULT_SHA1 = 1, VAULT_SHA256 = 2 };

/* PLAIN and LOGIN. The password is wiped by both ends when used. */
struct vault_verify {
    uint64_t session;
    struct net_address peer;
    struct span name, password, mechanism;
};

struct vault_scram_salt {
    uint64_t session;
    struct net_address peer;
    uint8_t hash; /* enum vault_hash */
    struct span name;
};

/* Salt and iterations; an unknown name gets a stable false salt. status as in vault_verdict (UNAVAILABLE possible). */
struct vault_salt {
    uint8_t status;
    uint32_t iterations;
    struct span salt; /* octets, at most 64 */
};

struct vault_scram_proof {
    uint64_t session;
    struct net_address peer;
    uint8_t hash;
    struct span name, mechanism;
    struct span auth_message; /* RFC 5802 section 3, at most 4096 octets */
    struct span proof;        /* ClientProof, 20 or 32 octets */
};

/* EXTERNAL: the certificate was verified by TLS in submit. */
struct vault_certificate {
    uint64_t session;
    struct net_address peer;
    struct span authzid;          /* may be empty */
    struct span sha256;           /* fingerprint of the DER, 32 octets */
    struct span mailbox, subject; /* first rfc822Name (may be empty); common name (may be empty) */
};

enum vault_status {
    VAULT_OK = 1,
    VAULT_BAD_CREDENTIALS, /* 535 5.7.8; also for unknown names, in the same time */
    VAULT_SUSPENDED,       /* 535 5.7.8 with text; only after right credentials */
    VAULT_UNAVAILABLE,     /* 454 4.7.0: the store cannot answer or is too busy */
};

struct vault_verdict {
    uint8_t status;
    struct span account;          /* canonical name, when OK or SUSPENDED */
    struct span text;             /* a sentence for the client; may be empty */
    struct span server_signature; /* SCRAM: octets; else empty */
    uint16_t identities_count;
    struct span identities[VAULT_IDENTITIES_MAX]; /* patterns: user@domain, *@domain */
};

void vault_verify_encode(struct wire_writer *w, const struct vault_verify *m);
int vault_verify_decode(struct span payload, struct vault_verify *m);
void vault_scram_salt_encode(struct wire_writer *w, const struct vault_scram_salt *m);
int vault_scram_salt_decode(struct span payload, struct vault_scram_salt *m);
void vault_salt_encode(struct wire_writer *w, const struct vault_salt *m);
int vault_salt_decode(struct span payload, struct vault_salt *m);
void vault_scram_proof_encode(struct wire_writer *w, const struct vault_scram_proof *m);
int vault_scram_proof_decode(struct span payload, struct vault_scram_proof *m);
void vault_certificate_encode(struct wire_writer *w, const struct vault_certificate *m);
int vault_certificate_decode(struct span payload, struct vault_certificate *m);
void vault_verdict_encode(struct wire_writer *w, const struct vault_verdict *m);
int vault_verdict_decode(struct span payload, struct vault_verdict *m);

#endif
