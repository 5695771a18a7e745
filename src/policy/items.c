#include "policy/items.h"

#include <endian.h>
#include <stddef.h>
#include <string.h>

#include "common/large.h"
#include "common/radix.h"

static policy_key key_of(const uint8_t bytes[16])
{
    uint64_t halves[2];
    memcpy(halves, bytes, sizeof(halves));
    return (policy_key)be64toh(halves[0]) << 64 | be64toh(halves[1]);
}

static struct policy_item item_of(const struct policy_prefix *p, enum policy_item_kind kind, uint32_t value)
{
    return (struct policy_item){.key = key_of(p->bytes), .bits = p->bits, .kind = (uint8_t)kind, .value = value};
}

#define KEY_AT(octet) (offsetof(struct policy_item, key) + (__BYTE_ORDER == __LITTLE_ENDIAN ? (octet) : 15 - (octet)))

/* By key, then bits. The sort is stable: among the same prefixes exemptions come after classes, and win. */
static size_t sorted(struct policy_item *items, size_t count)
{
    static const uint8_t order[] = {offsetof(struct policy_item, bits),
                                    KEY_AT(0),
                                    KEY_AT(1),
                                    KEY_AT(2),
                                    KEY_AT(3),
                                    KEY_AT(4),
                                    KEY_AT(5),
                                    KEY_AT(6),
                                    KEY_AT(7),
                                    KEY_AT(8),
                                    KEY_AT(9),
                                    KEY_AT(10),
                                    KEY_AT(11),
                                    KEY_AT(12),
                                    KEY_AT(13),
                                    KEY_AT(14),
                                    KEY_AT(15)};
    radix_sort(items, items + count, count, sizeof(*items), order, sizeof(order));
    return count;
}

struct policy_item *policy_items_room(const struct policy *p)
{
    size_t sources = p->sources_count + p->exemptions_count;
    size_t most = (sources > p->destinations_count ? sources : p->destinations_count) + 1;
    return large_alloc(2 * most, sizeof(struct policy_item)); /* as much again, to sort with */
}

size_t policy_items_of_sources(const struct policy *p, bool v6, const uint16_t *numbers, struct policy_item *items)
{
    size_t count = 0;
    for (size_t i = 0; i < p->sources_count; i++) {
        if (p->sources[i].prefix.v6 == v6) {
            items[count++] = item_of(&p->sources[i].prefix, ITEM_CLASS, numbers[p->sources[i].class_]);
        }
    }
    for (size_t i = 0; i < p->exemptions_count; i++) {
        if (p->exemptions[i].prefix.v6 == v6) {
            items[count++] = item_of(&p->exemptions[i].prefix, ITEM_EXEMPTION, (uint32_t)i + 1);
        }
    }
    return sorted(items, count);
}

size_t policy_items_of_destinations(const struct policy *p, bool v6, struct policy_item *items)
{
    size_t count = 0;
    for (size_t i = 0; i < p->destinations_count; i++) {
        if (p->destinations[i].prefix.v6 == v6) {
            items[count++] = item_of(&p->destinations[i].prefix, ITEM_SET, p->destinations[i].set);
        }
    }
    return sorted(items, count);
}

static uint32_t later_exemption(const struct policy_exemption *e, uint32_t outer, uint32_t inner)
{
    return outer != 0 && e[outer - 1].until_ns > e[inner - 1].until_ns ? outer : inner;
}

uint32_t policy_item_under(const struct policy *p, uint32_t leaf, const struct policy_item *i)
{
    switch ((enum policy_item_kind)i->kind) {
    case ITEM_CLASS:
        return i->value;
    case ITEM_EXEMPTION:
        return BLOB_CLASS(leaf) | later_exemption(p->exemptions, BLOB_EXEMPTION(leaf), i->value) << BLOB_CLASS_BITS;
    case ITEM_SET:
        return leaf | 1U << i->value;
    }
    return leaf;
}
