#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "message/header.h"

/* Octets with their length, so that a row may hold a NUL. */
#define OCTETS(s)                                                                                                      \
    {                                                                                                                  \
        (const uint8_t *)(s), sizeof(s) - 1                                                                            \
    }

/* One field at the start: what message_header_next() says, the name, the value, and what is left. */
static const struct {
    struct span in;
    int r;
    const char *name, *value, *rest;
} fields[] = {
    {OCTETS(""), 0, "", "", ""},
    {OCTETS("\r\n"), 0, "", "", ""},
    {OCTETS("\r\nbody"), 0, "", "", "body"},
    {OCTETS("A: b\r\n"), 1, "A", " b", ""},
    {OCTETS("A:b\r\nC: d\r\n"), 1, "A", "b", "C: d\r\n"},
    {OCTETS("A:\r\n"), 1, "A", "", ""},
    {OCTETS("A : b\r\n"), 1, "A", " b", ""},
    {OCTETS("A \t:b\r\n"), 1, "A", "b", ""},
    {OCTETS("A: b\r\n c\r\n\td\r\nE: f\r\n"), 1, "A", " b\r\n c\r\n\td", "E: f\r\n"},
    {OCTETS("A: b\r\n \r\n c\r\n\r\n"), 1, "A", " b\r\n \r\n c", "\r\n"},
    {OCTETS("A: b:c\r\n"), 1, "A", " b:c", ""},
    {OCTETS("A!~: b\r\n"), 1, "A!~", " b", ""},
    {OCTETS("A: \xc3\xa4\r\n"), 1, "A", " \xc3\xa4", ""},
    {OCTETS("no colon\r\nA: b\r\n"), -1, "", "", "A: b\r\n"},
    {OCTETS("no\r\n"), -1, "", "", ""},
    {OCTETS(": b\r\n"), -1, "", "", ""},
    {OCTETS(" : b\r\n"), -1, "", "", ""},
    {OCTETS(" b\r\nA: b\r\n"), -1, "", "", "A: b\r\n"},
    {OCTETS("A B: b\r\n"), -1, "", "", ""},
    {OCTETS("\xc3\xa4: b\r\n"), -1, "", "", ""},
    {OCTETS("A: b"), -1, "", "", ""},
    {OCTETS("A: b\r"), -1, "", "", ""},
    {OCTETS("A: b\nC: d\r\n"), -1, "", "", "C: d\r\n"},
    {OCTETS("A: b\rC: d\r\n"), -1, "", "", ""},
    {OCTETS("A: b\r\r\n"), -1, "", "", ""},
    {OCTETS("A: b\0\r\n"), -1, "", "", ""},
    {OCTETS("A: b\r\n c\nd\r\n"), -1, "", "", "d\r\n"},
    {OCTETS("\n"), -1, "", "", ""},
    {OCTETS("\r"), -1, "", "", ""},
    {OCTETS("\r\r\n"), -1, "", "", ""},
    {OCTETS("From user@example.net Tue Nov 24\r\n"), -1, "", "", ""},
    {OCTETS(">From: x\r\n"), 1, ">From", " x", ""},
};

static void assert_span(struct span s, const char *want)
{
    assert_int_equal(s.len, strlen(want));
    if (s.len > 0) {
        assert_memory_equal(s.ptr, want, s.len);
    }
}

static void test_next(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        struct span rest = fields[i].in;
        struct message_field f;
        assert_int_equal(message_header_next(&rest, &f), fields[i].r);
        assert_span(f.name, fields[i].name);
        assert_span(f.value, fields[i].value);
        assert_span(rest, fields[i].rest);
        if (fields[i].r != 0) {
            assert_int_equal(f.whole.len + rest.len, fields[i].in.len);
        }
    }
}

static const struct {
    const char *in;
    size_t len;
} lengths[] = {
    {"", 0},
    {"\r", 0},
    {"\r\n", 2},
    {"\r\nx", 2},
    {"A: b\r\n\r\nbody", 8},
    {"A: b\r\n", 0},
    {"A: b", 0},
    {"A: b\r\n\r\n\r\n", 8},
};

static void test_length(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        assert_int_equal(message_header_length(span_str(lengths[i].in)), lengths[i].len);
    }
}

