#include "guard/table.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define TABLE_VERSION 1U
#define HEADER_OCTETS 4096U
#define PROBE         32U
#define NAME_OCTETS   64U

static const char magic[8] = "kidoLIMT";

struct record {
    uint64_t tat_ns, interval_ns;
    uint32_t generation; /* 0: never written */
    uint32_t check;
};

struct slot {
    struct table_key key;
    struct record records[2]; /* the valid one with the later generation counts */
};
_Static_assert(sizeof(struct slot) == 64, "a slot is a cache line");

struct header {
    char magic[8];
    uint32_t version, slot_octets;
    uint64_t slots;
    uint8_t hash_key[16];
    uint8_t boot_id[16];
    uint64_t offset_ns; /* table time = monotonic + offset, modulo 2^64 */
    uint64_t check;     /* over all above: written once in a file's life */
    uint64_t last_now_ns;
};

struct table {
    int directory_fd; /* a real one, for fsync; -1: in memory only */
    char name[NAME_OCTETS];
    struct header *header; /* start of the mapping */
    struct slot *slots;
    uint64_t mask, slots_max;
    struct table_figures figures;
};

static uint32_t record_check(const struct table_key *key, const struct record *r)
{
    uint8_t bytes[16 + 8 + 8 + 4];
    memcpy(bytes, key->bytes, 16);
    memcpy(bytes + 16, &r->tat_ns, 8);
    memcpy(bytes + 24, &r->interval_ns, 8);
    memcpy(bytes + 32, &r->generation, 4);
    return (uint32_t)XXH3_64bits(bytes, sizeof(bytes));
}

static bool record_is_valid(const struct slot *s, const struct record *r)
{
    return r->generation != 0 && r->check == record_check(&s->key, r);
}

/* The index of the record that counts, or -1. */
static int slot_current(const struct slot *s)
{
    bool first = record_is_valid(s, &s->records[0]), second = record_is_valid(s, &s->records[1]);
    if (first && second) {
        return (int32_t)(s->records[0].generation - s->records[1].generation) > 0 ? 0 : 1;
    }
    return first ? 0 : second ? 1 : -1;
}

static bool slot_is_used(const struct slot *s)
{
    return s->records[0].generation != 0 || s->records[1].generation != 0;
}

/* When the slot comes free; 0 when it is free or damaged. */
static uint64_t slot_tat(const struct slot *s)
{
    int i = slot_current(s);
    return i < 0 ? 0 : s->records[i].tat_ns;
}

/* The compiler must keep the order too: a kill between two stores is what the order is for. */
static void record_write(struct slot *s, struct record *r, uint64_t tat_ns, uint64_t interval_ns, uint32_t generation)
{
    r->check = ~r->check;
    atomic_signal_fence(memory_order_seq_cst);
    r->tat_ns = tat_ns;
    r->interval_ns = interval_ns;
    r->generation = generation != 0 ? generation : 1;
    uint32_t check = record_check(&s->key, r);
    atomic_signal_fence(memory_order_seq_cst);
    r->check = check;
    atomic_signal_fence(memory_order_seq_cst);
}

static void slot_update(struct slot *s, int current, uint64_t tat_ns, uint64_t interval_ns)
{
    uint32_t generation = s->records[current].generation + 1;
    record_write(s, &s->records[1 - current], tat_ns, interval_ns, generation);
}

/* What stood there was past, damaged or evicted: its key goes first, which makes its records void. */
static void slot_replace(struct slot *s, const struct table_key *key, uint64_t tat_ns, uint64_t interval_ns)
{
    uint32_t a = s->records[0].generation, b = s->records[1].generation;
    s->key = *key;
    atomic_signal_fence(memory_order_seq_cst);
    record_write(s, &s->records[0], tat_ns, interval_ns, ((int32_t)(a - b) > 0 ? a : b) + 1);
    s->records[1] = (struct record){0};
}

static uint64_t key_home(const struct table_key *key)
{
    uint64_t home;
    memcpy(&home, key->bytes, sizeof(home));
    return home;
}

static struct slot *probe(const struct table *t, const struct table_key *key, unsigned step)
{
    return &t->slots[(key_home(key) + step) & t->mask];
}

