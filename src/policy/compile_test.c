/*
 * The compiled policy gives every address the same answer as the reference: random policies with nested prefixes and
 * exemptions in both families, asked at random addresses and at the edges of every prefix, before and after each
 * exemption's end. The seed is printed; KIDOBAN_SEED sets it.
 */
#include "policy/compile.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "policy/blob_read.h"
#include "policy/evaluate.h"
#include "policy/ranges.h"

static uint64_t seed;

static uint64_t draw(uint64_t below)
{
    seed ^= seed << 13; /* xorshift64 */
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

/* A policy by hand: tables that grow. */

#define CLASSES 6
#define ITEMS   4000

struct made {
    struct policy p;
    struct policy_class classes[CLASSES];
    struct policy_source sources[ITEMS];
    struct policy_destination destinations[ITEMS];
    struct policy_exemption exemptions[ITEMS];
};

static const char *const class_names[CLASSES] = {"default", "a", "b", "c", "d", "e"};

static struct made *made_new(void)
{
    struct made *m = calloc(1, sizeof(*m));
    assert_non_null(m);
    m->p = (struct policy){.classes = m->classes,
                           .classes_count = CLASSES,
                           .sources = m->sources,
                           .destinations = m->destinations,
                           .exemptions = m->exemptions};
    for (size_t i = 0; i < CLASSES; i++) {
        m->classes[i].name = (char *)(uintptr_t)class_names[i];
        m->classes[i].rule = BLOB_DENY;
    }
    return m;
}

static void cut(struct policy_prefix *p)
{
    for (unsigned bit = p->bits; bit < 128; bit++) {
        p->bytes[bit / 8] &= (uint8_t) ~(0x80U >> bit % 8);
    }
}

static struct policy_prefix prefix(const char *text, unsigned bits)
{
    struct policy_address a;
    struct policy_prefix p = {.bits = (uint8_t)bits};
    assert_int_equal(policy_address_parse(text, &a), 0);
    memcpy(p.bytes, a.bytes, sizeof(p.bytes));
    p.v6 = a.v6;
    return p;
}

static void add_source(struct made *m, struct policy_prefix p, unsigned class_)
{
    m->sources[m->p.sources_count++] = (struct policy_source){.prefix = p, .class_ = (uint16_t)class_};
}

static void add_exemption(struct made *m, struct policy_prefix p, uint64_t until_ns)
{
    size_t n = m->p.exemptions_count++;
    m->exemptions[n] = (struct policy_exemption){.prefix = p, .until_ns = until_ns, .id = 1000 + n};
}

static void compile(const struct made *m, struct policy_blob *ret, struct blob *ret_view)
{
    struct policy_rows rows = {0};
    assert_int_equal(policy_rows_assign(&rows, &m->p), 0);
    assert_int_equal(policy_compile(&m->p, &rows, 7, ret), 0);
    assert_int_equal(blob_open(ret_view, ret->cells, ret->count), 0);
    policy_rows_fini(&rows);
}

/* Comparing. */

static bool id_covers(const struct made *m, uint64_t id, const struct policy_address *a, uint64_t now)
{
    for (size_t i = 0; i < m->p.exemptions_count; i++) {
        if (m->exemptions[i].id == id) {
            return m->exemptions[i].until_ns > now && policy_prefix_contains(&m->exemptions[i].prefix, a);
        }
    }
    return false;
}

static void check_address(const struct made *m, const struct blob *b, const struct policy_address *a, uint64_t now)
{
    struct policy_standing right = policy_standing_of(&m->p, a, now);
    uint32_t leaf = blob_source_find(b, a);
    const struct blob_exemption *e = blob_exemption_at(b, BLOB_EXEMPTION(leaf));
    bool exempted = e != NULL && e->until_ns > now;
    uint32_t sets = blob_destination_find(b, a);
    char text[POLICY_ADDRESS_TEXT];
    policy_address_format(a, text);
    if (BLOB_CLASS(leaf) != right.class_ || exempted != (right.exemption != NULL) ||
        (exempted && !id_covers(m, e->id, a, now))) {
        fail_msg("%s at %llu: class %u for %zu, exempted %d for %d", text, (unsigned long long)now, BLOB_CLASS(leaf),
                 right.class_, exempted, right.exemption != NULL);
    }
    for (unsigned set = 0; set < BLOB_SETS_MAX; set++) {
        if (policy_set_holds(&m->p, set, a) != (sets >> set & 1)) {
            fail_msg("%s: set %u", text, set);
        }
    }
}

static void step(struct policy_address *a, bool up)
{
    for (int i = a->v6 ? 15 : 3; i >= 0; i--) {
        a->bytes[i] = (uint8_t)(a->bytes[i] + (up ? 1 : 255));
        if (a->bytes[i] != (up ? 0 : 255)) {
            return;
        }
    }
}

/* First, last, the one before, the one behind; at a time of its own. */
static void check_edges(const struct made *m, const struct blob *b, const struct policy_prefix *p)
{
    struct policy_address a = {.v6 = p->v6};
    memcpy(a.bytes, p->bytes, sizeof(a.bytes));
    check_address(m, b, &a, draw(12));
    step(&a, false);
    check_address(m, b, &a, draw(12));
    memcpy(a.bytes, p->bytes, sizeof(a.bytes));
    for (unsigned bit = p->bits; bit < (p->v6 ? 128U : 32U); bit++) {
        a.bytes[bit / 8] |= (uint8_t)(0x80U >> bit % 8);
    }
    check_address(m, b, &a, draw(12));
    step(&a, true);
    check_address(m, b, &a, draw(12));
}

static void flip(struct policy_address *a, unsigned bit)
{
    a->bytes[bit / 8] ^= (uint8_t)(0x80U >> bit % 8);
}

/* The prefix's first address with one other bit: of its length's end, and some more. A step that does not look at a bit
 * shows here. */
static void check_flips(const struct made *m, const struct blob *b, const struct policy_prefix *p)
{
    unsigned most = p->v6 ? 128 : 32;
    for (unsigned i = 0; i < 8; i++) {
        struct policy_address a = {.v6 = p->v6};
        memcpy(a.bytes, p->bytes, sizeof(a.bytes));
        unsigned bit = i > 0 || p->bits == 0 ? (unsigned)draw(most) : p->bits - 1U;
        flip(&a, bit);
        check_address(m, b, &a, draw(12));
    }
}

/* Random prefixes: of any length, often within one that is there already, so that they nest. */
static struct policy_prefix draw_prefix(const struct made *m)
{
    struct policy_prefix p = {.v6 = draw(2) != 0};
    unsigned most = p.v6 ? 128 : 32;
    for (unsigned i = 0; i < most / 8; i++) {
        p.bytes[i] = (uint8_t)draw(256);
    }
    unsigned least = 0;
    if (m->p.sources_count > 0 && draw(4) != 0) {
        const struct policy_prefix *in = &m->sources[draw(m->p.sources_count)].prefix;
        p.v6 = in->v6;
        most = p.v6 ? 128 : 32;
        least = in->bits;
        memcpy(p.bytes, in->bytes, least / 8);
        uint8_t mask = (uint8_t)(0xff00U >> least % 8);
        if (least % 8 != 0) {
            p.bytes[least / 8] = (uint8_t)((in->bytes[least / 8] & mask) | (p.bytes[least / 8] & ~mask));
        }
    }
    p.bits = (uint8_t)(least + draw(draw(3) == 0 ? most - least + 1 : (most - least) / 4 + 1));
    cut(&p);
    return p;
}

static bool has_source(const struct made *m, const struct policy_prefix *p)
{
    for (size_t i = 0; i < m->p.sources_count; i++) {
        if (memcmp(&m->sources[i].prefix, p, sizeof(*p)) == 0) {
            return true;
        }
    }
    return false;
}

static void fill(struct made *m, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct policy_prefix p = draw_prefix(m);
        if (!has_source(m, &p)) {
            add_source(m, p, 1 + (unsigned)draw(CLASSES - 1));
        }
        if (draw(2) == 0) {
            p = draw(3) == 0 ? p : draw_prefix(m);
            add_exemption(m, p, draw(4) == 0 ? POLICY_NO_END : draw(10));
        }
        if (draw(2) == 0) {
            m->destinations[m->p.destinations_count++] =
                (struct policy_destination){.prefix = draw_prefix(m), .set = (uint8_t)draw(BLOB_SETS_MAX)};
        }
    }
}

