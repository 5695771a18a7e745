#include "gate/active.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SECOND UINT64_C(1000000000)

static struct gate_event event_of(uint32_t line, uint32_t far, uint64_t seconds, uint64_t packets)
{
    struct gate_event e = {.boot_ns = seconds * SECOND, .port = 25, .packets = packets, .would = 1, .verdict = 1};
    const uint8_t v4[2] = {0xff, 0xff};
    memcpy(e.subject + 10, v4, 2);
    memcpy(e.far + 10, v4, 2);
    memcpy(e.subject + 12, &line, 4);
    memcpy(e.far + 12, &far, 4);
    return e;
}

static int make(void **state)
{
    struct active *a = malloc(sizeof(*a));
    if (a == NULL) {
        return -1;
    }
    active_init(a, 4711);
    *state = a;
    return 0;
}

static int end(void **state)
{
    free(*state);
    return 0;
}

static void test_far_ends(void **state)
{
    struct active *a = *state;
    struct active_line *l = NULL;
    for (uint32_t i = 0; i < 30; i++) {
        const struct gate_event e = event_of(1, i % 3, i, i + 1);
        l = active_take(a, &e);
    }
    assert_int_equal(l->events, 30);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(l->fars[i].count, 10);
        assert_true(l->fars[i].ours);
    }
    assert_int_equal(l->fars[3].count, 0);
}

/* Who stays is heard of, whatever comes besides. */
static void test_flood(void **state)
{
    struct active *a = *state;
    for (uint32_t i = 0; i < 1000000; i++) {
        const struct gate_event forged = event_of(1000 + i, i, i / 1000, 1);
        (void)active_take(a, &forged);
        if (i % 1000 == 0) {
            const struct gate_event real = event_of(7, 25, i / 1000, i / 1000 + 1);
            const struct active_line *l = active_take(a, &real);
            assert_int_equal(l->events, i / 1000 + 1);
        }
    }
    size_t position = 0, lines = 0;
    while (active_next(a, &position) != NULL) {
        lines++;
    }
    assert_int_equal(lines, ACTIVE_LINES);
    assert_true(a->lost > 900000);
}

static void test_rate(void **state)
{
    struct active *a = *state;
    struct active_line *l = NULL;
    for (uint32_t i = 0; i < 30; i++) {
        const struct gate_event e = event_of(1, 1, 100 + i, 50 * i + 1);
        l = active_take(a, &e);
        if (i % 10 == 9) {
            active_turn(a, (100 + i) * SECOND, 60 * SECOND);
        }
    }
    /* From the base of twenty seconds ago: fifty a second. */
    assert_in_range(active_rate_milli(l, 130 * SECOND, 1501), 47000, 53000);
    /* The kernel forgot the line and began anew. */
    const struct gate_event e = event_of(1, 1, 131, 3);
    assert_ptr_equal(active_take(a, &e), l);
    assert_true(active_rate_milli(l, 131 * SECOND, 3) < 1000);
    active_turn(a, 190 * SECOND, 60 * SECOND);
    assert_int_equal(l->events, 31);
    active_turn(a, 192 * SECOND, 60 * SECOND);
    assert_int_equal(l->events, 0);
}

static void test_key(void **state)
{
    const uint8_t v6[16] = {0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    const struct gate_event e = event_of(0x01020304, 1, 1, 1);
    struct gate_source_key key;
    (void)state;
    active_key(e.subject, &key);
    assert_memory_equal(key.address, e.subject, 16);
    active_key(v6, &key);
    assert_memory_equal(key.address, v6, 8);
    for (size_t i = 8; i < 16; i++) {
        assert_int_equal(key.address[i], 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_far_ends, make, end),
        cmocka_unit_test_setup_teardown(test_flood, make, end),
        cmocka_unit_test_setup_teardown(test_rate, make, end),
        cmocka_unit_test(test_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
