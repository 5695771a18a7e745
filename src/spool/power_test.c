/*
 * power_test.c: the power goes at every step of the spool's way. A scenario runs on the memory disk; after each call
 * that changes or syncs something, the states of the disk that a power cut could leave now are built (unsynced units
 * lost, torn at 512 octets, reordered, by chance; names of each directory as they were), and each distinct one is
 * recovered and must keep the promises:
 *
 *   - what was acknowledged is there, whole; what failed is told; a durable end does not come again (I1, I3, I4);
 *   - nothing wedges: new mail is taken and everything goes out (I6);
 *   - after that, and one start more, nothing is left.
 *
 * Argument: how many times as many seeds as usual. A failing state is named by seed, step and loss.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "spool/spool_int.h"
#include "spool/world.h"

#define SEGMENT     (64U * 1024U)
#define SEEN_SLOTS  (1U << 20)
#define EXHAUST_MAX 10 /* pending units up to which each of them is cut at */

struct power {
    struct world *w;
    const char *scenario;
    uint64_t seed, step;
    unsigned dice;       /* of RANDOM at each step */
    unsigned again_each; /* of that many states, one is cut again at every step of its recovery and what follows */
    unsigned depth;
    uint64_t random;
    size_t first_states; /* before this scenario */
};

static uint64_t seen[SEEN_SLOTS]; /* open addressing; 0: free */
static size_t states, images, recovered_again;
static unsigned times = 1;

/* False: it was there. */
static bool seen_add(uint64_t hash)
{
    hash |= 1;
    size_t i = (size_t)(hash >> 20) % SEEN_SLOTS;
    for (; seen[i] != 0; i = (i + 1) % SEEN_SLOTS) {
        if (seen[i] == hash) {
            return false;
        }
    }
    assert_true(images + states < SEEN_SLOTS / 2);
    seen[i] = hash;
    return true;
}

static uint64_t power_random(struct power *p)
{
    p->random ^= p->random << 13;
    p->random ^= p->random >> 7;
    p->random ^= p->random << 17;
    return p->random;
}

/* What the clients know: the same disk may owe more later. */
static uint64_t obligations(const struct world *w)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < w->ledger_count; i++) {
        const struct world_entry *e = &w->ledger[i];
        sum = sum * UINT64_C(0x100000001b3) + e->fate * 2U + e->settled;
    }
    return sum * 2 + 1;
}

static void whole(const struct power *p, const struct world *w, const char *when, enum memdisk_loss loss, uint64_t at)
{
    if (w->broken > 0) {
        log_flush();
        fail_msg("%s, seed %llu, step %llu, depth %u, loss %d/%llu: %s: %s", p->scenario, (unsigned long long)p->seed,
                 (unsigned long long)p->step, p->depth, (int)loss, (unsigned long long)at, when, w->why);
    }
}

static void changed(void *arg);

/* One state: recovered, checked, worked with, emptied, and started once more. */
static void state_check(struct power *p, struct world *w, enum memdisk_loss loss, uint64_t at)
{
    struct world fork;
    struct spool_state st;
    world_fork(w, &fork, loss, at);
    uint64_t image = memdisk_hash(fork.mem);
    if (!seen_add(image ^ obligations(&fork))) {
        world_join(w, &fork);
        return;
    }
    images += seen_add(image);
    states++;
    recovered_again += p->depth > 0;
    struct power inner = {.w = &fork, .scenario = p->scenario, .seed = p->seed, .step = p->step, .dice = 1, .depth = 1};
    inner.random = p->random | 1;
    if (p->depth == 0 && p->again_each > 0 && power_random(p) % p->again_each == 0) {
        memdisk_watch(fork.mem, changed, &inner);
    }
    if (world_open(&fork) < 0) {
        fork.broken = 1;
        (void)snprintf(fork.why, sizeof(fork.why), "recovery failed");
    }
    whole(p, &fork, "start", loss, at);
    spool_suspensions_begin(fork.sp); /* the guard knows of none any more */
    spool_suspensions_settle(fork.sp);
    world_settle(&fork);
    world_check(&fork);
    whole(p, &fork, "recovered", loss, at);
    spool_state(fork.sp, &st);
    size_t refused = fork.refused;
    world_send(&fork, 700, false);
    world_send(&fork, 3000, true);
    world_settle(&fork);
    fork.broken += st.accepting == 0 || fork.refused != refused || fork.answers != 2;
    whole(p, &fork, "new mail is not taken", loss, at);
    world_deliver_all(&fork);
    world_check(&fork);
    fork.broken += index_count(spool_index(fork.sp)) != 0;
    whole(p, &fork, "not all goes out", loss, at);
    memdisk_watch(fork.mem, NULL, NULL);
    world_drop(&fork);
    memdisk_power_on(fork.mem, MEMDISK_LOSE_ALL, at);
    fork.broken += world_open(&fork) < 0 || index_count(spool_index(fork.sp)) != 0;
    whole(p, &fork, "it comes again", loss, at);
    world_join(w, &fork);
}

