#include "smtp/xtext.h"

#include <errno.h>

#include "common/utf8.h"

/* Upper case only: RFC 3461 section 4. */
static int hex_value(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool is_xchar(uint8_t c)
{
    return c >= 33 && c <= 126 && c != '+' && c != '=';
}

/* The octet that in begins with; *ret_used its octets on the wire. -1: malformed, or a hidden control octet. */
static int next_octet(struct span in, size_t *ret_used)
{
    *ret_used = 1;
    if (in.ptr[0] != '+') {
        return is_xchar(in.ptr[0]) ? in.ptr[0] : -1;
    }
    if (in.len < 3 || hex_value(in.ptr[1]) < 0 || hex_value(in.ptr[2]) < 0) {
        return -1;
    }
    *ret_used = 3;
    int octet = hex_value(in.ptr[1]) * 16 + hex_value(in.ptr[2]);
    return octet >= 32 && octet <= 126 ? octet : -1;
}

int smtp_xtext_decode(struct span in, struct buf *out)
{
    while (in.len > 0) {
        size_t used;
        int octet = next_octet(in, &used);
        if (octet < 0) {
            return -EINVAL;
        }
        int r = out != NULL ? buf_append_byte(out, (uint8_t)octet) : 0;
        if (r < 0) {
            return r;
        }
        in.ptr += used;
        in.len -= used;
    }
    return 0;
}

/* RFC 6533 section 3: ASCII as in xtext, and UTF-8 as it is where the transaction allows it. */
static bool utf8_address_good(struct span in, bool utf8)
{
    while (in.len > 0) {
        size_t used = utf8 && in.ptr[0] >= 0x80 ? utf8_sequence(in) : 0;
        if (used == 0 && next_octet(in, &used) < 0) {
            return false;
        }
        in.ptr += used;
        in.len -= used;
    }
    return true;
}

static bool is_type_octet(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
}

bool smtp_orcpt_parse(struct span in, bool utf8, struct span *ret_type, struct span *ret_address)
{
    size_t n = 0;
    while (n < in.len && is_type_octet(in.ptr[n])) {
        n++;
    }
    if (n == 0 || n + 1 >= in.len || in.ptr[n] != ';') {
        return false;
    }
    struct span type = {in.ptr, n};
    struct span address = {in.ptr + n + 1, in.len - n - 1};
    bool good = span_eq_nocase(type, SPAN_LIT("utf-8")) ? utf8_address_good(address, utf8)
                                                        : smtp_xtext_decode(address, NULL) == 0;
    if (good) {
        *ret_type = type;
        *ret_address = address;
    }
    return good;
}
