/* The lookup over a resolver that is a table: what is asked is answered when the test says so. */
#include "deliver/hosts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ASKED_MAX 64

struct resolver_query {
    char name[DNS_NAME_MAX + 1];
    enum dns_type type;
    resolver_done done;
    void *arg;
    bool open;
};

static struct resolver_query asked[ASKED_MAX];
static size_t asked_count;
static struct mail_hosts *found;
static size_t done_count;
static const char *self_address;

struct resolver_query *resolver_ask(struct resolver *r, const char *name, enum dns_type type, resolver_done done,
                                    void *arg)
{
    (void)r;
    assert_true(asked_count < ASKED_MAX);
    struct resolver_query *q = &asked[asked_count++];
    *q = (struct resolver_query){.type = type, .done = done, .arg = arg, .open = true};
    (void)snprintf(q->name, sizeof(q->name), "%s", name);
    return q;
}

void resolver_cancel(struct resolver_query **q)
{
    if (*q != NULL) {
        (*q)->open = false;
    }
    *q = NULL;
}

static bool is_self(void *arg, const struct net_address *address)
{
    (void)arg;
    char text[NET_ADDRESS_TEXT];
    net_address_format(address, text);
    return self_address != NULL && strcmp(text, self_address) == 0;
}

static uint32_t zero(void *arg)
{
    (void)arg;
    return 0;
}

static const struct hosts_self self = {.name = "us.example", .is_self = is_self, .random = zero};

static void on_done(void *arg, struct mail_hosts *take)
{
    (void)arg;
    free(found);
    found = take;
    done_count++;
}

static void answer(const char *name, enum dns_type type, const struct resolver_answer *a)
{
    for (size_t i = 0; i < asked_count; i++) {
        struct resolver_query *q = &asked[i];
        if (q->open && q->type == type && strcmp(q->name, name) == 0) {
            q->open = false;
            q->done(q->arg, a);
            return;
        }
    }
    fail_msg("%s was not asked", name);
}

static void answer_status(const char *name, enum dns_type type, enum resolver_status status)
{
    answer(name, type, &(struct resolver_answer){.status = status, .why = "because", .ttl_s = 60});
}

static void answer_one(const char *name, enum dns_type type, struct span rdata)
{
    answer(name, type, &(struct resolver_answer){.status = RESOLVER_FOUND, .rdata = &rdata, .count = 1, .ttl_s = 60});
}

static const uint8_t v4_1[] = {192, 0, 2, 1}, v4_2[] = {192, 0, 2, 2};
static const uint8_t v6_1[] = {0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};

static struct hosts_lookup *begin(const char *name, unsigned flags)
{
    asked_count = done_count = 0;
    self_address = NULL;
    free(found);
    found = NULL;
    struct hosts_lookup *l = hosts_find(NULL, name, 25, flags, &self, on_done, NULL);
    assert_non_null(l);
    return l;
}

/* 10 a, 10 b, 20 c */
static void answer_three(void)
{
    const struct span rdata[] = {SPAN_LIT("\0\12\1a\0"), SPAN_LIT("\0\12\1b\0"), SPAN_LIT("\0\24\1c\0")};
    answer("d.example", DNS_TYPE_MX,
           &(struct resolver_answer){.status = RESOLVER_FOUND, .rdata = rdata, .count = 3, .ttl_s = 7200});
}

static void both(const char *name, const uint8_t *v4)
{
    if (v4 != NULL) {
        answer_one(name, DNS_TYPE_A, (struct span){v4, 4});
    } else {
        answer_status(name, DNS_TYPE_A, RESOLVER_NO_DATA);
    }
    answer_status(name, DNS_TYPE_AAAA, RESOLVER_NO_DATA);
}

static void expect_refusal(enum hosts_verdict verdict, unsigned code, unsigned subject, unsigned detail)
{
    assert_int_equal(done_count, 1);
    assert_non_null(found);
    assert_int_equal(found->verdict, verdict);
    assert_int_equal(found->code, code);
    assert_int_equal(found->enhanced[0], verdict == HOSTS_PERMANENT ? 5 : 4);
    assert_int_equal(found->enhanced[1], subject);
    assert_int_equal(found->enhanced[2], detail);
    assert_int_equal(found->hops_count, 0);
    assert_true(found->words[0] != '\0');
}

