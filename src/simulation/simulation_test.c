/*
 * simulation_test.c: lives of the small world (sim.h) under one weather after the other: sixteen days each, of which
 * eight are bad. At the end nothing is queued, and everything that was promised was delivered or bounced. Some seeds
 * are lived twice, and must be the same to the last event.
 *
 * Arguments: how many seeds for each weather (40); then one seed, to live it alone (with SIMULATION_TRACE=1 in words).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/log.h"
#include "simulation/sim.h"

#define TWICE_EACH 8 /* of so many seeds, one is lived twice */

static unsigned long seeds = 40, only;
static struct {
    size_t lives, messages, taken, bounced, delayed, second_copies, power_cuts, crashes, events, expired, attempts_most;
} totals;

/* The hash of all that happened. */
static uint64_t live(const struct sim_weather *weather, uint64_t seed, bool count)
{
    struct sim s;
    sim_init(&s, seed, weather);
    net_init(&s);
    assert_int_equal(house_init(&s), 0);
    users_init(&s);
    sim_run(&s, SIM_ENDS_AT);
    if (!s.broken) {
        ledger_check_end(&s);
    }
    if (s.broken) {
        log_flush();
        fail_msg("%s, seed %llu: %s", weather->name, (unsigned long long)seed, s.why);
    }
    uint64_t trace = s.trace;
    if (count) {
        totals.lives++;
        totals.messages += s.messages_count;
        totals.taken += s.accepted;
        totals.bounced += s.bounced;
        totals.delayed += s.delayed;
        totals.second_copies += s.duplicates;
        totals.power_cuts += s.power_cuts;
        totals.crashes += s.crashes + s.deliver_deaths;
        totals.events += s.events_fired;
        totals.expired += s.expired;
        totals.attempts_most = s.attempts_most > totals.attempts_most ? s.attempts_most : totals.attempts_most;
    }
    users_fini(&s);
    house_fini(&s);
    net_fini(&s);
    names_fini(&s);
    sim_fini(&s);
    return trace;
}

static void weather_lived(const struct sim_weather *weather)
{
    uint64_t from = only > 0 ? only : 1, to = only > 0 ? only : seeds;
    for (uint64_t seed = from; seed <= to; seed++) {
        uint64_t trace = live(weather, seed, true);
        if (seed % TWICE_EACH == 1 && live(weather, seed, false) != trace) {
            fail_msg("%s, seed %llu: the second life is another one", weather->name, (unsigned long long)seed);
        }
    }
}

static void test_fair(void **state)
{
    (void)state;
    weather_lived(&(struct sim_weather){.name = "fair", .messages = 120, .hosts_bad = 100, .replies_bad = 2});
}

static void test_bad_network(void **state)
{
    (void)state;
    weather_lived(&(struct sim_weather){
        .name = "bad network", .messages = 80, .hosts_bad = 600, .replies_bad = 60, .dns_bad = 100});
}

static void test_crashes(void **state)
{
    (void)state;
    weather_lived(&(struct sim_weather){
        .name = "crashes", .messages = 120, .hosts_bad = 200, .replies_bad = 10, .dns_bad = 10, .crashes = 6});
}

static void test_clocks(void **state)
{
    (void)state;
    weather_lived(&(struct sim_weather){.name = "clocks", .messages = 80, .hosts_bad = 400, .crashes = 2, .steps = 12});
}

static void test_everything(void **state)
{
    (void)state;
    weather_lived(&(struct sim_weather){.name = "everything",
                                        .messages = 80,
                                        .hosts_bad = 500,
                                        .replies_bad = 40,
                                        .dns_bad = 60,
                                        .crashes = 4,
                                        .steps = 6});
}

static int print_totals(void **state)
{
    (void)state;
    print_message(
        "figures: %zu lives of 16 days: %zu messages, %zu copies taken, %zu of them second ones, %zu bounces (%zu for "
        "age), %zu delays told, at most %zu attempts, %zu crashes (%zu power cuts), %zu events\n",
        totals.lives, totals.messages, totals.taken, totals.second_copies, totals.bounced, totals.expired,
        totals.delayed, totals.attempts_most, totals.crashes, totals.power_cuts, totals.events);
    return 0;
}

int main(int argc, char **argv)
{
    (void)mallopt(M_MMAP_THRESHOLD, 64 * 1024 * 1024);
    (void)mallopt(M_TRIM_THRESHOLD, 256 * 1024 * 1024);
    log_open("simulation", getenv("SIMULATION_LOG") != NULL ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR + 1, -1);
    seeds = argc > 1 ? strtoul(argv[1], NULL, 10) : seeds;
    only = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fair),   cmocka_unit_test(test_bad_network), cmocka_unit_test(test_crashes),
        cmocka_unit_test(test_clocks), cmocka_unit_test(test_everything),
    };
    if (getenv("SIMULATION_WEATHER") != NULL) {
        cmocka_set_test_filter(getenv("SIMULATION_WEATHER"));
    }
    return cmocka_run_group_tests(tests, NULL, print_totals);
}
