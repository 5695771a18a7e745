/* Each test is a complaint that users of other systems made, or an attack that was seen; see the comment of each. */
#include "vault/guess.h"

#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SECOND UINT64_C(1000)
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)

#define RECORDS 4096U
#define GOOD    1024U

static const struct guess_settings settings = {.first_ms = 2000, .max_ms = 15000, .free = 3, .good_ms = 30 * DAY};
static struct guess_start start;
static struct guess *g;
static uint64_t now;

static int setup(void **state)
{
    static const uint8_t key[GUESS_KEY_LEN] = "0123456789abcde";
    (void)state;
    now = 1000000;
    start = (struct guess_start){.boot_id = "boot", .records = RECORDS, .good_records = GOOD, .now_ms = now};
    memcpy(start.key, key, sizeof(key));
    start.memory = calloc(1, guess_octets(RECORDS, GOOD));
    g = guess_new(&start, &settings);
    return g != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    guess_free(&g);
    free(start.memory);
    return 0;
}

static struct guess_who who(const char *account, const char *address)
{
    struct guess_who w = {.account = span_str(account)};
    assert_int_equal(net_address_parse(address, &w.peer), 0);
    return w;
}

static struct guess_outcome wrong(const char *account, const char *address, const char *password)
{
    struct guess_who w = who(account, address);
    return guess_failed(g, &w, span_str(password), now);
}

static void right(const char *account, const char *address)
{
    struct guess_who w = who(account, address);
    guess_succeeded(g, &w, now);
}

static uint64_t wait(const char *account, const char *address)
{
    struct guess_who w = who(account, address);
    return guess_wait_ms(g, &w, now);
}

static void guess_many(const char *account, const char *address, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char password[16];
        (void)snprintf(password, sizeof(password), "guess%u", i);
        (void)wrong(account, address, password);
    }
}

/* The plain case: a few are free, then 2, 4, 8, 15 seconds, and no more than that. */
static void test_grows(void **state)
{
    static const uint64_t expected[] = {0, 0, 0, 2000, 4000, 8000, 15000, 15000, 15000};
    (void)state;
    for (unsigned i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        char password[16];
        (void)snprintf(password, sizeof(password), "%u", i);
        struct guess_outcome o = wrong("alice", "192.0.2.1", password);
        assert_false(o.repeated);
        assert_int_equal(o.wait_ms, expected[i]);
    }
    guess_many("alice", "192.0.2.1", 10000);
    assert_int_equal(wait("alice", "192.0.2.1"), 15000);
    now += 6 * 15 * MINUTE;                              /* the count has a ceiling, so it is over soon after it ends */
    assert_int_equal(wait("alice", "192.0.2.1"), 15000); /* the account itself remembers longer */
    now += DAY;
    assert_int_equal(wait("alice", "192.0.2.1"), 0);
}

/* fail2ban#779, mailcow#935: one device with the old password, every minute for a week. */
static void test_stale_password(void **state)
{
    (void)state;
    right("alice", "192.0.2.1");
    assert_false(wrong("alice", "192.0.2.1", "old").repeated);
    for (unsigned i = 0; i < 7 * 1440; i++) {
        now += MINUTE;
        struct guess_outcome o = wrong("alice", "192.0.2.1", "old");
        assert_true(o.repeated);
        assert_int_equal(o.wait_ms, 0);
        assert_int_equal(wait("bob", "192.0.2.1"), 0);
    }
    assert_int_equal(wait("alice", "203.0.113.9"), 0);
}

/* The same device carried about: not a new guess at the account either. */
static void test_stale_password_moves(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 200; i++) {
        char address[32];
        (void)snprintf(address, sizeof(address), "198.51.100.%u", i);
        assert_int_equal(wrong("alice", address, "old").wait_ms, 0);
    }
    struct guess_who w = who("alice", "192.0.2.77");
    assert_int_equal(guess_count(g, &w, now), 1);
}

/* docker-mailserver#1937, Mailu#2785: seven accounts behind one address, each with a stale password; the eighth works.
 */
