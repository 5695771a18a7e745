#include "common/utf8.h"

#include <string.h>

static size_t lead_length(uint8_t c)
{
    if (c < 0x80) {
        return 1;
    }
    if (c >= 0xc2 && c <= 0xdf) {
        return 2;
    }
    if (c >= 0xe0 && c <= 0xef) {
        return 3;
    }
    return c >= 0xf0 && c <= 0xf4 ? 4 : 0;
}

/* The second octet is narrower after four of the leads: overlong, surrogate, over U+10FFFF. */
static bool second_good(uint8_t lead, uint8_t second)
{
    uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    return second >= low && second <= high;
}

size_t utf8_sequence(struct span in)
{
    size_t n = in.len > 0 ? lead_length(in.ptr[0]) : 0;
    if (n == 0 || n > in.len || (n > 1 && !second_good(in.ptr[0], in.ptr[1]))) {
        return 0;
    }
    for (size_t i = 2; i < n; i++) {
        if ((in.ptr[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return n;
}

bool utf8_valid(struct span in)
{
    while (in.len > 0) {
        size_t n = utf8_sequence(in);
        if (n == 0) {
            return false;
        }
        in.ptr += n;
        in.len -= n;
    }
    return true;
}

bool utf8_has_8bit(struct span in)
{
    uint64_t all = 0;
    size_t i = 0;
    for (; i + 32 <= in.len; i += 32) { /* four words a turn: bodies pass through here */
        uint64_t w[4];
        memcpy(w, in.ptr + i, sizeof(w));
        all |= w[0] | w[1] | w[2] | w[3];
    }
    for (; i < in.len; i++) {
        all |= in.ptr[i];
    }
    return (all & UINT64_C(0x8080808080808080)) != 0;
}
