#include "vault/scram.h"

#include <openssl/evp.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static size_t unbase64(const char *text, uint8_t out[static 64])
{
    size_t len = 0;
    assert_int_equal(sodium_base642bin(out, 64, text, strlen(text), NULL, &len, NULL, sodium_base64_VARIANT_ORIGINAL),
                     0);
    return len;
}

/* RFC 5802 section 5, RFC 7677 section 3. */
static const struct vector {
    enum scram_hash hash;
    const char *salt, *auth_message, *proof, *signature;
} vectors[] = {
    {SCRAM_SHA1, "QSXCR+Q6sek8bf92",
     "n=user,r=fyko+d2lbbFgONRv9qkxdawL,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096,c=biws,"
     "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j",
     "v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", "rmF9pqV8S7suAoZWja4dJRkFsKQ="},
    {SCRAM_SHA256, "W22ZaJ0SNY7soEsUEjb6gQ==",
     "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,"
     "i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
     "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="},
};

static void test_vectors(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        const struct vector *v = &vectors[i];
        uint8_t salt[64], proof[64], signature[64], made[SCRAM_KEY_MAX];
        size_t salt_len = unbase64(v->salt, salt), len = unbase64(v->proof, proof);
        assert_int_equal(unbase64(v->signature, signature), len);
        assert_int_equal(len, scram_key_len(v->hash));
        struct scram_keys keys;
        assert_int_equal(scram_derive(v->hash, SPAN_LIT("pencil"), (struct span){salt, salt_len}, 4096, &keys), 0);
        struct span message = span_str(v->auth_message);
        assert_int_equal(scram_check(v->hash, &keys, message, (struct span){proof, len}, made), 1);
        assert_memory_equal(made, signature, len);
        /* Every flipped bit, every other length, every other message. */
        for (size_t bit = 0; bit < len * 8; bit++) {
            proof[bit / 8] ^= (uint8_t)(1U << bit % 8);
            assert_int_equal(scram_check(v->hash, &keys, message, (struct span){proof, len}, made), 0);
            assert_true(sodium_is_zero(made, sizeof(made)));
            proof[bit / 8] ^= (uint8_t)(1U << bit % 8);
        }
        assert_int_equal(scram_check(v->hash, &keys, message, (struct span){proof, len - 1}, made), 0);
        assert_int_equal(scram_check(v->hash, &keys, message, (struct span){proof, 0}, made), 0);
        message.len--;
        assert_int_equal(scram_check(v->hash, &keys, message, (struct span){proof, len}, made), 0);
    }
}

static void test_wrong_password(void **state)
{
    (void)state;
    struct scram_keys a, b;
    assert_int_equal(scram_derive(SCRAM_SHA256, SPAN_LIT("pencil"), SPAN_LIT("salt"), 4096, &a), 0);
    assert_int_equal(scram_derive(SCRAM_SHA256, SPAN_LIT("pencils"), SPAN_LIT("salt"), 4096, &b), 0);
    assert_memory_not_equal(&a, &b, sizeof(a));
}

static void test_false(void **state)
{
    (void)state;
    uint8_t key[32] = {7}, other[32] = {8}, a[SCRAM_SALT_LEN], b[SCRAM_SALT_LEN];
    scram_false_salt(key, SPAN_LIT("nobody"), a);
    scram_false_salt(key, SPAN_LIT("nobody"), b);
    assert_memory_equal(a, b, sizeof(a));
    scram_false_salt(key, SPAN_LIT("nobody2"), b);
    assert_memory_not_equal(a, b, sizeof(a));
    scram_false_salt(other, SPAN_LIT("nobody"), b);
    assert_memory_not_equal(a, b, sizeof(a));
    struct scram_keys k, l;
    scram_false_keys(key, SPAN_LIT("nobody"), &k);
    scram_false_keys(key, SPAN_LIT(""), &l);
    assert_memory_not_equal(&k, &l, sizeof(k));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_wrong_password),
        cmocka_unit_test(test_false),
    };
    return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
