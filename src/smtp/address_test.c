#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "smtp/address.h"

#define X8(s) s s s s s s s s
#define X64   X8("xxxxxxxx")
#define ALL   (SMTP_PATH_NULL | SMTP_PATH_POSTMASTER | SMTP_PATH_UTF8)
#define LABEL "abcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabc" /* 63 */

static const struct {
    const char *text;
    unsigned flags;
    enum smtp_path_error error;
    const char *local, *domain;
    enum smtp_domain_kind kind;
} rows[] = {
    {"<a@b>", 0, SMTP_PATH_OK, "a", "b", SMTP_DOMAIN_NAME},
    {"<a.b+c!#$%&'*-/=?^_`{|}~@b-c.d.example>", 0, SMTP_PATH_OK, "a.b+c!#$%&'*-/=?^_`{|}~", "b-c.d.example",
     SMTP_DOMAIN_NAME},
    {"<\"a b\"@c>", 0, SMTP_PATH_OK, "\"a b\"", "c", SMTP_DOMAIN_NAME},
    {"<\"a\\\"b\\\\c>@\"@c>", 0, SMTP_PATH_OK, "\"a\\\"b\\\\c>@\"", "c", SMTP_DOMAIN_NAME},
    {"<\"\"@c>", 0, SMTP_PATH_OK, "\"\"", "c", SMTP_DOMAIN_NAME},
    {"<a@[192.0.2.1]>", 0, SMTP_PATH_OK, "a", "[192.0.2.1]", SMTP_DOMAIN_IPV4},
    {"<a@[IPv6:2001:db8::1]>", 0, SMTP_PATH_OK, "a", "[IPv6:2001:db8::1]", SMTP_DOMAIN_IPV6},
    {"<a@[ipv6:::ffff:192.0.2.1]>", 0, SMTP_PATH_OK, "a", "[ipv6:::ffff:192.0.2.1]", SMTP_DOMAIN_IPV6},
    {"<a@[x-tag:any:thing]>", 0, SMTP_PATH_OK, "a", "[x-tag:any:thing]", SMTP_DOMAIN_GENERAL},
    {"<a@1.2.3.4>", 0, SMTP_PATH_OK, "a", "1.2.3.4", SMTP_DOMAIN_NAME},
    {"<@x:a@b>", 0, SMTP_PATH_OK, "a", "b", SMTP_DOMAIN_NAME},
    {"<@x,@[192.0.2.1],@z:a@b>", 0, SMTP_PATH_OK, "a", "b", SMTP_DOMAIN_NAME},
    {"<>", ALL, SMTP_PATH_OK, "", "", SMTP_DOMAIN_NONE},
    {"<>", 0, SMTP_PATH_NULL_REFUSED, NULL, NULL, 0},
    {"<Postmaster>", ALL, SMTP_PATH_OK, "Postmaster", "", SMTP_DOMAIN_NONE},
    {"<postmaster>", 0, SMTP_PATH_DOMAIN, NULL, NULL, 0},
    {"<other>", ALL, SMTP_PATH_DOMAIN, NULL, NULL, 0},
    {"<" X64 "@b>", 0, SMTP_PATH_OK, X64, "b", SMTP_DOMAIN_NAME},
    {"<" X64 "x@b>", 0, SMTP_PATH_LONG, NULL, NULL, 0},
    {"<a@" LABEL ".example>", 0, SMTP_PATH_OK, "a", LABEL ".example", SMTP_DOMAIN_NAME},
    {"<a@" LABEL "d.example>", 0, SMTP_PATH_DOMAIN, NULL, NULL, 0},
    {"<a@" LABEL "." LABEL "." LABEL ".abcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghij>", 0, SMTP_PATH_OK,
     "a", LABEL "." LABEL "." LABEL ".abcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghij", SMTP_DOMAIN_NAME},
    {"<a@" LABEL "." LABEL "." LABEL "." LABEL ">", 0, SMTP_PATH_LONG, NULL, NULL, 0},
    {"<a@" LABEL "." LABEL "." LABEL "." LABEL ".example>", 0, SMTP_PATH_LONG, NULL, NULL, 0},
    {"<\xc3\xa9@b\xc3\xbc.example>", ALL, SMTP_PATH_OK, "\xc3\xa9", "b\xc3\xbc.example", SMTP_DOMAIN_NAME},
    {"<\"\xc3\xa9\"@b>", ALL, SMTP_PATH_OK, "\"\xc3\xa9\"", "b", SMTP_DOMAIN_NAME},
    {"<\xc3\xa9@b>", 0, SMTP_PATH_NEEDS_UTF8, NULL, NULL, 0},
    {"<a@b\xc3\xbc>", 0, SMTP_PATH_NEEDS_UTF8, NULL, NULL, 0},
    {"<\xff@b>", ALL, SMTP_PATH_INVALID_UTF8, NULL, NULL, 0},
    {"<\xc3@b>", ALL, SMTP_PATH_INVALID_UTF8, NULL, NULL, 0},
    {"a@b", 0, SMTP_PATH_NO_BRACKETS, NULL, NULL, 0},
    {"", 0, SMTP_PATH_NO_BRACKETS, NULL, NULL, 0},
    {"<", 0, SMTP_PATH_LOCAL, NULL, NULL, 0},
    {"<a", 0, SMTP_PATH_DOMAIN, NULL, NULL, 0},
    {"<a@", 0, SMTP_PATH_DOMAIN, NULL, NULL, 0},
    {"<a@b", 0, SMTP_PATH_DOMAIN, NULL, NULL, 0},
    {"<a@>", 0, SMTP_PATH_DOMAIN, NULL, NULL, 0},
    {"<@b>", 0, SMTP_PATH_SYNTAX, NULL, NULL, 0},
    {"<@b:>", 0, SMTP_PATH_LOCAL, NULL, NULL, 0},
    {"<@b,c@d>", 0, SMTP_PATH_SYNTAX, NULL, NULL, 0},
    {"<@b,@:c@d>", 0, SMTP_PATH_SYNTAX, NULL, NULL, 0},
    {"<a@b@c>", 0, SMTP_PATH_DOMAIN, NULL, NULL, 0},
    {"<a b@c>", 0, SMTP_PATH_LOCAL, NULL, NULL, 0},
    {"<.a@b>", 0, SMTP_PATH_LOCAL, NULL, NULL, 0},
    {"<a.@b>", 0, SMTP_PATH_LOCAL, NULL, NULL, 0},
    {"<a..b@c>", 0, SMTP_PATH_LOCAL, NULL, NULL, 0},
    {"<a@.b>", 0, SMTP_PATH_DOMAIN, NULL, NULL, 0},
    {"<a@b.>", 0, SMTP_PATH_DOMAIN, NULL, NULL, 0},
    {"<a@b..c>", 0, SMTP_PATH_DOMAIN, NULL, NULL, 0},
    {"<a@-b>", 0, SMTP_PATH_DOMAIN, NULL, NULL, 0},
    {"<a@b->", 0, SMTP_PATH_DOMAIN, NULL, NULL, 0},
    {"<a@b_c>", 0, SMTP_PATH_DOMAIN, NULL, NULL, 0},
    {"<a@b c>", 0, SMTP_PATH_DOMAIN, NULL, NULL, 0},
    {"<a@[192.0.2.1>", 0, SMTP_PATH_DOMAIN, NULL, NULL, 0},
    {"<a@[192.0.2]>", 0, SMTP_PATH_DOMAIN, NULL, NULL, 0},
    {"<a@[192.0.2.256]>", 0, SMTP_PATH_DOMAIN, NULL, NULL, 0},
    {"<a@[2001:db8::1]>", 0, SMTP_PATH_OK, "a", "[2001:db8::1]", SMTP_DOMAIN_GENERAL},
    {"<a@[IPv6:1:2]>", 0, SMTP_PATH_DOMAIN, NULL, NULL, 0},
    {"<a@[]>", 0, SMTP_PATH_DOMAIN, NULL, NULL, 0},
    {"<a@[x-:y]>", 0, SMTP_PATH_DOMAIN, NULL, NULL, 0},
    {"<a@[x:]>", 0, SMTP_PATH_DOMAIN, NULL, NULL, 0},
    {"<\"a@b>", 0, SMTP_PATH_LOCAL, NULL, NULL, 0},
    {"<\"a\"b@c>", 0, SMTP_PATH_LOCAL, NULL, NULL, 0},
    {"<\"a\x01\"@c>", 0, SMTP_PATH_LOCAL, NULL, NULL, 0},
    {"<\"a\\", 0, SMTP_PATH_LOCAL, NULL, NULL, 0},
    {"<;ls@>", 0, SMTP_PATH_LOCAL, NULL, NULL, 0},
    {"<(c)a@b>", 0, SMTP_PATH_LOCAL, NULL, NULL, 0},
};

