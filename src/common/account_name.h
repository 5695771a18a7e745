/*
 * account_name.h: one form for an account's name, whoever typed it: SASLprep (RFC 4013), case folded, NFKC (which is
 * NFC too). The vault looks accounts up by it, the guard suspends by it. Names come from strangers.
 */
#ifndef KIDOBAN_COMMON_ACCOUNT_NAME_H
#define KIDOBAN_COMMON_ACCOUNT_NAME_H

#include "common/buf.h"

#define ACCOUNT_NAME_MAX 255

/* 0 and a NUL-terminated name, or -EINVAL: empty, too long, not UTF-8, or with an octet that no name may have (space,
 * control, one of "*<>\). */
int account_name_normalise(struct span raw, char ret_name[static ACCOUNT_NAME_MAX + 1]);

#endif
