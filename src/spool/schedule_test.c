#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "spool/schedule.h"

#define MINUTE 60000U

static struct schedule *schedule_make(uint32_t window, uint32_t cap)
{
    struct schedule_config c = schedule_config_default();
    c.window = window;
    c.cap_start = cap;
    c.seed = 42;
    return schedule_new(&c);
}

static void job_make(struct schedule *s, struct schedule_job *j, const char *domain, const char *account)
{
    *j = (struct schedule_job){0};
    assert_int_equal(schedule_job_init(s, j, span_str(domain), span_str(account), false), 0);
}

static void test_backoff(void **state)
{
    (void)state;
    static const struct {
        uint32_t attempts, minutes;
    } rows[] = {{1, 5}, {2, 10}, {3, 20}, {4, 40}, {5, 80}, {6, 160}, {7, 240}, {8, 240}, {4000000000, 240}};
    struct schedule *s = schedule_make(10, 10);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (int n = 0; n < 100; n++) {
            uint64_t base = rows[i].minutes * MINUTE, wait = schedule_backoff(s, rows[i].attempts);
            assert_in_range(wait, base - base / 8, base + base / 8 + 1);
        }
    }
    schedule_free(&s);
}

static void test_waits_become_ready_in_time(void **state)
{
    (void)state;
    struct schedule *s = schedule_make(10, 10);
    struct schedule_job j[3];
    for (int i = 0; i < 3; i++) {
        job_make(s, &j[i], "a.example", "x");
        schedule_add(s, &j[i], (uint64_t)(3 - i) * 100, 0);
    }
    assert_null(schedule_take(s));
    assert_int_equal(schedule_tick(s, 99), 100);
    assert_null(schedule_take(s));
    assert_int_equal(schedule_tick(s, 100), 200);
    assert_ptr_equal(schedule_take(s), &j[2]);
    assert_int_equal(schedule_tick(s, 300), UINT64_MAX);
    assert_ptr_equal(schedule_take(s), &j[1]);
    assert_ptr_equal(schedule_take(s), &j[0]);
    assert_null(schedule_take(s));
    for (int i = 0; i < 3; i++) {
        schedule_result(s, &j[i], SCHEDULE_ANSWERED, 300);
        schedule_job_fini(s, &j[i]);
    }
    schedule_free(&s);
}

/* One account's thousand messages do not delay another's single one; nor one domain's the account's other domains. */
static void test_accounts_take_turns(void **state)
{
    (void)state;
    struct schedule *s = schedule_make(100, 100);
    static struct schedule_job flood[1000], single, other;
    for (int i = 0; i < 1000; i++) {
        job_make(s, &flood[i], i % 2 ? "a.example" : "b.example", "spammer");
        schedule_add(s, &flood[i], 0, 0);
    }
    job_make(s, &single, "a.example", "honest");
    schedule_add(s, &single, 0, 0);
    job_make(s, &other, "c.example", "spammer");
    schedule_add(s, &other, 0, 0);
    int at_single = -1, at_other = -1;
    for (int i = 0; i < 12; i++) {
        const struct schedule_job *j = schedule_take(s);
        assert_non_null(j);
        at_single = j == &single ? i : at_single;
        at_other = j == &other ? i : at_other;
    }
    assert_in_range(at_single, 0, 2);
    assert_in_range(at_other, 0, 8);
    struct schedule_job *j;
    while ((j = schedule_first_out(s)) != NULL) {
        schedule_result(s, j, SCHEDULE_LOST, 1);
    }
    for (int i = 0; i < 1000; i++) {
        schedule_job_fini(s, &flood[i]);
    }
    schedule_job_fini(s, &single);
    schedule_job_fini(s, &other);
    schedule_free(&s);
}

/* Many black holes: a domain that works keeps its half of the window. */
static void test_black_holes_leave_room(void **state)
{
    (void)state;
    struct schedule *s = schedule_make(40, 4);
    static struct schedule_job holes[400], good[100];
    char domain[32];
    job_make(s, &good[0], "good.example", "y");
    schedule_add(s, &good[0], 0, 0);
    assert_ptr_equal(schedule_take(s), &good[0]);
    schedule_result(s, &good[0], SCHEDULE_ANSWERED, 0);
    for (int i = 0; i < 400; i++) {
        (void)snprintf(domain, sizeof(domain), "hole%d.example", i % 50);
        job_make(s, &holes[i], domain, "x");
        schedule_add(s, &holes[i], 0, 0);
    }
    int out = 0;
    while (schedule_take(s) != NULL) {
        out++;
    }
    assert_int_equal(out, 20);
    int delivered = 0;
    for (int i = 1; i < 100; i++) {
        job_make(s, &good[i], "good.example", "x");
        schedule_add(s, &good[i], 0, 0);
        struct schedule_job *j = schedule_take(s);
        assert_ptr_equal(j, &good[i]);
        schedule_result(s, j, SCHEDULE_ANSWERED, 0);
        delivered++;
    }
    assert_int_equal(delivered, 99);
    struct schedule_job *j;
    while ((j = schedule_first_out(s)) != NULL) {
        schedule_result(s, j, SCHEDULE_LOST, 1);
    }
    for (int i = 0; i < 400; i++) {
        schedule_job_fini(s, &holes[i]);
    }
    for (int i = 0; i < 100; i++) {
        schedule_job_fini(s, &good[i]);
    }
    schedule_free(&s);
}

