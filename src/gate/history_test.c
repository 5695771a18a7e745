#include "gate/history_int.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define SECOND UINT64_C(1000000000)
#define TODAY  20000U /* days since 1970: 2024-10-04 */

struct world {
    char path[32];
    int directory_fd;
    struct history *history;
    struct history_settings settings;
};

/* Seconds after midnight of a day; the machine was booted at midnight of TODAY. */
static struct history_moment at(uint32_t day, uint64_t seconds)
{
    return (struct history_moment){.wall_ms = day * HISTORY_DAY_MS + seconds * 1000,
                                   .boot_ns = ((day - TODAY) * UINT64_C(86400) + seconds) * SECOND};
}

static void open_history(struct world *w, struct history_moment now)
{
    bool damaged;
    assert_int_equal(history_new(w->directory_fd, &w->settings, &now, &w->history, &damaged), 0);
    assert_false(damaged);
}

static int make(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    if (w == NULL) {
        return -1;
    }
    *w = (struct world){.path = "/tmp/history-XXXXXX",
                        .settings = {.retention_ms = 3 * HISTORY_DAY_MS, .lines = 100, .boot_id = "boot"}};
    if (mkdtemp(w->path) == NULL) {
        free(w);
        return -1;
    }
    w->directory_fd = open(w->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *state = w;
    open_history(w, at(TODAY, 10));
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st;
    (void)kind;
    (void)where;
    return remove(path);
}

static int end(void **state)
{
    struct world *w = *state;
    history_free(&w->history);
    (void)close(w->directory_fd);
    int r = nftw(w->path, remove_one, 4, FTW_DEPTH | FTW_PHYS);
    free(w);
    return r;
}

static struct gate_source_key key_of(uint32_t line)
{
    struct gate_source_key key = {.address = {[10] = 0xff, [11] = 0xff}};
    memcpy(key.address + 12, &line, 4);
    return key;
}

static void sweep(struct world *w, struct history_moment now, uint32_t line, uint64_t first_s, uint64_t packets,
                  uint64_t connections)
{
    const struct gate_source_key key = key_of(line);
    const struct gate_source s = {.first_ns = first_s * SECOND,
                                  .last_ns = now.boot_ns - SECOND,
                                  .packets = packets,
                                  .connections = connections,
                                  .verdict = 1,
                                  .would = 1};
    history_begin(w->history, &now);
    history_source(w->history, &key, &s, "dynamic");
    assert_int_equal(history_save(w->history), 0);
}

static struct history_line *read_day(const struct world *w, uint32_t day, size_t *ret_count)
{
    struct history_line *lines = NULL;
    struct history_rest rest;
    assert_int_equal(history_read(w->directory_fd, day, &lines, ret_count, &rest), 0);
    return lines;
}

static void expect(const struct world *w, uint32_t day, uint64_t packets, uint64_t connections)
{
    size_t count;
    struct history_line *lines = read_day(w, day, &count);
    assert_int_equal(count, 1);
    assert_int_equal(lines[0].packets[0], packets);
    assert_int_equal(lines[0].connections[0], connections);
    assert_string_equal(lines[0].class_, "dynamic");
    free(lines);
}

static void again(struct world *w, struct history_moment now)
{
    history_free(&w->history);
    open_history(w, now);
}

/* Nothing twice, nothing lost: over restarts, over the kernel forgetting a line, over midnight. */
static void test_differences(void **state)
{
    struct world *w = *state;
    sweep(w, at(TODAY, 60), 1, 30, 5, 4);
    expect(w, TODAY, 5, 4);
    sweep(w, at(TODAY, 120), 1, 30, 7, 5);
    expect(w, TODAY, 7, 5);
    again(w, at(TODAY, 130));
    sweep(w, at(TODAY, 180), 1, 30, 7, 5);
    expect(w, TODAY, 7, 5);
    sweep(w, at(TODAY, 240), 1, 30, 17, 15); /* while it was down, ten more */
    expect(w, TODAY, 17, 15);
    sweep(w, at(TODAY, 300), 1, 290, 2, 1); /* forgotten and seen again */
    expect(w, TODAY, 19, 16);
    sweep(w, at(TODAY + 1, 10), 1, 290, 12, 3);
    expect(w, TODAY, 19, 16);
    expect(w, TODAY + 1, 10, 2);
    again(w, at(TODAY + 2, 10)); /* a day in which it was down */
    sweep(w, at(TODAY + 2, 20), 1, 290, 13, 4);
    expect(w, TODAY + 2, 1, 1);
}

/* Another boot: what the kernel has counted is all new, even where the times look alike. */
static void test_boot(void **state)
{
    struct world *w = *state;
    sweep(w, at(TODAY, 60), 1, 30, 5, 4);
    memcpy(w->settings.boot_id, "other", 5);
    again(w, at(TODAY, 100));
    sweep(w, at(TODAY, 120), 1, 30, 6, 4);
    expect(w, TODAY, 11, 8);
}

static void test_when(void **state)
{
    struct world *w = *state;
    size_t count;
    sweep(w, at(TODAY, 3 * 3600 + 60), 1, 2 * 3600, 600, 600);
    sweep(w, at(TODAY, 3 * 3600 + 120), 1, 2 * 3600, 660, 660);
    struct history_line *lines = read_day(w, TODAY, &count);
    assert_int_equal(lines[0].first_ms, TODAY * HISTORY_DAY_MS + UINT64_C(2) * 3600 * 1000);
    assert_int_equal(lines[0].last_ms, TODAY * HISTORY_DAY_MS + (3 * 3600 + 119) * 1000);
    assert_int_equal(lines[0].hours, 1 << 2 | 1 << 3);
    assert_int_equal(lines[0].peak, 60);
    free(lines);
}

/* A hundred are kept, and those are the busiest; the flood is told as a number. */
static void test_flood(void **state)
{
    struct world *w = *state;
    struct history_moment now = at(TODAY, 60);
    size_t count, busy = 0;
    struct history_line *lines = NULL;
    struct history_rest rest;
    history_begin(w->history, &now);
    for (uint32_t i = 0; i < 50000; i++) {
        const struct gate_source_key key = key_of(i);
        const struct gate_source s = {.first_ns = 30 * SECOND,
                                      .last_ns = 31 * SECOND,
                                      .packets = 1 + (i % 1000 == 0),
                                      .connections = 1 + (i % 1000 == 0)};
        history_source(w->history, &key, &s, NULL);
    }
    assert_int_equal(history_save(w->history), 0);
    assert_int_equal(history_read(w->directory_fd, TODAY, &lines, &count, &rest), 0);
    assert_int_equal(count, 100);
    for (size_t i = 0; i < count; i++) {
        busy += lines[i].connections[1] == 2 ? 1 : 0;
    }
    assert_int_equal(busy, 50);
    assert_int_equal(rest.lines, 50000 - 100);
    assert_int_equal(rest.connections, 50050 - 150);
    free(lines);
}

static void test_fars(void **state)
{
    struct world *w = *state;
    const struct gate_source_key key = key_of(1), stranger = key_of(2);
    size_t count;
    sweep(w, at(TODAY, 60), 1, 30, 5, 4);
    for (uint32_t i = 0; i < 40; i++) {
        const struct gate_source_key often = key_of(1000), far = key_of(2000 + i);
        history_far(w->history, &key, often.address, 3, true);
        history_far(w->history, &key, far.address, 1, true);
        history_far(w->history, &stranger, far.address, 1, true);
    }
    assert_int_equal(history_save(w->history), 0);
    struct history_line *lines = read_day(w, TODAY, &count);
    assert_int_equal(count, 1);
    const struct gate_source_key often = key_of(1000);
    for (size_t i = 0, found = 0; i < HISTORY_FARS; i++) {
        const struct history_far *f = &lines[0].fars[i];
        bool is = memcmp(f->address, often.address, 16) == 0;
        found += is ? 1 : 0;
        assert_true(is ? f->count - f->over == 120 : f->count - f->over == 1);
        assert_true(i + 1 < HISTORY_FARS || found == 1);
    }
    size_t bits = 0;
    for (size_t i = 0; i < HISTORY_SKETCH; i++) {
        bits += (size_t)__builtin_popcountll(lines[0].sketch[i]);
    }
    assert_in_range(bits, 30, 41);
    free(lines);
}

static void test_retention(void **state)
{
    struct world *w = *state;
    char name[sizeof(HISTORY_FILE_NAME)];
    struct stat st;
    for (uint32_t day = TODAY; day < TODAY + 6; day++) {
        sweep(w, at(day, 60), 1, 30, (day - TODAY + 1) * 5, 4);
    }
    for (uint32_t day = TODAY; day < TODAY + 6; day++) {
        history_file_name(day, name);
        assert_int_equal(fstatat(w->directory_fd, name, &st, 0), day < TODAY + 2 ? -1 : 0);
    }
}

/* Any flipped bit, any end: set aside, and the day goes on. */
static void test_damage(void **state)
{
    struct world *w = *state;
    char name[sizeof(HISTORY_FILE_NAME)];
    uint8_t whole[4096];
    history_file_name(TODAY, name);
    assert_string_equal(name, "day-2024-10-04");
    sweep(w, at(TODAY, 60), 1, 30, 5, 4);
    int fd = openat(w->directory_fd, name, O_RDONLY | O_CLOEXEC);
    ssize_t len = read(fd, whole, sizeof(whole));
    (void)close(fd);
    assert_true(len > 0 && (size_t)len < sizeof(whole));
    for (ssize_t i = 0; i < len; i += 7) {
        struct history_line *lines = NULL;
        struct history_rest rest;
        size_t count;
        whole[i] ^= 4;
        fd = openat(w->directory_fd, name, O_WRONLY | O_TRUNC | O_CLOEXEC);
        assert_int_equal(write(fd, whole, (size_t)(i % 2 == 0 ? len : i)), i % 2 == 0 ? len : i);
        (void)close(fd);
        whole[i] ^= 4;
        assert_int_equal(history_read(w->directory_fd, TODAY, &lines, &count, &rest), -EBADMSG);
        assert_null(lines);
    }
    struct history_moment now = at(TODAY, 70);
    bool damaged;
    history_free(&w->history);
    assert_int_equal(history_new(w->directory_fd, &w->settings, &now, &w->history, &damaged), 0);
    assert_true(damaged);
    sweep(w, at(TODAY, 80), 1, 30, 6, 4);
    expect(w, TODAY, 6, 4);
    assert_int_equal(faccessat(w->directory_fd, "day-2024-10-04.damaged", F_OK, 0), 0);
}

/* The sum is right, what it is of is not; and what is no file is not waited for. */
static void test_hostile(void **state)
{
    struct world *w = *state;
    const struct history_file_head head = {.day = TODAY};
    const struct history_line good = {.class_ = "dynamic", .fars = {{.count = 2, .over = 2}}, .hours = 0xffffff};
    struct history_line bad[] = {good, good, good}, *lines = NULL;
    struct history_rest rest;
    char name[sizeof(HISTORY_FILE_NAME)];
    size_t count;
    bad[0].fars[0].over = 3;
    bad[1].hours = 1U << 24;
    memset(bad[2].class_, 0xff, sizeof(bad[2].class_));
    for (size_t i = 0; i < 3; i++) {
        const struct history_line two[] = {good, bad[i]};
        assert_int_equal(history_file_write(w->directory_fd, &head, two, 1), 0);
        assert_int_equal(history_read(w->directory_fd, TODAY, &lines, &count, &rest), 0);
        free(lines);
        assert_int_equal(history_file_write(w->directory_fd, &head, two, 2), 0);
        assert_int_equal(history_read(w->directory_fd, TODAY, &lines, &count, &rest), -EBADMSG);
    }
    history_file_name(TODAY, name);
    assert_int_equal(unlinkat(w->directory_fd, name, 0), 0);
    assert_int_equal(mkfifoat(w->directory_fd, name, 0600), 0);
    assert_int_equal(history_read(w->directory_fd, TODAY, &lines, &count, &rest), -EBADMSG);
    assert_int_equal(unlinkat(w->directory_fd, name, 0), 0);
    assert_int_equal(symlinkat("/etc/passwd", w->directory_fd, name), 0);
    assert_int_equal(history_read(w->directory_fd, TODAY, &lines, &count, &rest), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_differences, make, end),
        cmocka_unit_test_setup_teardown(test_boot, make, end),
        cmocka_unit_test_setup_teardown(test_when, make, end),
        cmocka_unit_test_setup_teardown(test_flood, make, end),
        cmocka_unit_test_setup_teardown(test_fars, make, end),
        cmocka_unit_test_setup_teardown(test_retention, make, end),
        cmocka_unit_test_setup_teardown(test_damage, make, end),
        cmocka_unit_test_setup_teardown(test_hostile, make, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
