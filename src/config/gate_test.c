/*
 * The gate's section: defaults, every key, what is wrong in it with its place, and the files of prefixes.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "config/config.h"

static int load(const char *text, struct config **ret, struct buf *words)
{
    struct config_complaints complaints = {0};
    buf_init(words, 65536);
    int r = config_load(span_str(text), "f", ret, &complaints);
    assert_int_equal(config_complaints_format(&complaints, words), 0);
    assert_int_equal(buf_append(words, "", 1), 0);
    config_complaints_fini(&complaints);
    return r;
}

static struct config *good(const char *text)
{
    struct config *c = NULL;
    struct buf words;
    int r = load(text, &c, &words);
    assert_string_equal((const char *)words.data, "");
    assert_int_equal(r, 0);
    buf_fini(&words);
    return c;
}

static void test_defaults(void **state)
{
    (void)state;
    struct config *c = good("gate: {subscriber_interfaces: eth1}\n");
    const struct config_gate *g = &c->gate;
    assert_true(g->present);
    assert_false(c->submission.present);
    assert_null(c->submission.hostname);
    assert_int_equal(c->submission.listen_count, 0);
    assert_int_equal(g->subscriber_interfaces.count, 1);
    assert_string_equal(g->subscriber_interfaces.list[0], "eth1");
    assert_int_equal(g->uplink_interfaces.count, 0);
    assert_false(g->monitor);
    assert_int_equal(g->refuse_with, GATE_TCP_RESET);
    assert_int_equal(g->default_, PORT25_ALLOW);
    assert_false(g->return_path_allow);
    assert_false(g->inbound_deny);
    assert_int_equal(g->attach, GATE_ATTACH_AUTO);
    assert_int_equal(g->events_per_second, 1);
    assert_int_equal(g->resets_per_second, 20);
    assert_int_equal(g->classes_count, 0);
    config_free(&c);
    c = good("submission: {hostname: mail.example.ne.jp, tls: {certificate: /c, key: /k}}\n");
    assert_false(c->gate.present);
    assert_true(c->submission.present);
    config_free(&c);
}

static void check_prefix(const struct net_prefix *p, const char *address, unsigned bits)
{
    struct net_address a = {0};
    char text[NET_ADDRESS_TEXT];
    memcpy(a.bytes, p->bytes, sizeof(a.bytes));
    net_address_format(&a, text);
    assert_string_equal(text, address);
    assert_int_equal(p->bits, bits);
}

static const char everything[] =
    "gate:\n"
    "  subscriber_interfaces: [eth1, \"tap*\"]\n"
    "  uplink_interfaces: [eth0]\n"
    "  mode: monitor\n"
    "  refuse_with: icmp-prohibited\n"
    "  default: deny\n"
    "  return_path: allow\n"
    "  inbound: deny\n"
    "  dynamic_ranges: [192.0.2.0/24, \"2001:db8:2::/48\"]\n"
    "  allow_to: \"2001:db8::25\"\n"
    "  tunnel_endpoints: [192.0.2.1]\n"
    "  attach: generic\n"
    "  events_per_second: 2\n"
    "  resets_per_second: 30\n"
    "  classes:\n"
    "    - {name: dynamic, port25: deny, prefixes: [198.51.100.0/22, \"2001:db8:100::/40\"]}\n"
    "    - {name: fixed, port25: allow, prefixes: [198.51.100.128/25]}\n"
    "    - {name: new, port25: rate 10/h, prefixes: [203.0.113.0/24]}\n"
    "    - {name: tried, port25: monitor, prefixes: [203.0.113.1], to: [192.0.2.25]}\n";

static void test_everything(void **state)
{
    (void)state;
    struct config *c = good(everything);
    const struct config_gate *g = &c->gate;
    assert_int_equal(g->subscriber_interfaces.count, 2);
    assert_string_equal(g->subscriber_interfaces.list[1], "tap*");
    assert_string_equal(g->uplink_interfaces.list[0], "eth0");
    assert_true(g->monitor);
    assert_int_equal(g->refuse_with, GATE_ICMP_PROHIBITED);
    assert_int_equal(g->default_, PORT25_DENY);
    assert_true(g->return_path_allow);
    assert_true(g->inbound_deny);
    assert_int_equal(g->dynamic_ranges.count, 2);
    check_prefix(&g->dynamic_ranges.list[0], "192.0.2.0", 120);
    check_prefix(&g->dynamic_ranges.list[1], "2001:db8:2::", 48);
    check_prefix(&g->allow_to.list[0], "2001:db8::25", 128);
    check_prefix(&g->tunnel_endpoints.list[0], "192.0.2.1", 128);
    assert_int_equal(g->attach, GATE_ATTACH_GENERIC);
    assert_int_equal(g->events_per_second, 2);
    assert_int_equal(g->resets_per_second, 30);
    assert_int_equal(g->classes_count, 4);
    assert_string_equal(g->classes[0].name, "dynamic");
    assert_int_equal(g->classes[0].port25, PORT25_DENY);
    assert_int_equal(g->classes[0].prefixes.count, 2);
    assert_int_equal(g->classes[0].prefixes_at[1].line, 16);
    assert_int_equal(g->classes[1].port25, PORT25_ALLOW);
    assert_int_equal(g->classes[2].port25, PORT25_RATE);
    assert_int_equal(g->classes[2].rate, 10);
    assert_int_equal(g->classes[2].rate_window_ms, 3600000);
    assert_int_equal(g->classes[3].port25, PORT25_MONITOR);
    check_prefix(&g->classes[3].to.list[0], "192.0.2.25", 128);
    config_free(&c);
}

/* What stands behind "gate: {subscriber_interfaces: [], " in line 1, from column 34. */
#define GATE(text)  "gate: {subscriber_interfaces: [], " text "}\n"
#define CLASS(text) GATE("classes: [{name: a, " text "}]")

