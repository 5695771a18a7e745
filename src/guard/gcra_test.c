#include "guard/gcra.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define SECOND UINT64_C(1000000000)
#define START  (UINT64_C(1795500000) * SECOND)

static struct gcra make(uint64_t amount, uint64_t window_s)
{
    struct gcra g;
    assert_int_equal(gcra_init(&g, amount, window_s * SECOND), 0);
    return g;
}

/* From idle exactly the amount passes (rspamd#2733: a limit of 20 let 203 through). Awkward quotients included. */
static void test_exact(void **state)
{
    static const struct {
        uint64_t amount, window_s, cost;
    } rows[] = {
        {20, 3600, 1},     {7, 3600, 1}, {60000, 1, 1},  {3, 1, 1},
        {99991, 86400, 1}, {1, 1, 1},    {500, 3600, 5}, {500, 3600, 7},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gcra g = make(rows[i].amount, rows[i].window_s);
        uint64_t tat = 0, passed = 0;
        for (;;) {
            struct gcra_answer a = gcra_try(&g, tat, START, rows[i].cost);
            if (!a.allowed) {
                assert_false(a.never);
                assert_true(a.free_at_ns > START);
                break;
            }
            tat = a.tat_ns;
            passed += rows[i].cost;
        }
        assert_int_equal(passed, rows[i].amount - rows[i].amount % rows[i].cost);
        assert_int_equal(gcra_used(&g, tat, START), passed);
    }
}

/* The time that is told is the time: a nanosecond before it is refused, at it it passes. */
static void test_free_at(void **state)
{
    (void)state;
    struct gcra g = make(500, 3600);
    uint64_t tat = gcra_try(&g, 0, START, 499).tat_ns;
    struct gcra_answer a = gcra_try(&g, tat, START, 10);
    assert_false(a.allowed);
    assert_false(gcra_try(&g, tat, a.free_at_ns - 1, 10).allowed);
    assert_true(gcra_try(&g, tat, a.free_at_ns, 10).allowed);
    assert_true(gcra_try(&g, tat, START, 1).allowed);
    assert_true(gcra_try(&g, 0, START, 501).never);
    assert_true(gcra_try(&g, 0, START, UINT64_MAX).never);
    assert_true(gcra_try(&g, 0, START, 500).allowed);
}

static void test_long_run(void **state)
{
    (void)state;
    struct gcra g = make(20, 3600);
    uint64_t tat = 0, passed = 0;
    for (uint64_t s = 0; s < 10 * 3600; s++) {
        struct gcra_answer a = gcra_try(&g, tat, START + s * SECOND, 1);
        passed += a.allowed;
        tat = a.tat_ns;
    }
    assert_int_equal(passed, 20 + 199); /* the burst, then one every 180 s */
}

static void test_refund(void **state)
{
    (void)state;
    struct gcra g = make(20, 3600);
    uint64_t tat = gcra_try(&g, 0, START, 20).tat_ns;
    assert_false(gcra_try(&g, tat, START, 1).allowed);
    tat = gcra_refund(&g, tat, 5);
    assert_int_equal(gcra_used(&g, tat, START), 15);
    assert_true(gcra_try(&g, tat, START, 5).allowed);
    assert_false(gcra_try(&g, tat, START, 6).allowed);
    assert_int_equal(gcra_refund(&g, 0, 20), 0);
    assert_int_equal(gcra_used(&g, gcra_refund(&g, tat, UINT64_MAX), START), 0);
}

static void test_adopt(void **state)
{
    (void)state;
    struct gcra small = make(20, 3600), large = make(40, 3600);
    uint64_t full = gcra_try(&small, 0, START, 20).tat_ns;
    /* A raised limit leaves room at once (mailcow#539), a lowered one is full. */
    uint64_t tat = gcra_adopt(&large, full, small.interval_ns, START);
    assert_int_equal(gcra_used(&large, tat, START), 20);
    assert_true(gcra_try(&large, tat, START, 20).allowed);
    tat = gcra_adopt(&small, gcra_try(&large, 0, START, 40).tat_ns, large.interval_ns, START);
    assert_int_equal(gcra_used(&small, tat, START), 20);
    /* The clock was set back by a year: not barred for longer than a window. */
    tat = gcra_adopt(&small, START + 365 * 86400 * SECOND, small.interval_ns, START);
    assert_int_equal(tat, START + 3600 * SECOND);
    assert_int_equal(gcra_adopt(&small, UINT64_MAX, 1, START), START + 3600 * SECOND);
    assert_int_equal(gcra_adopt(&small, 5, 0, START), 5);
}

static void test_bounds(void **state)
{
    struct gcra g;
    (void)state;
    assert_int_equal(gcra_init(&g, 0, 1), -EINVAL);
    assert_int_equal(gcra_init(&g, 1, 0), -EINVAL);
    assert_int_equal(gcra_init(&g, GCRA_AMOUNT_MAX + 1, 1), -EINVAL);
    assert_int_equal(gcra_init(&g, 1, GCRA_WINDOW_MAX_NS + 1), -EINVAL);
    assert_int_equal(gcra_init(&g, GCRA_AMOUNT_MAX, GCRA_WINDOW_MAX_NS), 0);
    assert_true(gcra_try(&g, 0, START, GCRA_AMOUNT_MAX).allowed);
    assert_int_equal(gcra_init(&g, GCRA_AMOUNT_MAX, 1), 0);
    assert_int_equal(g.interval_ns, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact),  cmocka_unit_test(test_free_at), cmocka_unit_test(test_long_run),
        cmocka_unit_test(test_refund), cmocka_unit_test(test_adopt),   cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
