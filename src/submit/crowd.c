#include "submit/crowd.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "wire/master.h"

#define SLOTS 16384U

struct crowd_row {
    _Atomic uint32_t total;
    _Atomic uint16_t slots[2][SLOTS];
};

struct crowd_memory {
    uint64_t seed[2]; /* random, written by the master */
    struct crowd_row rows[CROWD_ROWS];
};
_Static_assert(sizeof(struct crowd_memory) <= MASTER_SHARED_FAMILIAR, "the master makes room enough");

struct crowd {
    struct crowd_memory *memory;
    uint32_t row;
};

struct crowd *crowd_open(int fd, uint32_t row)
{
    struct stat st;
    struct crowd *c = calloc(1, sizeof(*c));
    if (c == NULL || row >= CROWD_ROWS || fstat(fd, &st) != 0 || st.st_size < (off_t)sizeof(struct crowd_memory)) {
        free(c);
        return NULL;
    }
    c->row = row;
    c->memory = mmap(NULL, sizeof(struct crowd_memory), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (c->memory == MAP_FAILED) {
        free(c);
        return NULL;
    }
    memset((void *)&c->memory->rows[row], 0, sizeof(c->memory->rows[row]));
    return c;
}

void crowd_close(struct crowd **cp)
{
    if (*cp != NULL) {
        (void)munmap((*cp)->memory, sizeof(struct crowd_memory));
        free(*cp);
        *cp = NULL;
    }
}

static uint32_t slot_of(const struct crowd *c, const struct net_address *peer, int which)
{
    size_t len = net_address_is_v4(peer) ? 16 : 8; /* a /64 is one subscriber */
    return (uint32_t)(XXH3_64bits_withSeed(peer->bytes, len, c->memory->seed[which]) % SLOTS);
}

uint32_t crowd_enter(struct crowd *c, const struct net_address *peer)
{
    uint32_t least = UINT32_MAX;
    struct crowd_row *own = &c->memory->rows[c->row];
    own->total++;
    for (int which = 0; which < 2; which++) {
        uint32_t slot = slot_of(c, peer, which);
        uint32_t sum = 0;
        own->slots[which][slot]++;
        for (uint32_t row = 0; row < CROWD_ROWS; row++) {
            sum += c->memory->rows[row].slots[which][slot];
        }
        least = sum < least ? sum : least;
    }
    return least;
}

void crowd_leave(struct crowd *c, const struct net_address *peer)
{
    struct crowd_row *own = &c->memory->rows[c->row];
    own->total--;
    for (int which = 0; which < 2; which++) {
        own->slots[which][slot_of(c, peer, which)]--;
    }
}

uint32_t crowd_total(const struct crowd *c)
{
    uint32_t sum = 0;
    for (uint32_t row = 0; row < CROWD_ROWS; row++) {
        sum += c->memory->rows[row].total;
    }
    return sum;
}
