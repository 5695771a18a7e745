/*
 * fault_test.c: every call of the disk and every allocation fails in turn: once, for a while, or until somebody mends
 * it. A small life goes on around it; then the fault is lifted and the promises are looked at:
 *
 *   - nothing acknowledged is lost, not even when the power goes right after (I1, I3), and a failed sync was never
 *     taken for a good one (I5): what a failed sync leaves on the memory disk is up to chance;
 *   - while it lasts the spool does not spin: it asks for its next turn in the future, and calls the disk seldom;
 *   - afterwards, without a restart, mail is taken and all that was queued goes out (I6, I7).
 *
 * Allocations are counted by --wrap of the linker; those of the tests themselves are let through (memdisk_alloc).
 * Argument: how many times as many seeds as usual.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "spool/spool_int.h"
#include "spool/world.h"

#define SEGMENT       (64U * 1024U)
#define SEGMENT_REAL  (1024U * 1024U) /* the least outside of tests */
#define DISK_SMALL    (4U * 1024U * 1024U)
#define LIFE          70 /* steps */
#define FOR_EVER      UINT64_MAX
#define TURNS_MAX     1500 /* of the loop, in a minute with a broken disk */
#define BAD_CALLS_MAX 600  /* of the disk, in that minute */

static unsigned times = 1;
static size_t faults; /* injected */

/* --- an allocator that fails --- */

static bool alloc_armed;
static uint64_t alloc_count, alloc_fail_at, alloc_fail_times;

