/*
 * guess.h: how long an answer to a login waits. Pure: clock and key are passed in, memory is fixed.
 *
 * A guess is a wrong password that was not tried lately: the same wrong one again (a phone that was not told of the new
 * password) is none. Guesses are counted by (account, network), by network, by the /48 around an IPv6 network, and by
 * account from everywhere; a network is an IPv4 address or an IPv6 /64. Each count halves in its own time and has some
 * guesses free; beyond, right and wrong answers alike wait: first_ms, doubled with each guess, at most max_ms. Nothing
 * is ever refused here, so nobody can be locked out.
 *
 * From a network where an account's password was right lately, only the guesses made at that account from that network
 * count: neither the world guessing at the account nor a neighbour behind the same address slows its owner.
 */
#ifndef KIDOBAN_VAULT_GUESS_H
#define KIDOBAN_VAULT_GUESS_H

#include "wire/address.h"

#define GUESS_KEY_LEN 16U

struct guess;

struct guess_settings {
    uint64_t first_ms, max_ms;
    uint32_t free;    /* guesses at one account from one network before its answers wait */
    uint64_t good_ms; /* how long a right password makes a network known */
};

struct guess_who {
    struct span account; /* as normalised, also of accounts that do not exist */
    struct net_address peer;
};

struct guess_outcome {
    bool repeated; /* not a new guess */
    uint64_t wait_ms;
};

/* records and good_records: table sizes, powers of two. NULL: no memory. */
struct guess *guess_new(const uint8_t key[static GUESS_KEY_LEN], size_t records, size_t good_records,
                        const struct guess_settings *settings);
void guess_free(struct guess **g);
void guess_configure(struct guess *g, const struct guess_settings *settings);

/* what: octets that are the same for the same wrong password of that account (a keyed digest); empty: cannot be told,
 * so it counts as new (SCRAM). */
struct guess_outcome guess_failed(struct guess *g, const struct guess_who *who, struct span what, uint64_t now_ms);
void guess_succeeded(struct guess *g, const struct guess_who *who, uint64_t now_ms);
uint64_t guess_wait_ms(const struct guess *g, const struct guess_who *who, uint64_t now_ms);
/* For what was guessed from this network, at this account or others; not what the world guesses at the account. */
uint64_t guess_network_wait_ms(const struct guess *g, const struct guess_who *who, uint64_t now_ms);
/* Was this account's password right from this network lately? */
bool guess_is_known(const struct guess *g, const struct guess_who *who, uint64_t now_ms);
/* Guesses counted now at this account from anywhere, for the log. */
uint32_t guess_count(const struct guess *g, const struct guess_who *who, uint64_t now_ms);
/* The network as a key for the caller's own tables: 16 octets. */
void guess_network(const struct net_address *peer, uint8_t ret[static 16]);

#endif
