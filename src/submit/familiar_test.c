/* Who is known to one process is to another; /64s; time; and what happens when there are more than slots. */
#include "submit/familiar.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "submit/crowd.h"
#include "submit/shared_fake.h"

#define DAY_MS (UINT64_C(24) * 3600 * 1000)

static void test_shared(void **state)
{
    (void)state;
    int fd = shared_memory();
    struct familiar *a = familiar_open(fd), *b = familiar_open(fd);
    assert_true(a != NULL && b != NULL);
    struct net_address one = shared_address("192.0.2.1"), two = shared_address("192.0.2.2"),
                       six = shared_address("2001:db8:1:2::1"), mate = shared_address("2001:db8:1:2:ff::9"),
                       other = shared_address("2001:db8:1:3::1");
    assert_false(familiar_has(a, &one, 1));
    familiar_add(a, &one, 1);
    familiar_add(b, &six, 1);
    assert_true(familiar_has(b, &one, 1));
    assert_true(familiar_has(a, &mate, 1));
    assert_false(familiar_has(a, &two, 1));
    assert_false(familiar_has(a, &other, 1));
    assert_true(familiar_has(a, &one, 6 * DAY_MS));
    assert_false(familiar_has(a, &one, 8 * DAY_MS));
    familiar_add(b, &one, 6 * DAY_MS); /* again: from then on */
    assert_true(familiar_has(a, &one, 8 * DAY_MS));
    familiar_close(&a);
    familiar_close(&b);
    assert_null(a);
    assert_null(familiar_open(-1));
    (void)close(fd);
}

/* The crowd in the same memory is not disturbed, and the newest stay. */
static void test_full(void **state)
{
    (void)state;
    int fd = shared_memory();
    struct familiar *f = familiar_open(fd);
    struct crowd *c = crowd_open(fd, CROWD_ROWS - 1);
    struct net_address a = shared_address("198.51.100.1");
    for (uint32_t i = 1; i <= 300000; i++) {
        memcpy(a.bytes + 12, &i, 4);
        familiar_add(f, &a, i);
        assert_true(familiar_has(f, &a, i));
    }
    assert_int_equal(crowd_total(c), 0);
    assert_int_equal(crowd_enter(c, &a), 1);
    assert_true(familiar_has(f, &a, 300000));
    crowd_close(&c);
    familiar_close(&f);
    (void)close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shared),
        cmocka_unit_test(test_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