static void test_behind_one_address(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 500; round++) {
        for (unsigned i = 0; i < 7; i++) {
            char account[16];
            (void)snprintf(account, sizeof(account), "user%u", i);
            assert_int_equal(wrong(account, "192.0.2.1", "old").wait_ms, 0);
        }
        now += MINUTE;
        assert_int_equal(wait("eighth", "192.0.2.1"), 0);
    }
}

/* Mailu#2880: the whole world guesses at alice. At home she notices nothing; elsewhere she waits, but gets in. */
static void test_owner_not_locked_out(void **state)
{
    (void)state;
    right("alice", "192.0.2.1");
    right("alice", "2001:db8:1:1::5");
    for (unsigned i = 0; i < 2000; i++) {
        char address[48], password[16];
        (void)snprintf(address, sizeof(address), "203.%u.%u.7", i / 250, i % 250);
        (void)snprintf(password, sizeof(password), "g%u", i);
        (void)wrong("alice", address, password);
    }
    assert_int_equal(wait("alice", "192.0.2.1"), 0);
    assert_int_equal(wait("alice", "2001:db8:1:1:ffff::9"), 0); /* her /64 */
    assert_int_equal(wait("alice", "198.51.100.1"), 15000);
    right("alice", "198.51.100.1");
    assert_int_equal(wait("alice", "198.51.100.1"), 0);
    assert_int_equal(wait("bob", "198.51.100.2"), 0);
}

/* A neighbour behind alice's address guesses at everybody: she, known there, does not wait; guessing at her does. */
static void test_bad_neighbour(void **state)
{
    (void)state;
    right("alice", "192.0.2.1");
    for (unsigned i = 0; i < 50; i++) {
        char account[16];
        (void)snprintf(account, sizeof(account), "user%u", i);
        (void)wrong(account, "192.0.2.1", "123456");
    }
    assert_int_equal(wait("alice", "192.0.2.1"), 0);
    assert_int_equal(wait("stranger", "192.0.2.1"), 15000);
    guess_many("alice", "192.0.2.1", 10);
    assert_int_equal(wait("alice", "192.0.2.1"), 15000);
}

/* Mailu#634: one connection for each message, thousands of right logins. */
static void test_many_successes(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 5000; i++) {
        right("alice", "192.0.2.1");
        assert_int_equal(wait("alice", "192.0.2.1"), 0);
        now += 100;
    }
}

/* crowdsecurity/hub#283: one guess every ten minutes, each from somewhere else. */
static void test_slow_and_spread(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 60; i++) {
        char address[48], password[16];
        (void)snprintf(address, sizeof(address), "203.0.113.%u", i);
        (void)snprintf(password, sizeof(password), "g%u", i);
        (void)wrong("alice", address, password);
        now += 10 * MINUTE;
    }
    assert_int_equal(wait("alice", "198.51.100.200"), 15000);
}

/* One list of stolen passwords against many accounts, from one place. */
static void test_stuffing(void **state)
{
    (void)state;
    uint64_t last = 0;
    for (unsigned i = 0; i < 20; i++) {
        char account[16];
        (void)snprintf(account, sizeof(account), "user%u", i);
        last = wrong(account, "203.0.113.5", "leaked").wait_ms;
    }
    assert_int_equal(last, 15000);
}

/* IPv6: whoever moves within a /64 is one, and who moves through the /64s of a /48 is seen there. */
static void test_ipv6(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        char address[64], account[16];
        (void)snprintf(address, sizeof(address), "2001:db8:5:5::%x", i + 1);
        (void)snprintf(account, sizeof(account), "user%u", i);
        (void)wrong(account, address, "x");
    }
    assert_int_equal(wait("carol", "2001:db8:5:5:abcd::1"), 15000);
    assert_int_equal(wait("carol", "2001:db8:5:6::1"), 0);
    for (unsigned i = 0; i < 60; i++) {
        char address[64], account[16];
        (void)snprintf(address, sizeof(address), "2001:db8:7:%x::1", i + 1);
        (void)snprintf(account, sizeof(account), "user%u", i);
        (void)wrong(account, address, "x");
    }
    assert_int_equal(wait("carol", "2001:db8:7:fff::1"), 15000);
    assert_int_equal(wait("carol", "2001:db8:8::1"), 0);
    assert_int_equal(wait("carol", "192.0.2.1"), 0);
}

