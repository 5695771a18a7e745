#include "policy/blob_read.h"

#include <errno.h>
#include <string.h>

#define LANES 8U

static bool within(const struct blob *b, uint64_t at, uint64_t count)
{
    return at <= b->header.cells && count <= b->header.cells - at;
}

int blob_open(struct blob *ret, const union blob_cell *cells, size_t count)
{
    struct blob b = {.cells = cells};
    if (count < sizeof(b.header) / sizeof(cells[0])) {
        return -EINVAL;
    }
    memcpy(&b.header, cells, sizeof(b.header));
    const uint32_t roots[] = {b.header.source4_at, b.header.source6_at, b.header.dest4_at, b.header.dest6_at};
    bool good = b.header.version == BLOB_VERSION && b.header.cells <= count &&
                within(&b, b.header.classes_at, b.header.classes) &&
                within(&b, b.header.exempt_at, b.header.exemptions);
    for (size_t i = 0; i < sizeof(roots) / sizeof(roots[0]); i++) {
        good = good && within(&b, roots[i], BLOB_ROOT_ENTRIES / LANES);
    }
    if (!good) {
        return -EINVAL;
    }
    *ret = b;
    return 0;
}

static uint32_t lane(const struct blob *b, uint64_t at, uint64_t n)
{
    uint64_t cell = at + n / LANES;
    return cell < b->header.cells ? b->cells[cell].lanes[n % LANES] : BLOB_LEAF;
}

/* Bits `first` to `first + count` of the address; behind its end they are 0. */
static unsigned bits_of(const struct policy_address *a, unsigned first, unsigned count)
{
    unsigned value = 0, len = a->v6 ? 128 : 32;
    for (unsigned i = first; i < first + count; i++) {
        value = value << 1 | (i < len ? a->bytes[i / 8] >> (7 - i % 8) & 1U : 0);
    }
    return value;
}

static unsigned ones_below(uint64_t bits, unsigned n)
{
    return (unsigned)__builtin_popcountll(bits & ((UINT64_C(1) << n) - 1));
}

/* Does the address have the jump's bits, from bit `depth` on? */
static bool has_bits(const struct blob_jump *j, unsigned depth, const struct policy_address *a)
{
    for (unsigned i = 0; i < j->bits; i++) {
        uint64_t word = i < 64 ? j->hi : j->lo;
        if (bits_of(a, depth + i, 1) != (word >> (63 - i % 64) & 1)) {
            return false;
        }
    }
    return true;
}

static uint32_t find(const struct blob *b, uint32_t root, const struct policy_address *a)
{
    unsigned depth = BLOB_ROOT_BITS, len = a->v6 ? 128 : 32;
    uint32_t entry = lane(b, root, bits_of(a, 0, BLOB_ROOT_BITS));
    while ((entry & BLOB_LEAF) == 0 && depth < len && entry < b->header.cells) {
        const union blob_cell *c = &b->cells[entry];
        unsigned value = bits_of(a, depth, BLOB_STEP_BITS);
        if (c->jump.bits > 0) {
            bool inside = c->jump.bits <= len - depth && has_bits(&c->jump, depth, a);
            entry = inside ? c->jump.inside : c->jump.outside;
            depth += c->jump.bits;
        } else if ((c->node.children >> value & 1) != 0) {
            entry = c->node.child_base + ones_below(c->node.children, value);
            depth += BLOB_STEP_BITS;
        } else if ((c->node.leaf_base & BLOB_LEAF) != 0) {
            entry = c->node.leaf_base;
        } else {
            uint64_t at =
                (uint64_t)c->node.leaf_base + ones_below(c->node.leaves, value) + (c->node.leaves >> value & 1) - 1;
            entry = BLOB_LEAF | lane(b, 0, at);
        }
    }
    return (entry & BLOB_LEAF) != 0 ? entry & ~BLOB_LEAF : 0;
}

uint32_t blob_source_find(const struct blob *b, const struct policy_address *a)
{
    return find(b, a->v6 ? b->header.source6_at : b->header.source4_at, a);
}

uint32_t blob_destination_find(const struct blob *b, const struct policy_address *a)
{
    return find(b, a->v6 ? b->header.dest6_at : b->header.dest4_at, a);
}

const struct blob_class *blob_class_at(const struct blob *b, uint32_t number)
{
    return number < b->header.classes ? &b->cells[b->header.classes_at + number].class_ : NULL;
}

const struct blob_exemption *blob_exemption_at(const struct blob *b, uint32_t number)
{
    return number > 0 && number < b->header.exemptions ? &b->cells[b->header.exempt_at + number].exemption : NULL;
}
