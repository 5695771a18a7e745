#include "guard/limits.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define SECOND UINT64_C(1000000000)

static const struct table_clock boot = {.boot_id = "b", .mono_ns = 50 * SECOND, .wall_ns = 1795521600 * SECOND};

static struct {
    struct table *table;
    struct limits *limits;
    struct limits_moment now;
    uint64_t id;
} w;

static void begin(const struct limit *list, size_t count)
{
    size_t bad = 0;
    assert_int_equal(table_open(-1, "t", &boot, 1 << 16, &w.table), 0);
    w.limits = limits_new(w.table);
    assert_int_equal(limits_configure(w.limits, list, count, "https://help.example/", &bad), 0);
    w.now = (struct limits_moment){table_now(w.table, boot.mono_ns), boot.wall_ns / 1000000};
    w.id = 1;
}

static void end(void)
{
    limits_free(&w.limits);
    table_close(&w.table);
}

static void later(uint64_t s)
{
    w.now.table_ns += s * SECOND;
    w.now.wall_ms += s * 1000;
}

static struct limits_answer ask(const char *account, const char *address, uint32_t recipients)
{
    struct guard_check q = {.account = span_str(account), .recipients = recipients};
    struct limits_answer a;
    assert_int_equal(net_address_parse(address, &q.peer), 0);
    limits_check(w.limits, ++w.id, &q, w.now, &a);
    return a;
}

static uint64_t used(const char *account, const char *address, size_t index)
{
    struct limits_usage u[LIMITS_MAX];
    struct net_address a;
    assert_int_equal(net_address_parse(address, &a), 0);
    assert_true(limits_usage(w.limits, span_str(account), &a, w.now, u) > index);
    return u[index].used;
}

static const struct limit four[] = {
    {.name = "account-hour",
     .subject = LIMIT_ACCOUNT,
     .unit = LIMIT_RECIPIENTS,
     .amount = 20,
     .window_ms = 3600000,
     .action = GUARD_DEFER},
    {.name = "account-day",
     .subject = LIMIT_ACCOUNT,
     .unit = LIMIT_MESSAGES,
     .amount = 30,
     .window_ms = 86400000,
     .action = GUARD_REJECT},
    {.name = "network",
     .subject = LIMIT_NETWORK,
     .unit = LIMIT_MESSAGES,
     .v4_bits = 32,
     .v6_bits = 64,
     .amount = 25,
     .window_ms = 600000,
     .action = GUARD_DEFER},
    {.name = "watch",
     .subject = LIMIT_ACCOUNT,
     .unit = LIMIT_MESSAGES,
     .amount = 5,
     .window_ms = 60000,
     .action = GUARD_HOLD},
};

static void test_exact(void **state)
{
    (void)state;
    begin(four, 1);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(ask("alice", "192.0.2.1", 1).verdict, GUARD_PASS);
    }
    struct limits_answer a = ask("alice", "192.0.2.1", 1);
    assert_int_equal(a.verdict, GUARD_DEFER);
    assert_string_equal(a.limit->name, "account-hour");
    assert_string_equal(a.text,
                        "Limit \"account-hour\" is reached: 20 recipients an hour for account alice; free again at "
                        "2026-11-24T12:03:00Z (https://help.example/)");
    assert_int_equal(ask("bob", "192.0.2.1", 20).verdict, GUARD_PASS);
    later(179);
    assert_int_equal(ask("alice", "192.0.2.1", 1).verdict, GUARD_DEFER);
    later(1);
    assert_int_equal(ask("alice", "192.0.2.1", 1).verdict, GUARD_PASS);
    assert_int_equal(ask("alice", "192.0.2.1", 1).verdict, GUARD_DEFER);
    end();
}