/* SCRAM hides which wrong password it was: each counts, and the most it costs is the longest wait. */
static void test_scram(void **state)
{
    (void)state;
    struct guess_who w = who("alice", "192.0.2.1");
    for (unsigned i = 0; i < 20; i++) {
        assert_false(guess_failed(g, &w, (struct span){0}, now).repeated);
    }
    assert_int_equal(guess_wait_ms(g, &w, now), 15000);
    /* A stale SCRAM client that tries every five minutes does not slow its neighbours. */
    now += 2 * DAY;
    struct guess_who stale = who("dave", "198.51.100.8");
    for (unsigned i = 0; i < 500; i++) {
        (void)guess_failed(g, &stale, (struct span){0}, now);
        now += 5 * MINUTE;
    }
    assert_int_equal(wait("eve", "198.51.100.8"), 0);
}

/* A flood of names and networks: memory is what it was, and who is known stays known. */
static void test_bounded(void **state)
{
    (void)state;
    right("alice", "192.0.2.1");
    guess_many("victim", "203.0.113.9", 30);
    for (unsigned i = 0; i < 100000; i++) {
        char account[16], address[32];
        (void)snprintf(account, sizeof(account), "n%u", i);
        (void)snprintf(address, sizeof(address), "10.%u.%u.%u", i >> 16, i >> 8 & 255, i & 255);
        (void)wrong(account, address, "x");
    }
    assert_int_equal(wait("alice", "192.0.2.1"), 0);
    struct guess_who w = who("alice", "192.0.2.1");
    assert_true(guess_is_known(g, &w, now));
    assert_int_equal(wait("victim", "203.0.113.9"), 15000); /* the busiest records stay */
    now += 31 * DAY;
    assert_false(guess_is_known(g, &w, now));
}

/* Names that end where addresses begin must not meet; nor the empty name, nor the longest. */
static void test_odd_names(void **state)
{
    (void)state;
    char name[256];
    memset(name, 'n', 255);
    name[255] = '\0';
    guess_many("", "192.0.2.1", 4);
    guess_many(name, "192.0.2.2", 4);
    assert_int_equal(wait("", "192.0.2.1"), 2000);
    assert_int_equal(wait(name, "192.0.2.2"), 2000);
    assert_int_equal(wait("x", "192.0.2.1"), 0);
}

/* The process is gone, at any instant: nothing was said to the table. `boot`: of the machine it comes back on. */
static void again(const char *boot, uint64_t clock_ms)
{
    guess_free(&g);
    memset(start.boot_id, 0, sizeof(start.boot_id));
    memcpy(start.boot_id, boot, strlen(boot));
    start.now_ms = now = clock_ms;
    g = guess_new(&start, &settings);
    assert_non_null(g);
}

/* What was guessed and who is known is not forgotten with the process, and ages on. */
static void test_outlives_process(void **state)
{
    (void)state;
    guess_many("alice", "192.0.2.1", 5);
    right("bob", "192.0.2.9");
    assert_int_equal(wait("alice", "192.0.2.1"), 4000);
    again("boot", now + 1);
    assert_int_equal(wait("alice", "192.0.2.1"), 4000);
    assert_int_equal(wrong("alice", "192.0.2.1", "new").wait_ms, 8000);
    assert_true(wrong("alice", "192.0.2.1", "new").repeated);
    again("boot", now + DAY);
    assert_int_equal(wait("alice", "192.0.2.1"), 0);
    struct guess_who bob = who("bob", "192.0.2.9");
    assert_true(guess_is_known(g, &bob, now));
    assert_false(guess_is_known(g, &bob, now + 30 * DAY));
}

