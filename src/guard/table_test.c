#include "guard/table.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define SECOND UINT64_C(1000000000)
#define NAME   "limits.table"

static const struct table_clock first_boot = {
    .boot_id = "first", .mono_ns = 100 * SECOND, .wall_ns = 1795500000 * SECOND};

struct place {
    char path[64];
    int fd;
};

static int setup(void **state)
{
    struct place *p = calloc(1, sizeof(*p));
    memcpy(p->path, "/tmp/kidoban-table-XXXXXX", sizeof("/tmp/kidoban-table-XXXXXX"));
    assert_non_null(mkdtemp(p->path));
    p->fd = open(p->path, O_PATH | O_DIRECTORY);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    (void)unlinkat(p->fd, NAME, 0);
    (void)unlinkat(p->fd, NAME ".new", 0);
    (void)close(p->fd);
    (void)rmdir(p->path);
    free(p);
    return 0;
}

static struct table *open_table(const struct place *p, const struct table_clock *clock, uint64_t max)
{
    struct table *t;
    assert_int_equal(table_open(p->fd, NAME, clock, max, &t), 0);
    return t;
}

static void key_of(const struct table *t, unsigned n, struct table_key *key)
{
    table_key_make(t, SPAN_LIT("hour"), (struct span){(uint8_t *)&n, sizeof(n)}, key);
}

static void set(struct table *t, unsigned n, uint64_t now, uint64_t tat)
{
    struct table_key key;
    key_of(t, n, &key);
    table_set(t, &key, now, tat, 7);
}

/* The tat of n, or 0. */
static uint64_t get(const struct table *t, unsigned n, uint64_t now)
{
    struct table_key key;
    uint64_t tat = 0, interval = 7;
    key_of(t, n, &key);
    bool found = table_get(t, &key, now, &tat, &interval);
    assert_int_equal(interval, 7);
    return found ? tat : 0;
}

static void test_survives(void **state)
{
    struct place *p = *state;
    struct table *t = open_table(p, &first_boot, 1 << 16);
    uint64_t now = table_now(t, first_boot.mono_ns);
    assert_int_equal(now, first_boot.wall_ns);
    for (unsigned i = 0; i < 3000; i++) { /* grows twice */
        set(t, i, now, now + (1000 + i) * SECOND);
    }
    for (unsigned i = 0; i < 3000; i += 3) {
        set(t, i, now, now + (9000 + i) * SECOND);
    }
    struct table_figures f;
    table_figures(t, &f);
    assert_true(f.persistent);
    assert_true(f.slots >= 4096);
    assert_int_equal(f.evicted, 0);
    assert_int_equal(table_live(t, now), 3000);
    table_close(&t);
    t = open_table(p, &first_boot, 1 << 16);
    for (unsigned i = 0; i < 3000; i++) {
        assert_int_equal(get(t, i, now), now + ((i % 3 == 0 ? 9000 : 1000) + i) * SECOND);
    }
    assert_int_equal(get(t, 1, now + 1001 * SECOND), 0);
    assert_int_equal(get(t, 3001, now), 0);
    table_close(&t);
}

/* A child counts and is killed in the middle of it; what it had finished (told through shared memory) stands. */
static void test_killed(void **state)
{
    struct place *p = *state;
    volatile uint64_t *told = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int round = 0; round < 20; round++) {
        *told = 0;
        pid_t pid = fork();
        if (pid == 0) {
            struct table *t = open_table(p, &first_boot, 1 << 16);
            uint64_t now = table_now(t, first_boot.mono_ns);
            for (uint64_t n = 1;; n++) {
                for (unsigned k = 0; k < 8; k++) {
                    set(t, k, now, now + n * SECOND);
                }
                *told = n;
            }
        }
        while (*told == 0) {
            (void)usleep(100);
        }
        (void)usleep(500 + (unsigned)round * 37);
        (void)kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        uint64_t n = *told;
        struct table *t = open_table(p, &first_boot, 1 << 16);
        uint64_t now = table_now(t, first_boot.mono_ns);
        for (unsigned k = 0; k < 8; k++) {
            uint64_t tat = get(t, k, now);
            assert_true(tat == now + n * SECOND || tat == now + (n + 1) * SECOND);
        }
        struct table_figures f;
        table_figures(t, &f);
        assert_true(f.damaged <= 1);
        table_close(&t);
        (void)unlinkat(p->fd, NAME, 0);
    }
    (void)munmap((void *)told, 4096);
}

static void test_full(void **state)
{
    struct place *p = *state;
    struct table *t = open_table(p, &first_boot, TABLE_SLOTS_MIN);
    uint64_t now = table_now(t, first_boot.mono_ns);
    for (unsigned i = 0; i < 4 * TABLE_SLOTS_MIN; i++) {
        set(t, i, now, now + (10000 - i) * SECOND);
    }
    struct table_figures f;
    table_figures(t, &f);
    assert_int_equal(f.slots, TABLE_SLOTS_MIN);
    assert_true(f.evicted >= 3 * TABLE_SLOTS_MIN);
    assert_true(table_live(t, now) > TABLE_SLOTS_MIN * 9 / 10);
    /* The newest always has a place; those with most to remember have stayed. */
    assert_int_not_equal(get(t, 4 * TABLE_SLOTS_MIN - 1, now), 0);
    unsigned kept = 0;
    for (unsigned i = 0; i < 100; i++) {
        kept += get(t, i, now) != 0;
    }
    assert_true(kept > 95);
    table_close(&t);
}

