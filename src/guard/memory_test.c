/* Each allocation of the guard's tables fails in turn: the answer says so, and what held before holds. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "common/scarce.h"
#include "guard/limits.h"
#include "guard/suspend.h"

#define MESSAGES 1000U

static const struct table_clock boot = {
    .boot_id = "b", .mono_ns = 1000000000, .wall_ns = UINT64_C(1795521600000000000)};
static const struct limit day = {.name = "day",
                                 .subject = LIMIT_ACCOUNT,
                                 .unit = LIMIT_MESSAGES,
                                 .amount = 10 * MESSAGES,
                                 .window_ms = 86400000,
                                 .action = GUARD_DEFER};

/* Returns how many of the messages that passed can be given back: all but one whose receipt found no room. */
static size_t pass_and_refund(struct limits *l, struct limits_moment now, bool *ret_failed)
{
    struct guard_check q = {.account = SPAN_LIT("alice"), .recipients = 1};
    struct limits_answer a;
    size_t refunded = 0;
    assert_int_equal(net_address_parse("192.0.2.1", &q.peer), 0);
    for (uint64_t id = 1; id <= MESSAGES; id++) {
        limits_check(l, id, &q, now, &a);
        assert_int_equal(a.verdict, GUARD_PASS);
    }
    *ret_failed = scarce_countdown < 0;
    scarce_countdown = -1;
    for (uint64_t id = 1; id <= MESSAGES; id++) {
        refunded += limits_refund(l, id, now) ? 1 : 0;
    }
    return refunded;
}

static void test_limits(void **state)
{
    (void)state;
    bool failed = true;
    for (long n = 0; failed; n++) {
        struct table *table;
        size_t bad = 0;
        assert_int_equal(table_open(-1, "t", &boot, 1 << 12, &table), 0);
        struct limits *l = limits_new(table);
        assert_int_equal(limits_configure(l, &day, 1, NULL, &bad), 0);
        struct limits_moment now = {table_now(table, boot.mono_ns), boot.wall_ns / 1000000};
        scarce_countdown = n;
        size_t refunded = pass_and_refund(l, now, &failed);
        assert_int_equal(refunded, failed ? MESSAGES - 1 : MESSAGES);
        limits_free(&l);
        table_close(&table);
    }
}

static void check_words(const struct suspend *s, const char *words)
{
    const struct suspension *found = suspend_find(s, SPAN_LIT("alice"));
    assert_int_equal(suspend_count(s), words != NULL ? 1 : 0);
    assert_true((found != NULL) == (words != NULL));
    if (found != NULL) {
        assert_string_equal(found->reason, words);
    }
}

/* One change, with its n-th allocation failing. Returns whether one failed; then `before` holds, else `after`. */
static bool change(struct suspend *s, long n, const char *before, const char *after)
{
    scarce_countdown = n;
    int r = after != NULL ? suspend_add(s, SPAN_LIT("alice"), span_str(after), "root", 1)
                          : suspend_remove(s, SPAN_LIT("alice"));
    bool failed = scarce_countdown < 0;
    scarce_countdown = -1;
    if (r != 0) {
        assert_true(failed);
    }
    check_words(s, r == 0 ? after : before);
    return r != 0;
}

static void test_suspend(void **state)
{
    (void)state;
    char path[] = "/tmp/kidoban-memory-XXXXXX";
    static const char *const names[] = {"suspensions.json", "suspensions.json.new", "audit.jsonl"};
    static const char *const words[] = {NULL, "first", "second", NULL};
    json_set_alloc_funcs(malloc, free); /* jansson's too */
    assert_non_null(mkdtemp(path));
    int fd = open(path, O_PATH | O_DIRECTORY);
    struct suspend *s;
    assert_int_equal(suspend_open(fd, &s), 0);
    for (size_t i = 0; i + 1 < sizeof(words) / sizeof(words[0]); i++) {
        long n = 0;
        while (change(s, n, words[i], words[i + 1])) {
            n++;
        }
        assert_true(n > 1);
        suspend_close(&s); /* and what is on the disk is what was said */
        assert_int_equal(suspend_open(fd, &s), 0);
        check_words(s, words[i + 1]);
    }
    suspend_close(&s);
    for (size_t i = 0; i < 3; i++) {
        (void)unlinkat(fd, names[i], 0);
    }
    (void)close(fd);
    (void)rmdir(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_suspend),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
