#include "common/account_name.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void test_names(void **state)
{
    static const struct {
        const char *raw, *name; /* name NULL: refused */
    } rows[] = {
        {"alice", "alice"},
        {"Alice@Example.NE.JP", "alice@example.ne.jp"},
        {"a", "a"},
        {"J\xc3\x96RG", "j\xc3\xb6rg"},
        {"jo\xcc\x88rg", "j\xc3\xb6rg"},                          /* decomposed */
        {"\xef\xbd\x81lice", "alice"},                            /* full width a */
        {"\xe6\x9c\xa8\xe6\x88\xb8", "\xe6\x9c\xa8\xe6\x88\xb8"}, /* kanji */
        {"al\xc2\xadice", "alice"},                               /* soft hyphen: mapped to nothing */
        {"\xf0\x9f\x90\xb1"
         "cat",
         "\xf0\x9f\x90\xb1"
         "cat"}, /* newer than Unicode 3.2 */
        {"", NULL},
        {"a b", NULL},
        {"a\xc2\xa0"
         "b",
         NULL}, /* no-break space becomes a space */
        {"a\tb", NULL},
        {"a\x7f", NULL},
        {"*", NULL},
        {"a<b>", NULL},
        {"a\"b", NULL},
        {"a\\b", NULL},
        {"\xff\xfe", NULL},
        {"\xc0\x80", NULL},     /* overlong NUL */
        {"\xed\xa0\x80", NULL}, /* surrogate */
        {"\xe2\x80\xae"
         "x",
         NULL}, /* right-to-left override */
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char name[ACCOUNT_NAME_MAX + 1];
        int r = account_name_normalise(span_str(rows[i].raw), name);
        assert_int_equal(r, rows[i].name != NULL ? 0 : -EINVAL);
        if (rows[i].name != NULL) {
            assert_string_equal(name, rows[i].name);
        }
    }
}

static void test_lengths(void **state)
{
    char raw[300], name[ACCOUNT_NAME_MAX + 1];
    (void)state;
    memset(raw, 'A', sizeof(raw));
    assert_int_equal(account_name_normalise((struct span){(uint8_t *)raw, 255}, name), 0);
    assert_int_equal(strlen(name), 255);
    assert_int_equal(account_name_normalise((struct span){(uint8_t *)raw, 256}, name), -EINVAL);
    assert_int_equal(account_name_normalise((struct span){(const uint8_t *)"a\0b", 3}, name), -EINVAL);
    /* What grows when it is folded (sharp s) does not fit any more: refused, not cut. */
    for (size_t i = 0; i + 1 < 254; i += 2) {
        memcpy(raw + i, "\xc3\x9f", 2);
    }
    memcpy(raw + 252, "\xef\xac\x83", 3); /* ffi ligature */
    assert_int_equal(account_name_normalise((struct span){(uint8_t *)raw, 255}, name), 0);
    assert_int_equal(strlen(name), 255);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_lengths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