static void check_all(const struct made *m, const struct blob *b)
{
    for (size_t i = 0; i < m->p.sources_count; i++) {
        check_edges(m, b, &m->sources[i].prefix);
        check_flips(m, b, &m->sources[i].prefix);
    }
    for (size_t i = 0; i < m->p.exemptions_count; i++) {
        check_edges(m, b, &m->exemptions[i].prefix);
        check_flips(m, b, &m->exemptions[i].prefix);
    }
    for (size_t i = 0; i < m->p.destinations_count; i++) {
        check_edges(m, b, &m->destinations[i].prefix);
    }
    for (size_t i = 0; i < 200; i++) {
        struct policy_address a = {.v6 = draw(2) != 0};
        for (unsigned k = 0; k < (a.v6 ? 16 : 4); k++) {
            a.bytes[k] = (uint8_t)draw(256);
        }
        check_address(m, b, &a, draw(12));
    }
}

static void test_random_policies(void **state)
{
    (void)state;
    for (int round = 0; round < 50; round++) {
        struct made *m = made_new();
        struct policy_blob blob;
        struct blob b;
        fill(m, round < 45 ? draw(40) : 300);
        compile(m, &blob, &b);
        check_all(m, &b);
        free(blob.cells);
        free(m);
    }
}

/* Two prefixes that part at each bit there is, of each family, at their ends and in mid-way, alone and with one around
 * them or an exemption within: every length of a step, and of the bits that it goes over. */
