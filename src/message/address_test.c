#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "message/address.h"

/* The mailboxes one after another with "|" between; "!" in place of one: malformed there. */
static const struct {
    const char *in, *out;
} lists[] = {
    {"", ""},
    {" ", ""},
    {"a@b.example", "a@b.example"},
    {" a@b.example ", "a@b.example"},
    {"<a@b.example>", "a@b.example"},
    {"A B <a@b.example>", "a@b.example"},
    {"\"A, B\" <a@b.example>", "a@b.example"},
    {"\"x@y.example\" <a@b.example>", "a@b.example"},
    {"A. B. See <a@b.example>", "a@b.example"},
    {"=?utf-8?q?x=40y?= <a@b.example>", "a@b.example"},
    {"a@b.example, c@d.example", "a@b.example|c@d.example"},
    {"a@b.example,,c@d.example,", "a@b.example|c@d.example"},
    {", a@b.example", "a@b.example"},
    {"A <a@b.example>, \"C\" <c@d.example>", "a@b.example|c@d.example"},
    {"A\r\n <a@b.example>,\r\n\tc@d.example", "a@b.example|c@d.example"},
    {"(c) a (c) @ (c) b (c) . (c) example (c)", "a@b.example"},
    {"(a(b(c)\\)d)) a@b.example", "a@b.example"},
    {"A (x@y.example) <a@b.example> (<z@y.example>)", "a@b.example"},
    {"a . b @ c.example", "a.b@c.example"},
    {"\"a\"@b.example", "a@b.example"},
    {"\"a.b\"@c.example", "a.b@c.example"},
    {"\"a\".b.\"c\"@d.example", "a.b.c@d.example"},
    {"\"a b\"@c.example", "\"a b\"@c.example"},
    {"\"a\r\n b\"@c.example", "\"a b\"@c.example"},
    {"\"\\a\\\"\\\\\"@c.example", "\"a\\\"\\\\\"@c.example"},
    {"\"a..b\"@c.example", "\"a..b\"@c.example"},
    {"\".\"@c.example", "\".\"@c.example"},
    {"\"\"@c.example", "\"\"@c.example"},
    {"\"a@b\"@c.example", "\"a@b\"@c.example"},
    {"\"<x@y>\" <a@b.example>", "a@b.example"},
    {"user+tag@b.example", "user+tag@b.example"},
    {"a@[192.0.2.1]", "a@[192.0.2.1]"},
    {"a@[IPv6:2001:db8::1]", "a@[IPv6:2001:db8::1]"},
    {"a@b_c.example", "a@b_c.example"},
    {"\xe6\x9c\xa8@b.example", "\xe6\x9c\xa8@b.example"},
    {"a@\xe6\x9c\xa8.example", "a@\xe6\x9c\xa8.example"},
    {"\xe6\x9c\xa8 <a@b.example>", "a@b.example"},
    {"<@x.example,@y.example:a@b.example>", "a@b.example"},
    {"A <@x.example:a@b.example>", "a@b.example"},
    {"<,@x.example:a@b.example>", "a@b.example"},
    {"G:;", ""},
    {"G: ;", ""},
    {"G: a@b.example;", "a@b.example"},
    {"G: a@b.example, C <c@d.example>;, e@f.example", "a@b.example|c@d.example|e@f.example"},
    {"x@y.example, G:a@b.example;", "x@y.example|a@b.example"},
    {"(c) G (c) : (c) ; (c)", ""},
    {"A:;,B:;", ""},

    /* malformed */
    {"a", "!"},
    {"a@", "!"},
    {"@b.example", "!"},
    {"a@b.example.", "!"},
    {"a@.b", "!"},
    {"a@b..c", "!"},
    {".a@b", "!"},
    {"a.@b", "!"},
    {"a..b@c", "!"},
    {"a b@c", "!"},
    {"a\"b\"@c", "!"},
    {"a@b c@d", "!"},
    {"a@b <c@d>", "!"},
    {"x@y.example <a@b.example>", "!"},
    {"Doe, John <a@b.example>", "!"},
    {"a@b.example; c@d.example", "!"},
    {"<a@b.example", "!"},
    {"a@b.example>", "!"},
    {"<a@b.example> c", "!"},
    {"<a@b.example> <c@d.example>", "!"},
    {"<>", "!"},
    {"<a>", "!"},
    {"A <<a@b>>", "!"},
    {"(a@b", "!"},
    {"a@b (", "!"},
    {"a@b (\\", "!"},
    {"a@b )", "!"},
    {"\"a@b", "!"},
    {"\"a\\", "!"},
    {"\"a\x01\"@b", "!"},
    {"\"\\\x01\"@b", "!"},
    {"a\x7f@b", "!"},
    {"\xe4@b.example", "!"},
    {"a@\xe4.example", "!"},
    {"a@b!c", "!"},
    {"a@[b", "!"},
    {"a@[b]c", "!"},
    {"a@[b\\]]", "!"},
    {"G: a@b.example", "!"},
    {"G: a@b.example, c@d.example", "!"},
    {"G: H: a@b;;", "!"},
    {"G: a@b.example; c@d.example", "!"},
    {":;", "!"},
    {";", "!"},
    {"a@b.example, c", "!"},
    {"<@x:>", "!"},
    {"<@x a@b>", "!"},
    {"<:a@b>", "!"},
    {"a%b", "!"},
};

