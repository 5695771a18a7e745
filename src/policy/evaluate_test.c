/*
 * The reference says what docs/gate.md says: the table of law_fake.c, the rates, and that no octet outside of a frame
 * is read (each frame is judged at the end of a page that is followed by none, and cut at every octet).
 */
#include "policy/evaluate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "policy/law_fake.h"

static struct policy *policies[LAW_POLICIES];
static uint8_t *edge; /* behind the last octet that may be read */

static void say(const struct policy_judgement *j, char text[static 80])
{
    (void)snprintf(text, 80, "%s %s", policy_verdict_name(j->verdict), policy_reason_name(j->reason));
    if (j->would != j->verdict) {
        size_t len = strlen(text);
        (void)snprintf(text + len, 80 - len, " (%s)", policy_verdict_name(j->would));
    }
}

static void judge(const struct law_row *row, int family, size_t take_off, struct policy_judgement *ret)
{
    uint8_t frame[FRAME_FAKE_MAX];
    size_t len = frame_fake_build(row->frame, family, frame);
    len -= take_off < len ? take_off : len;
    memcpy(edge - len, frame, len);
    struct policy_question q = {.side = row->side == 's' ? PACKET_SUBSCRIBER : PACKET_UPLINK,
                                .link = strncmp(row->frame, "eth", 3) == 0 ? PACKET_ETHERNET : PACKET_IP,
                                .frame = {edge - len, len},
                                .now_boot_ns = LAW_NOW_NS};
    policy_evaluate(policies[row->policy], &q, ret);
}

static void each_row(void (*check)(const struct law_row *row, int family))
{
    for (size_t i = 0; i < law_rows_count; i++) {
        for (int family = 4; family <= 6; family += 2) {
            if (law_rows[i].families == 'b' || law_rows[i].families == '0' + family) {
                check(&law_rows[i], family);
            }
        }
    }
}

static unsigned failures;

static void check_law(const struct law_row *row, int family)
{
    struct policy_judgement j;
    char text[80];
    judge(row, family, 0, &j);
    say(&j, text);
    if (strcmp(text, row->says) != 0) {
        print_error("policy %d, %c side, IPv%d: %s\n    is: %s\n    should be: %s\n", (int)row->policy, row->side,
                    family, row->frame, text, row->says);
        failures++;
    }
}

static void test_law(void **state)
{
    (void)state;
    failures = 0;
    each_row(check_law);
    assert_int_equal(failures, 0);
}

/* A reason is one of its verdict, whatever the octets. */
static void check_sane(const struct policy_judgement *j)
{
    assert_true(j->reason < REASON_COUNT && j->would <= POLICY_DROP);
    assert_true(j->verdict == j->would || j->verdict == POLICY_PASS);
    assert_true(j->would != POLICY_PASS || j->reason <= REASON_RATE);
    assert_true(j->would != POLICY_DROP || j->reason == REASON_RETURN_PATH || j->reason >= REASON_FIRST_FRAGMENT);
    assert_true(!j->asked || j->class_name != NULL);
}

static void check_cut(const struct law_row *row, int family)
{
    struct policy_judgement j;
    uint8_t frame[FRAME_FAKE_MAX];
    size_t len = frame_fake_build(row->frame, family, frame);
    for (size_t off = 1; off <= len; off++) {
        judge(row, family, off, &j);
        check_sane(&j);
    }
}

static void test_cut_everywhere(void **state)
{
    (void)state;
    each_row(check_cut);
}

static void ask(struct policy_rates *rates, const char *frame, uint64_t now, const char *says)
{
    uint8_t octets[FRAME_FAKE_MAX];
    char text[80];
    struct policy_judgement j;
    struct policy_question q = {.link = PACKET_ETHERNET, .now_boot_ns = now, .rates = rates};
    q.frame = (struct span){octets, frame_fake_build(frame, 4, octets)};
    policy_evaluate(policies[LAW_PLAIN], &q, &j);
    say(&j, text);
    assert_string_equal(text, says);
}