static void check_fork(const struct policy_prefix *base, unsigned bit, unsigned bits)
{
    struct made *m = made_new();
    struct policy_blob blob;
    struct blob b;
    struct policy_prefix one = *base, other = *base, around = *base;
    one.bits = other.bits = (uint8_t)bits;
    other.bytes[bit / 8] ^= (uint8_t)(0x80U >> bit % 8);
    around.bits = (uint8_t)draw(bit + 1);
    cut(&one);
    cut(&other);
    cut(&around);
    add_source(m, one, 1);
    add_source(m, other, 2);
    if (draw(2) == 0) {
        add_source(m, around, 3);
    }
    if (draw(2) == 0) {
        one.bits = (uint8_t)(bits + draw((one.v6 ? 128 : 32) - bits + 1));
        add_exemption(m, one, POLICY_NO_END);
    }
    compile(m, &blob, &b);
    for (unsigned i = 0; i < (one.v6 ? 128U : 32U); i++) {
        struct policy_address a = {.v6 = one.v6}, c = a;
        memcpy(a.bytes, one.bytes, sizeof(a.bytes));
        memcpy(c.bytes, other.bytes, sizeof(c.bytes));
        check_address(m, &b, &a, 0);
        check_address(m, &b, &c, 0);
        flip(&a, i);
        flip(&c, i);
        check_address(m, &b, &a, 0);
        check_address(m, &b, &c, 0);
    }
    free(blob.cells);
    free(m);
}

static void test_forks(void **state)
{
    (void)state;
    for (unsigned v6 = 0; v6 < 2; v6++) {
        unsigned most = v6 != 0 ? 128 : 32;
        for (unsigned bit = 0; bit < most; bit++) {
            struct policy_prefix base = {.v6 = v6 != 0};
            for (unsigned k = 0; k < most / 8; k++) {
                base.bytes[k] = (uint8_t)draw(256);
            }
            check_fork(&base, bit, bit + 1);
            check_fork(&base, bit, bit + 1 + (unsigned)draw(most - bit));
            check_fork(&base, bit, most);
        }
    }
}

/* All in one small network, so that nodes are full and leaves many. */
static void test_crowded_policies(void **state)
{
    (void)state;
    for (int round = 0; round < 8; round++) {
        struct made *m = made_new();
        struct policy_blob blob;
        struct blob b;
        struct policy_prefix net = round % 2 == 0 ? prefix("198.51.100.0", 24) : prefix("2001:db8:1:2::", 64);
        add_source(m, net, 1);
        for (unsigned i = 0; i < 150; i++) {
            struct policy_prefix p = net;
            p.bytes[net.v6 ? 8 : 3] = (uint8_t)draw(256);
            p.bits = (uint8_t)(net.bits + 1 + draw(8));
            cut(&p);
            if (draw(4) == 0) {
                add_exemption(m, p, draw(10));
            } else if (!has_source(m, &p)) {
                add_source(m, p, 1 + (unsigned)draw(CLASSES - 1));
            }
        }
        compile(m, &blob, &b);
        check_all(m, &b);
        free(blob.cells);
        free(m);
    }
}