static void no_domain(void **state)
{
    (void)state;
    (void)begin("d.example", HOSTS_MX);
    answer_status("d.example", DNS_TYPE_MX, RESOLVER_NO_NAME);
    expect_refusal(HOSTS_PERMANENT, 550, 1, 2);
}

static void null_mx(void **state)
{
    (void)state;
    (void)begin("d.example", HOSTS_MX);
    answer_one("d.example", DNS_TYPE_MX, SPAN_LIT("\0\0\0"));
    expect_refusal(HOSTS_PERMANENT, 556, 1, 10);
}

static void failed_mx(void **state)
{
    (void)state;
    (void)begin("d.example", HOSTS_MX);
    answer_status("d.example", DNS_TYPE_MX, RESOLVER_FAILED);
    expect_refusal(HOSTS_TEMPORARY, 451, 4, 3);
    assert_non_null(strstr(found->words, "because"));
}

static void malformed_mx(void **state)
{
    (void)state;
    (void)begin("d.example", HOSTS_MX);
    answer_one("d.example", DNS_TYPE_MX, SPAN_LIT("\0"));
    expect_refusal(HOSTS_TEMPORARY, 451, 4, 3);
}

static void implicit_mx(void **state)
{
    (void)state;
    (void)begin("d.example", HOSTS_MX);
    answer_status("d.example", DNS_TYPE_MX, RESOLVER_NO_DATA);
    answer_one("d.example", DNS_TYPE_A, (struct span){v4_1, 4});
    assert_int_equal(done_count, 0);
    answer_one("d.example", DNS_TYPE_AAAA, (struct span){v6_1, 16});
    assert_int_equal(done_count, 1);
    assert_int_equal(found->verdict, HOSTS_FOUND);
    assert_int_equal(found->hops_count, 2);
    assert_false(net_address_is_v4(&found->hops[0].address)); /* IPv6 first */
    assert_int_equal(found->hops[0].address.port, 25);
    assert_string_equal(found->names[0], "d.example");
    assert_int_equal(found->ttl_s, 60);
    assert_true(found->complete);
}

static void implicit_without_address(void **state)
{
    (void)state;
    (void)begin("d.example", HOSTS_MX);
    answer_status("d.example", DNS_TYPE_MX, RESOLVER_NO_DATA);
    both("d.example", NULL);
    expect_refusal(HOSTS_PERMANENT, 550, 4, 4);
}

static void best_suffices(void **state)
{
    (void)state;
    (void)begin("d.example", HOSTS_MX);
    answer_three();
    both("c", v4_1);
    both("a", v4_1);
    assert_int_equal(done_count, 0); /* b is as good as a */
    both("b", v4_2);
    assert_int_equal(done_count, 1);
    assert_int_equal(found->hops_count, 3);
    assert_string_equal(found->names[found->hops[2].host], "c");

    (void)begin("d.example", HOSTS_MX);
    answer_three();
    both("a", v4_1);
    both("b", NULL);
    assert_int_equal(done_count, 1); /* c may be slow */
    assert_int_equal(found->hops_count, 1);
    assert_false(found->complete);

    (void)begin("d.example", HOSTS_MX | HOSTS_ALL);
    answer_three();
    both("a", v4_1);
    both("b", NULL);
    assert_int_equal(done_count, 0);
    both("c", v4_2);
    assert_int_equal(found->hops_count, 2);
    assert_true(found->complete);
}

static void failed_addresses(void **state)
{
    (void)state;
    (void)begin("d.example", HOSTS_MX);
    answer_three();
    both("a", NULL);
    both("b", NULL);
    answer_status("c", DNS_TYPE_AAAA, RESOLVER_FAILED);
    answer_status("c", DNS_TYPE_A, RESOLVER_NO_DATA);
    expect_refusal(HOSTS_TEMPORARY, 451, 4, 3);
}

