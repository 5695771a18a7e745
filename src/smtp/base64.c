#include "smtp/base64.h"

#include <errno.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t base64_encode(struct span in, char *out)
{
    char *o = out;
    size_t i = 0;
    for (; i + 3 <= in.len; i += 3) {
        uint32_t v = (uint32_t)in.ptr[i] << 16 | (uint32_t)in.ptr[i + 1] << 8 | in.ptr[i + 2];
        *o++ = alphabet[v >> 18];
        *o++ = alphabet[v >> 12 & 63];
        *o++ = alphabet[v >> 6 & 63];
        *o++ = alphabet[v & 63];
    }
    size_t rest = in.len - i;
    if (rest > 0) {
        uint32_t v = (uint32_t)in.ptr[i] << 16 | (rest == 2 ? (uint32_t)in.ptr[i + 1] << 8 : 0);
        *o++ = alphabet[v >> 18];
        *o++ = alphabet[v >> 12 & 63];
        *o++ = rest == 2 ? alphabet[v >> 6 & 63] : '=';
        *o++ = '=';
    }
    return (size_t)(o - out);
}

static int digit(uint8_t c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Four digits, of which the last `pad` are '='. The 24 bits, or -1. */
static int32_t quantum(const uint8_t *p, size_t pad)
{
    int32_t v = 0;
    for (size_t i = 0; i < 4; i++) {
        int d = i < 4 - pad ? digit(p[i]) : 0;
        if (d < 0) {
            return -1;
        }
        v = v << 6 | d;
    }
    int32_t unused = pad == 2 ? 0xffff : pad == 1 ? 0xff : 0;
    return (v & unused) != 0 ? -1 : v;
}

int base64_decode(struct span in, uint8_t *out, size_t size, size_t *ret_len)
{
    if (in.len % 4 != 0) {
        return -EINVAL;
    }
    size_t n = 0;
    for (size_t i = 0; i < in.len; i += 4) {
        const uint8_t *p = in.ptr + i;
        size_t pad = i + 4 < in.len || p[3] != '=' ? 0 : p[2] == '=' ? 2 : 1;
        int32_t v = quantum(p, pad);
        if (v < 0) {
            return -EINVAL;
        }
        if (size - n < 3 - pad) {
            return -EMSGSIZE;
        }
        for (size_t k = 0; k < 3 - pad; k++) {
            out[n++] = (uint8_t)(v >> (16 - 8 * k));
        }
    }
    *ret_len = n;
    return 0;
}