/* The slot of key with its current record, or NULL. */
static struct slot *find(const struct table *t, const struct table_key *key, int *ret_current)
{
    for (unsigned i = 0; i < PROBE; i++) {
        struct slot *s = probe(t, key, i);
        if (memcmp(s->key.bytes, key->bytes, sizeof(key->bytes)) == 0) {
            *ret_current = slot_current(s);
            if (*ret_current >= 0) {
                return s;
            }
        }
    }
    return NULL;
}

/* The slot in the probe that comes free first; it is free now when its time is not after now. */
static struct slot *find_place(const struct table *t, const struct table_key *key, uint64_t *ret_tat_ns)
{
    struct slot *best = NULL;
    for (unsigned i = 0; i < PROBE; i++) {
        struct slot *s = probe(t, key, i);
        uint64_t tat = slot_tat(s);
        if (best == NULL || tat < *ret_tat_ns) {
            best = s;
            *ret_tat_ns = tat;
        }
        if (tat == 0) {
            break;
        }
    }
    return best;
}

static size_t map_octets(uint64_t slots)
{
    return HEADER_OCTETS + (size_t)slots * sizeof(struct slot);
}

static uint64_t header_check(const struct header *h)
{
    return XXH3_64bits(h, offsetof(struct header, check));
}

static bool header_is_valid(const struct header *h, uint64_t file_octets)
{
    return memcmp(h->magic, magic, sizeof(magic)) == 0 && h->check == header_check(h) && h->version == TABLE_VERSION &&
           h->slot_octets == sizeof(struct slot) && h->slots >= TABLE_SLOTS_MIN && h->slots <= TABLE_SLOTS_MAX &&
           (h->slots & (h->slots - 1)) == 0 && file_octets == map_octets(h->slots);
}

static void unmap(struct table *t)
{
    if (t->header != NULL) {
        (void)munmap(t->header, map_octets(t->mask + 1));
        t->header = NULL;
    }
}

