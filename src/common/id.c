#include "common/id.h"

#include <errno.h>
#include <string.h>

#define EPOCH_MS     UINT64_C(1577836800000) /* 2020-01-01T00:00:00Z */
#define COUNTER_BITS 18
#define WORKER_BITS  5

static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";

uint64_t id_mint(struct id_minter *m, uint64_t wall_ms)
{
    uint64_t ms = wall_ms > EPOCH_MS ? wall_ms - EPOCH_MS : 1;
    m->counter = (m->counter + 1) & ((1U << COUNTER_BITS) - 1);
    return ms << (COUNTER_BITS + WORKER_BITS) | (uint64_t)(m->worker & ((1U << WORKER_BITS) - 1)) << COUNTER_BITS |
           m->counter;
}

uint64_t id_wall_ms(uint64_t id)
{
    return (id >> (COUNTER_BITS + WORKER_BITS)) + EPOCH_MS;
}

void id_format(uint64_t id, char text[static ID_TEXT_LEN + 1])
{
    for (int i = ID_TEXT_LEN - 1; i >= 0; i--) {
        text[i] = digits[id & 31];
        id >>= 5;
    }
    text[ID_TEXT_LEN] = '\0';
}

int id_parse(const char *text, uint64_t *ret_id)
{
    uint64_t id = 0;
    if (strlen(text) != ID_TEXT_LEN) {
        return -EINVAL;
    }
    for (int i = 0; i < ID_TEXT_LEN; i++) {
        char c = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] + 32) : text[i];
        const char *d = strchr(digits, c);
        if (d == NULL || c == '\0' || (i == 0 && d - digits > 15)) {
            return -EINVAL; /* 13 characters hold 65 bits: the first has only four */
        }
        id = id << 5 | (uint64_t)(d - digits);
    }
    *ret_id = id;
    return 0;
}