static bool alloc_fails(void)
{
    if (!alloc_armed || memdisk_allocating > 0) {
        return false;
    }
    uint64_t call = ++alloc_count;
    return alloc_fail_at != 0 && call >= alloc_fail_at && call - alloc_fail_at < alloc_fail_times;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_reallocarray(void *old, size_t count, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_reallocarray(void *old, size_t count, size_t size);

void *__wrap_malloc(size_t size)
{
    return alloc_fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return alloc_fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return alloc_fails() ? NULL : __real_realloc(old, size);
}

void *__wrap_reallocarray(void *old, size_t count, size_t size)
{
    return alloc_fails() ? NULL : __real_reallocarray(old, count, size);
}

static void alloc_arm(uint64_t at, uint64_t for_times)
{
    alloc_armed = true;
    alloc_count = 0;
    alloc_fail_at = at;
    alloc_fail_times = for_times;
}

/* --- one fault --- */

struct fault {
    const char *name;
    int call; /* enum memdisk_call; -1: an allocation */
    int error;
    uint64_t at, times;
};

static void fault_set(struct world *w, const struct fault *f)
{
    if (f->call < 0) {
        alloc_arm(f->at, f->times);
    } else {
        memdisk_fail_call(w->mem, (enum memdisk_call)f->call, f->at, f->times, f->error);
    }
}

static void fault_lift(struct world *w, const struct fault *f)
{
    alloc_armed = false;
    if (f->call >= 0) {
        memdisk_fail_call(w->mem, (enum memdisk_call)f->call, 0, 0, 0);
    }
}

static void good(const struct world *w, const struct fault *f, bool holds, const char *what)
{
    if (!holds || w->broken > 0) {
        alloc_armed = false;
        log_flush();
        fail_msg("%s number %llu, %llu times, error %d: %s: %s", f->name, (unsigned long long)f->at,
                 (unsigned long long)f->times, f->error, what, w->why);
    }
}

static void life(struct world *w)
{
    w->puts_weight = 5;
    for (int i = 0; i < LIFE; i++) {
        world_step(w);
    }
}

/* A minute, with turns when the spool asks for them. */
static void no_spin(struct world *w, const struct fault *f)
{
    uint64_t end = w->mono_ms + 60000, turns = 0, calls = memdisk_calls_made(w->mem);
    while (w->mono_ms < end && turns < TURNS_MAX) {
        uint64_t next = spool_poll(w->sp);
        turns++;
        w->mono_ms = next > w->mono_ms ? next : w->mono_ms + 1;
        w->wall_ms += 10;
    }
    good(w, f, turns < TURNS_MAX, "it spins");
    good(w, f, memdisk_calls_made(w->mem) - calls < BAD_CALLS_MAX, "it calls a broken disk over and over");
}

/* The fault is over: the service is back, and nothing is missing, now and after a power cut. */
static void aftermath(struct world *w, const struct fault *f)
{
    w->mono_ms += 120000;
    world_settle(w);
    size_t refused = w->refused, answers = w->answers;
    world_send(w, 500, false);
    world_send(w, 5000, true);
    world_settle(w);
    good(w, f, w->refused == refused && w->answers == answers + 2, "new mail is not taken");
    world_check(w);
    good(w, f, true, "afterwards");
    world_drop(w);
    memdisk_power_on(w->mem, f->at % 2 ? MEMDISK_LOSE_ALL : MEMDISK_LOSE_RANDOM, f->at);
    good(w, f, world_open(w) == 0, "it does not start");
    world_check(w);
    good(w, f, true, "after a power cut");
    world_deliver_all(w);
    world_check(w);
    good(w, f, index_count(spool_index(w->sp)) == 0, "not all goes out");
}

/* All that is queued goes out without a restart. */
static void goes_out(struct world *w, const struct fault *f)
{
    world_deliver_all(w);
    world_check(w);
    good(w, f, index_count(spool_index(w->sp)) == 0, "not all goes out without a restart");
}

static void begin(struct world *w, uint64_t seed)
{
    world_init(w, seed, SEGMENT);
    assert_int_equal(world_open(w), 0);
    for (int i = 0; i < 25; i++) {
        world_step(w);
    }
    assert_int_equal(w->broken, 0);
}

/* How often a life calls for it. */
static uint64_t count_of(int call)
{
    struct world w;
    begin(&w, 1);
    const struct fault f = {.call = call, .times = 0};
    fault_set(&w, &f);
    life(&w);
    alloc_armed = false;
    uint64_t count = call < 0 ? alloc_count : memdisk_calls_of(w.mem, (enum memdisk_call)call);
    world_fini(&w);
    return count;
}

/* The fault meets a spool at work. */
static void at_work(struct fault f)
{
    struct world w;
    begin(&w, 1 + f.at % 3);
    fault_set(&w, &f);
    life(&w);
    no_spin(&w, &f);
    good(&w, &f, true, "while it lasts");
    fault_lift(&w, &f);
    faults++;
    if (f.at % 4 == 0) {
        w.mono_ms += 120000;
        goes_out(&w, &f);
    }
    aftermath(&w, &f);
    world_fini(&w);
}

static void missing_forgive(struct world *w)
{
    for (size_t i = 0; i < w->ledger_count; i++) {
        if (index_find(spool_index(w->sp), w->ledger[i].id) == NULL) {
            w->ledger[i].fate = WORLD_REFUSED;
        }
    }
    w->broken = 0;
}

/* The fault meets a spool that recovers: it starts, or says that it cannot; nothing is destroyed. */
static void at_start(struct fault f)
{
    struct world w;
    begin(&w, 1 + f.at % 5);
    world_drop(&w);
    memdisk_power_on(w.mem, MEMDISK_LOSE_RANDOM, f.at);
    fault_set(&w, &f);
    int r = world_open(&w);
    fault_lift(&w, &f);
    faults++;
    struct spool_figures figures = {0};
    if (r == 0) {
        world_settle(&w);
        spool_figures(w.sp, &figures);
    }
    good(&w, &f, true, "at the start");
    world_drop(&w);
    memdisk_power_on(w.mem, MEMDISK_LOSE_ALL, f.at);
    good(&w, &f, world_open(&w) == 0, "the next start fails");
    world_check(&w);
    if (figures.damaged > 0 && f.error == EIO && f.times == FOR_EVER) {
        missing_forgive(&w); /* the disk does not give it: what there is was set aside, and that was told */
    }
    good(&w, &f, true, "after a start with a fault");
    aftermath(&w, &f);
    world_fini(&w);
}

static void each(const char *name, int call, const int *errors, size_t errors_count)
{
    static const uint64_t lengths[] = {1, 3, FOR_EVER};
    uint64_t count = count_of(call), step = count / (40U * times) + 1;
    assert_true(count > 0);
    for (uint64_t at = 1; at <= count; at += step) {
        for (size_t e = 0; e < errors_count; e++) {
            for (size_t l = 0; l < sizeof(lengths) / sizeof(lengths[0]); l++) {
                at_work((struct fault){name, call, errors[e], at, lengths[l]});
            }
        }
    }
    for (uint64_t at = 1; at <= 12; at++) {
        for (size_t e = 0; e < errors_count; e++) {
            at_start((struct fault){name, call, errors[e], at, at % 3 == 0 ? FOR_EVER : 1});
        }
    }
}

static void test_write_fails(void **state)
{
    (void)state;
    static const int errors[] = {EIO, ENOSPC};
    each("write", MEMDISK_WRITE, errors, 2);
}

static void test_sync_fails(void **state)
{
    (void)state;
    static const int errors[] = {EIO, ENOSPC};
    each("sync", MEMDISK_SYNC, errors, 2);
}

static void test_sync_of_directory_fails(void **state)
{
    (void)state;
    static const int errors[] = {EIO};
    each("sync of a directory", MEMDISK_SYNC_DIR, errors, 1);
}

static void test_allocate_fails(void **state)
{
    (void)state;
    static const int errors[] = {ENOSPC, EIO};
    each("allocate", MEMDISK_ALLOCATE, errors, 2);
}

static void test_create_fails(void **state)
{
    (void)state;
    static const int errors[] = {ENOSPC, EMFILE};
    each("create", MEMDISK_CREATE, errors, 2);
}

static void test_open_fails(void **state)
{
    (void)state;
    static const int errors[] = {EMFILE, EIO};
    each("open", MEMDISK_OPEN, errors, 2);
}

static void test_rename_fails(void **state)
{
    (void)state;
    static const int errors[] = {EIO};
    each("rename", MEMDISK_RENAME, errors, 1);
}

static void test_unlink_fails(void **state)
{
    (void)state;
    static const int errors[] = {EIO};
    each("unlink", MEMDISK_UNLINK, errors, 1);
}

static void test_read_fails(void **state)
{
    (void)state;
    static const int errors[] = {EIO};
    each("read", MEMDISK_READ, errors, 1);
}

static void test_list_fails(void **state)
{
    (void)state;
    for (uint64_t at = 1; at <= 2; at++) {
        at_start((struct fault){"list", MEMDISK_LIST, EIO, at, 1});
    }
}

static void test_memory_fails(void **state)
{
    (void)state;
    static const int errors[] = {ENOMEM};
    each("allocation", -1, errors, 1);
}

static int order(struct world *w, unsigned verb)
{
    uint64_t id = w->ledger[0].id;
    switch (verb) {
    case 0:
        return spool_hold(w->sp, id, SPAN_LIT("to be looked at"));
    case 1:
        return spool_retry(w->sp, id);
    case 2:
        return spool_release(w->sp, id);
    default:
        return spool_remove(w->sp, id, SPAN_LIT("unwanted"));
    }
}

/* An order that finds no memory for its record is refused and changes nothing; given again, it outlives a power cut. */
static void test_order_finds_no_memory(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1, SEGMENT);
    assert_int_equal(world_open(&w), 0);
    spool_shard_up(w.sp, 0, false);
    world_send(&w, 500, false);
    world_settle(&w);
    for (unsigned verb = 0; verb < 4; verb++) {
        world_send(&w, 500, false);
        (void)spool_poll(w.sp); /* a batch is on its way: the next one takes memory */
        const struct message *m = index_find(spool_index(w.sp), w.ledger[0].id);
        uint8_t before = m->state;
        alloc_arm(1, FOR_EVER);
        int r = order(&w, verb);
        alloc_armed = false;
        assert_int_equal(r, -ENOMEM);
        assert_ptr_equal(index_find(spool_index(w.sp), w.ledger[0].id), m);
        assert_int_equal(m->state, before);
        assert_int_equal(order(&w, verb), 0);
        world_settle(&w);
    }
    w.ledger[0].fate = WORLD_REMOVED;
    world_drop(&w);
    memdisk_power_on(w.mem, MEMDISK_LOSE_ALL, 1);
    assert_int_equal(world_open(&w), 0);
    assert_null(index_find(spool_index(w.sp), w.ledger[0].id));
    world_fini(&w);
}

/* What there is of a snapshot that failed is taken away. */
static void test_snapshot_fails(void **state)
{
    (void)state;
    static const enum memdisk_call kinds[] = {MEMDISK_WRITE, MEMDISK_SYNC, MEMDISK_RENAME};
    for (size_t i = 0; i < 6; i++) {
        struct world w;
        size_t size;
        world_init(&w, 1, SEGMENT);
        assert_int_equal(world_open(&w), 0);
        spool_shard_up(w.sp, 0, false);
        for (int k = 0; k < 40; k++) {
            world_send(&w, 9000, false);
            world_settle(&w);
        }
        memdisk_fail_call(w.mem, kinds[i / 2], kinds[i / 2] == MEMDISK_WRITE ? 2 + i % 2 : 1, 1, EIO);
        w.sp->snapshot_octets = UINT64_C(1) << 40;
        world_settle(&w);
        assert_null(memdisk_octets(w.mem, "index.snap", &size));
        assert_null(memdisk_octets(w.mem, "index.snap.tmp", &size));
        w.sp->snapshot_octets = UINT64_C(1) << 40;
        w.mono_ms += 120000;
        world_settle(&w);
        assert_non_null(memdisk_octets(w.mem, "index.snap", &size));
        world_fini(&w);
    }
}

/* The disk fills up with mail: 452 while there is still room for what follows from it, and back without a restart. */
static void test_disk_fills_up(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6U * times; seed++) {
        const struct fault f = {.name = "full disk", .call = MEMDISK_WRITE, .error = ENOSPC, .at = seed};
        struct world w;
        struct spool_state st;
        world_init(&w, seed, SEGMENT);
        memdisk_set_limit(w.mem, DISK_SMALL);
        w.config.reserve_octets = 12U * SEGMENT; /* in this life each outcome is a batch of its own */
        assert_int_equal(world_open(&w), 0);
        spool_shard_up(w.sp, 0, false);
        w.jobs_count = 0;
        int in_a_row = 0;
        for (int i = 0; i < 2000 && in_a_row < 20; i++) {
            size_t refused = w.refused;
            world_send(&w, (uint32_t)(world_random(&w) % 9000) + 1, world_random(&w) % 4 == 0);
            world_settle(&w);
            w.mono_ms += 400;
            in_a_row = w.refused > refused ? in_a_row + 1 : 0;
            good(&w, &f, w.refused == refused || w.last_code == 452, "it is 452 that refuses");
        }
        spool_state(w.sp, &st);
        good(&w, &f, in_a_row == 20 && st.accepting == 0 && st.code == 452, "452 4.3.1 for as long as it is full");
        good(&w, &f, w.answers == w.ledger_count, "an answer to everybody");
        w.sp->snapshot_octets = UINT64_C(1) << 40; /* one is due, and would take the reserve */
        world_settle(&w);
        size_t size;
        good(&w, &f, memdisk_octets(w.mem, "index.snap", &size) == NULL, "no snapshot on a full disk");
        if (seed % 2 == 0) { /* somebody else takes what is left */
            struct disk_space space;
            assert_int_equal(w.disk.space(w.disk.arg, &space), 0);
            memdisk_set_limit(w.mem, DISK_SMALL - space.free);
        }
        spool_shard_up(w.sp, 0, true);
        w.puts_weight = 0;
        for (int i = 0; i < 60; i++) { /* deferrals and bounces, in what room there is */
            world_step(&w);
        }
        world_check(&w);
        good(&w, &f, true, "in the reserve");
        if (seed % 2 != 0) { /* by itself, in the room there is */
            goes_out(&w, &f);
            spool_state(w.sp, &st);
            good(&w, &f, st.accepting != 0, "mail is taken again");
        }
        memdisk_set_limit(w.mem, DISK_SMALL);
        w.mono_ms += 60000;
        goes_out(&w, &f);
        aftermath(&w, &f);
        world_fini(&w);
    }
}

