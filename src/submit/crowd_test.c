/* Counting over two processes' rows, a restart, and networks that do not disturb each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "submit/crowd.h"
#include "submit/shared_fake.h"

static void check_rows_add_up(void **state)
{
    (void)state;
    int fd = shared_memory();
    struct crowd *a = crowd_open(fd, 0), *b = crowd_open(fd, 1);
    struct net_address one = shared_address("192.0.2.1"), six = shared_address("2001:db8:1:2::1"),
                       mate = shared_address("2001:db8:1:2:ff::9"), other = shared_address("2001:db8:1:3::1");
    assert_int_equal(crowd_enter(a, &one), 1);
    assert_int_equal(crowd_enter(b, &one), 2);
    assert_int_equal(crowd_enter(a, &six), 1);
    assert_int_equal(crowd_enter(b, &mate), 2); /* the same /64 */
    assert_int_equal(crowd_enter(b, &other), 1);
    assert_int_equal(crowd_total(a), 5);
    crowd_leave(a, &one);
    assert_int_equal(crowd_enter(b, &one), 2);
    crowd_close(&b);
    b = crowd_open(fd, 1); /* it died and came back */
    assert_int_equal(crowd_total(b), 1);
    assert_int_equal(crowd_enter(b, &one), 1);
    crowd_close(&a);
    crowd_close(&b);
    (void)close(fd);
}

static void check_wrong_memory(void **state)
{
    (void)state;
    int fd = memfd_create("small", MFD_CLOEXEC);
    assert_null(crowd_open(fd, 0));
    assert_null(crowd_open(-1, 0));
    (void)close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(check_rows_add_up), cmocka_unit_test(check_wrong_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
