/*
 * identity.h: is this mailbox one of an account's identities?
 *
 * A pattern is user@example.net (that mailbox), @example.net or *@example.net (every mailbox of that domain, not of
 * domains below it). Domains are compared without case and as A-labels (IDNA 2008, non-transitional, NFC), so
 * müller.example and xn--mller-kva.example are one. Local parts are compared without ASCII case, and as NFC
 * otherwise: stricter than no system we know of delivers, and what users expect. Quoting does not count.
 */
#ifndef KIDOBAN_MESSAGE_IDENTITY_H
#define KIDOBAN_MESSAGE_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"

/* mailbox: local@domain as in a path or a header; what cannot be parsed matches nothing. plus_addressing: user+x@d is
 * user@d as well. */
bool message_identity_matches(struct span mailbox, struct span pattern, bool plus_addressing);
bool message_identity_matches_any(struct span mailbox, const struct span *patterns, size_t count, bool plus_addressing);
/* Is text a pattern at all? For who adds an identity. */
bool message_identity_valid(struct span text);

#endif
