#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "smtp/base64.h"
#include "smtp/xtext.h"

static const struct {
    const char *plain, *encoded; /* RFC 4648 section 10 */
} vectors[] = {{"", ""},
               {"f", "Zg=="},
               {"fo", "Zm8="},
               {"foo", "Zm9v"},
               {"foob", "Zm9vYg=="},
               {"fooba", "Zm9vYmE="},
               {"foobar", "Zm9vYmFy"}};

static void there_and_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        char encoded[16];
        uint8_t decoded[16];
        size_t len;
        size_t n = base64_encode(span_str(vectors[i].plain), encoded);
        assert_int_equal(n, strlen(vectors[i].encoded));
        assert_memory_equal(encoded, vectors[i].encoded, n);
        assert_int_equal(base64_decode(span_str(vectors[i].encoded), decoded, sizeof(decoded), &len), 0);
        assert_int_equal(len, strlen(vectors[i].plain));
        assert_memory_equal(decoded, vectors[i].plain, len);
    }
}

static void strict(void **state)
{
    static const char *const bad[] = {
        "Z",        "Zg",    "Zg=",   "Z===",   "====", "Zh==",     "Zm9=", "Zm9v=", "Zm9v====",
        "Zg==Zg==", "Zg= =", " Zg==", "Zg==\n", "Zm-_", "Zm9v\r\n", "=Zg=", "Zg=g"};
    uint8_t out[16];
    size_t len;
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (base64_decode(span_str(bad[i]), out, sizeof(out), &len) != -EINVAL) {
            fail_msg("'%s' was taken", bad[i]);
        }
    }
    assert_int_equal(base64_decode(SPAN_LIT("Zm9v"), out, 2, &len), -EMSGSIZE);
    assert_int_equal(base64_decode(SPAN_LIT("Zm9v"), out, 3, &len), 0);
}

static void xtext(void **state)
{
    static const char *const bad[] = {"a b",    "a=b", "+",   "+4",   "+4g",     "+00",
                                      "+0D+0A", "+7F", "+2b", "\x01", "\xc3\xa9"};
    struct buf out;
    (void)state;
    buf_init(&out, 64);
    assert_int_equal(smtp_xtext_decode(SPAN_LIT("a+2Bb+3Dc"), &out), 0);
    assert_true(span_eq(buf_span(&out), SPAN_LIT("a+b=c")));
    buf_fini(&out);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(smtp_xtext_decode(span_str(bad[i]), NULL), -EINVAL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(strict),
        cmocka_unit_test(xtext),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