struct row {
    const char *text, *complaints;
};

static const struct row wrong[] = {
    {"gate: {}\n", "f:1:7: no interface is named, so nothing would be refused; write subscriber_interfaces like [eth1, "
                   "\"tap*\"], or [] where the policy is only exported\n"},
    {"gate: []\n", "f:1:7: \"gate\" is a list; it should be a map of keys\n"},
    {"gate: {subscriber_interfaces: [a/b, '', abcdefghijklmnop, [x]]}\n",
     "f:1:32: \"a/b\" is not an interface's name or pattern; write it like [eth1, \"tap*\"]\n"
     "f:1:37: \"\" is not an interface's name or pattern; write it like [eth1, \"tap*\"]\n"
     "f:1:41: \"abcdefghijklmnop\" is not an interface's name or pattern; write it like [eth1, \"tap*\"]\n"
     "f:1:59: \"a list\" is not an interface's name or pattern; write it like [eth1, \"tap*\"]\n"},
    {"gate: {subscriber_interfaces: [eth1, 'tap*'], uplink_interfaces: [eth0, tap7, '*h1']}\n",
     "f:1:73: \"tap7\" and \"tap*\" of subscriber_interfaces can be the same interface; each stands on one side\n"
     "f:1:79: \"*h1\" and \"eth1\" of subscriber_interfaces can be the same interface; each stands on one side\n"
     "f:1:79: \"*h1\" and \"tap*\" of subscriber_interfaces can be the same interface; each stands on one side\n"},
    {GATE("mode: off"), "f:1:41: \"mode\" should be enforce or monitor, not \"off\"\n"},
    {GATE("refuse_with: reset"),
     "f:1:48: \"refuse_with\" should be tcp-reset, icmp-prohibited or drop, not \"reset\"\n"},
    {GATE("default: rate 10/h"), "f:1:44: \"default\" should be allow, deny or monitor, not \"rate 10/h\"\n"},
    {GATE("return_path: deny"), "f:1:48: \"return_path\" should be drop or allow, not \"deny\"\n"},
    {GATE("inbound: drop"), "f:1:44: \"inbound\" should be allow or deny, not \"drop\"\n"},
    {GATE("attach: xdp"), "f:1:43: \"attach\" should be auto, native, generic, tc or tcx, not \"xdp\"\n"},
    {GATE("events_per_second: 0"), "f:1:54: \"events_per_second\" is 0; it should be from 1 to 1000\n"},
    {GATE("resets_per_second: 1000000"), "f:1:54: \"resets_per_second\" is 1000000; it should be from 1 to 100000\n"},
    {GATE("allow_to: [192.0.2.1/24, '::ffff:192.0.2.0/120', mx.example, 192.0.2.0/33, '2001:db8::/129', {a: b}]"),
     "f:1:46: \"192.0.2.1/24\" has bits set behind its length; write it like [192.0.2.25, \"2001:db8::25\"]\n"
     "f:1:60: \"::ffff:192.0.2.0/120\" is an IPv4 address in IPv6 dress, which no packet has as such; write it like "
     "[192.0.2.25, \"2001:db8::25\"]\n"
     "f:1:84: \"mx.example\" is not a prefix; write it like [192.0.2.25, \"2001:db8::25\"]\n"
     "f:1:96: \"192.0.2.0/33\" has no length from 0 to 32; write it like [192.0.2.25, \"2001:db8::25\"]\n"
     "f:1:110: \"2001:db8::/129\" has no length from 0 to 128; write it like [192.0.2.25, \"2001:db8::25\"]\n"
     "f:1:128: \"a map\" is not a prefix; write it like [192.0.2.25, \"2001:db8::25\"]\n"},
    {GATE("classes: [a]"),
     "f:1:45: an element of \"classes\" should be a map, like {name: dynamic, port25: deny, prefixes: "
     "[198.51.100.0/22]}\n"},
    {GATE("classes: [{}]"), "f:1:45: \"name\" is missing; write it like name: dynamic\n"
                            "f:1:45: \"port25\" is missing; write it like port25: deny\n"},
    {CLASS("port25: deny"),
     "f:1:45: class \"a\" has no prefix; write prefixes: [198.51.100.0/22, \"2001:db8:100::/40\"]\n"},
    {CLASS("port25: refuse, prefixes: [192.0.2.0/24]"), "f:1:63: \"port25\" should be allow, deny, monitor or new "
                                                        "connections in a time (1 to 1000000 a second, minute, hour "
                                                        "or day), like \"rate 10/h\"\n"},
    {CLASS("port25: rate 0/h, prefixes: [192.0.2.0/24]"), "f:1:63: \"port25\" should be allow, deny, monitor or new "
                                                          "connections in a time (1 to 1000000 a second, minute, hour "
                                                          "or day), like \"rate 10/h\"\n"},
    {CLASS("port25: rate 10, prefixes: [192.0.2.0/24]"), "f:1:63: \"port25\" should be allow, deny, monitor or new "
                                                         "connections in a time (1 to 1000000 a second, minute, hour "
                                                         "or day), like \"rate 10/h\"\n"},
    {CLASS("port25: deny, prefixes: [192.0.2.0/24], to: []"),
     "f:1:99: \"to\" is empty; leave it out for every destination, "
     "or write it like [192.0.2.25, \"2001:db8::25\"]\n"},
    {CLASS("port25: allow, prefixes: [192.0.2.0/24], to: [192.0.2.1]"),
     "f:1:45: class \"a\" is allowed everywhere: \"to\" says where a class is restricted; leave it out\n"},
    {CLASS("port25: deny, prefixes_file: dynamic.txt"),
     "f:1:84: \"dynamic.txt\" is not a path from the root; write it like /etc/kidoban/dynamic.prefixes\n"},
    {GATE("classes: [{name: default, port25: deny, prefixes: [192.0.2.0/24]}]"),
     "f:1:52: a class cannot be called \"default\"; take at most 64 octets, and not \"default\": that is who is in no "
     "class\n"},
    {GATE("\n  classes: [{name: a, port25: deny, prefixes: [192.0.2.0/24]},\n"
          "            {name: a, port25: deny, prefixes: [192.0.3.0/24]}]"),
     "f:3:13: two classes are called \"a\", the other in line 2; each needs its own name\n"},
    {GATE("\n  classes: [{name: a, port25: deny, prefixes: [192.0.2.0/24, 192.0.2.0/24]},\n"
          "            {name: b, port25: allow, prefixes: ['2001:db8::/32', 192.0.2.0/24, 192.0.2.0/25]}]"),
     "f:3:66: this prefix of class \"b\" is in class \"a\" too (f:2); keep one\n"},
};

