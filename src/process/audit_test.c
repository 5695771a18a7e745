/* The audit log and the files that are written whole, on a real disk: torn ends, refusals. */
#include "process/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "process/kept_file.h"

struct place {
    char path[64];
    int fd;
};

static int setup(void **state)
{
    struct place *p = calloc(1, sizeof(*p));
    memcpy(p->path, "/tmp/kidoban-audit-XXXXXX", sizeof("/tmp/kidoban-audit-XXXXXX"));
    assert_non_null(mkdtemp(p->path));
    p->fd = open(p->path, O_RDONLY | O_DIRECTORY);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    static const char *const names[] = {"audit.jsonl", "kept", "kept.new"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        (void)unlinkat(p->fd, names[i], 0);
        (void)unlinkat(p->fd, names[i], AT_REMOVEDIR);
    }
    (void)close(p->fd);
    assert_int_equal(rmdir(p->path), 0);
    free(p);
    return 0;
}

static int append(struct audit *a, const char *what, const char *account, const char *reason, uint64_t wall_ms)
{
    const struct audit_entry e = {
        .what = what, .account = account, .reason = reason, .by = "uid 1000", .uid = 1000, .wall_ms = wall_ms};
    return audit_append(a, &e);
}

static const char *text_of(json_t *list, size_t i, const char *key)
{
    return json_string_value(json_object_get(json_array_get(list, i), key));
}

static void test_audit(void **state)
{
    struct place *p = *state;
    struct audit *a;
    assert_int_equal(audit_open(p->fd, &a), 0);
    assert_int_equal(append(a, "suspend", "alice", "said \"no\"", 1795521600000), 0);
    audit_close(&a);
    int fd = openat(p->fd, "audit.jsonl", O_WRONLY | O_APPEND);
    assert_int_equal(write(fd, "{\"torn", 6), 6);
    (void)close(fd);
    assert_int_equal(audit_open(p->fd, &a), 0);
    assert_int_equal(append(a, "resume", "alice", NULL, 1795521601000), 0);
    assert_int_equal(append(a, "suspend", "bob", "x", 1795521602000), 0);
    assert_int_equal(append(a, "suspend", "bob", "\xff", 1), -ENOMEM);
    const struct audit_entry e = {.what = "gate.exempt.add",
                                  .subject = "192.0.2.1/32",
                                  .reason = "asked",
                                  .by = "root",
                                  .on_behalf_of = "the night shift",
                                  .wall_ms = 1795521603000};
    assert_int_equal(audit_append(a, &e), 0);
    audit_close(&a);
    assert_int_equal(audit_open(p->fd, &a), 0);
    json_t *all = audit_list(a, NULL, 100), *one = audit_list(a, "alice", 1), *none = audit_list(a, "carol", 9);
    assert_int_equal(json_array_size(all), 4);
    assert_int_equal(json_array_size(one), 1);
    assert_int_equal(json_array_size(none), 0);
    assert_string_equal(text_of(all, 0, "time"), "2026-11-24T12:00:00Z");
    assert_string_equal(text_of(all, 0, "reason"), "said \"no\"");
    assert_null(text_of(all, 0, "subject"));
    assert_string_equal(text_of(all, 3, "subject"), "192.0.2.1/32");
    assert_string_equal(text_of(all, 3, "on_behalf_of"), "the night shift");
    assert_null(text_of(all, 3, "account"));
    assert_string_equal(text_of(one, 0, "what"), "resume");
    assert_int_equal(json_integer_value(json_object_get(json_array_get(one, 0), "uid")), 1000);
    json_decref(all);
    json_decref(one);
    json_decref(none);
    audit_close(&a);
}

static void limit_size(rlim_t octets)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = octets < limit.rlim_max ? octets : limit.rlim_max;
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* The disk is full in the middle of a line; when it has room again the next line is one of its own. */
static void test_audit_no_room(void **state)
{
    struct place *p = *state;
    struct audit *a;
    assert_int_equal(audit_open(p->fd, &a), 0);
    assert_int_equal(append(a, "suspend", "alice", "first", 1795521600000), 0);
    limit_size(200);
    int r = append(a, "suspend", "alice", "cut off in the middle", 1795521601000);
    limit_size(RLIM_INFINITY);
    assert_int_equal(r, -EFBIG);
    assert_int_equal(append(a, "resume", "alice", NULL, 1795521602000), 0);
    json_t *all = audit_list(a, NULL, 100);
    assert_int_equal(json_array_size(all), 2);
    assert_string_equal(text_of(all, 1, "what"), "resume");
    json_decref(all);
    audit_close(&a);
}

static void holds(const struct place *p, const char *text)
{
    struct buf b;
    buf_init(&b, 65536);
    assert_int_equal(kept_file_read(p->fd, "kept", &b), 0);
    assert_true(span_eq(buf_span(&b), span_str(text)));
    buf_fini(&b);
}

static void test_kept(void **state)
{
    struct place *p = *state;
    struct buf b;
    buf_init(&b, 4);
    assert_int_equal(kept_file_read(p->fd, "kept", &b), -ENOENT);
    assert_int_equal(kept_file_write(p->fd, "kept", SPAN_LIT("first")), 0);
    holds(p, "first");
    assert_int_equal(kept_file_read(p->fd, "kept", &b), -EMSGSIZE);
    buf_fini(&b);
    assert_int_equal(kept_file_write(p->fd, "kept", SPAN_LIT("second")), 0);
    holds(p, "second");
    /* What a power cut left beside it is in nobody's way. */
    int fd = openat(p->fd, "kept.new", O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, "torn and longer", 15), 15);
    (void)close(fd);
    holds(p, "second");
    assert_int_equal(kept_file_write(p->fd, "kept", SPAN_LIT("third")), 0);
    holds(p, "third");
}

/* No room for all of it: the file ends in the middle of the text, as on a full disk. */
static void test_no_room(void **state)
{
    struct place *p = *state;
    static uint8_t text[9000];
    memset(text, 'x', sizeof(text));
    assert_int_equal(kept_file_write(p->fd, "kept", SPAN_LIT("old")), 0);
    limit_size(5000);
    int r = kept_file_write(p->fd, "kept", (struct span){text, sizeof(text)});
    limit_size(RLIM_INFINITY);
    assert_int_equal(r, -EFBIG);
    holds(p, "old");
}

static void test_disk_refuses(void **state)
{
    struct place *p = *state;
    assert_int_equal(mkdirat(p->fd, "kept.new", 0700), 0);
    assert_int_equal(kept_file_write(p->fd, "kept", SPAN_LIT("x")), -EISDIR);
    assert_int_equal(unlinkat(p->fd, "kept.new", AT_REMOVEDIR), 0);
    assert_int_equal(mkdirat(p->fd, "kept", 0700), 0); /* the rename fails */
    assert_int_equal(kept_file_write(p->fd, "kept", SPAN_LIT("x")), -EISDIR);
    assert_int_equal(
        kept_file_write(p->fd, "a-name-that-is-far-too-long-for-a-file-that-a-process-keeps-of-itself", SPAN_LIT("x")),
        -ENAMETOOLONG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_audit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_audit_no_room, setup, teardown),
        cmocka_unit_test_setup_teardown(test_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_room, setup, teardown),
        cmocka_unit_test_setup_teardown(test_disk_refuses, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