/* Mail fills the disk, and for days its outcomes come one at a time, a batch each: many times the room there is. */
static void test_outcomes_trickle_on_a_full_disk(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2U * times; seed++) {
        const struct fault f = {.name = "trickle", .call = MEMDISK_WRITE, .error = ENOSPC, .at = seed};
        struct world w;
        struct spool_figures figures;
        world_init(&w, seed, SEGMENT_REAL);
        memdisk_set_limit(w.mem, 16U * SEGMENT_REAL);
        assert_int_equal(world_open(&w), 0);
        spool_shard_up(w.sp, 0, false);
        w.jobs_count = 0;
        for (int i = 0; i < 4000 && w.refused == 0; i++) {
            world_send(&w, (uint32_t)(world_random(&w) % 12000) + 1, false);
            world_settle(&w);
            w.mono_ms += 400;
        }
        spool_shard_up(w.sp, 0, true);
        int outcomes = 0;
        for (int idle = 0; outcomes < 4000 && idle < 200; idle++) {
            world_settle(&w);
            w.mono_ms += w.jobs_count > 0 ? 1000 : 60000;
            if (w.jobs_count > 0) {
                world_end_one(&w, world_random(&w) % 50 == 0 ? DELIVER_PERMANENT : DELIVER_TEMPORARY);
                outcomes++;
                idle = 0;
            }
        }
        spool_figures(w.sp, &figures);
        good(&w, &f, outcomes == 4000, "deliveries that go on");
        good(&w, &f, figures.log.failures == 0, "room for each outcome");
        world_check(&w);
        for (int i = 0; i < 20000 && index_count(spool_index(w.sp)) > 0; i++) {
            (void)spool_poll(w.sp);
            w.mono_ms += 500;
            while (w.jobs_count > 0) {
                world_end_one(&w, DELIVER_DELIVERED);
            }
        }
        goes_out(&w, &f);
        aftermath(&w, &f);
        world_fini(&w);
    }
}

