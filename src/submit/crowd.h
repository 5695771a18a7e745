/*
 * crowd.h: how many connections there are from a network, over all submit processes: a counting sketch in shared
 * memory.
 *
 * Each process has a row of its own, which only it writes; a count is the sum over the rows. A network is an IPv4
 * address or an IPv6 /64. Two slots by two keyed hashes, the smaller counts: a stranger cannot aim at another's slots,
 * and with a few thousand networks a false high count needs both to collide. A process that starts anew empties its
 * row.
 */
#ifndef KIDOBAN_SUBMIT_CROWD_H
#define KIDOBAN_SUBMIT_CROWD_H

#include <stdint.h>

#include "wire/address.h"

#define CROWD_ROWS 64

struct crowd;

/* fd: the memfd that the master made with crowd_make(); borrowed. row: this process's instance. NULL: it is none. */
struct crowd *crowd_open(int fd, uint32_t row);
void crowd_close(struct crowd **c);
/* Counts one connection in; the number from its network now, this one included. */
uint32_t crowd_enter(struct crowd *c, const struct net_address *peer);
void crowd_leave(struct crowd *c, const struct net_address *peer);
uint32_t crowd_total(const struct crowd *c);

#endif