static void test_unreachable_domain_is_probed_and_woken(void **state)
{
    (void)state;
    struct schedule *s = schedule_make(100, 20);
    struct schedule_job j[30];
    for (int i = 0; i < 30; i++) {
        job_make(s, &j[i], "d.example", i % 2 ? "x" : "y");
        schedule_add(s, &j[i], 0, 0);
    }
    struct schedule_job *out[20], *probe;
    for (int i = 0; i < 20; i++) {
        out[i] = schedule_take(s);
        assert_non_null(out[i]);
    }
    assert_null(schedule_take(s)); /* the cap */
    for (int i = 0; i < 20; i++) {
        schedule_result(s, out[i], SCHEDULE_UNREACHABLE, 1000);
        schedule_add(s, out[i], 1000 + 5 * MINUTE, 1000);
    }
    assert_null(schedule_take(s)); /* left alone */
    uint64_t at = schedule_tick(s, 1000);
    assert_in_range(at, 1000 + 26000, 1000 + 34000);
    (void)schedule_tick(s, at);
    probe = schedule_take(s);
    assert_non_null(probe);
    assert_null(schedule_take(s));
    schedule_result(s, probe, SCHEDULE_UNREACHABLE, at);
    schedule_add(s, probe, at + 5 * MINUTE, at);
    uint64_t again = schedule_tick(s, at);
    assert_true(again > at + 50000); /* twice as long */
    (void)schedule_tick(s, again);
    probe = schedule_take(s);
    assert_non_null(probe);
    schedule_result(s, probe, SCHEDULE_ANSWERED, again);
    int woken = 0;
    while (schedule_take(s) != NULL) {
        woken++;
    }
    assert_int_equal(woken, 20);
    while ((probe = schedule_first_out(s)) != NULL) {
        schedule_result(s, probe, SCHEDULE_ANSWERED, again);
    }
    for (int i = 0; i < 30; i++) {
        schedule_job_fini(s, &j[i]);
    }
    schedule_free(&s);
}

static void test_suspension(void **state)
{
    (void)state;
    struct schedule *s = schedule_make(10, 10);
    struct schedule_job j[2];
    job_make(s, &j[0], "a.example", "bad");
    job_make(s, &j[1], "a.example", "good");
    schedule_add(s, &j[0], 0, 0);
    schedule_add(s, &j[1], 0, 0);
    schedule_suspend(s, SPAN_LIT("bad"), true);
    assert_ptr_equal(schedule_take(s), &j[1]);
    assert_null(schedule_take(s));
    schedule_suspend(s, SPAN_LIT("bad"), false);
    assert_ptr_equal(schedule_take(s), &j[0]);
    for (int i = 0; i < 2; i++) {
        schedule_result(s, &j[i], SCHEDULE_ANSWERED, 0);
        schedule_job_fini(s, &j[i]);
    }
    schedule_free(&s);
}

/* Chance does everything that can be done; nothing that could go out is ever forgotten, no bound is passed. */
static void test_nothing_is_forgotten(void **state)
{
    (void)state;
    static struct schedule_job j[200];
    for (unsigned seed = 1; seed <= 20; seed++) {
        struct schedule *s = schedule_make(12, 3);
        char name[2][32];
        uint64_t now = 0;
        srand(seed);
        for (int i = 0; i < 200; i++) {
            (void)snprintf(name[0], sizeof(name[0]), "d%d.example", rand() % 9);
            (void)snprintf(name[1], sizeof(name[1]), "a%d", rand() % 5);
            job_make(s, &j[i], name[0], name[1]);
        }
        for (int step = 0; step < 4000; step++) {
            struct schedule_job *one = &j[rand() % 200];
            struct schedule_figures f;
            now += (uint64_t)(rand() % 500);
            if (one->state == JOB_IDLE) {
                schedule_add(s, one, now + (uint64_t)(rand() % 3 * 1000), now);
            } else if (one->state == JOB_OUT) {
                schedule_result(s, one, (enum schedule_result)(rand() % 3), now);
                schedule_add(s, one, now + 60000, now);
            } else if (rand() % 8 == 0) {
                schedule_remove(s, one);
            }
            if (rand() % 10 == 0) {
                schedule_suspend(s, schedule_account_name(one->account), rand() % 2);
            }
            (void)schedule_tick(s, now);
            (void)(rand() % 2 ? schedule_take(s) : NULL);
            schedule_figures(s, &f);
            assert_true(f.out <= 12);
        }
        /* All is well again: everything goes out within the longest waits. */
        for (int i = 0; i < 200; i++) {
            schedule_suspend(s, schedule_account_name(j[i].account), false);
            if (j[i].state == JOB_IDLE) {
                schedule_add(s, &j[i], now, now);
            }
        }
        size_t gone = 0;
        for (int turn = 0; turn < 3000 && gone < 200; turn++) {
            struct schedule_job *one;
            now += 60000;
            (void)schedule_tick(s, now);
            while (schedule_take(s) != NULL) {
            }
            while ((one = schedule_first_out(s)) != NULL) {
                schedule_result(s, one, SCHEDULE_ANSWERED, now);
                gone++;
            }
        }
        assert_int_equal(gone, 200);
        for (int i = 0; i < 200; i++) {
            schedule_job_fini(s, &j[i]);
        }
        schedule_free(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backoff),
        cmocka_unit_test(test_waits_become_ready_in_time),
        cmocka_unit_test(test_accounts_take_turns),
        cmocka_unit_test(test_black_holes_leave_room),
        cmocka_unit_test(test_unreachable_domain_is_probed_and_woken),
        cmocka_unit_test(test_suspension),
        cmocka_unit_test(test_nothing_is_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