/* Ranges: the same leaves again, and lists of prefixes that say the same. */

static policy_key key_of(const struct policy_address *a)
{
    policy_key k = 0;
    for (unsigned i = 0; i < sizeof(a->bytes); i++) {
        k = k << 8 | a->bytes[i];
    }
    return k;
}

static uint32_t leaf_in(const struct policy_ranges *r, const struct policy_address *a)
{
    policy_key k = key_of(a);
    for (size_t i = 0; i < r->count; i++) {
        if (k >= r->list[i].first && k <= r->list[i].last) {
            return r->list[i].leaf;
        }
    }
    fail_msg("an address without a range");
    return 0;
}

struct listed {
    struct policy_prefix prefix;
    uint32_t leaf;
};
struct list {
    struct listed *all;
    size_t count;
};

static void add_listed(void *arg, const struct policy_prefix *prefix, uint32_t leaf)
{
    struct list *l = arg;
    l->all = realloc(l->all, (l->count + 1) * sizeof(*l->all));
    assert_non_null(l->all);
    l->all[l->count++] = (struct listed){*prefix, leaf};
}

static uint32_t longest_in(const struct list *l, const struct policy_address *a, size_t *ret_matches)
{
    int bits = -1;
    uint32_t leaf = 0;
    *ret_matches = 0;
    for (size_t i = 0; i < l->count; i++) {
        if (policy_prefix_contains(&l->all[i].prefix, a)) {
            (*ret_matches)++;
            leaf = (int)l->all[i].prefix.bits > bits ? l->all[i].leaf : leaf;
            bits = (int)l->all[i].prefix.bits > bits ? l->all[i].prefix.bits : bits;
        }
    }
    return leaf;
}

static uint32_t class_only(const void *arg, uint32_t leaf)
{
    (void)arg;
    return BLOB_CLASS(leaf);
}

static void check_ranges(const struct made *m, const struct blob *b, bool v6)
{
    struct policy_ranges sources, sets;
    struct list apart = {0}, longest = {0};
    assert_int_equal(policy_ranges_of_sources(&m->p, v6, &sources), 0);
    assert_int_equal(policy_ranges_of_destinations(&m->p, v6, &sets), 0);
    struct policy_address a[200] = {0};
    for (size_t i = 0; i < 200; i++) {
        a[i].v6 = v6;
        for (unsigned k = 0; k < (v6 ? 16 : 4); k++) {
            a[i].bytes[k] = (uint8_t)draw(256);
        }
        if (i % 2 == 0 && m->p.sources_count > 0) {
            const struct policy_prefix *p = &m->sources[draw(m->p.sources_count)].prefix;
            memcpy(a[i].bytes, p->bytes, p->v6 == v6 ? sizeof(a[i].bytes) : 0);
        }
        assert_int_equal(leaf_in(&sources, &a[i]), blob_source_find(b, &a[i]));
        assert_int_equal(leaf_in(&sets, &a[i]), blob_destination_find(b, &a[i]));
    }
    policy_ranges_map(&sources, class_only, NULL);
    for (size_t i = 0; i < sources.count; i++) {
        policy_range_prefixes(sources.list[i].first, sources.list[i].last, v6, sources.list[i].leaf, add_listed,
                              &apart);
    }
    policy_ranges_longest_match(&sources, add_listed, &longest);
    assert_true(longest.count <= apart.count && longest.count <= m->p.sources_count);
    for (size_t i = 0; i < 200; i++) {
        size_t matches;
        assert_int_equal(longest_in(&apart, &a[i], &matches), BLOB_CLASS(blob_source_find(b, &a[i])));
        assert_int_equal(matches, 1);
        assert_int_equal(longest_in(&longest, &a[i], &matches), BLOB_CLASS(blob_source_find(b, &a[i])));
    }
    free(apart.all);
    free(longest.all);
    policy_ranges_fini(&sources);
    policy_ranges_fini(&sets);
}