static void changed(void *arg)
{
    static const enum memdisk_loss by_unit[] = {MEMDISK_LOSE_TAIL, MEMDISK_LOSE_HEAD, MEMDISK_LOSE_ONE,
                                                MEMDISK_KEEP_ONE};
    struct power *p = arg;
    size_t units = memdisk_pending_units(p->w->mem);
    p->step++;
    state_check(p, p->w, MEMDISK_LOSE_ALL, 0);
    state_check(p, p->w, MEMDISK_LOSE_NONE, 0);
    if (units == 0 && memdisk_pending_names(p->w->mem) == 0) {
        return;
    }
    for (unsigned i = 0; i < p->dice; i++) {
        state_check(p, p->w, MEMDISK_LOSE_RANDOM, power_random(p));
    }
    size_t cuts = p->depth > 0 ? 1 : units <= EXHAUST_MAX ? units : 3;
    for (size_t k = 0; units > 0 && k < cuts; k++) {
        size_t unit = cuts == units ? k : (size_t)(power_random(p) % units);
        for (size_t i = 0; i < sizeof(by_unit) / sizeof(by_unit[0]); i++) {
            /* the same unit, the names by other dice each time */
            state_check(p, p->w, by_unit[i], unit + (units + 1) * (power_random(p) % 64));
        }
    }
}

static void begin(struct power *p, struct world *w, const char *scenario, uint64_t seed)
{
    *p = (struct power){.w = w, .scenario = scenario, .seed = seed, .dice = 2, .random = seed * 77 + 13};
    p->first_states = states;
    world_init(w, seed, SEGMENT);
    memdisk_watch(w->mem, changed, p);
    assert_int_equal(world_open(w), 0);
}

static void end(struct power *p)
{
    whole(p, p->w, "in life", MEMDISK_LOSE_NONE, 0);
    memdisk_watch(p->w->mem, NULL, NULL);
    world_fini(p->w);
}

/* --- scenarios --- */

/* Group commits of small messages, one with a large one in it. */
static void test_acceptance(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5U * times; seed++) {
        struct power p;
        struct world w;
        begin(&p, &w, "acceptance", seed);
        for (int batch = 0; batch < 4; batch++) {
            for (int i = 0; i < 3; i++) {
                world_send(&w, (uint32_t)(world_random(&w) % 2500) + 1, batch == 2 && i == 0);
            }
            world_settle(&w);
        }
        end(&p);
    }
}

/* Bodies in files of their own: whole, given up by their client, refused half-way. */
static void test_streams(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4U * times; seed++) {
        struct power p;
        struct world w;
        begin(&p, &w, "streams", seed);
        for (int i = 0; i < 4; i++) {
            world_send(&w, (uint32_t)(world_random(&w) % 20000) + 500, true);
            for (uint64_t polls = world_random(&w) % 5; polls > 0; polls--) {
                (void)spool_poll(w.sp);
            }
            if (i == 1) { /* nobody waits for its answer any more */
                spool_abort(w.sp, 7, w.ledger[w.ledger_count - 1].id);
            }
        }
        world_settle(&w);
        end(&p);
    }
}

/* Answers of receivers of each kind, and the bounces that follow. */
static void test_outcomes(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3U * times; seed++) {
        struct power p;
        struct world w;
        begin(&p, &w, "outcomes", seed);
        w.puts_weight = 5;
        for (int i = 0; i < 45; i++) {
            world_step(&w);
        }
        end(&p);
    }
}

