#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "smtp/reply.h"
#include "smtp/server_fake.h"

static void classes_agree(void **state)
{
    (void)state;
    for (unsigned r = REPLY_NONE + 1; r < REPLY_COUNT; r++) {
        const struct reply_words *w = reply_words((enum reply)r);
        assert_non_null(w->text);
        assert_in_range(w->code, 200, 599);
        if (w->code / 100 == 3) {
            assert_int_equal(w->enhanced[0], 0);
        } else {
            assert_int_equal(w->enhanced[0], w->code / 100);
        }
        assert_true(!w->help || w->code >= 400);
    }
}

static void long_words_are_folded(void **state)
{
    static const uint8_t enhanced[3] = {5, 7, 1};
    const struct reply_tail tail = {"https://help.example.net/a/rather/long/path", UINT64_MAX};
    char text[4000];
    (void)state;
    for (size_t len = 0; len < sizeof(text); len += 37) {
        for (unsigned spaced = 0; spaced < 2; spaced++) {
            struct buf out;
            memset(text, 'x', sizeof(text));
            for (size_t i = 9; spaced && i < sizeof(text); i += 10) {
                text[i] = ' ';
            }
            buf_init(&out, 4096);
            assert_int_equal(reply_append(&out, 550, enhanced, (struct span){(uint8_t *)text, len}, &tail), 0);
            assert_true(fake_replies_well_formed(buf_span(&out)));
            buf_append_byte(&out, 0);
            assert_non_null(strstr((char *)out.data, "(fzzzzzzzzzzzz)\r\n"));
            assert_null(strstr((char *)out.data, "550-5.7.1 \r\n"));
            buf_fini(&out);
        }
    }
}

static void all_or_nothing(void **state)
{
    static const uint8_t enhanced[3] = {2, 0, 0};
    struct buf out;
    (void)state;
    buf_init(&out, 14);
    assert_int_equal(reply_append(&out, 250, enhanced, SPAN_LIT("OK"), NULL), 0);
    assert_int_equal(out.len, 14);
    assert_true(reply_append(&out, 250, enhanced, SPAN_LIT("OK"), NULL) < 0);
    assert_memory_equal(out.data, "250 2.0.0 OK\r\n", 14);
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(classes_agree),
        cmocka_unit_test(long_words_are_folded),
        cmocka_unit_test(all_or_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