/* rate 2/h: two at once, then one each half hour; only what begins a connection counts. */
static void test_rate(void **state)
{
    (void)state;
    const uint64_t minute = UINT64_C(60000000000), start = 1000 * minute;
    static const char syn[] = "eth / ip metered world / tcp 1024 25 S",
                      more[] = "eth / ip metered world / tcp 1024 25 A";
    static const char half[] = "eth / ip4 metered world mf / tcp 1024 25 keep=8";
    static const char syn_ack[] = "eth / ip metered world / tcp 1024 25 SA";
    struct policy_rates *rates = policy_rates_new();
    ask(rates, more, start, "pass rate");
    ask(rates, syn, start, "pass rate");
    ask(rates, syn_ack, start, "pass rate");
    ask(rates, half, start, "pass rate"); /* a segment too short for its flags begins one */
    ask(rates, syn, start, "refuse class");
    ask(rates, half, start, "refuse class");
    ask(rates, more, start, "pass rate");
    ask(rates, "eth / ip metered mx / tcp 1024 25 S", start, "pass allow-to");
    ask(rates, syn, start + 30 * minute - 1, "refuse class");
    ask(rates, syn, start + 30 * minute, "pass rate");
    ask(rates, syn, start + 30 * minute, "refuse class");
    ask(rates, syn, start + 120 * minute, "pass rate");
    ask(rates, syn, start + 120 * minute, "pass rate");
    ask(rates, syn, start + 120 * minute, "refuse class");
    ask(NULL, syn, start + 120 * minute, "pass rate");
    /* By IPv4 address, and by IPv6 /64. */
    ask(rates, "eth / ip4 neighbour world / tcp 1024 25 S", start + 120 * minute, "pass rate");
    ask(rates, "eth / ip6 metered world / tcp 1024 25 S", start, "pass rate");
    ask(rates, "eth / ip6 neighbour world / tcp 1024 25 S", start, "pass rate");
    ask(rates, "eth / ip6 metered world / tcp 1024 25 S", start, "refuse class");
    ask(rates, "eth / ip6 neighbour world / tcp 1024 25 S", start, "refuse class");
    policy_rates_free(&rates);
}

/* Each subject has its own; the table keeps to its bound. */
static void test_rates_are_bounded(void **state)
{
    (void)state;
    struct policy_class classes[] = {{.name = (char *)"default", .rule = BLOB_RATE, .interval_ns = 10, .burst_ns = 10}};
    const struct policy p = {.classes = classes, .classes_count = 1};
    struct policy_rates *rates = policy_rates_new();
    uint8_t octets[FRAME_FAKE_MAX];
    struct policy_judgement j;
    size_t len = frame_fake_build("ip6 metered world / tcp 1024 25 S", 6, octets);
    for (unsigned i = 0; i < POLICY_RATES_MAX + 3; i++) {
        octets[12] = (uint8_t)(i >> 16); /* of the source, within its /64: another line each */
        octets[13] = (uint8_t)(i >> 8);
        octets[14] = (uint8_t)i;
        struct policy_question q = {
            .link = PACKET_IP, .now_boot_ns = 100 + i / 30000, .rates = rates, .frame = {octets, len}};
        policy_evaluate(&p, &q, &j);
        assert_int_equal(j.verdict, POLICY_PASS);
        if (i % 1000 == 0) {
            policy_evaluate(&p, &q, &j);
            assert_int_equal(j.verdict, POLICY_REFUSE);
        }
    }
    policy_rates_free(&rates);
}

static void test_judgement_names_its_subject(void **state)
{
    (void)state;
    struct policy_judgement j;
    char text[POLICY_ADDRESS_TEXT];
    const struct law_row tunnel = {LAW_PLAIN, 's', '6', "eth / ip6 unlisted aftr / ip4 exempt world / tcp 1024 25 S",
                                   ""};
    judge(&tunnel, 6, 0, &j);
    policy_address_format(&j.subject, text);
    assert_true(j.asked);
    assert_string_equal(text, "198.51.100.7");
    assert_string_equal(j.class_name, "denied");
    assert_int_equal(j.class_, 1);
    assert_int_equal(j.exemption, 1);
    const struct law_row other = {LAW_PLAIN, 's', '6', "eth / ip6 deny world / tcp 1024 587 S", ""};
    judge(&other, 6, 0, &j);
    assert_false(j.asked);
    assert_null(j.class_name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_law),
        cmocka_unit_test(test_cut_everywhere),
        cmocka_unit_test(test_rate),
        cmocka_unit_test(test_rates_are_bounded),
        cmocka_unit_test(test_judgement_names_its_subject),
    };
    uint8_t *pages = mmap(NULL, 3 * FRAME_FAKE_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED || mprotect(pages + 2 * (size_t)FRAME_FAKE_MAX, FRAME_FAKE_MAX, PROT_NONE) != 0) {
        return 1;
    }
    edge = pages + 2 * (size_t)FRAME_FAKE_MAX;
    for (int i = 0; i < LAW_POLICIES; i++) {
        policies[i] = law_policy_new((enum law_policy)i);
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (int i = 0; i < LAW_POLICIES; i++) {
        policy_free(&policies[i]);
    }
    return failed;
}