/* Maps a new file `path`, every block of it really there: a store into a hole on a full disk would be SIGBUS. */
static void *map_new(int directory_fd, const char *path, uint64_t slots)
{
    int fd = openat(directory_fd, path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return NULL;
    }
    void *map = MAP_FAILED;
    if (fallocate(fd, 0, 0, (off_t)map_octets(slots)) == 0) {
        map = mmap(NULL, map_octets(slots), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    (void)close(fd);
    return map == MAP_FAILED ? NULL : map;
}

static void adopt_map(struct table *t, void *map, uint64_t slots, const struct header *like)
{
    t->header = map;
    t->slots = (struct slot *)((uint8_t *)map + HEADER_OCTETS);
    t->mask = slots - 1;
    struct header h = *like;
    memcpy(h.magic, magic, sizeof(magic));
    h.version = TABLE_VERSION;
    h.slot_octets = sizeof(struct slot);
    h.slots = slots;
    h.check = header_check(&h);
    *t->header = h;
    t->figures.slots = slots;
}

/* Into a table that does not grow now. */
static void put(struct table *t, const struct table_key *key, uint64_t now_ns, const struct record *r)
{
    uint64_t tat_ns = 0;
    struct slot *s = find_place(t, key, &tat_ns);
    if (tat_ns > now_ns) {
        t->figures.evicted++;
        if (tat_ns >= r->tat_ns) {
            return;
        }
    }
    slot_replace(s, key, r->tat_ns, r->interval_ns);
}

static void copy_live(struct table *t, const struct slot *from, uint64_t slots, uint64_t now_ns)
{
    for (uint64_t i = 0; i < slots; i++) {
        int current = slot_current(&from[i]);
        if (current < 0) {
            t->figures.damaged += slot_is_used(&from[i]) ? 1 : 0;
        } else if (from[i].records[current].tat_ns > now_ns) {
            put(t, &from[i].key, now_ns, &from[i].records[current]);
        }
    }
}

/* A new file beside the old one takes its place when it is whole and on disk. 0, or -errno: nothing has changed. */
static int rebuild(struct table *t, uint64_t slots, const struct header *like, const struct slot *from,
                   uint64_t from_slots, uint64_t now_ns)
{
    char aside[NAME_OCTETS + 8];
    (void)snprintf(aside, sizeof(aside), "%s.new", t->name);
    void *map = t->directory_fd >= 0 ? map_new(t->directory_fd, aside, slots) : NULL;
    if (map == NULL) {
        return -EIO;
    }
    struct table next = *t;
    adopt_map(&next, map, slots, like);
    copy_live(&next, from, from_slots, now_ns);
    if (msync(map, map_octets(slots), MS_SYNC) != 0 ||
        renameat(t->directory_fd, aside, t->directory_fd, t->name) != 0) {
        int err = errno;
        unmap(&next);
        (void)unlinkat(t->directory_fd, aside, 0);
        return -err;
    }
    (void)fsync(t->directory_fd);
    unmap(t);
    *t = next;
    t->figures.rebuilt++;
    return 0;
}

/* In memory: growth is a copy. */
static int rebuild_in_memory(struct table *t, uint64_t slots, const struct header *like, const struct slot *from,
                             uint64_t from_slots, uint64_t now_ns)
{
    void *map = mmap(NULL, map_octets(slots), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) {
        return -ENOMEM;
    }
    struct table next = *t;
    adopt_map(&next, map, slots, like);
    copy_live(&next, from, from_slots, now_ns);
    unmap(t);
    *t = next;
    return 0;
}

static int grow(struct table *t, uint64_t now_ns)
{
    uint64_t slots = t->mask + 1;
    if (slots * 2 > t->slots_max) {
        return -ENOSPC;
    }
    struct header like = *t->header;
    int r = t->figures.persistent ? rebuild(t, slots * 2, &like, t->slots, slots, now_ns)
                                  : rebuild_in_memory(t, slots * 2, &like, t->slots, slots, now_ns);
    if (r < 0) {
        t->slots_max = slots; /* the disk or the memory has no more: do not try at every message */
    }
    return r;
}

struct old_file {
    struct header *header;
    size_t octets;
};

static void old_file_map(int directory_fd, const char *name, struct old_file *old)
{
    struct stat st;
    *old = (struct old_file){0};
    int fd = openat(directory_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return;
    }
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size >= (off_t)HEADER_OCTETS) {
        void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map != MAP_FAILED) {
            *old = (struct old_file){.header = map, .octets = (size_t)st.st_size};
        }
    }
    (void)close(fd);
}

static bool is_zero(const uint8_t *p, size_t len)
{
    uint8_t any = 0;
    for (size_t i = 0; i < len; i++) {
        any |= p[i];
    }
    return any == 0;
}

static void header_next(const struct header *old, const struct table_clock *clock, struct header *next)
{
    *next = (struct header){0};
    uint64_t start_ns = clock->wall_ns;
    if (old != NULL) {
        memcpy(next->hash_key, old->hash_key, sizeof(next->hash_key));
        next->last_now_ns = old->last_now_ns;
        start_ns = old->last_now_ns > start_ns ? old->last_now_ns : start_ns;
    } else {
        randombytes_buf(next->hash_key, sizeof(next->hash_key));
    }
    memcpy(next->boot_id, clock->boot_id, sizeof(next->boot_id));
    bool same_boot = old != NULL && !is_zero(clock->boot_id, sizeof(clock->boot_id)) &&
                     memcmp(old->boot_id, clock->boot_id, sizeof(old->boot_id)) == 0;
    next->offset_ns = same_boot ? old->offset_ns : start_ns - clock->mono_ns;
}

static uint64_t round_down(uint64_t slots_max)
{
    uint64_t slots = TABLE_SLOTS_MIN;
    while (slots * 2 <= slots_max && slots * 2 <= TABLE_SLOTS_MAX) {
        slots *= 2;
    }
    return slots;
}