static void test_ranges(void **state)
{
    (void)state;
    for (int round = 0; round < 30; round++) {
        struct made *m = made_new();
        struct policy_blob blob;
        struct blob b;
        fill(m, draw(60));
        compile(m, &blob, &b);
        check_ranges(m, &b, false);
        check_ranges(m, &b, true);
        free(blob.cells);
        free(m);
    }
}

/* An exemption that is longer and ends sooner leaves the shorter one in force; a class between them does not. */
static void test_nested_exemptions(void **state)
{
    (void)state;
    struct made *m = made_new();
    struct policy_blob blob;
    struct blob b;
    struct policy_address inner, behind, beside;
    add_source(m, prefix("192.0.2.0", 24), 1);
    add_exemption(m, prefix("192.0.2.0", 25), 100);
    add_exemption(m, prefix("192.0.2.8", 29), 10);
    add_source(m, prefix("192.0.2.16", 28), 2);
    add_exemption(m, prefix("192.0.2.17", 32), 10);
    add_exemption(m, prefix("192.0.2.16", 28), 50); /* as long as the class's: wins while it holds */
    compile(m, &blob, &b);
    assert_int_equal(policy_address_parse("192.0.2.9", &inner), 0);
    assert_int_equal(policy_address_parse("192.0.2.17", &behind), 0);
    assert_int_equal(policy_address_parse("192.0.2.200", &beside), 0);
    static const struct {
        uint64_t now;
        bool inner, behind;
    } rows[] = {{9, true, true},   {10, true, true},  {49, true, true},
                {50, true, false}, {99, true, false}, {100, false, false}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(policy_standing_of(&m->p, &inner, rows[i].now).exemption != NULL, rows[i].inner);
        assert_int_equal(policy_standing_of(&m->p, &behind, rows[i].now).exemption != NULL, rows[i].behind);
        assert_null(policy_standing_of(&m->p, &beside, rows[i].now).exemption);
        check_address(m, &b, &inner, rows[i].now);
        check_address(m, &b, &behind, rows[i].now);
        check_address(m, &b, &beside, rows[i].now);
    }
    assert_int_equal(BLOB_CLASS(blob_source_find(&b, &behind)), 2);
    free(blob.cells);
    free(m);
}

/* 0.0.0.0/0 says nothing of IPv6, ::/0 nothing of IPv4. */
static void test_families(void **state)
{
    (void)state;
    struct made *m = made_new();
    struct policy_blob blob;
    struct blob b;
    struct policy_address v4, mapped, v6;
    add_source(m, prefix("0.0.0.0", 0), 1);
    add_source(m, prefix("2001:db8::", 32), 2);
    compile(m, &blob, &b);
    assert_int_equal(policy_address_parse("192.0.2.1", &v4), 0);
    assert_int_equal(policy_address_parse("::ffff:192.0.2.1", &mapped), 0);
    assert_int_equal(policy_address_parse("2001:db8::1", &v6), 0);
    assert_int_equal(BLOB_CLASS(blob_source_find(&b, &v4)), 1);
    assert_int_equal(BLOB_CLASS(blob_source_find(&b, &mapped)), 0);
    assert_int_equal(BLOB_CLASS(blob_source_find(&b, &v6)), 2);
    assert_int_equal(policy_standing_of(&m->p, &mapped, 0).class_, 0);
    free(blob.cells);
    free(m);
}

static void test_rows_are_kept(void **state)
{
    (void)state;
    struct policy_rows rows = {0};
    struct policy_class first[] = {{.name = (char *)"default"}, {.name = (char *)"a"}, {.name = (char *)"b"}};
    struct policy_class later[] = {{.name = (char *)"default"}, {.name = (char *)"c"}, {.name = (char *)"b"}};
    struct policy p = {.classes = first, .classes_count = 3};
    assert_int_equal(policy_rows_assign(&rows, &p), 0);
    p.classes = later;
    assert_int_equal(policy_rows_assign(&rows, &p), 0);
    assert_int_equal(rows.count, 4);
    assert_string_equal(rows.names[0], "default");
    assert_string_equal(rows.names[1], "a");
    assert_string_equal(rows.names[2], "b");
    assert_string_equal(rows.names[3], "c");
    for (size_t i = rows.count; i < BLOB_CLASSES_MAX; i++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "old-%zu", i);
        rows.names[rows.count++] = strdup(name);
    }
    later[1].name = (char *)"new";
    assert_int_equal(policy_rows_assign(&rows, &p), 0);
    assert_int_equal(rows.count, BLOB_CLASSES_MAX);
    assert_string_equal(rows.names[2], "b"); /* in use */
    size_t found = 0;
    for (size_t i = 0; i < rows.count; i++) {
        found += strcmp(rows.names[i], "new") == 0 ? 1 : 0;
    }
    assert_int_equal(found, 1);
    policy_rows_fini(&rows);
}

