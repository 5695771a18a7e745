/* sasl_int.h: what the mechanisms of sasl.h share. */
#ifndef KIDOBAN_SMTP_SASL_INT_H
#define KIDOBAN_SMTP_SASL_INT_H

#include "smtp/sasl.h"

enum sasl_step_name {
    SASL_STEP_START, /* nothing was read */
    SASL_STEP_LOGIN_PASSWORD,
    SASL_STEP_SCRAM_SALT, /* waits for the owner */
    SASL_STEP_SCRAM_FINAL,
    SASL_STEP_SCRAM_PROOF, /* waits for the owner */
    SASL_STEP_SCRAM_ACK,
    SASL_STEP_ENDED,
};

struct sasl {
    struct sasl_setup setup;
    enum sasl_step_name step;
    struct buf challenge;
    struct buf name;
    /* SCRAM */
    struct buf gs2;        /* the GS2 header as the client wrote it */
    struct buf transcript; /* AuthMessage as far as it has come */
    struct buf nonce;      /* client's and server's */
    enum smtp_binding binding;
    bool bound; /* the header said p= */
    uint8_t proof_octets[32];
    char own_nonce[SASL_NONCE_MAX];
    /* questions */
    struct smtp_auth_password password;
    struct smtp_auth_proof proof;
};

enum sasl_outcome sasl_set_name(struct sasl *s, struct span name); /* checks it: SASL_CHALLENGE when good */
enum sasl_outcome sasl_scram_first(struct sasl *s, struct span message);
enum sasl_outcome sasl_scram_final(struct sasl *s, struct span message);

#endif