/* Nothing is charged to the others when one refuses. */
static void test_all_or_nothing(void **state)
{
    (void)state;
    begin(four, 3);
    assert_int_equal(ask("alice", "192.0.2.1", 15).verdict, GUARD_PASS);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(ask("alice", "192.0.2.1", 6).verdict, GUARD_DEFER);
    }
    assert_int_equal(used("alice", "192.0.2.1", 0), 15);
    assert_int_equal(used("alice", "192.0.2.1", 1), 1);
    assert_int_equal(used("alice", "192.0.2.1", 2), 1);
    assert_int_equal(ask("alice", "192.0.2.1", 5).verdict, GUARD_PASS);
    end();
}

static void test_too_many_at_once(void **state)
{
    (void)state;
    begin(four, 1);
    struct limits_answer a = ask("alice", "192.0.2.1", 21);
    assert_int_equal(a.verdict, GUARD_REJECT);
    assert_non_null(strstr(a.text, "more recipients than limit \"account-hour\" allows: 20 recipients an hour"));
    assert_int_equal(used("alice", "192.0.2.1", 0), 0);
    assert_int_equal(ask("alice", "192.0.2.1", UINT32_MAX).verdict, GUARD_REJECT);
    end();
}

static void test_strongest_speaks(void **state)
{
    (void)state;
    begin(four, 4);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(ask("alice", "192.0.2.1", 1).verdict, GUARD_PASS);
    }
    struct limits_answer a = ask("alice", "192.0.2.1", 1);
    assert_int_equal(a.verdict, GUARD_HOLD);
    assert_string_equal(a.limit->name, "watch");
    assert_int_equal(used("alice", "192.0.2.1", 0), 6); /* held mail counts */
    assert_int_equal(used("alice", "192.0.2.1", 3), 5);
    for (int i = 0; i < 14; i++) {
        assert_int_equal(ask("alice", "192.0.2.1", 1).verdict, GUARD_HOLD);
    }
    assert_string_equal(ask("alice", "192.0.2.1", 1).limit->name, "account-hour");
    later(3600);
    for (int i = 0; i < 10; i++) {
        ask("alice", "192.0.2.2", 1);
    }
    later(3600);
    a = ask("alice", "192.0.2.2", 1);
    assert_int_equal(used("alice", "192.0.2.2", 1), 29); /* 31, less the 2.5 that came free in two hours */
    end();
}

static void test_networks(void **state)
{
    static const struct {
        const char *address;
        bool same; /* as the one that is used up */
    } rows[] = {
        {"2001:db8:1:2::1", true},     {"2001:db8:1:2:ffff::9", true}, {"2001:db8:1:3::1", false},
        {"2001:db8:1:2:8000::", true}, {"192.0.2.1", false},           {"::1", false},
    };
    (void)state;
    begin(four, 3);
    for (int i = 0; i < 25; i++) { /* no account: a network that relays without AUTH */
        assert_int_equal(ask("", "2001:db8:1:2::77", 1).verdict, GUARD_PASS);
    }
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(ask("", rows[i].address, 1).verdict, rows[i].same ? GUARD_DEFER : GUARD_PASS);
    }
    assert_non_null(strstr(ask("", "2001:db8:1:2::1", 1).text, "for network 2001:db8:1:2::/64;"));
    for (int i = 0; i < 24; i++) {
        assert_int_equal(ask("", "192.0.2.1", 1).verdict, GUARD_PASS);
    }
    assert_non_null(strstr(ask("", "192.0.2.1", 1).text, "25 messages in 10 minutes for address 192.0.2.1;"));
    assert_int_equal(ask("", "192.0.2.2", 1).verdict, GUARD_PASS);
    end();
}

