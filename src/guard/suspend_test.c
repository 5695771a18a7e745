#include "guard/suspend.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct place {
    char path[64];
    int fd;
};

static int setup(void **state)
{
    struct place *p = calloc(1, sizeof(*p));
    memcpy(p->path, "/tmp/kidoban-suspend-XXXXXX", sizeof("/tmp/kidoban-suspend-XXXXXX"));
    assert_non_null(mkdtemp(p->path));
    p->fd = open(p->path, O_PATH | O_DIRECTORY);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    static const char *const names[] = {"suspensions.json", "suspensions.json.new"};
    (void)unlinkat(p->fd, "suspensions.json.new", AT_REMOVEDIR);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        (void)unlinkat(p->fd, names[i], 0);
    }
    (void)close(p->fd);
    (void)rmdir(p->path);
    free(p);
    return 0;
}

static void put_file(const struct place *p, const char *name, const char *text)
{
    int fd = openat(p->fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    (void)close(fd);
}

static void test_round(void **state)
{
    struct place *p = *state;
    struct suspend *s;
    assert_int_equal(suspend_open(p->fd, &s), 0);
    assert_int_equal(suspend_add(s, SPAN_LIT("Alice@Example.net"), SPAN_LIT("sends spam"), "root", 1000), 0);
    assert_int_equal(suspend_add(s, SPAN_LIT("alice@example.net"), SPAN_LIT("sends spam"), "root", 1001), -EEXIST);
    assert_int_equal(suspend_add(s, SPAN_LIT("bob"), SPAN_LIT("unpaid \xe6\x9c\xaa\xe6\x89\x95"), "uid 7", 2000), 0);
    suspend_close(&s);
    assert_int_equal(suspend_open(p->fd, &s), 0);
    assert_int_equal(suspend_count(s), 2);
    const struct suspension *a = suspend_find(s, SPAN_LIT("alice@example.net"));
    assert_non_null(a);
    assert_string_equal(a->reason, "sends spam");
    assert_string_equal(a->by, "root");
    assert_int_equal(a->since_ms, 1000);
    assert_ptr_equal(suspend_next(s, NULL), a);
    assert_string_equal(suspend_next(s, a)->account, "bob");
    assert_null(suspend_next(s, suspend_next(s, a)));
    assert_int_equal(suspend_add(s, SPAN_LIT("alice@example.net"), SPAN_LIT("other words"), "root", 3000), 0);
    assert_int_equal(suspend_remove(s, SPAN_LIT("BOB")), 0);
    assert_int_equal(suspend_remove(s, SPAN_LIT("bob")), -ENOENT);
    suspend_close(&s);
    assert_int_equal(suspend_open(p->fd, &s), 0);
    assert_null(suspend_find(s, SPAN_LIT("bob")));
    assert_string_equal(suspend_find(s, SPAN_LIT("alice@example.net"))->reason, "other words");
    suspend_close(&s);
}

static void test_refused(void **state)
{
    struct place *p = *state;
    struct suspend *s;
    char long_reason[SUSPEND_REASON_MAX + 1];
    memset(long_reason, 'x', sizeof(long_reason));
    assert_int_equal(suspend_open(p->fd, &s), 0);
    assert_int_equal(suspend_add(s, SPAN_LIT(""), SPAN_LIT("x"), "root", 1), -EINVAL);
    assert_int_equal(suspend_add(s, SPAN_LIT("a b"), SPAN_LIT("x"), "root", 1), -EINVAL);
    assert_int_equal(suspend_add(s, SPAN_LIT("a"), SPAN_LIT(""), "root", 1), -EINVAL);
    assert_int_equal(suspend_add(s, SPAN_LIT("a"), SPAN_LIT("two\r\nlines"), "root", 1), -EINVAL);
    assert_int_equal(suspend_add(s, SPAN_LIT("a"), SPAN_LIT("\xff"), "root", 1), -EINVAL);
    assert_int_equal(
        suspend_add(s, SPAN_LIT("a"), (struct span){(uint8_t *)long_reason, sizeof(long_reason)}, "root", 1), -EINVAL);
    assert_int_equal(suspend_count(s), 0);
    suspend_close(&s);
}

/* The disk refuses: nothing has changed, in memory and on disk. */
static void test_disk_refuses(void **state)
{
    struct place *p = *state;
    struct suspend *s;
    assert_int_equal(suspend_open(p->fd, &s), 0);
    assert_int_equal(suspend_add(s, SPAN_LIT("bob"), SPAN_LIT("first"), "root", 1), 0);
    assert_int_equal(mkdirat(p->fd, "suspensions.json.new", 0700), 0);
    assert_true(suspend_add(s, SPAN_LIT("alice"), SPAN_LIT("x"), "root", 1) < 0);
    assert_null(suspend_find(s, SPAN_LIT("alice")));
    assert_true(suspend_add(s, SPAN_LIT("bob"), SPAN_LIT("second"), "root", 1) < 0);
    assert_string_equal(suspend_find(s, SPAN_LIT("bob"))->reason, "first");
    assert_true(suspend_remove(s, SPAN_LIT("bob")) < 0);
    assert_non_null(suspend_find(s, SPAN_LIT("bob")));
    suspend_close(&s);
}

/* A set that does not read is not an empty set. */
static void test_damaged(void **state)
{
    struct place *p = *state;
    static const char *const texts[] = {
        "",
        "{\"version\":1,\"suspensions\":[{\"account\":\"a\"",
        "{\"version\":2,\"suspensions\":[]}",
        "{\"version\":1,\"suspensions\":{}}",
        "{\"version\":1,\"suspensions\":[{\"account\":\"a\",\"reason\":\"r\",\"by\":\"b\",\"since_ms\":-1}]}",
        "{\"version\":1,\"suspensions\":[{\"account\":\"a b\",\"reason\":\"r\",\"by\":\"b\",\"since_ms\":1}]}",
        "{\"version\":1,\"suspensions\":[7]}",
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct suspend *s = NULL;
        put_file(p, "suspensions.json", texts[i]);
        assert_int_equal(suspend_open(p->fd, &s), -EBADMSG);
        assert_null(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_disk_refuses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
