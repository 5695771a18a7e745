/* xtext.h: the encoding of ENVID=, ORCPT= and AUTH= (RFC 3461 section 4). Reads hostile octets. */
#ifndef KIDOBAN_SMTP_XTEXT_H
#define KIDOBAN_SMTP_XTEXT_H

#include <stdbool.h>

#include "common/buf.h"

/*
 * 0 and the decoded octets appended to out (NULL: check only); -EINVAL when in is malformed or hides an octet that is
 * not printable ASCII or space ("+00", "+0D+0A": header injection behind us); or as buf_append(), out then holds a
 * part.
 */
int smtp_xtext_decode(struct span in, struct buf *out);
/* ORCPT=: addr-type;xtext. utf8: "utf-8;" may carry UTF-8 as it is (RFC 6533 section 3). The views are into in. */
bool smtp_orcpt_parse(struct span in, bool utf8, struct span *ret_type, struct span *ret_address);

#endif