static void paths(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct smtp_path p;
        size_t used = 0;
        enum smtp_path_error error = smtp_path_parse(span_str(rows[i].text), rows[i].flags, &p, &used);
        if (error != rows[i].error) {
            fail_msg("%s: error %d", rows[i].text, error);
        }
        if (error != SMTP_PATH_OK) {
            continue;
        }
        assert_int_equal(used, strlen(rows[i].text));
        assert_true(span_eq(p.local, span_str(rows[i].local)));
        assert_true(span_eq(p.domain, span_str(rows[i].domain)));
        assert_int_equal(p.kind, rows[i].kind);
        assert_int_equal(p.null, rows[i].local[0] == '\0');
        if (!p.null && p.kind != SMTP_DOMAIN_NONE) {
            struct smtp_path again;
            assert_int_equal(smtp_mailbox_parse(p.mailbox, rows[i].flags, &again), SMTP_PATH_OK);
            assert_true(span_eq(again.mailbox, p.mailbox));
            assert_int_equal(smtp_domain_parse(p.domain, (rows[i].flags & SMTP_PATH_UTF8) != 0), p.kind);
        }
    }
}

static void path_ends_where_it_ends(void **state)
{
    struct smtp_path p;
    size_t used;
    (void)state;
    assert_int_equal(smtp_path_parse(SPAN_LIT("<a@b> SIZE=1"), 0, &p, &used), SMTP_PATH_OK);
    assert_int_equal(used, 5);
}