int table_open(int directory_fd, const char *name, const struct table_clock *clock, uint64_t slots_max,
               struct table **ret_table)
{
    struct table *t = calloc(1, sizeof(*t));
    if (t == NULL || sodium_init() < 0) {
        free(t);
        return -ENOMEM;
    }
    assert(strlen(name) < sizeof(t->name));
    memcpy(t->name, name, strlen(name) + 1);
    t->directory_fd = openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    t->slots_max = round_down(slots_max);
    struct old_file old;
    old_file_map(directory_fd, name, &old);
    bool usable = old.header != NULL && header_is_valid(old.header, old.octets);
    t->figures.damaged = old.header != NULL && !usable ? 1 : 0;
    struct header next;
    header_next(usable ? old.header : NULL, clock, &next);
    uint64_t now_ns = clock->mono_ns + next.offset_ns, old_slots = usable ? old.header->slots : 0;
    uint64_t slots = old_slots == 0 ? TABLE_SLOTS_MIN : old_slots > t->slots_max ? t->slots_max : old_slots;
    const struct slot *from = usable ? (const struct slot *)((uint8_t *)old.header + HEADER_OCTETS) : NULL;
    t->figures.persistent = rebuild(t, slots, &next, from, old_slots, now_ns) == 0;
    int r = t->figures.persistent ? 0 : rebuild_in_memory(t, slots, &next, from, old_slots, now_ns);
    if (old.header != NULL) {
        (void)munmap(old.header, old.octets);
    }
    if (r < 0) {
        table_close(&t);
        return r;
    }
    *ret_table = t;
    return 0;
}

void table_close(struct table **tp)
{
    struct table *t = *tp;
    if (t == NULL) {
        return;
    }
    *tp = NULL;
    if (t->header != NULL && t->figures.persistent) {
        (void)msync(t->header, map_octets(t->mask + 1), MS_SYNC);
    }
    unmap(t);
    if (t->directory_fd >= 0) {
        (void)close(t->directory_fd);
    }
    free(t);
}

uint64_t table_now(const struct table *t, uint64_t mono_ns)
{
    return mono_ns + t->header->offset_ns;
}

void table_key_make(const struct table *t, struct span limit, struct span subject, struct table_key *ret_key)
{
    uint8_t bytes[512];
    assert(limit.len > 0 && limit.len <= 128 && subject.len <= sizeof(bytes) - 1 - 128);
    bytes[0] = (uint8_t)limit.len;
    memcpy(bytes + 1, limit.ptr, limit.len);
    if (subject.len > 0) {
        memcpy(bytes + 1 + limit.len, subject.ptr, subject.len);
    }
    (void)crypto_shorthash_siphashx24(ret_key->bytes, bytes, 1 + limit.len + subject.len, t->header->hash_key);
}

bool table_get(const struct table *t, const struct table_key *key, uint64_t now_ns, uint64_t *ret_tat_ns,
               uint64_t *ret_interval_ns)
{
    int current;
    const struct slot *s = find(t, key, &current);
    if (s == NULL || s->records[current].tat_ns <= now_ns) {
        return false;
    }
    *ret_tat_ns = s->records[current].tat_ns;
    *ret_interval_ns = s->records[current].interval_ns;
    return true;
}

void table_set(struct table *t, const struct table_key *key, uint64_t now_ns, uint64_t tat_ns, uint64_t interval_ns)
{
    int current;
    struct slot *s = find(t, key, &current);
    t->header->last_now_ns = now_ns;
    if (s != NULL) {
        slot_update(s, current, tat_ns, interval_ns);
        return;
    }
    if (tat_ns <= now_ns) {
        return;
    }
    uint64_t taken_until = 0;
    s = find_place(t, key, &taken_until);
    while (taken_until > now_ns && grow(t, now_ns) == 0) {
        taken_until = 0;
        s = find_place(t, key, &taken_until);
    }
    t->figures.evicted += taken_until > now_ns ? 1 : 0;
    slot_replace(s, key, tat_ns, interval_ns);
}

void table_figures(const struct table *t, struct table_figures *ret)
{
    *ret = t->figures;
}

uint64_t table_live(const struct table *t, uint64_t now_ns)
{
    uint64_t live = 0;
    for (uint64_t i = 0; i <= t->mask; i++) {
        live += slot_tat(&t->slots[i]) > now_ns ? 1 : 0;
    }
    return live;
}
