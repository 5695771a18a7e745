#include "policy/ranges.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The last address of a prefix. */
static policy_key last_of(policy_key first, unsigned bits)
{
    return bits == 0 ? ~(policy_key)0 : first | (((policy_key)1 << (POLICY_KEY_BITS - bits)) - 1);
}

/* A prefix that has begun and not ended. They nest as deep as there are lengths, and exemptions of one length. */
struct open_item {
    policy_key last;
    uint32_t leaf;
};

struct sweep {
    struct policy_ranges *out;
    size_t room;
    struct open_item *stack;
    size_t depth, stack_room;
    policy_key next; /* the first address that has no range yet */
    bool whole;      /* the last address has one */
};

static int emit(struct sweep *s, policy_key last, uint32_t leaf)
{
    struct policy_ranges *r = s->out;
    if (s->whole || last < s->next) {
        return 0;
    }
    if (r->count > 0 && r->list[r->count - 1].leaf == leaf) {
        r->list[r->count - 1].last = last;
    } else {
        if (r->count == s->room) {
            size_t room = s->room == 0 ? 64 : s->room * 2;
            struct policy_range *grown = realloc(r->list, room * sizeof(*grown));
            if (grown == NULL) {
                return -ENOMEM;
            }
            r->list = grown;
            s->room = room;
        }
        r->list[r->count++] = (struct policy_range){s->next, last, leaf};
    }
    s->whole = last == ~(policy_key)0;
    s->next = last + 1;
    return 0;
}

static int push(struct sweep *s, struct open_item one)
{
    if (s->depth == s->stack_room) {
        size_t room = s->stack_room == 0 ? 64 : s->stack_room * 2;
        struct open_item *grown = realloc(s->stack, room * sizeof(*grown));
        if (grown == NULL) {
            return -ENOMEM;
        }
        s->stack = grown;
        s->stack_room = room;
    }
    s->stack[s->depth++] = one;
    return 0;
}

static int sweep_items(struct sweep *s, const struct policy *p, const struct policy_item *items, size_t count)
{
    int r = push(s, (struct open_item){.last = ~(policy_key)0});
    for (size_t i = 0; i < count && r == 0; i++) {
        while (s->stack[s->depth - 1].last < items[i].key && r == 0) {
            s->depth--;
            r = emit(s, s->stack[s->depth].last, s->stack[s->depth].leaf);
        }
        const struct open_item outer = s->stack[s->depth - 1];
        if (r == 0 && items[i].key > s->next) {
            r = emit(s, items[i].key - 1, outer.leaf);
        }
        r = r < 0 ? r
                  : push(s, (struct open_item){.last = last_of(items[i].key, items[i].bits),
                                               .leaf = policy_item_under(p, outer.leaf, &items[i])});
    }
    while (s->depth > 0 && r == 0) {
        s->depth--;
        r = emit(s, s->stack[s->depth].last, s->stack[s->depth].leaf);
    }
    return r;
}

static int make(const struct policy *p, bool v6, bool destinations, struct policy_ranges *ret)
{
    struct policy_ranges out = {.v6 = v6};
    struct sweep s = {.out = &out};
    struct policy_item *items = policy_items_room(p);
    uint16_t numbers[BLOB_CLASSES_MAX];
    for (size_t i = 0; i < BLOB_CLASSES_MAX; i++) {
        numbers[i] = (uint16_t)i;
    }
    if (items == NULL) {
        return -ENOMEM;
    }
    size_t count =
        destinations ? policy_items_of_destinations(p, v6, items) : policy_items_of_sources(p, v6, numbers, items);
    int r = sweep_items(&s, p, items, count);
    free(s.stack);
    free(items);
    if (r < 0) {
        policy_ranges_fini(&out);
        return r;
    }
    *ret = out;
    return 0;
}

int policy_ranges_of_sources(const struct policy *p, bool v6, struct policy_ranges *ret)
{
    return make(p, v6, false, ret);
}

int policy_ranges_of_destinations(const struct policy *p, bool v6, struct policy_ranges *ret)
{
    return make(p, v6, true, ret);
}