static void collect(const char *in, char *out, size_t room)
{
    struct message_address_list list;
    struct message_mailbox m;
    int r;
    size_t len = 0;
    out[0] = '\0';
    message_address_list_init(&list, span_str(in));
    while ((r = message_address_next(&list, &m)) > 0) {
        assert_true(len + m.address_len + 2 < room);
        if (len > 0) {
            out[len++] = '|';
        }
        memcpy(out + len, m.address, m.address_len + 1);
        len += m.address_len;
        assert_int_equal(m.address[m.address_len - m.domain.len - 1], '@');
    }
    if (r < 0) {
        memcpy(out, "!", 2); /* the field is, whatever came before */
        assert_int_equal(message_address_next(&list, &m), -1);
    }
}

static void test_lists(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        char out[2048];
        collect(lists[i].in, out, sizeof(out));
        if (strcmp(out, lists[i].out) != 0) {
            print_error("%s\n", lists[i].in);
        }
        assert_string_equal(out, lists[i].out);
    }
}

/* What the SMTP engine hands over: no spaces, no comments, no names. */
static const struct {
    const char *in, *out, *local;
} mailboxes[] = {
    {"a@b.example", "a@b.example", "a"},
    {"\"a b\"@c", "\"a b\"@c", "a b"},
    {"\"a\"@c", "a@c", "a"},
    {"a@[192.0.2.1]", "a@[192.0.2.1]", "a"},
    {"", NULL, NULL},
    {"a", NULL, NULL},
    {" a@b", NULL, NULL},
    {"a@b ", NULL, NULL},
    {"a @b", NULL, NULL},
    {"(c)a@b", NULL, NULL},
    {"<a@b>", NULL, NULL},
    {"a@b,c@d", NULL, NULL},
    {"\"a\nb\"@c", NULL, NULL},
};

static void test_mailboxes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(mailboxes) / sizeof(mailboxes[0]); i++) {
        struct message_mailbox m;
        int r = message_mailbox_parse(span_str(mailboxes[i].in), &m);
        assert_int_equal(r, mailboxes[i].out != NULL ? 0 : -1);
        if (r == 0) {
            assert_string_equal(m.address, mailboxes[i].out);
            assert_string_equal(m.local, mailboxes[i].local);
        }
    }
}

/* Everything at its largest, and one more. */
static void test_limits(void **state)
{
    (void)state;
    static char text[2048];
    for (size_t more = 0; more < 2; more++) {
        struct message_mailbox m;
        size_t len = 0;
        text[len++] = '"';
        for (size_t i = 0; i < MESSAGE_LOCAL_MAX + more; i++) {
            text[len++] = '\\';
            text[len++] = '"';
        }
        text[len++] = '"';
        text[len++] = '@';
        memset(text + len, 'd', MESSAGE_DOMAIN_MAX);
        len += MESSAGE_DOMAIN_MAX;
        int r = message_mailbox_parse((struct span){(const uint8_t *)text, len}, &m);
        assert_int_equal(r, more == 0 ? 0 : -1);
        if (more == 0) {
            assert_int_equal(m.address_len, MESSAGE_ADDRESS_MAX);
            text[len++] = 'd';
            assert_int_equal(message_mailbox_parse((struct span){(const uint8_t *)text, len}, &m), -1);
        }
    }
}

static void fill(char *text, size_t size, char c)
{
    memset(text, c, size - 1);
    text[size - 1] = '\0';
}

/* A megabyte of what makes careless parsers quadratic or recurse. */
static void test_time(void **state)
{
    (void)state;
    static const char octets[] = "(),.;:<@\"\\ a[";
    size_t size = 1024UL * 1024UL;
    char *text = malloc(size);
    assert_non_null(text);
    for (const char *c = octets; *c != '\0'; c++) {
        char out[16];
        fill(text, size, *c);
        collect(text, out, sizeof(out));
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_mailboxes),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