/* After a boot the clock begins anew: the time between is not known, so nothing has aged. */
static void test_outlives_boot(void **state)
{
    static const char *const boots[] = {"other", ""}; /* "": unknown, which may be any */
    (void)state;
    for (size_t i = 0; i < sizeof(boots) / sizeof(boots[0]); i++) {
        again("boot", 50 * DAY);
        guess_many("alice", "192.0.2.1", 5);
        right("bob", "192.0.2.9");
        again(boots[i], 5 * SECOND);
        assert_int_equal(wait("alice", "192.0.2.1"), 4000);
        now += DAY;
        assert_int_equal(wait("alice", "192.0.2.1"), 0);
        struct guess_who bob = who("bob", "192.0.2.9");
        assert_true(guess_is_known(g, &bob, now));
        assert_false(guess_is_known(g, &bob, now + 30 * DAY));
        memset(start.memory, 0, guess_octets(RECORDS, GOOD));
    }
}

/* A new boot is younger than what was guessed: that must not become as young as the boot. */
static void test_boot_makes_nothing_young(void **state)
{
    (void)state;
    guess_many("alice", "192.0.2.1", 20);
    now += DAY - 10 * MINUTE;
    guess_many("bob", "192.0.2.9", 6);
    now += 10 * MINUTE;
    guess_many("carol", "192.0.2.77", 1); /* the last that was seen of that boot */
    assert_int_equal(wait("bob", "192.0.2.9"), 2000);
    for (size_t i = 0; i < 3; i++) {
        static const char *const boots[] = {"second", "third", "fourth"};
        again(boots[i], 5 * SECOND);
        assert_int_equal(wait("alice", "192.0.2.1"), 0);
        assert_int_equal(wait("bob", "192.0.2.9"), 2000);
    }
    now += HOUR;
    assert_int_equal(wait("bob", "192.0.2.9"), 0);
    again("fourth", now + 30 * DAY);
    assert_int_equal(wait("bob", "192.0.2.9"), 0);
}

/* Another key, or sizes: nothing of it means anything. */
static void test_not_ours(void **state)
{
    (void)state;
    guess_many("alice", "192.0.2.1", 5);
    start.key[0] ^= 1;
    again("boot", now);
    assert_int_equal(wait("alice", "192.0.2.1"), 0);
    start.key[0] ^= 1;
    again("boot", now);
    assert_int_equal(wait("alice", "192.0.2.1"), 0);
    guess_many("alice", "192.0.2.1", 5);
    start.records = RECORDS / 2;
    again("boot", now);
    assert_int_equal(wait("alice", "192.0.2.1"), 0);
}

/* Torn, or written over: whatever stands there, no wait is longer than the longest, none lasts for ever. */
static void test_damaged(void **state)
{
    (void)state;
    size_t octets = guess_octets(RECORDS, GOOD);
    guess_many("alice", "192.0.2.1", 20);
    for (uint32_t seed = 0; seed < 50; seed++) {
        uint8_t noise[randombytes_SEEDBYTES] = {(uint8_t)seed};
        uint8_t *room = malloc(octets);
        assert_non_null(room);
        randombytes_buf_deterministic(room, octets, noise);
        for (size_t i = 64; i < octets; i++) { /* the header stands, or all would be emptied */
            if ((room[i - 1] & 3) == 0) {
                ((uint8_t *)start.memory)[i] = room[i];
            }
        }
        free(room);
        again("boot", now + SECOND);
        assert_true(wait("alice", "192.0.2.1") <= settings.max_ms);
        struct guess_who alice = who("alice", "192.0.2.1");
        assert_false(guess_is_known(g, &alice, now + 31 * DAY));
        now += 30 * DAY;
        assert_int_equal(wait("alice", "192.0.2.1"), 0);
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_grows),
        TEST(test_stale_password),
        TEST(test_stale_password_moves),
        TEST(test_behind_one_address),
        TEST(test_owner_not_locked_out),
        TEST(test_bad_neighbour),
        TEST(test_many_successes),
        TEST(test_slow_and_spread),
        TEST(test_stuffing),
        TEST(test_ipv6),
        TEST(test_scram),
        TEST(test_bounded),
        TEST(test_odd_names),
        TEST(test_outlives_process),
        TEST(test_outlives_boot),
        TEST(test_boot_makes_nothing_young),
        TEST(test_not_ours),
        TEST(test_damaged),
    };
    return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