static void no_addresses(void **state)
{
    (void)state;
    (void)begin("d.example", HOSTS_MX);
    answer_three();
    both("a", NULL);
    both("b", NULL);
    both("c", NULL);
    expect_refusal(HOSTS_PERMANENT, 550, 4, 4);
}

static void ourselves_by_name(void **state)
{
    (void)state;
    const struct span us = SPAN_LIT("\2US\7example\0");
    uint8_t first[16] = {0, 10}, second[16] = {0, 20};
    memcpy(first + 2, us.ptr, us.len);
    memcpy(second + 2, us.ptr, us.len);
    (void)begin("d.example", HOSTS_MX);
    answer_one("d.example", DNS_TYPE_MX, (struct span){first, 2 + us.len});
    expect_refusal(HOSTS_PERMANENT, 554, 4, 6);

    (void)begin("d.example", HOSTS_MX);
    const struct span rdata[] = {SPAN_LIT("\0\12\1a\0"), {second, 2 + us.len}, SPAN_LIT("\0\36\1z\0")};
    answer("d.example", DNS_TYPE_MX,
           &(struct resolver_answer){.status = RESOLVER_FOUND, .rdata = rdata, .count = 3, .ttl_s = 60});
    answer_status("a", DNS_TYPE_A, RESOLVER_FAILED); /* what is better than us fails: later, not never */
    answer_status("a", DNS_TYPE_AAAA, RESOLVER_FAILED);
    expect_refusal(HOSTS_TEMPORARY, 451, 4, 3);
}

static void ourselves_by_address(void **state)
{
    (void)state;
    (void)begin("d.example", HOSTS_MX);
    self_address = "192.0.2.2";
    answer_three();
    both("a", v4_1);
    both("b", NULL);
    assert_int_equal(found->hops_count, 1);

    (void)begin("d.example", HOSTS_MX);
    self_address = "192.0.2.2";
    answer_three();
    both("a", v4_1);
    both("b", v4_2);
    expect_refusal(HOSTS_PERMANENT, 554, 4, 6); /* equals of ours are not tried */
}

static void smart_host(void **state)
{
    (void)state;
    (void)begin("relay.example", 0);
    assert_int_equal(asked_count, 2);
    both("relay.example", NULL);
    expect_refusal(HOSTS_TEMPORARY, 451, 4, 4);
    (void)begin("relay.example", 0);
    both("relay.example", v4_2);
    assert_int_equal(found->hops_count, 1);
}

static void cancelled(void **state)
{
    (void)state;
    struct hosts_lookup *l = begin("d.example", HOSTS_MX);
    answer_three();
    hosts_cancel(&l);
    assert_null(l);
    for (size_t i = 0; i < asked_count; i++) {
        assert_false(asked[i].open);
    }
    assert_int_equal(done_count, 0);
}

static void literal(void **state)
{
    (void)state;
    struct net_address a = {.port = 25};
    assert_int_equal(net_address_parse("192.0.2.1", &a), 0);
    struct mail_hosts *m = hosts_of_address("[192.0.2.1]", &a, &self);
    assert_int_equal(m->verdict, HOSTS_FOUND);
    assert_int_equal(m->hops_count, 1);
    free(m);
    self_address = "192.0.2.1";
    m = hosts_of_address("[192.0.2.1]", &a, &self);
    assert_int_equal(m->verdict, HOSTS_PERMANENT);
    assert_int_equal(m->hops_count, 0);
    free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_domain),
        cmocka_unit_test(null_mx),
        cmocka_unit_test(failed_mx),
        cmocka_unit_test(malformed_mx),
        cmocka_unit_test(implicit_mx),
        cmocka_unit_test(implicit_without_address),
        cmocka_unit_test(best_suffices),
        cmocka_unit_test(failed_addresses),
        cmocka_unit_test(no_addresses),
        cmocka_unit_test(ourselves_by_name),
        cmocka_unit_test(ourselves_by_address),
        cmocka_unit_test(smart_host),
        cmocka_unit_test(cancelled),
        cmocka_unit_test(literal),
    };
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    free(found);
    return r;
}
