#include "vault/pool.h"

#include <errno.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"

static struct {
    sem_t gate, started, woken, idle;
    unsigned done, dropped;
    int order[64];
} w;

struct job {
    struct pool_job base;
    int number;
    int result;
};

static void notify(void *arg)
{
    (void)arg;
    (void)sem_post(&w.woken);
}

static void run(struct pool_job *base)
{
    struct job *j = (struct job *)base;
    j->result = j->number * 2;
}

static void run_gated(struct pool_job *base)
{
    (void)sem_post(&w.started);
    while (sem_wait(&w.gate) != 0) {
    }
    run(base);
}

static void done(struct pool_job *base)
{
    struct job *j = (struct job *)base;
    if (base->dropped) {
        w.dropped++;
        return;
    }
    assert_int_equal(j->result, j->number * 2);
    w.order[w.done++] = j->number;
}

static struct pool *make(unsigned threads, size_t max)
{
    const struct pool_settings settings = {.threads = threads,
                                           .lane_max = {max, max},
                                           .budgets = {[POOL_PACE] = {1000, 0}, [POOL_ALLOWANCE] = {1000, 0}},
                                           .notify = notify};
    return pool_new(&settings);
}

static int setup(void **state)
{
    (void)state;
    w.done = w.dropped = 0;
    (void)sem_init(&w.gate, 0, 0);
    (void)sem_init(&w.started, 0, 0);
    (void)sem_init(&w.woken, 0, 0);
    (void)sem_init(&w.idle, 0, 0);
    return 0;
}

static void wait_done(struct pool *p, unsigned count)
{
    while (w.done < count) {
        (void)sem_wait(&w.woken);
        pool_reap(p);
    }
}

static void test_many(void **state)
{
    (void)state;
    static struct job jobs[64];
    struct pool *p = make(4, 64);
    assert_non_null(p);
    for (int i = 0; i < 64; i++) {
        jobs[i] = (struct job){.base = {.run = run, .done = done}, .number = i};
        assert_int_equal(pool_submit(p, i % 2 == 0 ? POOL_KNOWN : POOL_STRANGER, &jobs[i].base), 0);
    }
    wait_done(p, 64);
    pool_free(&p);
    assert_null(p);
    assert_int_equal(w.done, 64);
}

/* Strangers fill their lane; those who are known are still taken, and first. */
static void test_lanes(void **state)
{
    (void)state;
    struct job jobs[8];
    struct pool *p = make(1, 2);
    for (int i = 0; i < 8; i++) {
        jobs[i] = (struct job){.base = {.run = run, .done = done}, .number = i};
    }
    jobs[0].base.run = run_gated;
    assert_int_equal(pool_submit(p, POOL_STRANGER, &jobs[0].base), 0);
    (void)sem_wait(&w.started);
    assert_int_equal(pool_submit(p, POOL_STRANGER, &jobs[1].base), 0);
    assert_int_equal(pool_submit(p, POOL_STRANGER, &jobs[2].base), 0);
    assert_int_equal(pool_submit(p, POOL_STRANGER, &jobs[3].base), -EAGAIN);
    assert_int_equal(pool_submit(p, POOL_KNOWN, &jobs[4].base), 0);
    assert_int_equal(pool_submit(p, POOL_KNOWN, &jobs[5].base), 0);
    assert_int_equal(pool_submit(p, POOL_KNOWN, &jobs[6].base), -EAGAIN);
    assert_int_equal(pool_waiting(p, POOL_KNOWN), 2);
    (void)sem_post(&w.gate);
    wait_done(p, 5);
    static const int expected[] = {0, 4, 5, 1, 2};
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(w.order[i], expected[i]);
    }
    pool_free(&p);
}

static void test_stop(void **state)
{
    (void)state;
    struct job jobs[3];
    struct pool *p = make(1, 8);
    for (int i = 0; i < 3; i++) {
        jobs[i] = (struct job){.base = {.run = i == 0 ? run_gated : run, .done = done}, .number = i};
        assert_int_equal(pool_submit(p, POOL_STRANGER, &jobs[i].base), 0);
    }
    (void)sem_wait(&w.started);
    (void)sem_post(&w.gate);
    pool_free(&p);
    assert_int_equal(w.done + w.dropped, 3);
    assert_true(w.done >= 1);
    pool_free(&p); /* NULL is taken */
}

