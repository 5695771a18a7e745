#include "gate/active.h"

#include <string.h>
#include <xxhash.h>

void active_key(const uint8_t address[16], struct gate_source_key *ret)
{
    static const uint8_t v4[12] = {[10] = 0xff, [11] = 0xff};
    memcpy(ret->address, address, 16);
    if (memcmp(address, v4, sizeof(v4)) != 0) {
        memset(ret->address + 8, 0, 8);
    }
}

void active_init(struct active *a, uint64_t seed)
{
    memset(a, 0, sizeof(*a));
    a->seed = seed;
}

static struct active_line *find(struct active *a, const struct gate_source_key *key)
{
    size_t bucket = XXH3_64bits_withSeed(key, sizeof(*key), a->seed) % ACTIVE_BUCKETS;
    struct active_line *first = &a->lines[bucket * ACTIVE_WAYS], *least = first;
    for (size_t i = 0; i < ACTIVE_WAYS; i++) {
        struct active_line *l = &first[i];
        if (l->events > 0 && memcmp(&l->key, key, sizeof(*key)) == 0) {
            return l;
        }
        if (l->events < least->events || (l->events == least->events && l->last.boot_ns < least->last.boot_ns)) {
            least = l;
        }
    }
    a->lost += least->events;
    *least = (struct active_line){.key = *key};
    return least;
}

static void note_far(struct active *a, struct active_line *l, const uint8_t address[16], bool ours)
{
    size_t at = 0;
    for (size_t i = 0; i < ACTIVE_FARS; i++) {
        if (l->fars[i].count > 0 && memcmp(l->fars[i].address, address, 16) == 0) {
            l->fars[i].count++;
            return;
        }
        at = l->fars[i].count < l->fars[at].count ? i : at;
    }
    a->lost += l->fars[at].count;
    memcpy(l->fars[at].address, address, 16);
    l->fars[at].count = 1;
    l->fars[at].ours = ours;
}

struct active_line *active_take(struct active *a, const struct gate_event *event)
{
    struct gate_source_key key;
    active_key(event->subject, &key);
    struct active_line *l = find(a, &key);
    if (l->events == 0) {
        uint64_t before = event->packets > 0 ? event->packets - 1 : 0;
        l->first_ns = l->base_ns = l->next_ns = event->boot_ns;
        l->told_packets = l->base_packets = l->next_packets = before;
    }
    /* The kernel forgot the line in between, and counts anew. */
    l->told_packets = event->packets < l->told_packets ? 0 : l->told_packets;
    l->base_packets = event->packets < l->base_packets ? 0 : l->base_packets;
    l->next_packets = event->packets < l->next_packets ? 0 : l->next_packets;
    l->events += l->events < UINT32_MAX ? 1 : 0;
    l->last = *event;
    note_far(a, l, event->far, event->uplink == 0);
    return l;
}

struct active_line *active_next(struct active *a, size_t *position)
{
    while (*position < ACTIVE_LINES) {
        struct active_line *l = &a->lines[(*position)++];
        if (l->events > 0) {
            return l;
        }
    }
    return NULL;
}

void active_turn(struct active *a, uint64_t now_ns, uint64_t idle_ns)
{
    size_t position = 0;
    for (struct active_line *l; (l = active_next(a, &position)) != NULL;) {
        if (now_ns > l->last.boot_ns && now_ns - l->last.boot_ns > idle_ns) {
            *l = (struct active_line){0};
            continue;
        }
        l->base_ns = l->next_ns;
        l->base_packets = l->next_packets;
        l->next_ns = now_ns;
        l->next_packets = l->last.packets;
    }
}

uint64_t active_rate_milli(const struct active_line *l, uint64_t now_ns, uint64_t packets)
{
    uint64_t passed_ms = now_ns > l->base_ns ? (now_ns - l->base_ns) / 1000000U : 0;
    uint64_t more = packets > l->base_packets ? packets - l->base_packets : 0;
    passed_ms = passed_ms < 1000 ? 1000 : passed_ms;
    return more < UINT64_MAX / 1000000U ? more * 1000000U / passed_ms : UINT64_MAX;
}
