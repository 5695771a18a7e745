/*
 * guess.h: how long an answer to a login waits. Pure: clock, key and memory are passed in, and memory is fixed.
 *
 * A guess is a wrong password that was not tried lately: the same wrong one again (a phone that was not told of the new
 * password) is none. Guesses are counted by (account, network), by network, by the /48 around an IPv6 network, and by
 * account from everywhere; a network is an IPv4 address or an IPv6 /64. Each count halves in its own time and has some
 * guesses free; beyond, right and wrong answers alike wait: first_ms, doubled with each guess, at most max_ms. Nothing
 * is ever refused here, so nobody can be locked out.
 *
 * From a network where an account's password was right lately, only the guesses made at that account from that network
 * count: neither the world guessing at the account nor a neighbour behind the same address slows its owner.
 *
 * The counts outlive the process, if its memory does (guess_file.h): it holds numbers under keyed hashes of names and
 * networks. Which wrong passwords were tried is told by tags under a key of this process alone, so that nobody can try
 * passwords on what lies on the disk; after a restart a stale one counts once more.
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

struct guess_start {
    uint8_t key[GUESS_KEY_LEN];
    uint8_t boot_id[16];          /* of the machine: its clock is that of the earlier guess, or another */
    size_t records, good_records; /* table sizes, powers of two */
    uint64_t now_ms;
    /* guess_octets() of zeros, or what an earlier guess left there, whenever it ended: its counts go on if key and
     * sizes are the same. Nothing in it is believed beyond that: numbers are cut to what can be. Borrowed until
     * guess_free(). */
    void *memory;
};

size_t guess_octets(size_t records, size_t good_records);
/* NULL: no memory. */
struct guess *guess_new(const struct guess_start *start, const struct guess_settings *settings);
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