static void test_operator(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4U * times; seed++) {
        struct power p;
        struct world w;
        begin(&p, &w, "operator", seed);
        for (int i = 0; i < 6; i++) {
            world_send(&w, 900, i == 3);
        }
        world_settle(&w);
        spool_shard_up(w.sp, 0, false);
        w.jobs_count = 0;
        assert_int_equal(spool_suspend(w.sp, SPAN_LIT("alice"), SPAN_LIT("spam")), 0);
        for (size_t i = 0; i < 6; i++) {
            struct world_entry *e = &w.ledger[i];
            struct spool_figures f;
            if (i % 3 == 0) {
                e->fate = WORLD_REFUSED; /* the operator wants it gone: nothing is owed, and it may not come again */
                assert_int_equal(spool_remove(w.sp, e->id, SPAN_LIT("unwanted")), 0);
                spool_figures(w.sp, &f);
                e->settled_turn = f.log.gather_turn;
            } else {
                assert_int_equal(spool_hold(w.sp, e->id, SPAN_LIT("to be looked at")), 0);
            }
            world_settle(&w);
        }
        assert_int_equal(spool_release(w.sp, w.ledger[1].id), 0);
        assert_int_equal(spool_retry(w.sp, w.ledger[2].id), 0);
        assert_int_equal(spool_resume(w.sp, SPAN_LIT("alice")), 0);
        world_settle(&w);
        end(&p);
    }
}

/* Mail that comes and goes: the log goes round, dead segments become the next ones. */
static void test_recycling(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3U * times; seed++) {
        struct power p;
        struct world w;
        begin(&p, &w, "recycling", seed);
        p.dice = 1;
        memdisk_watch(w.mem, NULL, NULL);
        for (int round = 0; round < 12; round++) {
            if (round == 8) {
                memdisk_watch(w.mem, changed, &p);
            }
            for (int i = 0; i < 6; i++) {
                world_send(&w, 5000, false);
            }
            world_deliver_all(&w);
        }
        struct spool_figures f;
        spool_figures(w.sp, &f);
        assert_true(f.log.tail > 3);
        end(&p);
    }
}

/* One message of ten stays. */
static void tidy_round(struct world *w, size_t round)
{
    spool_shard_up(w->sp, 0, false);
    w->jobs_count = 0;
    size_t first = w->ledger_count;
    for (int i = 0; i < 10; i++) {
        world_send(w, 3000, i == 0 && round % 8 == 0);
    }
    world_settle(w);
    (void)spool_hold(w->sp, w->ledger[first].id, SPAN_LIT("to stay"));
    spool_shard_up(w->sp, 0, true);
    w->puts_weight = 0;
    for (int i = 0; i < 50; i++) {
        world_step(w);
    }
}

/* Held mail is moved on from segments that are mostly dead. */
static void test_tidy(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 1U * times; seed++) {
        struct power p;
        struct world w;
        begin(&p, &w, "tidy", seed);
        p.dice = 1;
        memdisk_watch(w.mem, NULL, NULL);
        uint64_t tail = 0;
        for (size_t round = 0; round < 24; round++) {
            struct spool_figures f;
            if (round == 22) {
                memdisk_watch(w.mem, changed, &p);
                spool_figures(w.sp, &f);
                tail = f.log.tail;
            }
            tidy_round(&w, round);
        }
        struct spool_figures f;
        spool_figures(w.sp, &f);
        assert_true(f.log.tail > tail); /* it was moved on while the power was watched */
        end(&p);
    }
}

/* The snapshot is written while life goes on; the next start uses it, or does not. */
static void test_snapshot(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 1U * times; seed++) {
        struct power p;
        struct world w;
        begin(&p, &w, "snapshot", seed);
        memdisk_watch(w.mem, NULL, NULL);
        spool_shard_up(w.sp, 0, false);
        for (int i = 0; i < 60; i++) {
            world_send(&w, 6000, i % 20 == 0);
            world_settle(&w);
        }
        spool_shard_up(w.sp, 0, true);
        memdisk_watch(w.mem, changed, &p);
        for (int turn = 0; turn < 2; turn++) {
            w.sp->snapshot_octets = UINT64_C(1) << 40; /* as if half a gigabyte had been written */
            for (int i = 0; i < 12; i++) {
                world_step(&w);
            }
            world_settle(&w);
        }
        size_t size;
        assert_non_null(memdisk_octets(w.mem, "index.snap", &size));
        end(&p);
    }
}

