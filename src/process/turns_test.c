/* Order, budget, and that whoever is served at once is met between the turns of those who wait. */
#include "process/turns.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/clock.h"

#define MANY 6U

struct item {
    struct turn turn;
    int number;
};

static struct {
    uv_loop_t loop;
    struct turns turns;
    struct item items[MANY];
    int order[32];
    size_t done;
    uint64_t now_ns, cost_ns; /* each turn takes cost_ns */
} w;

static uint64_t mono(void *arg)
{
    (void)arg;
    return w.now_ns;
}

static const struct clock_source source = {.mono_ns = mono};

static void note(struct turn *t)
{
    w.order[w.done++] = ((struct item *)t)->number;
    w.now_ns += w.cost_ns;
}

static int setup(void **state)
{
    (void)state;
    w.done = 0;
    w.now_ns = 1000000000;
    w.cost_ns = 1000000;
    clock_override(&source);
    (void)uv_loop_init(&w.loop);
    turns_init(&w.turns, &w.loop, 2000);
    for (size_t i = 0; i < MANY; i++) {
        w.items[i] = (struct item){.turn = {.run = note}, .number = (int)i};
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    clock_override(NULL);
    uv_close((uv_handle_t *)&w.turns.check, NULL);
    uv_close((uv_handle_t *)&w.turns.idle, NULL);
    (void)uv_run(&w.loop, UV_RUN_DEFAULT);
    return uv_loop_close(&w.loop);
}

static void check_order(const int *expected, size_t count)
{
    assert_int_equal(w.done, count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(w.order[i], expected[i]);
    }
}

static void test_ranks(void **state)
{
    (void)state;
    w.cost_ns = 0;
    turns_add(&w.turns, &w.items[0].turn, 1);
    turns_add(&w.turns, &w.items[1].turn, 0);
    turns_add(&w.turns, &w.items[2].turn, 1);
    turns_add(&w.turns, &w.items[3].turn, 0);
    turns_add(&w.turns, &w.items[4].turn, 0);
    turns_remove(&w.items[4].turn); /* the last of its rank, */
    turns_add(&w.turns, &w.items[5].turn, 0);
    turns_remove(&w.items[0].turn); /* the first, */
    turns_remove(&w.items[0].turn); /* and one that waits no more */
    assert_non_null(w.items[5].turn.waits);
    assert_null(w.items[0].turn.waits);
    (void)uv_run(&w.loop, UV_RUN_NOWAIT);
    check_order((const int[]){1, 3, 5, 2}, 4);
    assert_null(turns_first(&w.turns, 0));
    assert_null(turns_first(&w.turns, 1));
}

/* Two milliseconds are two turns; then the loop looks around. Its end comes by itself: nothing keeps it awake. */
static void test_budget(void **state)
{
    (void)state;
    for (size_t i = 0; i < MANY; i++) {
        turns_add(&w.turns, &w.items[i].turn, i < 3 ? 0 : 1);
    }
    (void)uv_run(&w.loop, UV_RUN_NOWAIT);
    check_order((const int[]){0, 1}, 2);
    assert_ptr_equal(turns_first(&w.turns, 0), &w.items[2].turn);
    (void)uv_run(&w.loop, UV_RUN_DEFAULT);
    check_order((const int[]){0, 1, 2, 3, 4, 5}, 6);
}

static void again(struct turn *t)
{
    note(t);
    if (w.done < 5) {
        turns_add(&w.turns, t, 0);
    }
}

static void test_adds_itself(void **state)
{
    (void)state;
    w.items[0].turn.run = again;
    turns_add(&w.turns, &w.items[0].turn, 0);
    turns_add(&w.turns, &w.items[1].turn, 0);
    (void)uv_run(&w.loop, UV_RUN_DEFAULT);
    check_order((const int[]){0, 1, 0, 0, 0}, 5);
}

static void for_ever(struct turn *t)
{
    note(t);
    turns_add(&w.turns, t, 0);
}

/* Two who never run out of work, as strangers who talk and talk: who stands behind them gets in all the same. */
static void test_nobody_is_passed_over_for_ever(void **state)
{
    (void)state;
    size_t met[2] = {0}, met_at[2] = {0};
    w.items[0].turn.run = w.items[1].turn.run = for_ever;
    for (size_t i = 0; i < 4; i++) {
        turns_add(&w.turns, &w.items[i].turn, i < 2 ? 0 : 1);
    }
    for (size_t n = 0; n < 2 * (TURNS_PASSED_OVER + 1); n++) {
        w.cost_ns = 2000000; /* one turn, then the loop looks */
        w.done = 0;
        (void)uv_run(&w.loop, UV_RUN_NOWAIT);
        assert_int_equal(w.done, 1);
        if (w.order[0] >= 2) {
            met[w.order[0] - 2]++;
            met_at[w.order[0] - 2] = n;
        }
    }
    assert_true(met[0] == 1 && met[1] == 1);
    assert_int_equal(met_at[0], TURNS_PASSED_OVER);
    assert_int_equal(met_at[1], 2 * TURNS_PASSED_OVER + 1);
    turns_remove(&w.items[0].turn);
    turns_remove(&w.items[1].turn);
    (void)uv_run(&w.loop, UV_RUN_NOWAIT); /* and then it may sleep */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ranks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_budget, setup, teardown),
        cmocka_unit_test_setup_teardown(test_adds_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nobody_is_passed_over_for_ever, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