static void test_header_and_classes(void **state)
{
    (void)state;
    struct made *m = made_new();
    struct policy_blob blob;
    struct blob b;
    m->p.flags = BLOB_RETURN_PATH | BLOB_INBOUND;
    m->p.refuse_with = BLOB_PROHIBITED;
    m->p.events_per_second = 3;
    m->p.resets_per_second = 5;
    m->classes[2] = (struct policy_class){
        .name = m->classes[2].name, .rule = BLOB_RATE, .interval_ns = 10, .burst_ns = 100, .set = 4};
    add_exemption(m, prefix("2001:db8::", 64), 77);
    compile(m, &blob, &b);
    assert_int_equal(b.header.version, BLOB_VERSION);
    assert_int_equal(b.header.cells, blob.count);
    assert_int_equal(b.header.flags, BLOB_RETURN_PATH | BLOB_INBOUND);
    assert_int_equal(b.header.refuse_with, BLOB_PROHIBITED);
    assert_int_equal(b.header.generation, 7);
    assert_int_equal(b.header.events_per_second, 3);
    assert_int_equal(b.header.resets_per_second, 5);
    assert_int_equal(b.header.classes, CLASSES);
    assert_int_equal(b.header.exemptions, 2);
    const struct blob_class *c = blob_class_at(&b, 2);
    assert_int_equal(c->rule, BLOB_RATE);
    assert_int_equal(c->interval_ns, 10);
    assert_int_equal(c->burst_ns, 100);
    assert_int_equal(c->set, 4);
    assert_int_equal(c->counter, 2);
    assert_null(blob_class_at(&b, CLASSES));
    assert_int_equal(blob_exemption_at(&b, 1)->until_ns, 77);
    assert_int_equal(blob_exemption_at(&b, 1)->id, 1000);
    assert_null(blob_exemption_at(&b, 0));
    assert_null(blob_exemption_at(&b, 2));
    free(blob.cells);
    free(m);
}

/* A damaged blob gives wrong answers, but none from outside of it. Under ASan this test has teeth. */
static void test_damaged_blob(void **state)
{
    (void)state;
    struct made *m = made_new();
    struct policy_blob blob;
    struct blob b;
    fill(m, 50);
    compile(m, &blob, &b);
    size_t nodes_at = b.header.dest6_at + BLOB_ROOT_ENTRIES / 8;
    for (int i = 0; i < 2000; i++) {
        size_t cell = draw(4) == 0 ? b.header.source4_at + draw(8192) : nodes_at + draw(blob.count - nodes_at);
        blob.cells[cell].lanes[draw(8)] = (uint32_t)draw(UINT32_MAX);
        struct policy_address a = {.v6 = draw(2) != 0};
        for (unsigned k = 0; k < (a.v6 ? 16 : 4); k++) {
            a.bytes[k] = (uint8_t)draw(256);
        }
        (void)blob_source_find(&b, &a);
        (void)blob_destination_find(&b, &a);
    }
    assert_int_equal(blob_open(&b, blob.cells, 1), -22);
    assert_int_equal(blob_open(&b, blob.cells, blob.count - 1), -22);
    free(blob.cells);
    free(m);
}

int main(void)
{
    const char *given = getenv("KIDOBAN_SEED");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_policies),  cmocka_unit_test(test_forks),
        cmocka_unit_test(test_crowded_policies), cmocka_unit_test(test_nested_exemptions),
        cmocka_unit_test(test_ranges),           cmocka_unit_test(test_families),
        cmocka_unit_test(test_rows_are_kept),    cmocka_unit_test(test_header_and_classes),
        cmocka_unit_test(test_damaged_blob),
    };
    seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL) * 2654435761U + 1;
    seed = seed != 0 ? seed : 1;
    print_message("seed %llu (KIDOBAN_SEED)\n", (unsigned long long)seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
