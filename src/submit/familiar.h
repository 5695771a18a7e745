/*
 * familiar.h: the networks from which mail or a login was taken lately, in memory that all submit processes share.
 *
 * When there is more to do than can be done, they go first: a flood of strangers, each with its handshake, must not
 * slow those who send mail. Nothing is ever refused for want of being here. A network is an IPv4 address or an IPv6
 * /64, known by a keyed hash; only who had a right password, or relays from a network the operator named, gets in, so
 * strangers can push nobody out. Several processes write at once without a lock: the worst is a slot that is nobody's.
 */
#ifndef KIDOBAN_SUBMIT_FAMILIAR_H
#define KIDOBAN_SUBMIT_FAMILIAR_H

#include <stdbool.h>
#include <stdint.h>

#include "wire/address.h"

struct familiar;

/* fd: the memfd that the master made for all submits (MASTER_SHARED); borrowed. NULL: it is none, or no memory. */
struct familiar *familiar_open(int fd);
void familiar_close(struct familiar **f);
void familiar_add(struct familiar *f, const struct net_address *peer, uint64_t now_ms); /* monotonic */
bool familiar_has(const struct familiar *f, const struct net_address *peer, uint64_t now_ms);

#endif
