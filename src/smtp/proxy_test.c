#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "smtp/proxy.h"

#define SIG    "\r\n\r\n\0\r\nQUIT\n"
#define ROW(s) (s), sizeof(s) - 1

static const struct {
    const char *octets;
    size_t len;
    int result;
    size_t used;
    bool addresses, local;
    const char *source;
    uint16_t port;
} rows[] = {
    {ROW("PROXY TCP4 192.0.2.1 192.0.2.2 56324 587\r\nEHLO"), 1, 42, true, false, "192.0.2.1", 56324},
    {ROW("PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n"), 1, 44, true, false, "2001:db8::1", 1},
    {ROW("PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n"), 1, 45, true, false, "192.0.2.1", 1},
    {ROW("PROXY UNKNOWN\r\n"), 1, 15, false, false, NULL, 0},
    {ROW("PROXY UNKNOWN ffff::1 any thing\r\n"), 1, 33, false, false, NULL, 0},
    {ROW("PROXY TCP4 192.0.2.1 192.0.2.2 0 0\r\n"), 1, 36, true, false, "192.0.2.1", 0},
    {ROW("PROXY TCP4 192.0.2.1 192.0.2.2 56324 587\n"), -1, 0, false, false, NULL, 0},
    {ROW("PROXY TCP4 192.0.2.1 192.0.2.2 56324\r\n"), -1, 0, false, false, NULL, 0},
    {ROW("PROXY TCP4 192.0.2.1 192.0.2.2 56324 587 x\r\n"), -1, 0, false, false, NULL, 0},
    {ROW("PROXY TCP4 192.0.2.1 192.0.2.2 056324 587\r\n"), -1, 0, false, false, NULL, 0},
    {ROW("PROXY TCP4 192.0.2.1 192.0.2.2 65536 587\r\n"), -1, 0, false, false, NULL, 0},
    {ROW("PROXY TCP4 192.0.2.1 192.0.2.2 -1 587\r\n"), -1, 0, false, false, NULL, 0},
    {ROW("PROXY TCP4  192.0.2.1 192.0.2.2 1 587\r\n"), -1, 0, false, false, NULL, 0},
    {ROW("PROXY TCP4 2001:db8::1 192.0.2.2 1 587\r\n"), -1, 0, false, false, NULL, 0},
    {ROW("PROXY TCP6 192.0.2.1 2001:db8::1 1 587\r\n"), -1, 0, false, false, NULL, 0},
    {ROW("PROXY TCP4 192.0.2.300 192.0.2.2 1 587\r\n"), -1, 0, false, false, NULL, 0},
    {ROW("PROXY TCP4 192.0.2.1\0 192.0.2.2 1 587\r\n"), -1, 0, false, false, NULL, 0},
    {ROW("PROXY UDP4 192.0.2.1 192.0.2.2 1 587\r\n"), -1, 0, false, false, NULL, 0},
    {ROW("PROXY \r\n"), -1, 0, false, false, NULL, 0},
    {ROW("PROXY "
         "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
     -1, 0, false, false, NULL, 0},
    {ROW("EHLO x\r\n"), -1, 0, false, false, NULL, 0},
    {ROW("PROXX"), -1, 0, false, false, NULL, 0},
    {ROW("PROXY"), 0, 0, false, false, NULL, 0},
    {ROW(""), 0, 0, false, false, NULL, 0},
    {ROW(SIG "\x21\x11\0\x0c\xc0\0\2\1\xc0\0\2\2\x12\x34\x02\x4bXYZ"), 1, 28, true, false, "192.0.2.1", 0x1234},
    {ROW(SIG "\x21\x11\0\x0f\xc0\0\2\1\xc0\0\2\2\x12\x34\x02\x4b\4\0\0"), 1, 31, true, false, "192.0.2.1", 0x1234},
    {ROW(SIG "\x21\x21\0\x24\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\2\0\1\2\x4b"), 1,
     52, true, false, "2001:db8::1", 1},
    {ROW(SIG "\x20\0\0\0"), 1, 16, false, true, NULL, 0},
    {ROW(SIG "\x20\x11\0\x0c\xc0\0\2\1\xc0\0\2\2\x12\x34\x02\x4b"), 1, 28, false, true, NULL, 0},
    {ROW(SIG "\x21\0\0\0"), 1, 16, false, false, NULL, 0},
    {ROW(SIG "\x21\x31\0\2xx"), 1, 18, false, false, NULL, 0},
    {ROW(SIG "\x21\x11\0\x0b\xc0\0\2\1\xc0\0\2\2\x12\x34\x02"), -1, 0, false, false, NULL, 0},
    {ROW(SIG "\x21\x21\0\x0c\xc0\0\2\1\xc0\0\2\2\x12\x34\x02\x4b"), -1, 0, false, false, NULL, 0},
    {ROW(SIG "\x21\x12\0\x0c\xc0\0\2\1\xc0\0\2\2\x12\x34\x02\x4b"), -1, 0, false, false, NULL, 0},
    {ROW(SIG "\x11\x11\0\0"), -1, 0, false, false, NULL, 0},
    {ROW(SIG "\x22\x11\0\0"), -1, 0, false, false, NULL, 0},
    {ROW(SIG "\x21\x11\xff\xff"), -1, 0, false, false, NULL, 0},
    {ROW(SIG "\x21\x11\0\x0c\xc0\0"), 0, 0, false, false, NULL, 0},
    {ROW("\r\n\r\n\0\r\nQUIX"), -1, 0, false, false, NULL, 0},
};

static void headers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct smtp_proxy p = {0};
        size_t used = 0;
        const char *error = NULL;
        struct span in = {(const uint8_t *)rows[i].octets, rows[i].len};
        int r = smtp_proxy_parse(in, &p, &used, &error);
        if (r != rows[i].result) {
            fail_msg("row %zu: %d %s", i, r, error != NULL ? error : "");
        }
        assert_int_equal(error != NULL, r < 0);
        if (r != 1) {
            continue;
        }
        assert_int_equal(used, rows[i].used);
        assert_int_equal(p.addresses, rows[i].addresses);
        assert_int_equal(p.local, rows[i].local);
        if (p.addresses) {
            char text[NET_ADDRESS_TEXT];
            net_address_format(&p.source, text);
            assert_string_equal(text, rows[i].source);
            assert_int_equal(p.source.port, rows[i].port);
        }
        for (size_t len = 0; len < used; len++) {
            assert_int_equal(smtp_proxy_parse((struct span){in.ptr, len}, &p, &used, &error), 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(headers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
