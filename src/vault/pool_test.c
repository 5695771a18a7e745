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
    sem_t gate, started, woken;
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
    const struct pool_settings settings = {
        .threads = threads, .lane_max = {max, max}, .starved_max = max, .share_permille = 1000, .notify = notify};
    return pool_new(&settings);
}

static int setup(void **state)
{
    (void)state;
    w.done = w.dropped = 0;
    (void)sem_init(&w.gate, 0, 0);
    (void)sem_init(&w.started, 0, 0);
    (void)sem_init(&w.woken, 0, 0);
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

/* Strangers' jobs get a thousandth of the time, and few may wait for it; one that comes to something costs nothing; who
 * is known waits for none of this. */
static void test_share(void **state)
{
    (void)state;
    static struct job jobs[64];
    const struct pool_settings settings = {
        .threads = 2, .lane_max = {64, 64}, .starved_max = 4, .share_permille = 1, .saved_ms = 15, .notify = notify};
    struct pool *p = pool_new(&settings);
    for (int i = 0; i < 64; i++) {
        jobs[i] = (struct job){.base = {.run = run_long, .done = done}, .number = i};
    }
    for (int i = 1; i < 16; i += 2) {
        assert_int_equal(pool_submit(p, POOL_STRANGER, &jobs[i].base), 0);
    }
    wait_done(p, 8);
    uint64_t begun_ms = clock_mono_ms();
    int64_t begun_ns = cpu_ns();
    for (int i = 16; i < 22; i += 2) { /* what is saved pays for two */
        assert_int_equal(pool_submit(p, POOL_STRANGER, &jobs[i].base), 0);
    }
    wait_done(p, 10);
    assert_int_equal(pool_waiting(p, POOL_STRANGER), 1);
    for (int i = 22; i < 28; i += 2) {
        assert_int_equal(pool_submit(p, POOL_STRANGER, &jobs[i].base), 0);
    }
    assert_int_equal(pool_submit(p, POOL_STRANGER, &jobs[28].base), -EAGAIN);
    assert_int_equal(pool_submit(p, POOL_KNOWN, &jobs[30].base), 0);
    wait_done(p, 11);
    assert_int_equal(w.order[10], 30);
    wait_done(p, 12);
    assert_true(clock_mono_ms() - begun_ms >= 2000); /* 5 ms were borrowed, and a second earns 2 */
    assert_true(cpu_ns() - begun_ns < 1000000000);   /* nobody turned while they waited */
    pool_free(&p);
    assert_int_equal(w.done + w.dropped, 15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_many, setup),
        cmocka_unit_test_setup(test_lanes, setup),
        cmocka_unit_test_setup(test_stop, setup),
        cmocka_unit_test_setup(test_share, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
