#include "vault/cache.h"

#include <errno.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "vault/account.h"

static struct account *make(int64_t id)
{
    struct account *a = account_new();
    assert_non_null(a);
    a->id = id;
    return a;
}

static struct cache_digest digest(const struct cache *c, const char *name, const char *password)
{
    struct cache_digest d;
    cache_digest_make(c, span_str(name), span_str(password), &d);
    return d;
}

static void test_life(void **state)
{
    (void)state;
    struct cache *c = cache_new(10);
    struct account *a = make(7);
    struct cache_hit hit;
    struct cache_digest d = digest(c, "alice", "secret"), e = digest(c, "alice", "Secret");
    struct cache_digest moved = digest(c, "alices", "ecret");
    assert_int_equal(cache_find(c, &d, 0, &hit), CACHE_NOTHING);
    cache_add_right(c, &d, a, 3, 1000);
    account_drop(&a); /* the entry holds it */
    assert_int_equal(cache_find(c, &d, 999, &hit), CACHE_RIGHT);
    assert_int_equal(hit.account->id, 7);
    assert_int_equal(hit.secret, 3);
    assert_int_equal(cache_find(c, &e, 0, &hit), CACHE_NOTHING);
    assert_int_equal(cache_find(c, &moved, 0, &hit), CACHE_NOTHING);
    assert_int_equal(cache_find(c, &d, 1000, &hit), CACHE_NOTHING);
    assert_int_equal(cache_find(c, &d, 0, &hit), CACHE_NOTHING); /* gone, not only past */
    cache_add_wrong(c, &e, 500);
    assert_int_equal(cache_find(c, &e, 499, &hit), CACHE_WRONG);
    assert_int_equal(cache_find(c, &e, 500, &hit), CACHE_NOTHING);
    cache_free(&c);
    assert_null(c);
}

static void test_forget(void **state)
{
    (void)state;
    struct cache *c = cache_new(10);
    struct account *a = make(1), *b = make(2);
    struct cache_hit hit;
    struct cache_digest d1 = digest(c, "a", "1"), d2 = digest(c, "a", "2"), d3 = digest(c, "b", "3");
    struct cache_digest d4 = digest(c, "a", "new");
    cache_add_right(c, &d1, a, 1, 1000);
    cache_add_right(c, &d2, a, 2, 1000);
    cache_add_right(c, &d3, b, 3, 1000);
    cache_add_wrong(c, &d4, 1000);
    cache_forget(c, 1);
    assert_int_equal(cache_find(c, &d1, 0, &hit), CACHE_NOTHING);
    assert_int_equal(cache_find(c, &d2, 0, &hit), CACHE_NOTHING);
    assert_int_equal(cache_find(c, &d3, 0, &hit), CACHE_RIGHT);
    assert_int_equal(cache_find(c, &d4, 0, &hit), CACHE_NOTHING); /* may be the new password */
    account_drop(&a);
    account_drop(&b);
    cache_free(&c);
}

static void test_bounded(void **state)
{
    (void)state;
    struct cache *c = cache_new(3);
    struct account *a = make(1);
    struct cache_hit hit;
    struct cache_digest d[5];
    for (size_t i = 0; i < 5; i++) {
        char password[2] = {(char)('0' + i), '\0'};
        d[i] = digest(c, "a", password);
        cache_add_right(c, &d[i], a, 1, 1000);
        cache_add_wrong(c, &d[i], 1000);
    }
    assert_int_equal(cache_count(c), 3);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(cache_find(c, &d[i], 0, &hit), i < 2 ? CACHE_NOTHING : CACHE_RIGHT);
    }
    account_drop(&a);
    cache_free(&c);
    c = cache_new(0);
    a = make(1);
    struct cache_digest one = digest(c, "a", "1");
    cache_add_right(c, &one, a, 1, 1000); /* switched off */
    assert_int_equal(cache_find(c, &one, 0, &hit), CACHE_NOTHING);
    account_drop(&a);
    cache_free(&c);
}

static void test_identities(void **state)
{
    static const struct {
        const char *raw, *normal;
    } rows[] = {
        {"alice@example.net", "alice@example.net"},
        {"Alice@EXAMPLE.net", "Alice@example.net"},
        {"*@Example.net", "*@example.net"},
        {"j\xc3\xb6rg@example.net", "j\xc3\xb6rg@example.net"},
        {"alice", NULL},
        {"@example.net", NULL},
        {"alice@", NULL},
        {"", NULL},
        {"a*@example.net", NULL},
        {"**@example.net", NULL},
        {"*@*", NULL},
        {"a@b@c", NULL},
        {"a b@c", NULL},
        {"a@b\r\n", NULL},
        {"<a@b>", NULL},
        {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@b", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char out[ACCOUNT_IDENTITY_MAX + 1];
        assert_int_equal(account_identity_normalise(span_str(rows[i].raw), out), rows[i].normal != NULL ? 0 : -EINVAL);
        if (rows[i].normal != NULL) {
            assert_string_equal(out, rows[i].normal);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),
        cmocka_unit_test(test_forget),
        cmocka_unit_test(test_bounded),
        cmocka_unit_test(test_identities),
    };
    return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
