/*
 * account.h: an account as the store read it: immutable, counted by holders, so that a login that waits and a cache
 * entry keep what they began with.
 */
#ifndef KIDOBAN_VAULT_ACCOUNT_H
#define KIDOBAN_VAULT_ACCOUNT_H

#include <stdbool.h>

#include "common/account_name.h"
#include "vault/password.h"
#include "vault/scram.h"

#define ACCOUNT_IDENTITIES_MAX 256U /* VAULT_IDENTITIES_MAX */
#define ACCOUNT_IDENTITY_MAX   320U
#define ACCOUNT_SECRETS_MAX    64U
#define ACCOUNT_LABEL_MAX      64U

enum secret_kind { SECRET_MAIN, SECRET_APP };

struct secret {
    int64_t id;
    enum secret_kind kind;
    char label[ACCOUNT_LABEL_MAX + 1]; /* empty for the main one */
    char hash[PASSWORD_HASH_MAX];
    bool has_scram;
    struct scram_keys sha1, sha256;                /* when has_scram */
    uint64_t created_ms, last_used_ms, revoked_ms; /* 0: not */
};

struct account {
    size_t holders;
    int64_t id;
    char name[ACCOUNT_NAME_MAX + 1];
    uint64_t created_ms;
    uint8_t scram_salt[SCRAM_SALT_LEN]; /* one for all its secrets: a client is told one salt */
    uint32_t scram_iterations;
    char **identities; /* user@domain, *@domain; lower case domain */
    size_t identities_count;
    struct secret *secrets;
    size_t secrets_count;
};

struct account *account_new(void); /* one holder; NULL: no memory */
struct account *account_hold(struct account *a);
void account_drop(struct account **a); /* wipes with the last holder */
/* The one main secret that counts, or NULL. */
const struct secret *account_main(const struct account *a);
/* 0 and lower-cased domain, or -EINVAL: not user@domain or *@domain. */
int account_identity_normalise(struct span raw, char ret[static ACCOUNT_IDENTITY_MAX + 1]);

#endif