static int64_t cpu_ns(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* Ten milliseconds of a processor; the odd ones come to something. */
static void run_long(struct pool_job *base)
{
    struct timespec begun, now;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begun);
    do {
        (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    } while ((now.tv_sec - begun.tv_sec) * 1000000000 + now.tv_nsec - begun.tv_nsec < 10000000);
    base->free = ((struct job *)base)->number % 2 == 1;
    run(base);
}

static struct pool *make_bounded(unsigned pace_permille, uint64_t pace_ms, unsigned permille, uint64_t ms)
{
    const struct pool_settings settings = {
        .threads = 1,
        .lane_max = {64, 64},
        .budgets = {[POOL_PACE] = {pace_permille, pace_ms}, [POOL_ALLOWANCE] = {permille, ms}},
        .wait_ms = 8000,
        .notify = notify};
    return pool_new(&settings);
}

/* Sends in every other job of [from, to); how many were taken. */
static unsigned submit_strangers(struct pool *p, struct job *jobs, int from, int to)
{
    unsigned taken = 0;
    for (int i = from; i < to; i += 2) {
        jobs[i] = (struct job){.base = {.run = run_long, .done = done}, .number = i};
        taken += pool_submit(p, POOL_STRANGER, &jobs[i].base) == 0;
    }
    return taken;
}

/* A flood: when what was saved is used up strangers wait, few of them; one whose job comes to something pays nothing;
 * who is known waits for none of this. */
static void test_allowance(void **state)
{
    (void)state;
    static struct job jobs[64];
    struct pool *p = make_bounded(1000, 0, 4, 15);
    uint64_t begun_ms = clock_mono_ms();
    assert_int_equal(submit_strangers(p, jobs, 1, 64), 32);
    wait_done(p, 32);
    assert_in_range(clock_mono_ms() - begun_ms, 320, 40000); /* 76 s if they had to pay */
    begun_ms = clock_mono_ms();
    int64_t begun_ns = cpu_ns();
    assert_int_equal(submit_strangers(p, jobs, 16, 20), 2); /* what is saved pays for them */
    wait_done(p, 34);
    unsigned taken = submit_strangers(p, jobs, 20, 60);
    assert_in_range(taken, 2, 19);
    jobs[60] = (struct job){.base = {.run = run_long, .done = done}, .number = 60};
    assert_int_equal(pool_submit(p, POOL_KNOWN, &jobs[60].base), 0);
    wait_done(p, 35);
    assert_int_equal(w.order[34], 60);
    wait_done(p, 36);
    assert_true(clock_mono_ms() - begun_ms >= 1000); /* 5 ms were borrowed, and a second earns 4 */
    assert_true(cpu_ns() - begun_ns < 500000000);    /* nobody turned while they waited */
    pool_free(&p);
    assert_int_equal(w.done + w.dropped, 35 + taken);
}

/* A crowd: with enough saved nobody is refused, but they are spread over some time. */
static void test_pace(void **state)
{
    (void)state;
    static struct job jobs[64];
    struct pool *p = make_bounded(100, 20, 1, 10000);
    uint64_t begun_ms = clock_mono_ms();
    assert_int_equal(submit_strangers(p, jobs, 0, 20), 10);
    wait_done(p, 10);
    assert_true(clock_mono_ms() - begun_ms >= 600); /* 100 ms of work, 30 at once, and a second earns 100 */
    pool_free(&p);
    assert_int_equal(w.dropped, 0);
}

static void idle(void)
{
    (void)sem_post(&w.idle);
}

/* A thread says once that it has nothing to do, after every job or row of them, and when it ends behind one. */
static void test_idle(void **state)
{
    (void)state;
    struct job jobs[3];
    int told = -1;
    struct pool_settings settings = {.threads = 1, .lane_max = {8, 8}, .idle = idle, .idle_ms = 1, .notify = notify};
    for (unsigned b = 0; b < POOL_BUDGETS; b++) {
        settings.budgets[b].share_permille = 1000;
    }
    struct pool *p = pool_new(&settings);
    for (int i = 0; i < 3; i++) {
        jobs[i] = (struct job){.base = {.run = i == 2 ? run_gated : run, .done = done}, .number = i};
    }
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(pool_submit(p, POOL_STRANGER, &jobs[i].base), 0);
        wait_done(p, i + 1);
        while (sem_wait(&w.idle) != 0) {
        }
    }
    (void)sem_getvalue(&w.idle, &told);
    assert_int_equal(told, 0);
    assert_int_equal(pool_submit(p, POOL_KNOWN, &jobs[2].base), 0);
    (void)sem_post(&w.gate);
    wait_done(p, 3);
    pool_free(&p);
    (void)sem_getvalue(&w.idle, &told);
    assert_int_equal(told, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_many, setup), cmocka_unit_test_setup(test_lanes, setup),
        cmocka_unit_test_setup(test_stop, setup), cmocka_unit_test_setup(test_allowance, setup),
        cmocka_unit_test_setup(test_pace, setup), cmocka_unit_test_setup(test_idle, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
