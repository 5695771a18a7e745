/* What the audit log says of a reload. */
#include "gate/brief.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct config *config_of(const char *gate)
{
    struct config_complaints complaints = {0};
    struct config *c = NULL;
    assert_int_equal(config_load(span_str(gate), "test", &c, &complaints), 0);
    return c;
}

static void check(const char *from, const char *to, const char *says)
{
    struct config *a = config_of(from), *b = config_of(to);
    char text[BRIEF_MAX];
    brief_changes(&a->gate, &b->gate, text);
    assert_string_equal(text, says);
    brief_changes(&b->gate, &b->gate, text);
    assert_string_equal(text, "");
    config_free(&a);
    config_free(&b);
}

#define CLASS(rest) "gate: {subscriber_interfaces: [eth1], classes: [{name: a, " rest "}]}\n"
#define GATE(rest)  "gate: {subscriber_interfaces: [eth1]" rest "}\n"

static void test_says(void **state)
{
    (void)state;
    check(GATE(""), GATE(""), "");
    check(
        GATE(""),
        GATE(", mode: monitor, default: deny, refuse_with: drop, return_path: allow, inbound: deny, uplink_interfaces: "
             "[eth0], allow_to: [192.0.2.1], dynamic_ranges: [192.0.2.2], tunnel_endpoints: [192.0.2.3]"),
        "mode: enforce to monitor; default: allow to deny; refuse_with: tcp-reset to drop; return_path: drop to allow; "
        "inbound: allow to deny; other uplink_interfaces; 1 allow_to instead of 0; 1 dynamic_ranges instead of 0; 1 "
        "tunnel_endpoints instead of 0");
    check(GATE(", allow_to: [192.0.2.1]"), GATE(", allow_to: [192.0.2.9]"), "other allow_to, 1 as before");
    check(CLASS("port25: deny, prefixes: [10.0.0.0/8]"), CLASS("port25: rate 5/h, prefixes: [11.0.0.0/8]"),
          "class a: deny to rate 5/3600s; class a: other prefixes, 1 as before");
    check(CLASS("port25: deny, prefixes: [10.0.0.0/8]"), CLASS("port25: deny, prefixes: [10.0.0.0/8], to: [192.0.2.1]"),
          "class a: 1 destinations instead of 0");
    check(CLASS("port25: rate 5/h, prefixes: [10.0.0.0/8]"), CLASS("port25: rate 6/h, prefixes: [10.0.0.0/8]"),
          "class a: rate 5/3600s to rate 6/3600s");
    check(CLASS("port25: deny, prefixes: [10.0.0.0/8]"), GATE(""), "class a is gone");
    check(GATE(""), CLASS("port25: monitor, prefixes: [10.0.0.0/8]"), "class a is new: monitor, 1 prefixes");
}

/* However many classes are new, and however long their names: what fits, and that there is more. */
static void test_bound(void **state)
{
    (void)state;
    static char text[65536];
    for (int len = 1; len <= 64; len++) {
        size_t at = (size_t)snprintf(text, sizeof(text), "gate:\n  subscriber_interfaces: [eth1]\n  classes:\n");
        for (int i = 0; i < 99; i++) {
            at += (size_t)snprintf(text + at, sizeof(text) - at,
                                   "    - {name: %0*d, port25: deny, prefixes: [10.0.%d.0/24]}\n", len < 2 ? 2 : len, i,
                                   i);
        }
        struct config *a = config_of(GATE("")), *b = config_of(text);
        char said[BRIEF_MAX];
        brief_changes(&a->gate, &b->gate, said);
        size_t end = strlen(said);
        assert_in_range(end, BRIEF_MAX - 120, BRIEF_MAX - 1);
        assert_string_equal(said + end - 10, "; and more");
        config_free(&a);
        config_free(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_says), cmocka_unit_test(test_bound)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
