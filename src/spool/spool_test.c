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
#include "spool/world.h"

#define SEGMENT (128U * 1024U)

static void whole(const struct world *w, uint64_t seed)
{
    log_flush();
    if (w->broken > 0) {
        print_error("seed %llu: %s\n", (unsigned long long)seed, w->why);
    }
    assert_int_equal(w->broken, 0);
}

static void test_message_comes_and_goes(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1, SEGMENT);
    assert_int_equal(world_open(&w), 0);
    world_settle(&w);
    world_send(&w, 3000, false);
    world_send(&w, 30000, true);
    world_settle(&w);
    assert_int_equal(w.answers, 2);
    assert_int_equal(w.refused, 0);
    assert_int_equal(index_count(spool_index(w.sp)), 2);
    world_check(&w);
    world_deliver_all(&w);
    assert_int_equal(index_count(spool_index(w.sp)), 0);
    whole(&w, 1);
    world_fini(&w);
}

/* A long life without a fault: everything accepted is delivered or bounced, and the disk is given back. */
static void test_ledger_balances(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct world w;
        world_init(&w, seed, SEGMENT);
        assert_int_equal(world_open(&w), 0);
        for (int i = 0; i < 600; i++) {
            world_step(&w);
        }
        world_check(&w);
        world_deliver_all(&w);
        world_check(&w);
        whole(&w, seed);
        struct spool_figures f;
        spool_figures(w.sp, &f);
        assert_int_equal(f.index.messages, 0);
        assert_true(f.log.segments <= 2);
        assert_true(memdisk_open_files(w.mem) <= 3);
        world_fini(&w);
    }
}

/* Power cuts and kills at every kind of moment; after each, recovery, the promises, and life goes on. */
static void test_crashes(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 150; seed++) {
        struct world w;
        world_init(&w, seed, SEGMENT);
        for (int life = 0; life < 4; life++) {
            if (world_open(&w) < 0) {
                fail_msg("seed %llu: recovery failed", (unsigned long long)seed);
            }
            world_check(&w);
            whole(&w, seed);
            memdisk_cut(w.mem, memdisk_calls_made(w.mem) + 1 + world_random(&w) % 200);
            for (int i = 0; i < 200 && !memdisk_is_cut(w.mem); i++) {
                world_step(&w);
            }
            whole(&w, seed);
            world_drop(&w);
            enum memdisk_loss loss = (enum memdisk_loss)(world_random(&w) % 3);
            w.mono_ms = 5000 + world_random(&w) % 100000; /* the machine started anew */
            memdisk_power_on(w.mem, loss, world_random(&w));
        }
        assert_int_equal(world_open(&w), 0);
        world_check(&w);
        world_deliver_all(&w);
        world_check(&w);
        whole(&w, seed);
        assert_int_equal(index_count(spool_index(w.sp)), 0);
        world_fini(&w);
    }
}

/* Every disk call in turn fails, once or for a while; nothing acknowledged is lost, and the service returns. */
static void test_every_call_fails(void **state)
{
    (void)state;
    static const int errors[] = {EIO, ENOSPC};
    for (uint64_t at = 1; at <= 240; at++) {
        struct world w;
        world_init(&w, at, SEGMENT);
        assert_int_equal(world_open(&w), 0);
        memdisk_fail(w.mem, memdisk_calls_made(w.mem) + at, at % 3 == 0 ? 20 : 1, errors[at % 2]);
        for (int i = 0; i < 120; i++) {
            world_step(&w);
        }
        memdisk_fail(w.mem, 0, 0, 0);
        w.mono_ms += 60000;
        world_settle(&w);
        size_t refused = w.refused;
        world_send(&w, 500, false);
        world_settle(&w);
        if (w.refused != refused) {
            print_error("call %llu\n", (unsigned long long)at);
        }
        assert_int_equal(w.refused, refused);
        world_check(&w);
        whole(&w, at);
        world_drop(&w);
        memdisk_power_on(w.mem, at % 2 ? MEMDISK_LOSE_ALL : MEMDISK_LOSE_RANDOM, at);
        assert_int_equal(world_open(&w), 0);
        world_check(&w);
        world_deliver_all(&w);
        whole(&w, at);
        assert_int_equal(index_count(spool_index(w.sp)), 0);
        world_fini(&w);
    }
}

static void test_full_disk(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1, SEGMENT);
    assert_int_equal(world_open(&w), 0);
    world_settle(&w);
    world_send(&w, 3000, false);
    world_settle(&w);
    memdisk_set_free(w.mem, 1000, 100000);
    w.mono_ms += 2000;
    world_settle(&w);
    struct spool_state st;
    spool_state(w.sp, &st);
    assert_int_equal(st.accepting, 0);
    assert_int_equal(st.code, 452);
    world_send(&w, 100, false);
    assert_int_equal(w.refused, 1);
    world_deliver_all(&w); /* works inside the reserve */
    assert_int_equal(index_count(spool_index(w.sp)), 0);
    memdisk_set_free(w.mem, 1U << 30, 3);
    w.mono_ms += 2000;
    world_settle(&w);
    spool_state(w.sp, &st);
    assert_int_equal(st.code, 452);
    memdisk_set_free(w.mem, 1U << 30, 100000);
    w.mono_ms += 2000;
    world_settle(&w);
    world_send(&w, 100, false);
    world_settle(&w);
    assert_int_equal(w.refused, 1);
    whole(&w, 1);
    world_fini(&w);
}