static void test_wrong(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct config *c = NULL;
        struct buf words;
        int r = load(wrong[i].text, &c, &words);
        assert_string_equal((const char *)words.data, wrong[i].complaints);
        assert_int_equal(r, -EINVAL);
        assert_null(c);
        buf_fini(&words);
    }
}

static void test_too_many_scopes(void **state)
{
    (void)state;
    struct buf text, words;
    struct config *c = NULL;
    buf_init(&text, 65536);
    assert_int_equal(buf_append_str(&text, "gate:\n  uplink_interfaces: eth0\n  classes:\n"), 0);
    for (int i = 1; i <= CONFIG_GATE_SCOPED_MAX + 2; i++) {
        if (i == CONFIG_GATE_SCOPED_MAX + 1) {
            assert_int_equal(buf_append(&text, "", 1), 0);
            config_free(&c);
            c = good((const char *)text.data);
            text.len--;
        }
        assert_int_equal(
            buf_printf(&text, "    - {name: c%d, port25: deny, prefixes: 192.0.2.%d, to: 198.51.100.1}\n", i, i), 0);
    }
    config_free(&c);
    assert_int_equal(buf_append(&text, "", 1), 0);
    assert_int_equal(load((const char *)text.data, &c, &words), -EINVAL);
    assert_string_equal(
        (const char *)words.data,
        "f:32:7: more than 28 classes have \"to\"; put lines with the same destinations into one class\n");
    buf_fini(&text);
    buf_fini(&words);
}