static void test_time(void **state)
{
    struct place *p = *state;
    struct table *t = open_table(p, &first_boot, 1 << 16);
    uint64_t now = table_now(t, first_boot.mono_ns);
    set(t, 1, now, now + 100 * SECOND);
    table_close(&t);
    /* Same boot, the wall clock went back a year: nothing changes. */
    struct table_clock clock = first_boot;
    clock.mono_ns += 10 * SECOND;
    clock.wall_ns -= 365 * 86400 * SECOND;
    t = open_table(p, &clock, 1 << 16);
    assert_int_equal(table_now(t, clock.mono_ns), now + 10 * SECOND);
    assert_int_equal(get(t, 1, now + 10 * SECOND), now + 100 * SECOND);
    set(t, 1, now + 10 * SECOND, now + 110 * SECOND);
    table_close(&t);
    /* Another boot with the wrong clock: time does not go back. */
    memcpy(clock.boot_id, "second", 6);
    clock.mono_ns = 5 * SECOND;
    t = open_table(p, &clock, 1 << 16);
    assert_int_equal(table_now(t, clock.mono_ns), now + 10 * SECOND);
    assert_int_equal(get(t, 1, table_now(t, clock.mono_ns)), now + 110 * SECOND);
    table_close(&t);
    /* And with the right one: it is later, and what is past is free. */
    memcpy(clock.boot_id, "third", 6);
    clock.wall_ns = first_boot.wall_ns + 3600 * SECOND;
    t = open_table(p, &clock, 1 << 16);
    assert_int_equal(table_now(t, clock.mono_ns), now + 3600 * SECOND);
    assert_int_equal(table_live(t, 0), 0);
    table_close(&t);
}

static void damage(const struct place *p, off_t at, size_t len)
{
    int fd = openat(p->fd, NAME, O_RDWR);
    uint8_t bytes[4096];
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    for (off_t o = at; o < st.st_size && len > 0; o += 4096, len--) {
        assert_true(pread(fd, bytes, sizeof(bytes), o) > 0);
        for (size_t i = 20; i < sizeof(bytes); i += 64) {
            bytes[i] ^= 0x55;
        }
        assert_true(pwrite(fd, bytes, sizeof(bytes), o) > 0);
    }
    (void)close(fd);
}

static void test_damaged(void **state)
{
    struct place *p = *state;
    struct table *t = open_table(p, &first_boot, 1 << 16);
    uint64_t now = table_now(t, first_boot.mono_ns);
    for (unsigned i = 0; i < 500; i++) {
        set(t, i, now, now + 100 * SECOND);
        set(t, i, now, now + 200 * SECOND);
    }
    table_close(&t);
    damage(p, 4096, 4); /* the first record of 256 slots: the state before, or nothing, never a wrong number */
    t = open_table(p, &first_boot, 1 << 16);
    unsigned right = 0;
    for (unsigned i = 0; i < 500; i++) {
        uint64_t tat = get(t, i, now);
        assert_true(tat == 0 || tat == now + 100 * SECOND || tat == now + 200 * SECOND);
        right += tat == now + 200 * SECOND;
    }
    assert_true(right > 300);
    table_close(&t);
    damage(p, 0, 1); /* the header: starts empty */
    t = open_table(p, &first_boot, 1 << 16);
    struct table_figures f;
    table_figures(t, &f);
    assert_int_equal(f.damaged, 1);
    assert_int_equal(table_live(t, 0), 0);
    table_close(&t);
    assert_int_equal(truncate("/nonexistent", 0), -1);
    int fd = openat(p->fd, NAME, O_RDWR);
    assert_int_equal(ftruncate(fd, 5000), 0);
    (void)close(fd);
    t = open_table(p, &first_boot, 1 << 16);
    table_close(&t);
}

static void test_in_memory(void **state)
{
    struct table *t;
    (void)state;
    assert_int_equal(table_open(-1, NAME, &first_boot, 1 << 16, &t), 0);
    uint64_t now = table_now(t, first_boot.mono_ns);
    for (unsigned i = 0; i < 3000; i++) {
        set(t, i, now, now + 100 * SECOND);
    }
    struct table_figures f;
    table_figures(t, &f);
    assert_false(f.persistent);
    assert_int_equal(table_live(t, now), 3000);
    table_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_survives, setup, teardown),
        cmocka_unit_test_setup_teardown(test_killed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full, setup, teardown),
        cmocka_unit_test_setup_teardown(test_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
        cmocka_unit_test(test_in_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