static void test_scan(void **state)
{
    (void)state;
    struct message_header h;
    message_header_scan(SPAN_LIT("FROM: a\r\nfrom: b\r\nReceived: x\r\nreceived: y\r\nBcc: c\r\n d\r\nX: y\r\nodd\r\n"
                                 "odder\r\nMessage-Id: <i>\r\n\r\nFrom: body\r\n"),
                        &h);
    assert_int_equal(h.fields, 9);
    assert_int_equal(h.malformed, 2);
    assert_span(h.malformed_first, "odd\r\n");
    assert_int_equal(h.count[MESSAGE_FIELD_FROM], 2);
    assert_span(h.first[MESSAGE_FIELD_FROM].value, " a");
    assert_int_equal(h.count[MESSAGE_FIELD_RECEIVED], 2);
    assert_int_equal(h.count[MESSAGE_FIELD_BCC], 1);
    assert_span(h.first[MESSAGE_FIELD_BCC].whole, "Bcc: c\r\n d\r\n");
    assert_int_equal(h.count[MESSAGE_FIELD_MESSAGE_ID], 1);
    assert_int_equal(h.count[MESSAGE_FIELD_DATE], 0);
    assert_false(h.has_8bit || h.invalid_utf8 || h.too_large);
    assert_int_equal(h.fields_len, strlen("FROM: a\r\nfrom: b\r\nReceived: x\r\nreceived: y\r\nBcc: c\r\n d\r\nX: y\r\n"
                                          "odd\r\nodder\r\nMessage-Id: <i>\r\n"));
}

static void test_scan_8bit(void **state)
{
    (void)state;
    struct message_header h;
    message_header_scan(SPAN_LIT("A: \xc3\xa4\r\n\r\n"), &h);
    assert_true(h.has_8bit && !h.invalid_utf8);
    message_header_scan(SPAN_LIT("A: \xe4\r\n\r\n"), &h);
    assert_true(h.has_8bit && h.invalid_utf8);
    message_header_scan(SPAN_LIT("A: b\r\n\r\n\xe4"), &h);
    assert_false(h.has_8bit);
}

static void test_scan_large(void **state)
{
    (void)state;
    static uint8_t octets[MESSAGE_HEADER_MAX + 1];
    for (size_t i = 0; i + 4 <= sizeof(octets); i += 4) {
        memcpy(octets + i, "A:\r\n", 4);
    }
    struct message_header h;
    message_header_scan((struct span){octets, sizeof(octets)}, &h);
    assert_true(h.too_large);
    message_header_scan((struct span){octets, 4UL * (MESSAGE_HEADER_FIELD_MAX + 1)}, &h);
    assert_true(h.too_large);
    message_header_scan((struct span){octets, 4UL * MESSAGE_HEADER_FIELD_MAX}, &h);
    assert_false(h.too_large);
    assert_int_equal(h.fields, MESSAGE_HEADER_FIELD_MAX);
}

static const struct {
    const char *in, *text;
    size_t room;
} texts[] = {
    {" a\r\n b ", "a b", 100},     {"", "", 1},    {"abc", "", 1},          {"abc", "ab", 3},
    {" a\tb\x01\xc3", "a b??", 9}, {"   ", "", 9}, {"a \r\n \r\n", "a", 9},
};

static void test_text(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        char text[100];
        assert_int_equal(message_field_text(span_str(texts[i].in), text, texts[i].room), strlen(texts[i].text));
        assert_string_equal(text, texts[i].text);
    }
}

static void test_message_id(void **state)
{
    (void)state;
    assert_span(message_field_message_id(SPAN_LIT(" <a@b>")), "a@b");
    assert_span(message_field_message_id(SPAN_LIT(" (c) <a@b> <d>")), "a@b");
    assert_span(message_field_message_id(SPAN_LIT(" a@b")), "");
    assert_span(message_field_message_id(SPAN_LIT("<a@b")), "");
    assert_span(message_field_message_id(SPAN_LIT("<")), "");
    assert_span(message_field_message_id(SPAN_LIT("")), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_next),       cmocka_unit_test(test_length),     cmocka_unit_test(test_scan),
        cmocka_unit_test(test_scan_8bit),  cmocka_unit_test(test_scan_large), cmocka_unit_test(test_text),
        cmocka_unit_test(test_message_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
