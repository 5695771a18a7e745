/*
 * shared_fake.h: what the master hands to all submits, and addresses, for tests.
 */
#ifndef KIDOBAN_SUBMIT_SHARED_FAKE_H
#define KIDOBAN_SUBMIT_SHARED_FAKE_H

#include "wire/address.h"

int shared_memory(void); /* a memfd as MASTER_SHARED is; the caller's */
struct net_address shared_address(const char *text);

#endif
