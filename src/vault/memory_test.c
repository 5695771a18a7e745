/* Each allocation of the vault's tables fails in turn: what cannot be kept is not kept, and nothing else is lost. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/scarce.h"
#include "vault/account.h"
#include "vault/vault_int.h"

#define ENTRIES 1000U /* the table grows several times */

static struct cache_digest digest(const struct cache *c, unsigned i)
{
    struct cache_digest d;
    cache_digest_make(c, span_str("alice"), (struct span){(const uint8_t *)&i, sizeof(i)}, &d);
    return d;
}

static size_t fill_cache(struct cache *c, struct account *a)
{
    struct cache_hit hit;
    size_t kept = 0;
    for (unsigned i = 0; i < ENTRIES; i++) {
        struct cache_digest d = digest(c, i);
        cache_add_right(c, &d, a, i, 1000);
        kept += cache_find(c, &d, 0, &hit) == CACHE_RIGHT && hit.secret == i ? 1 : 0;
    }
    assert_int_equal(cache_count(c), kept);
    return kept;
}

static void test_cache(void **state)
{
    (void)state;
    bool failed = true;
    for (long n = 0; failed; n++) {
        struct cache *c = cache_new(ENTRIES);
        struct account *a = account_new();
        assert_true(c != NULL && a != NULL);
        scarce_countdown = n;
        size_t kept = fill_cache(c, a);
        failed = scarce_countdown < 0;
        scarce_countdown = -1;
        assert_int_equal(kept, failed ? ENTRIES - 1 : ENTRIES);
        assert_int_equal(a->holders, 1 + kept);
        cache_free(&c);
        assert_int_equal(a->holders, 1);
        account_drop(&a);
    }
}

static size_t suspend_many(struct vault *v)
{
    size_t kept = 0;
    for (unsigned i = 0; i < ENTRIES; i++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "user%u", i);
        int r = suspended_set(v, span_str(name), SPAN_LIT("words"));
        assert_true(r == 0 || r == -ENOMEM);
        assert_int_equal(suspended_find(v, name) != NULL, r == 0);
        kept += r == 0 ? 1 : 0;
    }
    return kept;
}

/* Who cannot be noted is told of: the channel ends, and the guard says it again. */
static void test_suspended(void **state)
{
    (void)state;
    bool failed = true;
    for (long n = 0; failed; n++) {
        struct vault v = {0};
        scarce_countdown = n;
        size_t kept = suspend_many(&v);
        failed = scarce_countdown < 0;
        scarce_countdown = -1;
        assert_int_equal(kept, failed ? ENTRIES - 1 : ENTRIES);
        suspended_free(&v);
        assert_null(v.suspended);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cache),
        cmocka_unit_test(test_suspended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