static void path_of_256(void **state)
{
    char text[300];
    struct smtp_path p;
    size_t used;
    (void)state;
    for (size_t local = 1; local <= 64; local++) {
        int n = snprintf(text, sizeof(text), "<%.*s@%s.%s.%s>", (int)local, X64, LABEL, LABEL, LABEL);
        enum smtp_path_error error = smtp_path_parse((struct span){(uint8_t *)text, (size_t)n}, 0, &p, &used);
        assert_int_equal(error, n <= SMTP_PATH_MAX ? SMTP_PATH_OK : SMTP_PATH_LONG);
    }
}

static void whole_only(void **state)
{
    static const char *const bad[] = {"", "a", "a@", "@b", "a@b ", " a@b", "<a@b>", "a@b>", "a@b,c@d", "postmaster"};
    struct smtp_path p;
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_not_equal(smtp_mailbox_parse(span_str(bad[i]), ALL, &p), SMTP_PATH_OK);
    }
    assert_int_equal(smtp_domain_parse(SPAN_LIT("a b"), true), SMTP_DOMAIN_NONE);
    assert_int_equal(smtp_domain_parse(SPAN_LIT(""), true), SMTP_DOMAIN_NONE);
    assert_int_equal(smtp_domain_parse(SPAN_LIT("b\xc3\xbc"), false), SMTP_DOMAIN_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths),
        cmocka_unit_test(path_ends_where_it_ends),
        cmocka_unit_test(path_of_256),
        cmocka_unit_test(whole_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