/* A write or a sync fails, and then the power goes. */
static void test_failed_before(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12U * times; seed++) {
        struct power p;
        struct world w;
        begin(&p, &w, "failed before", seed);
        p.dice = 1;
        memdisk_watch(w.mem, NULL, NULL);
        for (int i = 0; i < 5; i++) {
            world_step(&w);
        }
        memdisk_fail(w.mem, memdisk_calls_made(w.mem) + seed, 1 + seed % 2, 5);
        memdisk_watch(w.mem, changed, &p);
        for (int i = 0; i < 12; i++) {
            world_step(&w);
        }
        end(&p);
    }
}

/* Only what is certain lasts. */
static void changed_lose_all(void *arg)
{
    struct power *p = arg;
    p->step++;
    state_check(p, p->w, MEMDISK_LOSE_ALL, 0);
}

/* A sync fails while mail is moved on: what the batch was for stays where it was, whatever of it is on the disk. */
static void test_tidy_fails(void **state)
{
    (void)state;
    uint64_t failures = 0;
    for (uint64_t at = 1; at <= 16U * times; at++) {
        struct power p;
        struct world w;
        struct spool_figures f;
        begin(&p, &w, "tidy fails", at % 4);
        memdisk_watch(w.mem, NULL, NULL);
        for (size_t round = 0; round < 22; round++) {
            tidy_round(&w, round);
        }
        memdisk_fail_call(w.mem, MEMDISK_SYNC, at, 1, 5);
        memdisk_watch(w.mem, changed_lose_all, &p);
        tidy_round(&w, 22);
        spool_figures(w.sp, &f);
        failures += f.log.failures;
        end(&p);
    }
    assert_true(failures > 8);
}

/* A sync fails and the process dies: its successor reads what the disk may not have. Then the power goes. */
static void test_failed_and_killed(void **state)
{
    (void)state;
    for (uint64_t at = 1; at <= 16U * times; at++) {
        struct power p;
        struct world w;
        begin(&p, &w, "failed and killed", at % 4);
        p.dice = 1;
        memdisk_watch(w.mem, NULL, NULL);
        for (size_t round = 0; round < 22; round++) {
            tidy_round(&w, round);
        }
        memdisk_fail_call(w.mem, MEMDISK_SYNC, at, UINT64_MAX, 5);
        tidy_round(&w, 22);
        memdisk_fail_call(w.mem, MEMDISK_SYNC, 0, 0, 0);
        world_drop(&w);
        memdisk_restart(w.mem);
        assert_int_equal(world_open(&w), 0);
        for (size_t round = 23; round < 29; round++) {
            tidy_round(&w, round);
            state_check(&p, &w, MEMDISK_LOSE_ALL, at);
        }
        end(&p);
    }
}

/* The power goes again while a start mends what the first cut left, and in the life after it. */
static void test_recovery(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4U * times; seed++) {
        struct power p;
        struct world w;
        begin(&p, &w, "recovery", seed);
        p.again_each = 4;
        p.dice = 1;
        w.puts_weight = 8;
        w.large_weight = 5;
        for (int i = 0; i < 12; i++) {
            world_step(&w);
        }
        end(&p);
        assert_true(recovered_again > 0);
    }
}

static int totals(void **state)
{
    (void)state;
    print_message("figures: %zu power cuts, %zu distinct states of the disk, %zu after a cut before\n", states, images,
                  recovered_again);
    return images < 2000 && getenv("SPOOL_TEST_FILTER") == NULL;
}

int main(int argc, char **argv)
{
    (void)mallopt(M_MMAP_THRESHOLD, 64 * 1024 * 1024);
    (void)mallopt(M_TRIM_THRESHOLD, 256 * 1024 * 1024);
    log_open("power-test", getenv("SPOOL_TEST_LOG") != NULL ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR + 1, -1);
    times = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_acceptance), cmocka_unit_test(test_streams),
        cmocka_unit_test(test_outcomes),   cmocka_unit_test(test_operator),
        cmocka_unit_test(test_recycling),  cmocka_unit_test(test_tidy),
        cmocka_unit_test(test_snapshot),   cmocka_unit_test(test_failed_before),
        cmocka_unit_test(test_tidy_fails), cmocka_unit_test(test_failed_and_killed),
        cmocka_unit_test(test_recovery),
    };
    if (getenv("SPOOL_TEST_FILTER") != NULL) {
        cmocka_set_test_filter(getenv("SPOOL_TEST_FILTER"));
    }
    return cmocka_run_group_tests(tests, NULL, totals);
}
