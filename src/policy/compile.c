#include "policy/compile.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/large.h"
#include "policy/items.h"

#define CELLS_MAX  (UINT32_C(1) << 28) /* lanes are numbered in 32 bits, and entries in 31 */
#define LANES      8U
#define ROOT_CELLS (BLOB_ROOT_ENTRIES / LANES)
#define SLOTS      (1U << BLOB_STEP_BITS)

/* Rows */

static size_t row_of(const struct policy_rows *rows, const char *name)
{
    for (size_t i = 0; i < rows->count; i++) {
        if (strcmp(rows->names[i], name) == 0) {
            return i;
        }
    }
    return SIZE_MAX;
}

static bool has_class(const struct policy *p, const char *name)
{
    for (size_t i = 0; i < p->classes_count; i++) {
        if (strcmp(p->classes[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* There are no more classes than rows, so one is free or idle. */
static size_t row_to_give(const struct policy_rows *rows, const struct policy *p)
{
    size_t i = rows->count;
    for (size_t k = 0; i == BLOB_CLASSES_MAX && k < rows->count; k++) {
        i = has_class(p, rows->names[k]) ? i : k;
    }
    return i;
}

int policy_rows_assign(struct policy_rows *rows, const struct policy *p)
{
    for (size_t i = 0; i < p->classes_count; i++) {
        if (row_of(rows, p->classes[i].name) != SIZE_MAX) {
            continue;
        }
        size_t row = row_to_give(rows, p);
        char *name = strdup(p->classes[i].name);
        if (name == NULL) {
            return -ENOMEM;
        }
        free(rows->names[row]);
        rows->names[row] = name;
        rows->count = row == rows->count ? row + 1 : rows->count;
    }
    return 0;
}

void policy_rows_fini(struct policy_rows *rows)
{
    for (size_t i = 0; i < rows->count; i++) {
        free(rows->names[i]);
    }
    *rows = (struct policy_rows){0};
}

/* The blob as it grows. */

struct builder {
    const struct policy *p;
    union blob_cell *cells;
    size_t count, room;
    uint32_t *leaves; /* of all tries; they come behind the nodes, whose leaf_base counts from here until then */
    size_t leaves_count, leaves_room;
    int error;
};

/* What is in them means nothing yet. */
static uint32_t take_cells(struct builder *b, size_t count)
{
    size_t at = b->count;
    if (b->count + count > CELLS_MAX) {
        b->error = -E2BIG;
    }
    if (b->error == 0 && b->count + count > b->room) {
        size_t room = (b->count + count) * 2;
        union blob_cell *grown = realloc(b->cells, room * sizeof(*grown));
        if (grown == NULL) {
            b->error = -ENOMEM;
        } else {
            b->cells = grown;
            b->room = room;
        }
    }
    if (b->error != 0) {
        return 0;
    }
    b->count += count;
    return (uint32_t)at;
}

static uint32_t take_clear_cells(struct builder *b, size_t count)
{
    uint32_t at = take_cells(b, count);
    if (b->error == 0) {
        memset(&b->cells[at], 0, count * sizeof(b->cells[0]));
    }
    return at;
}

static void add_leaf(struct builder *b, uint32_t value)
{
    if (b->leaves_count == b->leaves_room) {
        size_t room = b->leaves_room == 0 ? 1024 : b->leaves_room * 2;
        uint32_t *grown = realloc(b->leaves, room * sizeof(*grown));
        if (grown == NULL) {
            b->error = -ENOMEM;
            return;
        }
        b->leaves = grown;
        b->leaves_room = room;
    }
    b->leaves[b->leaves_count++] = value;
}

/* One step of a trie: the items of one prefix of `depth` bits, all of them longer. Those that end within the step
 * colour the leaves of its slots; the others, which follow in the order of their slots, go on below. A jump is a step
 * too, of one slot. */

static unsigned slot_of(policy_key k, unsigned depth, unsigned step)
{
    policy_key rest = k << depth;
    return (unsigned)(rest >> (POLICY_KEY_BITS - step));
}

static void colour(const struct builder *b, uint32_t *leaves, unsigned depth, unsigned step,
                   const struct policy_item *items, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (items[i].bits <= depth + step) {
            unsigned first = slot_of(items[i].key, depth, step), width = 1U << (depth + step - items[i].bits);
            for (unsigned k = first; k < first + width; k++) {
                leaves[k] = policy_item_under(b->p, leaves[k], &items[i]);
            }
        }
    }
}

/* The next run, at or behind *at, of items that go on below one slot. Its length, 0: there is none. */
static size_t next_run(const struct policy_item *items, size_t count, unsigned depth, unsigned step, size_t *at)
{
    size_t first = *at;
    while (first < count && items[first].bits <= depth + step) {
        first++;
    }
    size_t end = first;
    while (end < count && items[end].bits > depth + step &&
           slot_of(items[end].key, depth, step) == slot_of(items[first].key, depth, step)) {
        end++;
    }
    *at = first;
    return end - first;
}

static uint64_t children_of(const struct policy_item *items, size_t count, unsigned depth)
{
    uint64_t children = 0;
    for (size_t i = 0; i < count; i++) {
        if (items[i].bits > depth + BLOB_STEP_BITS) {
            children |= UINT64_C(1) << slot_of(items[i].key, depth, BLOB_STEP_BITS);
        }
    }
    return children;
}

static void build(struct builder *b, uint32_t at, unsigned depth, uint32_t leaf, const struct policy_item *items,
                  size_t count);

/* Fills the node at cell `at`. Its children are one run of cells, so they are taken before any of them is filled. */
static void build_node(struct builder *b, uint32_t at, unsigned depth, uint32_t leaf, const struct policy_item *items,
                       size_t count)
{
    uint32_t leaves[SLOTS], last = 0;
    struct blob_node node = {.children = children_of(items, count, depth), .leaf_base = (uint32_t)b->leaves_count};
    for (unsigned i = 0; i < SLOTS; i++) {
        leaves[i] = leaf;
    }
    colour(b, leaves, depth, BLOB_STEP_BITS, items, count);
    for (unsigned i = 0; i < SLOTS; i++) {
        bool goes_on = (node.children >> i & 1) != 0;
        if (!goes_on && (node.leaves == 0 || leaves[i] != last)) {
            node.leaves |= UINT64_C(1) << i;
            last = leaves[i];
            add_leaf(b, last);
        }
    }
    if (__builtin_popcountll(node.leaves) == 1 && b->error == 0) {
        b->leaves_count--;
        node.leaf_base = BLOB_LEAF | last;
    }
    node.child_base = take_cells(b, (size_t)__builtin_popcountll(node.children));
    if (b->error != 0) {
        return;
    }
    b->cells[at].node = node;
    uint32_t child = node.child_base;
    for (size_t i = 0, run; (run = next_run(items, count, depth, BLOB_STEP_BITS, &i)) > 0 && b->error == 0; i += run) {
        unsigned slot = slot_of(items[i].key, depth, BLOB_STEP_BITS);
        build(b, child++, depth + BLOB_STEP_BITS, leaves[slot], &items[i], run);
    }
}

/* How many bits all items have in common: one that is shorter than what the first and the last share holds all others,
 * and so is the first. */
static unsigned shared_bits(const struct policy_item *items, size_t count)
{
    policy_key differ = items[0].key ^ items[count - 1].key;
    uint64_t hi = (uint64_t)(differ >> 64), lo = (uint64_t)differ;
    unsigned bits = hi != 0   ? (unsigned)__builtin_clzll(hi)
                    : lo != 0 ? 64 + (unsigned)__builtin_clzll(lo)
                              : POLICY_KEY_BITS;
    return bits < items[0].bits ? bits : items[0].bits;
}

/* Fills the jump at cell `at`, over all bits that the items share. */
static void build_jump(struct builder *b, uint32_t at, unsigned depth, uint32_t leaf, const struct policy_item *items,
                       size_t count)
{
    unsigned shared = shared_bits(items, count), bits = shared - depth;
    policy_key rest = items[0].key << depth; /* behind `shared` the first item may go on: it has set bits there */
    rest &= ~(policy_key)0 << (POLICY_KEY_BITS - bits);
    struct blob_jump jump = {
        .hi = (uint64_t)(rest >> 64), .lo = (uint64_t)rest, .outside = BLOB_LEAF | leaf, .bits = bits};
    size_t same = 0;
    while (same < count && items[same].bits == shared) {
        leaf = policy_item_under(b->p, leaf, &items[same++]);
    }
    jump.inside = same == count ? BLOB_LEAF | leaf : take_cells(b, 1);
    if (b->error != 0) {
        return;
    }
    b->cells[at].jump = jump;
    if (same < count) {
        build(b, jump.inside, shared, leaf, &items[same], count - same);
    }
}

/* Fills cell `at` for the items, all of them longer than `depth`. This goes as deep as BLOB_STEPS_MAX. */
static void build(struct builder *b, uint32_t at, unsigned depth, uint32_t leaf, const struct policy_item *items,
                  size_t count)
{
    unsigned shared = shared_bits(items, count);
    bool alone = items[0].bits == shared && items[count - 1].bits == shared;
    (alone || shared - depth >= BLOB_STEP_BITS ? build_jump : build_node)(b, at, depth, leaf, items, count);
}

static void build_root(struct builder *b, uint32_t at, const struct policy_item *items, size_t count)
{
    uint32_t *leaves = calloc(BLOB_ROOT_ENTRIES, sizeof(*leaves));
    if (leaves == NULL) {
        b->error = -ENOMEM;
        return;
    }
    colour(b, leaves, 0, BLOB_ROOT_BITS, items, count);
    for (unsigned i = 0; i < BLOB_ROOT_ENTRIES; i++) {
        b->cells[at + i / LANES].lanes[i % LANES] = BLOB_LEAF | leaves[i];
    }
    for (size_t i = 0, run; (run = next_run(items, count, 0, BLOB_ROOT_BITS, &i)) > 0 && b->error == 0; i += run) {
        unsigned slot = slot_of(items[i].key, 0, BLOB_ROOT_BITS);
        uint32_t below = take_cells(b, 1);
        if (b->error == 0) {
            b->cells[at + slot / LANES].lanes[slot % LANES] = below;
            build(b, below, BLOB_ROOT_BITS, leaves[slot], &items[i], run);
        }
    }
    free(leaves);
}

/* Tries */

static void build_tries(struct builder *b, const struct blob_header *h, const uint16_t *numbers)
{
    const struct {
        uint32_t at;
        bool destinations, v6;
    } tries[] = {{h->source4_at, false, false},
                 {h->source6_at, false, true},
                 {h->dest4_at, true, false},
                 {h->dest6_at, true, true}};
    struct policy_item *items = policy_items_room(b->p);
    if (items == NULL) {
        b->error = -ENOMEM;
        return;
    }
    for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]) && b->error == 0; i++) {
        size_t count = tries[i].destinations ? policy_items_of_destinations(b->p, tries[i].v6, items)
                                             : policy_items_of_sources(b->p, tries[i].v6, numbers, items);
        build_root(b, tries[i].at, items, count);
    }
    free(items);
}

/* Behind the nodes, which from `nodes_at` are all there is, come the leaves. */
static void place_leaves(struct builder *b, size_t nodes_at)
{
    size_t nodes_end = b->count;
    uint32_t at = take_clear_cells(b, (b->leaves_count + LANES - 1) / LANES);
    if (b->error != 0) {
        return;
    }
    for (size_t i = nodes_at; i < nodes_end; i++) {
        struct blob_node *n = &b->cells[i].node;
        if (n->bits == 0 && (n->leaf_base & BLOB_LEAF) == 0) {
            n->leaf_base += at * LANES;
        }
    }
    if (b->leaves_count > 0) {
        memcpy(&b->cells[at], b->leaves, b->leaves_count * sizeof(*b->leaves));
    }
}

static void fill_classes(const struct builder *b, uint32_t at, const uint16_t *numbers)
{
    for (size_t i = 0; i < b->p->classes_count; i++) {
        const struct policy_class *c = &b->p->classes[i];
        b->cells[at + numbers[i]].class_ = (struct blob_class){.rule = c->rule,
                                                               .set = c->set,
                                                               .interval_ns = c->interval_ns,
                                                               .burst_ns = c->burst_ns,
                                                               .counter = numbers[i]};
    }
}

static void fill_exemptions(const struct builder *b, uint32_t at)
{
    for (size_t i = 0; i < b->p->exemptions_count; i++) {
        const struct policy_exemption *e = &b->p->exemptions[i];
        b->cells[at + i + 1].exemption = (struct blob_exemption){.until_ns = e->until_ns, .id = e->id};
    }
}

static struct blob_header place_parts(struct builder *b, const struct policy_rows *rows, uint64_t generation)
{
    const struct policy *p = b->p;
    struct blob_header h = {
        .version = BLOB_VERSION,
        .flags = p->flags,
        .refuse_with = p->refuse_with,
        .classes = (uint32_t)rows->count,
        .exemptions = (uint32_t)p->exemptions_count + 1,
        .generation = generation,
        .events_per_second = p->events_per_second,
        .resets_per_second = p->resets_per_second,
    };
    (void)take_clear_cells(b, sizeof(h) / sizeof(union blob_cell));
    h.classes_at = take_clear_cells(b, h.classes);
    h.exempt_at = take_clear_cells(b, h.exemptions);
    h.source4_at = take_cells(b, ROOT_CELLS);
    h.source6_at = take_cells(b, ROOT_CELLS);
    h.dest4_at = take_cells(b, ROOT_CELLS);
    h.dest6_at = take_cells(b, ROOT_CELLS);
    return h;
}

int policy_compile(const struct policy *p, const struct policy_rows *rows, uint64_t generation, struct policy_blob *ret)
{
    /* Most prefixes lie alone and take a cell each: this is seldom too little, and room that is not used costs nothing.
     */
    struct builder b = {.p = p,
                        .room = 4 * ROOT_CELLS + 2 * (p->sources_count + p->exemptions_count + p->destinations_count)};
    b.cells = large_alloc(b.room, sizeof(*b.cells));
    if (b.cells == NULL) {
        return -ENOMEM;
    }
    uint16_t numbers[BLOB_CLASSES_MAX];
    for (size_t i = 0; i < p->classes_count; i++) {
        numbers[i] = (uint16_t)row_of(rows, p->classes[i].name);
    }
    struct blob_header h = place_parts(&b, rows, generation);
    size_t nodes_at = b.count;
    if (b.error == 0) {
        fill_classes(&b, h.classes_at, numbers);
        fill_exemptions(&b, h.exempt_at);
        build_tries(&b, &h, numbers);
    }
    if (b.error == 0) {
        place_leaves(&b, nodes_at);
    }
    free(b.leaves);
    if (b.error != 0) {
        free(b.cells);
        return b.error;
    }
    h.cells = (uint32_t)b.count;
    memcpy(b.cells, &h, sizeof(h));
    *ret = (struct policy_blob){.cells = b.cells, .count = b.count};
    return 0;
}