/* Files of prefixes. */

static char path[] = "/tmp/kidoban-gate-test-XXXXXX";

static void write_file(const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static struct config *with_file(void)
{
    struct buf text;
    buf_init(&text, 4096);
    assert_int_equal(buf_printf(&text,
                                "gate:\n  subscriber_interfaces: eth1\n  classes:\n"
                                "    - {name: a, port25: deny, prefixes: [192.0.2.0/24], prefixes_file: %s}\n"
                                "    - {name: b, port25: allow, prefixes: [203.0.113.0/24]}\n",
                                path),
                     0);
    assert_int_equal(buf_append(&text, "", 1), 0);
    struct config *c = good((const char *)text.data);
    buf_fini(&text);
    return c;
}

static void check_file(const char *content, const char *complaints)
{
    struct config *c = with_file();
    struct config_complaints found = {0};
    struct buf words, right;
    buf_init(&words, 65536);
    buf_init(&right, 65536);
    write_file(content);
    assert_int_equal(config_gate_read_files(c, "f", NULL, &found), -EINVAL);
    assert_int_equal(c->gate.classes[0].prefixes.count, 1);
    assert_int_equal(config_complaints_format(&found, &words), 0);
    assert_int_equal(buf_append(&words, "", 1), 0);
    for (const char *p = complaints; *p != '\0'; p++) { /* @ stands for the file's name */
        assert_int_equal(*p == '@' ? buf_append_str(&right, path) : buf_append_byte(&right, (uint8_t)*p), 0);
    }
    assert_int_equal(buf_append(&right, "", 1), 0);
    assert_string_equal((const char *)words.data, (const char *)right.data);
    config_complaints_fini(&found);
    buf_fini(&words);
    buf_fini(&right);
    config_free(&c);
}

static void test_good_file(void **state)
{
    (void)state;
    struct config *c = with_file();
    struct config_complaints complaints = {0};
    write_file("# ours\n\n198.51.100.0/24\r\n \t2001:db8:1::/48 # a town\n198.51.100.0/24\n192.0.2.0/24\n192.0.2.7");
    assert_int_equal(config_check_files(c, "f", &complaints), 0);
    assert_int_equal(c->gate.classes[0].prefixes.count, 1);
    assert_int_equal(config_gate_read_files(c, "f", NULL, &complaints), 0);
    assert_int_equal(complaints.count, 0);
    assert_int_equal(c->gate.classes[0].prefixes.count, 6); /* what is there twice in one class, too */
    assert_int_equal(c->gate.classes[1].prefixes.count, 1);
    bool found = false;
    for (size_t i = 0; i < 6; i++) {
        struct net_prefix last;
        assert_null(config_gate_prefix_parse("192.0.2.7", &last));
        found = found || memcmp(&c->gate.classes[0].prefixes.list[i], &last, sizeof(last)) == 0;
    }
    assert_true(found);
    config_free(&c);
}

static void test_bad_files(void **state)
{
    (void)state;
    char longest[400];
    memset(longest, '1', sizeof(longest));
    (void)snprintf(longest + 300, sizeof(longest) - 300, "\n192.0.2.9/24\n");
    check_file("198.51.100.0/24\n  192.0.2.1/24\nx # y\n",
               "@:2:3: \"192.0.2.1/24\" has bits set behind its length; write one prefix a line, like 192.0.2.0/24 or "
               "2001:db8::/32\n"
               "@:3:1: \"x\" is not a prefix; write one prefix a line, like 192.0.2.0/24 or 2001:db8::/32\n");
    check_file("198.51.100.0/24\n203.0.113.0/24\n",
               "f:5:43: this prefix of class \"b\" is in class \"a\" too (@:2); keep one\n");
    check_file(longest, "@:1:1: longer than any prefix; write one prefix a line\n"
                        "@:2:1: \"192.0.2.9/24\" has bits set behind its length; write one prefix a line, like "
                        "192.0.2.0/24 or 2001:db8::/32\n");
    struct config *c = with_file();
    struct config_complaints complaints = {0};
    assert_int_equal(unlink(path), 0);
    assert_int_equal(config_check_files(c, "f", &complaints), -EINVAL);
    assert_int_equal(complaints.count, 1);
    assert_int_equal(complaints.list[0].line, 4);
    assert_int_equal(complaints.list[0].column, 72);
    assert_non_null(strstr(complaints.list[0].text, "No such file"));
    config_complaints_fini(&complaints);
    config_free(&c);
}

static void test_interface_patterns(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *name;
        bool matches;
    } rows[] = {
        {"eth0", "eth0", true},   {"eth0", "eth01", false}, {"tap*", "tap", true},   {"tap*", "tap12", true},
        {"tap*", "ta", false},    {"*", "lo", true},        {"*.7", "eth0.7", true}, {"*.7", "eth0.77", false},
        {"a*b*c", "abxbc", true}, {"a*b*c", "acb", false},  {"ppp**", "ppp3", true}, {"", "x", false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(config_interface_matches(rows[i].pattern, rows[i].name), rows[i].matches);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),           cmocka_unit_test(test_everything), cmocka_unit_test(test_wrong),
        cmocka_unit_test(test_too_many_scopes),    cmocka_unit_test(test_good_file),  cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_interface_patterns),
    };
    int fd = mkstemp(path);
    if (fd < 0) {
        return 1;
    }
    (void)close(fd);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(path);
    return failed;
}
