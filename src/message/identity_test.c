#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "message/identity.h"

static const struct {
    const char *mailbox, *pattern;
    bool plus, match;
} rows[] = {
    {"user@example.net", "user@example.net", false, true},
    {"USER@Example.NET", "user@example.net", false, true},
    {"user@example.net", "User@EXAMPLE.net", false, true},
    {"user2@example.net", "user@example.net", false, false},
    {"use@example.net", "user@example.net", false, false},
    {"user@example.net", "user@example.org", false, false},
    {"user@sub.example.net", "user@example.net", false, false},
    {"user@xexample.net", "user@example.net", false, false},
    {"\"user\"@example.net", "user@example.net", false, true},
    {"\"us er\"@example.net", "\"us er\"@example.net", false, true},
    {"\"user@example.net\"@evil.example", "user@example.net", false, false},
    {"user@example.net@evil.example", "user@example.net", false, false},

    {"any@example.net", "@example.net", false, true},
    {"any@example.net", "*@example.net", false, true},
    {"any@EXAMPLE.net", "*@example.NET", false, true},
    {"any@sub.example.net", "@example.net", false, false},
    {"any@notexample.net", "@example.net", false, false},
    {"\"\"@example.net", "@example.net", false, true},
    {"user@example.net", "\"\"@example.net", false, false},
    {"user@example.net", "*", false, false},
    {"user@example.net", "@", false, false},
    {"user@example.net", "*@", false, false},
    {"user@example.net", "", false, false},
    {"user@example.net", "**@example.net", false, false},
    {"user@example.net", "us*@example.net", false, false},
    {"user@example.net", "@example.net, @b", false, false},

    {"user+tag@example.net", "user@example.net", true, true},
    {"user+tag@example.net", "user@example.net", false, false},
    {"USER+tag+more@example.net", "user@example.net", true, true},
    {"user+@example.net", "user@example.net", true, true},
    {"+tag@example.net", "user@example.net", true, false},
    {"+tag@example.net", "\"\"@example.net", true, true},
    {"users+tag@example.net", "user@example.net", true, false},
    {"user+a@example.net", "user+a@example.net", false, true},
    {"user@example.net", "user+a@example.net", true, false},
    {"user+a+b@example.net", "user+a@example.net", true, false},
    {"user+a@example.org", "user@example.net", true, false},

    {"a@m\xc3\xbcller.example", "a@xn--mller-kva.example", false, true},
    {"a@xn--mller-kva.example", "a@m\xc3\xbcller.example", false, true},
    {"a@XN--MLLER-KVA.example", "@m\xc3\xbcller.example", false, true},
    {"a@M\xc3\x9cLLER.example", "a@xn--mller-kva.example", false, true},
    {"a@mu\xcc\x88ller.example", "a@m\xc3\xbcller.example", false, true}, /* NFD */
    {"a@fu\xc3\x9f.example", "a@fuss.example", false, false},             /* non-transitional */
    {"a@\xe6\x9c\xa8\xe6\x88\xb8\xe7\x95\xaa.example", "@xn--0ouu3i5so.example", false, true},
    {"\xe6\x9c\xa8@example.net", "\xe6\x9c\xa8@example.net", false, true},
    {"u\xcc\x88@example.net", "\xc3\xbc@example.net", false, true},
    {"\xc3\xbc@example.net", "u@example.net", false, false},
    {"\xd0\xb0@example.net", "a@example.net", false, false}, /* Cyrillic */
    {"a@ex\xd0\xb0mple.net", "a@example.net", false, false},
    {"a@\xff.example", "@example.net", false, false},
    {"", "@example.net", false, false},
    {"user", "@example.net", false, false},
    {"a@[192.0.2.1]", "a@[192.0.2.1]", false, true},
};

static void test_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        bool match = message_identity_matches(span_str(rows[i].mailbox), span_str(rows[i].pattern), rows[i].plus);
        if (match != rows[i].match) {
            print_error("%s %s\n", rows[i].mailbox, rows[i].pattern);
        }
        assert_int_equal(match, rows[i].match);
    }
}

static void test_any(void **state)
{
    (void)state;
    const struct span patterns[] = {SPAN_LIT("broken"), SPAN_LIT("a@example.net"), SPAN_LIT("@example.org")};
    assert_true(message_identity_matches_any(SPAN_LIT("x@example.org"), patterns, 3, false));
    assert_false(message_identity_matches_any(SPAN_LIT("x@example.org"), patterns, 2, false));
    assert_false(message_identity_matches_any(SPAN_LIT("x@example.org"), NULL, 0, false));
}

static void test_valid(void **state)
{
    (void)state;
    static const char *const good[] = {"a@b", "@b.example", "*@b.example", "a+b@c", "a@m\xc3\xbcller.example"};
    static const char *const bad[] = {"", "a", "@", "*@", "*", "a@b c", "a@b,c@d", "@b..c", "A <a@b>", "a@\xc3.x"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_true(message_identity_valid(span_str(good[i])));
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(message_identity_valid(span_str(bad[i])));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_any),
                                       cmocka_unit_test(test_valid)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
