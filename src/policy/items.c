#include "policy/items.h"

#include <stdlib.h>

static struct policy_item item_of(const struct policy_prefix *p, enum policy_item_kind kind, uint32_t value)
{
    struct policy_item i = {.bits = p->bits, .kind = (uint8_t)kind, .value = value};
    for (size_t k = 0; k < sizeof(p->bytes); k++) {
        i.key = i.key << 8 | p->bytes[k];
    }
    return i;
}

/* Among the same prefixes exemptions come after classes: they win. */
static int compare_items(const void *a, const void *b)
{
    const struct policy_item *x = a, *y = b;
    if (x->key != y->key) {
        return x->key < y->key ? -1 : 1;
    }
    if (x->bits != y->bits) {
        return x->bits < y->bits ? -1 : 1;
    }
    if (x->kind != y->kind) {
        return x->kind < y->kind ? -1 : 1;
    }
    return x->value < y->value ? -1 : x->value > y->value;
}

static size_t sorted(struct policy_item *items, size_t count)
{
    if (count > 1) {
        qsort(items, count, sizeof(*items), compare_items);
    }
    return count;
}

struct policy_item *policy_items_room(const struct policy *p)
{
    size_t sources = p->sources_count + p->exemptions_count;
    return malloc(((sources > p->destinations_count ? sources : p->destinations_count) + 1) *
                  sizeof(struct policy_item));
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