static void test_refund(void **state)
{
    (void)state;
    begin(four, 3);
    assert_int_equal(ask("alice", "192.0.2.1", 20).verdict, GUARD_PASS);
    uint64_t id = w.id;
    assert_int_equal(ask("alice", "192.0.2.1", 1).verdict, GUARD_DEFER);
    assert_false(limits_refund(w.limits, w.id, w.now)); /* was charged nothing */
    assert_true(limits_refund(w.limits, id, w.now));
    assert_false(limits_refund(w.limits, id, w.now)); /* once */
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(used("alice", "192.0.2.1", i), 0);
    }
    /* Refunded after the limit was raised, and after the charge has run out. */
    assert_int_equal(ask("alice", "192.0.2.1", 10).verdict, GUARD_PASS);
    struct limit larger = four[0];
    size_t bad;
    larger.amount = 40;
    assert_int_equal(limits_configure(w.limits, &larger, 1, NULL, &bad), 0);
    assert_int_equal(used("alice", "192.0.2.1", 0), 10);
    id = w.id;
    assert_int_equal(ask("alice", "192.0.2.1", 5).verdict, GUARD_PASS);
    assert_true(limits_refund(w.limits, id, w.now));
    assert_int_equal(used("alice", "192.0.2.1", 0), 5);
    id = w.id;
    later(7200);
    assert_true(limits_refund(w.limits, id, w.now));
    assert_int_equal(used("alice", "192.0.2.1", 0), 0);
    assert_int_equal(ask("alice", "192.0.2.1", 40).verdict, GUARD_PASS);
    assert_int_equal(ask("alice", "192.0.2.1", 1).verdict, GUARD_DEFER);
    end();
}

static void test_refunds_bounded(void **state)
{
    (void)state;
    struct limit wide = four[1];
    wide.amount = 1000000;
    begin(&wide, 1);
    for (unsigned i = 0; i < LIMITS_REFUNDS + 10; i++) {
        (void)ask("alice", "192.0.2.1", 1);
    }
    assert_false(limits_refund(w.limits, 5, w.now));
    assert_true(limits_refund(w.limits, w.id, w.now));
    assert_true(limits_refund(w.limits, w.id - LIMITS_REFUNDS + 1, w.now));
    end();
}

static void test_configure(void **state)
{
    struct limit bad_rows[] = {four[0], four[0], four[0], four[2], four[2], four[0]};
    bad_rows[0].amount = 0;
    bad_rows[1].window_ms = 0000;
    bad_rows[2].window_ms = UINT64_MAX;
    bad_rows[3].v6_bits = 129;
    bad_rows[4].v4_bits = 0;
    bad_rows[5].action = GUARD_PASS;
    (void)state;
    begin(four, 4);
    for (size_t i = 0; i < sizeof(bad_rows) / sizeof(bad_rows[0]); i++) {
        struct limit two[] = {four[0], bad_rows[i]};
        size_t bad = 99;
        assert_int_equal(limits_configure(w.limits, two, 2, NULL, &bad), -EINVAL);
        assert_int_equal(bad, 1);
    }
    size_t bad;
    assert_int_equal(limits_configure(w.limits, four, LIMITS_MAX + 1, NULL, &bad), -E2BIG);
    assert_int_equal(ask("alice", "192.0.2.1", 1).verdict, GUARD_PASS);
    assert_int_equal(used("alice", "192.0.2.1", 3), 1); /* the old ones stood */
    assert_int_equal(limits_configure(w.limits, NULL, 0, NULL, &bad), 0);
    assert_int_equal(ask("alice", "192.0.2.1", 100000).verdict, GUARD_PASS);
    end();
}

static void test_names_in_replies(void **state)
{
    (void)state;
    struct limit one = four[0];
    one.amount = 1;
    begin(&one, 1);
    (void)ask("j\xc3\xb6rg", "192.0.2.1", 1);
    assert_non_null(strstr(ask("j\xc3\xb6rg", "192.0.2.1", 1).text, "1 recipient an hour for this account;"));
    char name[256];
    memset(name, 'a', 255);
    name[255] = '\0';
    (void)ask(name, "192.0.2.1", 1);
    assert_non_null(strstr(ask(name, "192.0.2.1", 1).text, "this account"));
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact),
        cmocka_unit_test(test_all_or_nothing),
        cmocka_unit_test(test_too_many_at_once),
        cmocka_unit_test(test_strongest_speaks),
        cmocka_unit_test(test_networks),
        cmocka_unit_test(test_refund),
        cmocka_unit_test(test_refunds_bounded),
        cmocka_unit_test(test_configure),
        cmocka_unit_test(test_names_in_replies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
