#include "gate_set.h"

#include <stdlib.h>
#include <string.h>

const char *const gate_set_names[GATE_SETS] = {
    [GATE_SET_HOSTS4] = "hosts4", [GATE_SET_MIXED4] = "mixed4", [GATE_SET_MIXED6] = "mixed6"};

uint64_t gate_set_draw(uint64_t *seed)
{
    *seed ^= *seed << 13; /* xorshift64 */
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static uint8_t draw_bits(enum gate_set which, uint64_t *seed)
{
    uint64_t n = gate_set_draw(seed) >> 32;
    switch (which) {
    case GATE_SET_MIXED4:
        return (uint8_t)(96 + (n % 2 == 0 ? 32 : 20 + n / 2 % 12));
    case GATE_SET_MIXED6:
        return n % 2 == 0 ? 64 : 56;
    default:
        return 128;
    }
}

struct net_prefix *gate_set_new(enum gate_set which, size_t count, uint64_t *seed)
{
    struct net_prefix *all = calloc(count, sizeof(*all));
    for (size_t i = 0; all != NULL && i < count; i++) {
        struct net_prefix *p = &all[i];
        uint64_t random = gate_set_draw(seed);
        p->bits = draw_bits(which, seed);
        if (which == GATE_SET_MIXED6) {
            memcpy(p->bytes, &random, 8);
            p->bytes[0] = (uint8_t)(0x20 | (p->bytes[0] & 0x1f));
        } else {
            p->bytes[10] = p->bytes[11] = 0xff;
            memcpy(p->bytes + 12, &random, 4);
        }
        for (unsigned bit = p->bits; bit < 128; bit++) {
            p->bytes[bit / 8] &= (uint8_t) ~(0x80U >> bit % 8);
        }
    }
    return all;
}

struct policy_address gate_set_address(const struct net_prefix *p, uint64_t *seed)
{
    struct policy_prefix in = policy_prefix_of(p);
    struct policy_address a = {.v6 = in.v6};
    uint64_t random[2] = {gate_set_draw(seed), gate_set_draw(seed)};
    memcpy(a.bytes, random, in.v6 ? 16 : 4);
    for (unsigned bit = 0; bit < in.bits; bit++) {
        uint8_t mask = (uint8_t)(0x80U >> bit % 8);
        a.bytes[bit / 8] = (uint8_t)((a.bytes[bit / 8] & ~mask) | (in.bytes[bit / 8] & mask));
    }
    return a;
}
