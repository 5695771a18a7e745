/* utf8.h: well-formed UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing over U+10FFFF. */
#ifndef KIDOBAN_COMMON_UTF8_H
#define KIDOBAN_COMMON_UTF8_H

#include <stdbool.h>

#include "common/buf.h"

/* Octets of the sequence at the start of in, or 0: none, or not well-formed. */
size_t utf8_sequence(struct span in);
bool utf8_valid(struct span in); /* an empty span is */
bool utf8_has_8bit(struct span in);

#endif
