#include "policy/behaviour.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* Lines as they are met, and what an operator would call them. */
static void test_kinds(void **state)
{
    static const struct {
        const char *what;
        struct behaviour b;
        enum behaviour_kind kind;
        const char *why; /* the first reason */
    } rows[] = {
        {"a person's program, its old setting, one host",
         {.packets = 12, .connections = 12, .destinations = 1, .networks = 1, .peak = 2, .hours = 4, .days = 2},
         BEHAVIOUR_PROGRAM,
         "one-provider"},
        {"a provider with six addresses",
         {.packets = 40, .connections = 40, .destinations = 6, .networks = 1, .peak = 3, .hours = 12, .days = 5},
         BEHAVIOUR_PROGRAM,
         "one-provider"},
        {"two accounts of two providers",
         {.packets = 20, .connections = 20, .destinations = 2, .networks = 2, .peak = 2, .hours = 5, .days = 1},
         BEHAVIOUR_PROGRAM,
         "few-destinations"},
        {"a household's mail server",
         {.packets = 300, .connections = 300, .destinations = 30, .networks = 20, .peak = 5, .hours = 20, .days = 1},
         BEHAVIOUR_SERVER,
         "many-destinations"},
        {"one that sends little, to a few more than one",
         {.packets = 24, .connections = 24, .destinations = 6, .networks = 5, .peak = 4, .hours = 5, .days = 2},
         BEHAVIOUR_SERVER,
         "many-destinations"},
        {"a list goes out, and its hosts are tried again",
         {.packets = 90, .connections = 90, .destinations = 15, .networks = 9, .peak = 40, .hours = 3, .days = 1},
         BEHAVIOUR_SERVER,
         "many-destinations"},
        {"a bot at work",
         {.packets = 9000,
          .connections = 9000,
          .destinations = 1400,
          .networks = 12,
          .peak = 300,
          .hours = 1,
          .days = 1},
         BEHAVIOUR_BOT,
         "many-destinations"},
        {"a bot that takes care, and comes to nobody twice",
         {.packets = 60, .connections = 60, .destinations = 58, .networks = 12, .peak = 12, .hours = 1, .days = 1},
         BEHAVIOUR_BOT,
         "many-destinations"},
        {"many, fast, all day, again and again: either",
         {.packets = 90000,
          .connections = 90000,
          .destinations = 900,
          .networks = 12,
          .peak = 90,
          .hours = 24,
          .days = 1},
         BEHAVIOUR_UNCLEAR,
         "many-destinations"},
        {"one host, as fast as it can",
         {.packets = 9000, .connections = 9000, .destinations = 1, .networks = 1, .peak = 900, .hours = 1, .days = 1},
         BEHAVIOUR_UNCLEAR,
         "one-provider"},
        {"tried once, known where",
         {.packets = 1, .connections = 1, .destinations = 1, .networks = 1, .peak = 1, .hours = 1, .days = 1},
         BEHAVIOUR_PROGRAM,
         "one-provider"},
        {"tried twice, to two",
         {.packets = 2, .connections = 2, .destinations = 2, .networks = 2, .peak = 2, .hours = 1, .days = 1},
         BEHAVIOUR_UNCLEAR,
         "little-seen"},
        {"a forged sender's way back",
         {.packets = 500, .destinations = 0, .networks = 0, .hours = 1, .days = 1},
         BEHAVIOUR_TARGET,
         "towards-it"},
        {"nothing at all", {0}, BEHAVIOUR_UNCLEAR, "little-seen"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct behaviour_judgement j;
        behaviour_judge(&rows[i].b, &j);
        if (j.kind != rows[i].kind || j.count == 0 ||
            strcmp(behaviour_reason_name(j.why[0].reason), rows[i].why) != 0) {
            print_error("%s: %s, %s\n", rows[i].what, behaviour_kind_name(j.kind),
                        j.count > 0 ? behaviour_reason_name(j.why[0].reason) : "no reason");
            fail();
        }
    }
}

/* Every number is in a reason as it was counted. */
static void test_numbers(void **state)
{
    const struct behaviour b = {
        .packets = 300, .connections = 300, .destinations = 30, .networks = 20, .peak = 5, .hours = 20, .days = 1};
    static const struct {
        enum behaviour_reason reason;
        uint64_t number;
    } right[] = {{BEHAVIOUR_MANY, 30}, {BEHAVIOUR_SLOW, 5}, {BEHAVIOUR_AGAIN, 100}, {BEHAVIOUR_STEADY, 20}};
    struct behaviour_judgement j;
    (void)state;
    behaviour_judge(&b, &j);
    assert_int_equal(j.count, sizeof(right) / sizeof(right[0]));
    for (size_t i = 0; i < j.count; i++) {
        assert_int_equal(j.why[i].reason, right[i].reason);
        assert_int_equal(j.why[i].number, right[i].number);
    }
}

static void test_estimate(void **state)
{
    uint64_t sketch[4] = {0};
    (void)state;
    assert_int_equal(behaviour_estimate(sketch, 256), 0);
    sketch[2] = 1;
    assert_int_equal(behaviour_estimate(sketch, 256), 1);
    sketch[0] = 0xff;
    assert_int_equal(behaviour_estimate(sketch, 256), 9);
    memset(sketch, 0xff, sizeof(sketch));
    uint32_t full = behaviour_estimate(sketch, 256);
    assert_true(full > 1400 && full < 2000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_estimate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
