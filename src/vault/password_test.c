#include "vault/password.h"

#include <errno.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void test_prepare(void **state)
{
    static const struct {
        const char *raw, *text; /* text NULL: refused */
    } rows[] = {
        {"x", "x"},
        {"correct horse", "correct horse"},
        {"I\xc2\xadX", "IX"}, /* RFC 4013 section 3, the examples */
        {"user", "user"},
        {"USER", "USER"},
        {"\xc2\xaa", "a"},
        {"\xe2\x85\xa8", "IX"},
        {"a\xc2\xa0"
         "b",
         "a b"}, /* no-break space */
        {"\xf0\x9f\x90\xb1", "\xf0\x9f\x90\xb1"},
        {"\xe3\x83\x91\xe3\x82\xb9", "\xe3\x83\x91\xe3\x82\xb9"},
        {"\x07", NULL},
        {"\xd8\xa7"
         "1",
         NULL}, /* RFC 4013: bidirectional check */
        {"", NULL},
        {"\xff", NULL},
        {"caf\xe9", NULL},  /* Latin-1 */
        {"\xc2\xad", NULL}, /* nothing is left */
        {"\xed\xa0\x80", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct password p;
        int r = password_prepare(span_str(rows[i].raw), &p);
        assert_int_equal(r, rows[i].text != NULL ? 0 : -EINVAL);
        if (rows[i].text != NULL) {
            assert_string_equal(p.text, rows[i].text);
            assert_int_equal(p.len, strlen(rows[i].text));
        }
    }
    struct password p;
    static uint8_t large[PASSWORD_TEXT_MAX + 1];
    memset(large, 'p', sizeof(large));
    assert_int_equal(password_prepare((struct span){large, PASSWORD_TEXT_MAX}, &p), 0);
    assert_int_equal(password_prepare((struct span){large, sizeof(large)}, &p), -EINVAL);
    assert_int_equal(password_prepare((struct span){(const uint8_t *)"a\0b", 3}, &p), -EINVAL);
    memcpy(large, "\xc2\xaa", 2); /* 1024 octets that must be prepared still fit */
    assert_int_equal(password_prepare((struct span){large, PASSWORD_TEXT_MAX}, &p), 0);
}

static void test_argon(void **state)
{
    struct password right, wrong;
    char hash[PASSWORD_HASH_MAX], again[PASSWORD_HASH_MAX];
    (void)state;
    assert_int_equal(password_prepare(SPAN_LIT("open sesame"), &right), 0);
    assert_int_equal(password_prepare(SPAN_LIT("open sesam"), &wrong), 0);
    assert_int_equal(password_hash(&right, hash), 0);
    assert_int_equal(password_hash(&right, again), 0);
    assert_string_not_equal(hash, again);
    assert_int_equal(strncmp(hash, "$argon2id$v=19$m=19456,t=2,p=1$", 31), 0);
    assert_int_equal(password_verify(hash, &right), 1);
    assert_int_equal(password_verify(hash, &wrong), 0);
    /* In the memory of the check before, in other memory, and of another size. */
    assert_int_equal(password_verify(hash, &right), 1);
    password_rest();
    password_rest();
    assert_int_equal(password_verify(hash, &right), 1);
    assert_int_equal(
        password_verify("$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$AAAAAAAAAAAAAAAAAAAAAA", &right), 0);
    assert_int_equal(password_verify(hash, &right), 1);
    password_rest();
}

/* Made by other programs. */
static void test_imported(void **state)
{
    static const struct {
        const char *hash, *password;
    } rows[] = {
        {"$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1", "secret"},                              /* openssl passwd -1 */
        {"$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5", "Hello world!"}, /* Drepper's test vectors */
        {"$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
         "Hello world!"},
        {"$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/"
         "y3RnOaw5v.",
         "Hello world!"},
        {"$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"}, /* crypt_blowfish */
        {"$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct password p;
        assert_int_equal(password_prepare(span_str(rows[i].password), &p), 0);
        assert_int_equal(password_hash_check(rows[i].hash), 0);
        assert_int_equal(password_verify(rows[i].hash, &p), 1);
        p.text[0] ^= 1;
        assert_int_equal(password_verify(rows[i].hash, &p), 0);
    }
    assert_true(password_hash_is_weak(rows[0].hash));
    assert_false(password_hash_is_weak(rows[1].hash));
}

static void test_check(void **state)
{
    static const struct {
        const char *hash;
        int r;
    } rows[] = {
        {"", -EINVAL},
        {"secret", -EINVAL},
        {"*", -EINVAL},
        {"!$6$saltstring$abc", -EINVAL},
        {"ab0123456789.", -EINVAL}, /* DES */
        {"$argon2i$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$AAAA", -EINVAL},
        {"$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$AAAA", 0},
        {"$argon2id$v=19$m=4194304,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$AAAA", -ERANGE},
        {"$argon2id$v=19$m=19456,t=900,p=1$c2FsdHNhbHRzYWx0c2FsdA$AAAA", -ERANGE},
        {"$argon2id$v=19$m=,t=2,p=1$c2Fsd$AAAA", -EINVAL},
        {"$argon2id$v=19$m=19456,t=2", -EINVAL},
        {"$6$rounds=999999999$saltstring$x", -ERANGE},
        {"$6$rounds=$saltstring$x", -EINVAL},
        {"$2b$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", -ERANGE},
        {"$2b$05$short", -EINVAL},
        {"$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7", 0},
        {"$y$jFT$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7", -ERANGE},
        {"$y$", -EINVAL},
        {"$6$salt:string$x", -EINVAL},
        {"$1$abc def$x", -EINVAL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(password_hash_check(rows[i].hash), rows[i].r);
        struct password p;
        assert_int_equal(password_prepare(SPAN_LIT("x"), &p), 0);
        if (rows[i].r < 0) {
            assert_int_equal(password_verify(rows[i].hash, &p), -EINVAL);
        }
    }
}

static void test_app(void **state)
{
    char text[APP_PASSWORD_LEN + 1], other[APP_PASSWORD_LEN + 1], hash[APP_HASH_LEN], again[APP_HASH_LEN];
    (void)state;
    app_password_make(text);
    app_password_make(other);
    assert_string_not_equal(text, other);
    assert_int_equal(strlen(text), APP_PASSWORD_LEN);
    assert_true(app_password_hash(span_str(text), hash));
    assert_true(app_password_hash(span_str(other), again));
    assert_string_not_equal(hash, again);
    char spaced[64] = "";
    for (size_t i = 0, n = 0; text[i] != '\0'; i++) {
        spaced[n++] = text[i] == '-' ? ' ' : (char)(text[i] >= 'a' && text[i] <= 'z' ? text[i] - 32 : text[i]);
        spaced[n] = '\0';
    }
    assert_true(app_password_hash(span_str(spaced), again));
    assert_string_equal(hash, again);
    text[0] = text[0] == 'a' ? 'b' : 'a';
    assert_true(app_password_hash(span_str(text), again));
    assert_string_not_equal(hash, again);
    assert_false(app_password_hash(SPAN_LIT(""), again));
    assert_false(app_password_hash(SPAN_LIT("aaaaaa-aaaaaa-aaaaaa-aaaaa"), again));
    assert_false(app_password_hash(SPAN_LIT("aaaaaa-aaaaaa-aaaaaa-aaaaaaa"), again));
    assert_false(app_password_hash(SPAN_LIT("aaaaaa-aaaaaa-aaaaaa-aaaaau"), again)); /* u is no letter of it */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prepare), cmocka_unit_test(test_argon), cmocka_unit_test(test_imported),
        cmocka_unit_test(test_check),   cmocka_unit_test(test_app),
    };
    return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
