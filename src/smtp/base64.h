/* base64.h: RFC 4648 section 4, strict: no white space, padding complete, unused bits zero. Reads hostile octets. */
#ifndef KIDOBAN_SMTP_BASE64_H
#define KIDOBAN_SMTP_BASE64_H

#include "common/buf.h"

#define BASE64_ENCODED_LEN(n) (((n) + 2) / 3 * 4)
#define BASE64_DECODED_MAX(n) ((n) / 4 * 3)

/* Writes BASE64_ENCODED_LEN(in.len) octets to out, no NUL; returns that number. */
size_t base64_encode(struct span in, char *out);
/* 0 and *ret_len octets in out; -EINVAL: not base64; -EMSGSIZE: more than size. */
int base64_decode(struct span in, uint8_t *out, size_t size, size_t *ret_len);

#endif