static void on_durable(void *arg, int error)
{
    *(int *)arg = error;
}

static bool is_held(struct world *w, uint64_t id)
{
    return (index_find(spool_index(w->sp), id)->state & INDEX_HELD) != 0;
}

/* An operator is answered when the change is on the disk, not before; or told that the disk does not take it. */
static void test_operator_waits_for_the_disk(void **state)
{
    (void)state;
    struct world w;
    int error = 1;
    world_init(&w, 1, SEGMENT);
    assert_int_equal(world_open(&w), 0);
    spool_shard_up(w.sp, 0, false);
    world_send(&w, 3000, false);
    world_settle(&w);
    uint64_t id = w.ledger[0].id;
    assert_int_equal(spool_hold(w.sp, id, SPAN_LIT("by hand")), 0);
    assert_int_equal(spool_when_durable(w.sp, on_durable, &error), 0);
    for (int i = 0; i < 64 && error == 1; i++) {
        (void)spool_poll(w.sp);
    }
    assert_int_equal(error, 0);
    world_drop(&w);
    memdisk_power_on(w.mem, MEMDISK_LOSE_ALL, 1);
    assert_int_equal(world_open(&w), 0);
    assert_true(is_held(&w, id));

    memdisk_fail_call(w.mem, MEMDISK_SYNC, 1, UINT64_MAX, EIO);
    error = 1;
    assert_int_equal(spool_release(w.sp, id), 0);
    assert_int_equal(spool_when_durable(w.sp, on_durable, &error), 0);
    world_settle(&w);
    assert_int_equal(error, -EIO);
    memdisk_fail_call(w.mem, MEMDISK_SYNC, 0, 0, 0);
    w.mono_ms += 10000;
    world_settle(&w);
    error = 1;
    assert_int_equal(spool_when_durable(w.sp, on_durable, &error), 0);
    world_settle(&w);
    assert_int_equal(error, 0);
    world_drop(&w);
    memdisk_power_on(w.mem, MEMDISK_LOSE_ALL, 1);
    assert_int_equal(world_open(&w), 0);
    assert_false(is_held(&w, id));
    world_fini(&w);
}

static void test_two_daemons(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1, SEGMENT);
    assert_int_equal(world_open(&w), 0);
    struct spool *first = w.sp;
    assert_int_equal(world_open(&w), -EBUSY);
    w.sp = first;
    world_fini(&w);
}

static void test_duplicate_id(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1, SEGMENT);
    assert_int_equal(world_open(&w), 0);
    world_send(&w, 100, false);
    w.next_id--;
    world_send(&w, 100, false);
    assert_int_equal(w.refused, 1);
    world_settle(&w);
    world_fini(&w);
}

/* A wall clock that jumps by ten years in either direction while the daemon is down neither expires nor freezes mail.
 */
static void test_clock_steps(void **state)
{
    (void)state;
    static const int64_t steps[] = {315360000000, -315360000000, 86400000, -86400000};
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct world w;
        world_init(&w, 1, SEGMENT);
        assert_int_equal(world_open(&w), 0);
        world_send(&w, 100, false);
        world_settle(&w);
        assert_int_equal(w.answers, 1);
        world_drop(&w);
        memdisk_power_on(w.mem, MEMDISK_LOSE_ALL, 1);
        w.wall_ms = (uint64_t)((int64_t)w.wall_ms + steps[i]);
        assert_int_equal(world_open(&w), 0);
        world_settle(&w);
        assert_int_equal(index_count(spool_index(w.sp)), 1);
        assert_true(w.jobs_count > 0);
        world_deliver_all(&w);
        assert_int_equal(index_count(spool_index(w.sp)), 0);
        assert_int_equal(w.ledger[0].fate, WORLD_DELIVERED);
        world_fini(&w);
    }
}

int main(void)
{
    log_open("spool-test", getenv("SPOOL_TEST_LOG") != NULL ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR + 1, -1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_message_comes_and_goes),
        cmocka_unit_test(test_ledger_balances),
        cmocka_unit_test(test_crashes),
        cmocka_unit_test(test_every_call_fails),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_operator_waits_for_the_disk),
        cmocka_unit_test(test_two_daemons),
        cmocka_unit_test(test_duplicate_id),
        cmocka_unit_test(test_clock_steps),
    };
    if (getenv("SPOOL_TEST_FILTER") != NULL) {
        cmocka_set_test_filter(getenv("SPOOL_TEST_FILTER"));
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
