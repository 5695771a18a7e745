#include "submit/familiar.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "wire/master.h"

#define SLOTS   65536U
#define WAYS    4U
#define KEPT_MS (UINT64_C(7) * 24 * 3600 * 1000)

struct slot {
    _Atomic uint64_t key, until_ms; /* 0: free */
};

struct familiar {
    struct slot *slots;
    uint64_t seed;
};
_Static_assert(MASTER_SHARED_FAMILIAR + SLOTS * sizeof(struct slot) <= MASTER_SHARED_SIZE,
               "the master makes room enough");

struct familiar *familiar_open(int fd)
{
    struct stat st;
    struct familiar *f = calloc(1, sizeof(*f));
    if (f == NULL || fstat(fd, &st) != 0 || st.st_size < (off_t)MASTER_SHARED_SIZE ||
        pread(fd, &f->seed, sizeof(f->seed), 0) != (ssize_t)sizeof(f->seed)) {
        free(f);
        return NULL;
    }
    void *map = mmap(NULL, SLOTS * sizeof(struct slot), PROT_READ | PROT_WRITE, MAP_SHARED, fd, MASTER_SHARED_FAMILIAR);
    if (map == MAP_FAILED) {
        free(f);
        return NULL;
    }
    f->slots = map;
    return f;
}

void familiar_close(struct familiar **fp)
{
    if (*fp != NULL) {
        (void)munmap((*fp)->slots, SLOTS * sizeof(struct slot));
        free(*fp);
        *fp = NULL;
    }
}

static uint64_t key_of(const struct familiar *f, const struct net_address *peer)
{
    size_t len = net_address_is_v4(peer) ? 16 : 8; /* a /64 is one subscriber */
    return XXH3_64bits_withSeed(peer->bytes, len, f->seed);
}

static struct slot *first_of(const struct familiar *f, uint64_t key)
{
    return &f->slots[(key >> 32) % (SLOTS / WAYS) * WAYS];
}

void familiar_add(struct familiar *f, const struct net_address *peer, uint64_t now_ms)
{
    uint64_t key = key_of(f, peer);
    struct slot *at = first_of(f, key), *best = at;
    for (size_t i = 0; i < WAYS && best->key != key; i++) {
        best = at[i].key == key || at[i].until_ms < best->until_ms ? &at[i] : best;
    }
    best->key = key;
    best->until_ms = now_ms + KEPT_MS;
}

bool familiar_has(const struct familiar *f, const struct net_address *peer, uint64_t now_ms)
{
    uint64_t key = key_of(f, peer);
    const struct slot *at = first_of(f, key);
    for (size_t i = 0; i < WAYS; i++) {
        if (at[i].key == key) {
            return at[i].until_ms > now_ms;
        }
    }
    return false;
}