static int totals(void **state)
{
    (void)state;
    print_message("figures: %zu faults injected\n", faults);
    return 0;
}

int main(int argc, char **argv)
{
    log_open("fault-test", getenv("SPOOL_TEST_LOG") != NULL ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR + 1, -1);
    times = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write_fails),
        cmocka_unit_test(test_sync_fails),
        cmocka_unit_test(test_allocate_fails),
        cmocka_unit_test(test_sync_of_directory_fails),
        cmocka_unit_test(test_create_fails),
        cmocka_unit_test(test_open_fails),
        cmocka_unit_test(test_rename_fails),
        cmocka_unit_test(test_unlink_fails),
        cmocka_unit_test(test_read_fails),
        cmocka_unit_test(test_list_fails),
        cmocka_unit_test(test_memory_fails),
        cmocka_unit_test(test_order_finds_no_memory),
        cmocka_unit_test(test_snapshot_fails),
        cmocka_unit_test(test_disk_fills_up),
        cmocka_unit_test(test_outcomes_trickle_on_a_full_disk),
    };
    if (getenv("SPOOL_TEST_FILTER") != NULL) {
        cmocka_set_test_filter(getenv("SPOOL_TEST_FILTER"));
    }
    return cmocka_run_group_tests(tests, NULL, totals);
}
