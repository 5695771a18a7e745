/* Buffers, ids, UTF-8 and the log's escaper. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/buf.h"
#include "common/id.h"
#include "common/log.h"
#include "common/radix.h"
#include "common/utf8.h"

static void check_buf_has_a_maximum(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 10);
    assert_int_equal(buf_append(&b, "0123456789", 10), 0);
    assert_int_equal(buf_append_byte(&b, 'x'), -EMSGSIZE);
    assert_int_equal(b.len, 10);
    buf_consume(&b, 4);
    assert_int_equal(buf_append(&b, "abcd", 4), 0);
    assert_int_equal(buf_append(&b, "e", 1), -EMSGSIZE);
    assert_memory_equal(b.data, "456789abcd", 10);
    assert_int_equal(buf_printf(&b, "%s", "too long for it"), -EMSGSIZE);
    buf_fini(&b);
}

static void check_buf_slides(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1U << 20);
    uint8_t next_in = 0, next_out = 0;
    for (int round = 0; round < 2000; round++) {
        for (int i = 0; i < 300; i++) {
            assert_int_equal(buf_append_byte(&b, next_in++), 0);
        }
        for (int i = 0; i < 299; i++) {
            assert_int_equal(b.data[0], next_out++);
            buf_consume(&b, 1);
        }
    }
    assert_true(b.cap <= 16384);
    buf_fini(&b);
}

static void check_ids_go_round(void **state)
{
    (void)state;
    struct id_minter m = {.worker = 3, .counter = (1U << 18) - 2};
    uint64_t last = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t id = id_mint(&m, 1760000000000U + (uint64_t)i), back = 0;
        char text[ID_TEXT_LEN + 1];
        id_format(id, text);
        assert_int_equal(id_parse(text, &back), 0);
        assert_true(back == id && id > last);
        assert_int_equal(id_wall_ms(id), 1760000000000U + (uint64_t)i);
        last = id;
    }
    uint64_t id;
    assert_int_equal(id_parse("zzzzzzzzzzzzz", &id), -EINVAL);
    assert_int_equal(id_parse("0123", &id), -EINVAL);
    assert_int_equal(id_parse("0000000000000u", &id), -EINVAL);
    assert_int_equal(id_parse("000000000000u", &id), -EINVAL);
}

static void check_log_escape(void **state)
{
    (void)state;
    static const struct {
        struct span in;
        const char *out;
    } rows[] = {
        {SPAN_LIT("plain"), "plain"},
        {SPAN_LIT("a\"b\\c"), "a\\\"b\\\\c"},
        {SPAN_LIT("\r\n\x1b[31m"), "\\u000d\\u000a\\u001b[31m"},
        {SPAN_LIT("\x7f\x00x"), "\\u007f\\u0000x"},
        {SPAN_LIT("\xe3\x81\x82"), "\xe3\x81\x82"},
        {SPAN_LIT("\xe3\x81"), "\\u00e3\\u0081"},
        {SPAN_LIT("\xc2\x9b"), "\\u00c2\\u009b"},
        {SPAN_LIT("\xed\xa0\x80"), "\\u00ed\\u00a0\\u0080"},
        {SPAN_LIT("\xc0\x80"), "\\u00c0\\u0080"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct buf b;
        buf_init(&b, 1000);
        assert_int_equal(log_escape(&b, rows[i].in, 1000), 0);
        assert_int_equal(buf_append_byte(&b, 0), 0);
        assert_string_equal((const char *)b.data, rows[i].out);
        buf_fini(&b);
    }
}

/* Records of five octets: two that weigh, the second more than the first, and what says where each came from. */
static void check_radix_sorts_stably(void **state)
{
    (void)state;
    static uint8_t records[1000][5], spare[1000][5];
    const uint8_t key[] = {1, 3};
    uint32_t draw = 25;
    for (size_t round = 0; round < 4; round++) {
        for (size_t i = 0; i < 1000; i++) {
            draw = draw * 1103515245 + 12345;
            records[i][0] = (uint8_t)(i >> 8);
            records[i][2] = (uint8_t)i;
            records[i][1] = (round & 1) != 0 ? 7 : (uint8_t)(draw >> 16);
            records[i][3] = (round & 2) != 0 ? 9 : (uint8_t)(draw >> 24 & 15);
        }
        for (size_t again = 0; again < 2; again++) { /* the second time it is in order */
            radix_sort(records, spare, 1000, 5, key, 2);
            for (size_t i = 1; i < 1000; i++) {
                const uint8_t *a = records[i - 1], *b = records[i];
                unsigned x = a[3] << 8 | a[1], y = b[3] << 8 | b[1];
                assert_true(x < y || (x == y && (a[0] << 8 | a[2]) < (b[0] << 8 | b[2])));
            }
        }
    }
    radix_sort(records, spare, 0, 5, key, 2);
}

static void check_utf8(void **state)
{
    static const struct {
        const char *text;
        bool good;
    } rows[] = {{"", true},
                {"abc", true},
                {"\xc3\xa9", true},
                {"\xe6\x9c\xa8", true},
                {"\xf0\x9f\x98\x80", true},
                {"\xf4\x8f\xbf\xbf", true},
                {"\xf4\x90\x80\x80", false},
                {"\xc0\x80", false},
                {"\xc1\xbf", false},
                {"\xe0\x9f\xbf", false},
                {"\xed\xa0\x80", false},
                {"\xf0\x8f\xbf\xbf", false},
                {"\x80", false},
                {"\xc3", false},
                {"\xe6\x9c", false},
                {"\xf5\x80\x80\x80", false},
                {"a\xff", false}};
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(utf8_valid(span_str(rows[i].text)), rows[i].good);
    }
    uint8_t block[100] = {0};
    for (size_t i = 0; i < sizeof(block); i++) {
        assert_false(utf8_has_8bit((struct span){block, sizeof(block)}));
        block[i] = 0x80;
        assert_true(utf8_has_8bit((struct span){block, sizeof(block)}));
        assert_false(utf8_has_8bit((struct span){block, i}));
        block[i] = 0x7f;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_buf_has_a_maximum),  cmocka_unit_test(check_buf_slides),
        cmocka_unit_test(check_radix_sorts_stably), cmocka_unit_test(check_ids_go_round),
        cmocka_unit_test(check_log_escape),         cmocka_unit_test(check_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
