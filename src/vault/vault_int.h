/* vault_int.h: what the files of the vault's process share. */
#ifndef KIDOBAN_VAULT_VAULT_INT_H
#define KIDOBAN_VAULT_VAULT_INT_H

#include "process/child.h"
#include "process/control.h"
#include "process/peers.h"
#include "vault/cache.h"
#include "vault/guess.h"
#include "vault/guess_file.h"
#include "vault/pool.h"
#include "vault/store.h"
#include "wire/vault.h"

#define VAULT_STORE_FILE   "accounts.db"
#define VAULT_GUESS_FILE   "guesses"
#define VAULT_CACHE_MAX    65536U
#define VAULT_GUESS_MAX    65536U
#define VAULT_GOOD_MAX     65536U
#define VAULT_GUESS_OCTETS guess_octets(VAULT_GUESS_MAX, VAULT_GOOD_MAX)
#define VAULT_LOGINS_MAX   8192U /* asked and not answered, held ones included */
#define VAULT_SLOWED_MAX   8U    /* of them from one network that is being slowed */
#define VAULT_USED_MAX     4096U
#define VAULT_WRONG_MS     60000U
#define VAULT_KNOWN_MS     (UINT64_C(30) * 86400 * 1000)
#define VAULT_LANE_KNOWN   128U /* for each thread */
#define VAULT_LANE_OTHERS  128U

/* What strangers try in vain, for each thread: a crowd of mistakes at the pace, and in the long run the allowance. A
 * check costs some 25 ms. */
#define VAULT_PACE_PERMILLE      75U
#define VAULT_PACE_MS            250U
#define VAULT_ALLOWANCE_PERMILLE 50U
#define VAULT_ALLOWANCE_MS       15000U
#define VAULT_WAIT_MS            30000U /* for it; mail programs give up after a minute or more */

#define VAULT_IDLE_MS 1000U /* a thread that checks nothing for so long gives its memory back */

struct login;
struct suspended;
struct slowed;
struct used;

struct vault_peer {
    struct peer peer;
    struct vault *vault;
    struct login *logins; /* by question; submit only */
};

struct vault {
    struct child *child;
    struct store *store;
    struct cache *cache;
    struct guess *guess;
    void *guess_memory;
    uint8_t boot_id[16];
    struct pool *pool;
    uv_async_t reap;
    uv_timer_t grace, used_timer;
    struct control *control;
    struct peers peers;
    struct suspended *suspended; /* what the guard told */
    struct slowed *slowed;       /* networks with logins under way */
    struct used *used;           /* last uses not yet stored */
    char dummy_hash[PASSWORD_HASH_MAX];
    uint64_t cache_ms;
    uint64_t generation; /* of the accounts: counts their changes */
    size_t logins_count;
    bool ready;
    bool ended; /* no answer is sent any more */
    struct {
        uint64_t succeeded, cached, failed, slowed, unavailable, suspended;
    } figures;
};

extern const struct control_verb vault_verbs[];

/* login.c: one frame of submit. 0, or -1: it is nonsense. */
int login_verify(struct vault_peer *p, uint64_t question, struct span payload);
int login_salt(struct vault_peer *p, uint64_t question, struct span payload);
int login_proof(struct vault_peer *p, uint64_t question, struct span payload);
int login_certificate(struct vault_peer *p, uint64_t question, struct span payload);
void login_cancel(struct vault_peer *p, uint64_t question);
void login_forget_peer(struct vault_peer *p); /* its answers are not wanted any more */
/* Writes the last uses that wait. */
void login_store_used(struct vault *v);

/* suspended.c: the guard's word about who may not send. 0, or -ENOMEM. */
int suspended_set(struct vault *v, struct span account, struct span words);
void suspended_unset(struct vault *v, struct span account);
/* The words, or NULL: may send. */
const char *suspended_find(const struct vault *v, const char *account);
/* The guard begins to tell the whole set again; who is not told until the end is not suspended any more. */
void suspended_retell_begin(struct vault *v);
void suspended_retell_end(struct vault *v);
void suspended_free(struct vault *v);

/* process.c: secrets or identities of an account changed, or it is gone. */
void vault_account_changed(struct vault *v, int64_t id, const char *name);
void vault_figures(const struct vault *v, json_t *into);
struct guess_settings vault_guess_settings(const struct vault *v);

#endif
