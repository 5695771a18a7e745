/*
 * scram.h: the server's half of the arithmetic of SCRAM (RFC 5802, RFC 7677): verifiers, proofs, signatures. The
 * messages themselves are submit's.
 */
#ifndef KIDOBAN_VAULT_SCRAM_H
#define KIDOBAN_VAULT_SCRAM_H

#include "common/buf.h"

#define SCRAM_KEY_MAX    32U
#define SCRAM_SALT_LEN   16U
#define SCRAM_ITERATIONS 20000U /* RFC 7677 asks for 4096 at least; the client pays, and who steals the store */

enum scram_hash { SCRAM_SHA1 = 1, SCRAM_SHA256 = 2 };

struct scram_keys {
    uint8_t stored[SCRAM_KEY_MAX], server[SCRAM_KEY_MAX]; /* scram_key_len() octets of each */
};

size_t scram_key_len(enum scram_hash h);
/* Slow: for the pool. password is prepared (SASLprep). 0 or -ENOMEM. */
int scram_derive(enum scram_hash h, struct span password, struct span salt, uint32_t iterations,
                 struct scram_keys *ret);
/* In constant time. 1 and the server's signature (scram_key_len() octets), 0: not the proof, -ENOMEM. */
int scram_check(enum scram_hash h, const struct scram_keys *keys, struct span auth_message, struct span proof,
                uint8_t ret_signature[static SCRAM_KEY_MAX]);
/* The salt of an account that does not exist: always the same one for a name, like that of one that does. */
void scram_false_salt(const uint8_t key[static 32], struct span name, uint8_t ret_salt[static SCRAM_SALT_LEN]);
/* Keys for it that no password fits. */
void scram_false_keys(const uint8_t key[static 32], struct span name, struct scram_keys *ret);

#endif