void policy_ranges_fini(struct policy_ranges *r)
{
    free(r->list);
    *r = (struct policy_ranges){0};
}

void policy_ranges_map(struct policy_ranges *r, uint32_t (*map)(const void *arg, uint32_t leaf), const void *arg)
{
    size_t kept = 0;
    for (size_t i = 0; i < r->count; i++) {
        struct policy_range one = r->list[i];
        one.leaf = map(arg, one.leaf);
        if (kept > 0 && r->list[kept - 1].leaf == one.leaf) {
            r->list[kept - 1].last = one.last;
        } else {
            r->list[kept++] = one;
        }
    }
    r->count = kept;
}

static struct policy_prefix prefix_of(policy_key first, unsigned bits, bool v6)
{
    struct policy_prefix p = {.v6 = v6, .bits = (uint8_t)bits};
    for (unsigned i = 0; i < sizeof(p.bytes); i++) {
        p.bytes[i] = (uint8_t)(first >> (POLICY_KEY_BITS - 8 - 8 * i));
    }
    return p;
}

void policy_range_prefixes(policy_key first, policy_key last, bool v6, uint32_t leaf, policy_prefix_seen *seen,
                           void *arg)
{
    unsigned most = v6 ? 128 : 32;
    for (;;) {
        unsigned bits = most; /* the shortest prefix that begins at first and does not end behind last */
        while (bits > 0 &&
               (bits == POLICY_KEY_BITS ? (first & 1) == 0 : (first >> (POLICY_KEY_BITS - bits) & 1) == 0) &&
               last_of(first, bits - 1) <= last) {
            bits--;
        }
        struct policy_prefix p = prefix_of(first, bits, v6);
        seen(arg, &p, leaf);
        if (last_of(first, bits) == last) {
            return;
        }
        first = last_of(first, bits) + 1;
    }
}

/* The longest match. */

struct match {
    const struct policy_ranges *ranges;
    policy_prefix_seen *seen;
    void *arg;
};

/* Range `at` is the first that reaches into the prefix. */
static bool is_plain(const struct match *m, policy_key last, size_t at)
{
    return m->ranges->list[at].last >= last;
}

static size_t range_at(const struct match *m, policy_key first, size_t at)
{
    size_t below = at, above = m->ranges->count;
    while (above - below > 1) { /* list[below].first <= first */
        size_t middle = below + (above - below) / 2;
        if (m->ranges->list[middle].first <= first) {
            below = middle;
        } else {
            above = middle;
        }
    }
    return below;
}

/* The leaves with which the prefix takes the fewest entries, as bits. */
static unsigned candidates(const struct match *m, policy_key first, unsigned bits, size_t at)
{
    if (is_plain(m, last_of(first, bits), at)) {
        return 1U << m->ranges->list[at].leaf;
    }
    policy_key half = last_of(first, bits + 1) + 1;
    unsigned left = candidates(m, first, bits + 1, at), right = candidates(m, half, bits + 1, range_at(m, half, at));
    return (left & right) != 0 ? left & right : left | right;
}

static void choose(const struct match *m, policy_key first, unsigned bits, size_t at, uint32_t inherited)
{
    unsigned all = candidates(m, first, bits, at);
    if ((all >> inherited & 1) == 0) {
        struct policy_prefix p = prefix_of(first, bits, m->ranges->v6);
        inherited = (uint32_t)__builtin_ctz(all);
        m->seen(m->arg, &p, inherited);
    }
    if (!is_plain(m, last_of(first, bits), at)) {
        policy_key half = last_of(first, bits + 1) + 1;
        choose(m, first, bits + 1, at, inherited);
        choose(m, half, bits + 1, range_at(m, half, at), inherited);
    }
}

void policy_ranges_longest_match(const struct policy_ranges *r, policy_prefix_seen *seen, void *arg)
{
    const struct match m = {.ranges = r, .seen = seen, .arg = arg};
    choose(&m, 0, 0, 0, 0);
}
